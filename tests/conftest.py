"""What all tests share: an environment of their own, small ratings, and copies of the project to run DVC in."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import yaml

from stages.program.params import Params, load_params
from stages.ratings.table import Ratings
from stages.split import TEST, TRAIN, VALIDATION, assign_parts

# Tests import Keras before a stage's code could choose for it.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.update(TF_ENABLE_ONEDNN_OPTS="0", TF_CPP_MIN_LOG_LEVEL="3")

ROOT = Path(__file__).parents[1]
GOODBOOKS = ROOT.parent / "shared" / "goodbooks-10k" / "ratings.csv"

needs_goodbooks = pytest.mark.skipif(not GOODBOOKS.exists(), reason="goodbooks-10k is not beside the project")


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One thread for all frameworks; DVC and git without this machine's settings."""
    folder = tmp_path_factory.mktemp("environment")
    os.environ.update(
        DVC_NO_ANALYTICS="1",
        DVC_GLOBAL_CONFIG_DIR=str(folder / "global"),
        DVC_SYSTEM_CONFIG_DIR=str(folder / "system"),
        DVC_SITE_CACHE_DIR=str(folder / "site-cache"),
        GIT_AUTHOR_NAME="Test",
        GIT_AUTHOR_EMAIL="test@example.org",
        GIT_COMMITTER_NAME="Test",
        GIT_COMMITTER_EMAIL="test@example.org",
        OMP_NUM_THREADS="1",
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    )


@pytest.fixture(autouse=True)
def denormal_numbers() -> Iterator[None]:
    """Training flushes them to zero in its whole process; other tests need them."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session")
def params() -> Params:
    """The project's own parameters."""
    return load_params(ROOT / "params.yaml")


def change(params: Params, **sections: object) -> Params:
    """Parameters with some of a section's settings changed: change(params, train={"epochs": 1})."""
    changed = params.model_dump()
    for section, settings in sections.items():
        changed[section].update(settings)
    return Params.model_validate(changed)


def simulate(users: int, books: int, rows: int, seed: int = 0) -> Ratings:
    """Ratings with a bias for each user and book, popular books among them; each pair at most once."""
    random = np.random.default_rng(seed)
    popularity = 1 / np.arange(1, books + 1)
    pairs = np.unique(
        random.integers(0, users, 2 * rows) * books + random.choice(books, 2 * rows, p=popularity / popularity.sum())
    )
    pairs = np.sort(random.permutation(pairs)[:rows])
    of_users, of_books = random.normal(0, 0.5, users), random.normal(0, 0.3, books)
    scores = 3.8 + of_users[pairs // books] + of_books[pairs % books] + random.normal(0, 0.7, len(pairs))
    stars = np.clip(np.rint(scores), 1, 5)
    return Ratings((pairs // books).astype(np.int32), (pairs % books).astype(np.int32), stars.astype(np.float32))


@pytest.fixture(scope="session")
def parts(params: Params) -> tuple[Ratings, Ratings, Ratings]:
    """A small table's training, validation and test rows."""
    ratings = simulate(users=60, books=40, rows=1200)
    part, _ = assign_parts(ratings, params.split)
    return ratings[part == TRAIN], ratings[part == VALIDATION], ratings[part == TEST]


def run(cwd: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; what it printed, both streams together, is its stdout."""
    done = subprocess.run(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False
    )
    assert not check or done.returncode == 0, done.stdout
    return done


def dvc(cwd: Path, *arguments: str, check: bool = True) -> str:
    """What a DVC command printed."""
    return run(cwd, sys.executable, "-m", "dvc", *arguments, check=check).stdout


def commit(cwd: Path, message: str) -> None:
    """Commit everything that git doesn't ignore."""
    run(cwd, "git", "add", "--all")
    run(cwd, "git", "commit", "--quiet", "--allow-empty", "--message", message)


def copy_project(target: Path) -> Path:
    """The project as it would be committed now, in a git repository of its own."""
    listed = run(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard", "-z").stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    run(target, "git", "init", "--quiet", "--initial-branch", "main")
    commit(target, "Start")
    return target


def edit_params(project: Path, old: str, new: str) -> None:
    """Change one line of a project's params.yaml, as a user would."""
    path = project / "params.yaml"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


STAGES = ["prepare-ratings", "split", "train-torch", "train-keras", "train-baselines", "plot-losses"]
DATA = ["ratings", "users", "books", "train", "validation", "test"]
OUTPUTS = [
    *(f"data/{name}.parquet" for name in DATA),
    *("models/pytorch.safetensors", "models/keras.weights.h5", "losses/vega.js"),
    *("losses/pytorch.json", "losses/keras.json", "losses/baselines.json"),
    *("losses/pytorch.png", "losses/keras.png", "losses/comparison.png"),
]


def stages_run(output: str) -> list[str]:
    """The stages that `dvc repro` has run, in their order."""
    return re.findall(r"Running stage '([^']+)'", output)


def read_outputs(project: Path) -> dict[str, bytes]:
    """The outputs that are there."""
    return {name: (project / name).read_bytes() for name in OUTPUTS if (project / name).exists()}


def read_results(project: Path) -> tuple[dict[str, bytes], object]:
    """The outputs, and what dvc.lock says of them: its stages stand in the order in which they first ran."""
    return read_outputs(project), yaml.safe_load((project / "dvc.lock").read_text())


def leftovers(project: Path) -> list[Path]:
    """The temporary files in the folders of the outputs."""
    return [path for folder in ("data", "models", "losses") for path in (project / folder).glob(".tmp-*")]


@pytest.fixture(scope="session")
def finished_small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with few ratings and two epochs, whose pipeline has run and was committed: not to be changed."""
    project = copy_project(tmp_path_factory.mktemp("small"))
    sample = project / "data" / "sample.csv"
    sample.write_bytes(b"".join(sample.read_bytes().splitlines(keepends=True)[:4000]))
    edit_params(project, "epochs: 5", "epochs: 2")
    (project / "dvc.lock").unlink()
    dvc(project, "repro")
    commit(project, "Train on few ratings")
    return project


@pytest.fixture
def small(finished_small: Path, tmp_path: Path) -> Path:
    """A copy of the small project, to change."""
    return Path(shutil.copytree(finished_small, tmp_path / "small", symlinks=True))


def forget_results(project: Path) -> None:
    """Leave no output, no cache and no lock, so that `dvc repro` has to run every stage."""
    for name in [*OUTPUTS, "dvc.lock"]:
        (project / name).unlink(missing_ok=True)
    shutil.rmtree(project / ".dvc" / "cache", ignore_errors=True)


def stage_command(project: Path, stage: str) -> list[str]:
    """What DVC runs for a stage."""
    program, *arguments = yaml.safe_load((project / "dvc.yaml").read_text())["stages"][stage]["cmd"].split()
    assert program == "python"
    return [sys.executable, *arguments]


@dataclass(frozen=True)
class Running:
    """A command that a test has started, with the file that takes what it prints."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def descendants(self) -> list[int]:
        """The processes that it has started, and those that they have, outermost first."""
        found = [self.process.pid]
        for pid in found:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return found[1:]

    def wait_for(self, text: str, seconds: float = 120) -> None:
        """Wait until it has printed `text`."""
        self.wait_for_end_or(text, seconds)
        assert text in self.output, self.output

    def wait_for_end_or(self, text: str, seconds: float = 120) -> None:
        """Wait until it has printed `text` or has ended."""
        wait_until(lambda: text in self.output or self.process.poll() is not None, seconds)


def is_running(pid: int) -> bool:
    """Whether the process has not yet ended: one that nobody has asked for its status since is a zombie, 'Z'."""
    try:
        return _read_stat(pid)[0] != "Z"
    except OSError:
        return False


def processor_seconds(pid: int) -> float:
    """What a process has used so far: nothing, if it has ended."""
    try:
        user, system = _read_stat(pid)[11:13]
    except OSError:
        return 0
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _read_stat(pid: int) -> list[str]:
    """What Linux says of a process, from its state on: the fields after its name in /proc."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for something that must come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


Start: TypeAlias = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start commands in process groups of their own; what is left of these ends with the test."""
    started: list[Running] = []

    def start_one(cwd: Path, *command: str) -> Running:
        log = tmp_path / f"output-{len(started)}"
        with log.open("wb") as file:
            process = subprocess.Popen(command, cwd=cwd, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        started.append(Running(process, log))
        return started[-1]

    yield start_one
    for running in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.process.pid, signal.SIGKILL)
        running.process.wait()

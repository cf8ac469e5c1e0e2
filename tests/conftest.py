"""What all tests share: an environment of their own, small ratings, and copies of the project to run DVC in."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stages.common.params import Params, load_params
from stages.common.ratings import Ratings
from stages.split import TEST, TRAIN, VALIDATION, assign_parts

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

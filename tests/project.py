"""Copies of the project to run DVC in, and what came of it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def run(cwd: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; what it printed, both streams together, is its stdout."""
    done = subprocess.run(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False
    )
    assert not check or done.returncode == 0, done.stdout
    return done


def failure(cwd: Path, *command: str) -> str:
    """What a command said that had to end with status 1, in words and without a traceback."""
    done = run(cwd, *command, check=False)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout, done.stdout
    return done.stdout


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


def clone_project(project: Path, target: Path) -> Path:
    run(project, "git", "clone", "--quiet", str(project), str(target))
    return target


def keep_ratings(project: Path, lines: int) -> None:
    """Leave only the first lines of the sample, the header's included, to save time."""
    sample = project / "data" / "sample.csv"
    sample.write_bytes(b"".join(sample.read_bytes().splitlines(keepends=True)[:lines]))


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
    *("losses/pytorch.json", "losses/keras.json", "losses/biases.json", "losses/global-mean.json"),
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


def forget_results(project: Path) -> None:
    """Leave no output, no cache and no lock, so that `dvc repro` has to run every stage."""
    for name in [*OUTPUTS, "dvc.lock"]:
        (project / name).unlink(missing_ok=True)
    shutil.rmtree(project / ".dvc" / "cache", ignore_errors=True)


def stage_command(project: Path, stage: str) -> list[str]:
    """What DVC runs for a stage."""
    command = yaml.safe_load((project / "dvc.yaml").read_text())["stages"][stage]["cmd"].split()
    exec_, program, *arguments = command
    assert [exec_, program] == ["exec", "python"]
    return [sys.executable, *arguments]


def run_stages(project: Path, *stages: str) -> None:
    """Run stages as DVC would, but without it."""
    for stage in stages:
        run(project, *stage_command(project, stage))

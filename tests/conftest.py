"""The fixtures that all tests share."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.engines.both import load_triton_first
from stages.program.params import Params, load_params
from stages.split import TEST, TRAIN, VALIDATION
from tests.processes import Running, Start
from tests.project import ROOT, commit, copy_project, dvc, edit_params, keep_ratings
from tests.samples import Parts, draw_parts, simulate

load_triton_first()  # whatever order a test loads the frameworks in

# Tests import Keras before a stage's code could choose for it.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.update(TF_ENABLE_ONEDNN_OPTS="0", TF_CPP_MIN_LOG_LEVEL="3")

# Under nohup or in a shell's background these may be ignored, and so they would be in all processes that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)


RUNS_DVC = {"finished_small", "small", "finished", "project"}
"""Fixtures that run the whole pipeline."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what runs a pipeline."""
    for item in items:
        if isinstance(item, pytest.Function) and RUNS_DVC & {*item.fixturenames}:
            item.add_marker(pytest.mark.slow)


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


@pytest.fixture(scope="session")
def parts(params: Params) -> Parts:
    """A small table's training, validation and test rows."""
    ratings = simulate(users=60, books=40, rows=1200)
    part, _ = draw_parts(ratings, params.split)
    return ratings[part == TRAIN], ratings[part == VALIDATION], ratings[part == TEST]


@pytest.fixture(scope="session")
def finished_small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with few ratings and two epochs, whose pipeline has run and was committed: not to be changed."""
    project = copy_project(tmp_path_factory.mktemp("small"))
    keep_ratings(project, 4000)
    edit_params(project, "epochs: 5", "epochs: 2")
    (project / "dvc.lock").unlink()
    dvc(project, "repro")
    commit(project, "Train on few ratings")
    return project


@pytest.fixture
def small(finished_small: Path, tmp_path: Path) -> Path:
    """A copy of the small project, to change."""
    return Path(shutil.copytree(finished_small, tmp_path / "small", symlinks=True))


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


def pytest_collection_finish() -> None:
    """Give TensorFlow a stage's threads, which it takes before its first tensor only, whichever test makes that."""
    if "tensorflow" in sys.modules:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)

"""Ctrl-C and SIGTERM, at any moment: the stage stops at once, and nothing half-written is left."""

import os
import signal
import sys
import time
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals

import pytest

from tests.processes import Running, Start, handles_sigterm, is_running, on_linux, wait_until
from tests.project import ROOT, STAGES, dvc, edit_params, leftovers, read_outputs, read_results, stage_command

pytestmark = [pytest.mark.slow, on_linux]

SOON = 5
"""Seconds in which a process must have stopped: it takes a tenth of one, on a machine that has nothing else to do."""

TRAINERS = ["train-torch", "train-keras"]
SIGNALS = [SIGINT, SIGTERM]
FIRST_EPOCH = "epoch   1  train_loss"

WRITER = """
import time
from pathlib import Path
from stages.program.files import replacing
from stages.program.process import run_stage

def main():
    with replacing(Path("output")) as temporary:
        temporary.write_text("half")
        print("writing")
        while True:
            try:
                time.sleep(60)
            except BaseException as error:
                print("caught", error)

run_stage(main)
"""


def train_forever(project: Path) -> None:
    edit_params(project, "epochs: 2", "epochs: 1000000")


def assert_stops(running: Running, stopping: Signals) -> None:
    before = time.monotonic()
    running.process.send_signal(stopping)
    assert running.process.wait(SOON) == 128 + stopping
    print(f"stopped after {time.monotonic() - before:.2f} s")
    assert f"stopped by {stopping.name}; nothing half-written is left" in running.output
    assert "Traceback" not in running.output


@pytest.mark.parametrize("stopping", SIGNALS)
@pytest.mark.parametrize("stage", TRAINERS)
def test_a_training_stops(small: Path, start: Start, stage: str, stopping: Signals) -> None:
    train_forever(small)
    before = read_outputs(small)
    running = start(small, *stage_command(small, stage))
    running.wait_for(FIRST_EPOCH)

    assert_stops(running, stopping)
    assert read_outputs(small) == before
    assert leftovers(small) == []


@pytest.mark.parametrize("stopping", SIGNALS)
@pytest.mark.parametrize(
    ("stage", "seconds"), [*((stage, 0) for stage in STAGES), ("train-torch", 1), ("train-keras", 1.5)]
)
def test_a_stage_stops_before_its_work(
    small: Path, start: Start, stage: str, seconds: float, stopping: Signals
) -> None:
    """While it still loads what it imports, or, on a fast machine, has begun to train."""
    train_forever(small)
    running = start(small, *stage_command(small, stage))
    wait_until(lambda: handles_sigterm(running.process.pid), SOON)
    time.sleep(seconds)

    assert_stops(running, stopping)
    assert leftovers(small) == []


@pytest.mark.parametrize("stopping", SIGNALS)
def test_a_half_written_file_is_removed(
    tmp_path: Path, start: Start, stopping: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when the program catches every exception."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = tmp_path / "folder"
    folder.mkdir()
    running = start(folder, sys.executable, "-c", WRITER)
    running.wait_for("writing")
    assert len(list(folder.iterdir())) == 1

    assert_stops(running, stopping)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("stage", TRAINERS)
def test_ctrl_c_stops_dvc_and_a_later_repro_completes(
    small: Path, finished_small: Path, start: Start, stage: str
) -> None:
    train_forever(small)
    running = start(small, sys.executable, "-m", "dvc", "repro", "--single-item", stage)
    running.wait_for(FIRST_EPOCH)
    os.killpg(running.process.pid, SIGINT)  # as a terminal does: to dvc and to its stage

    assert running.process.wait(SOON) != 0
    assert "stopped by SIGINT" in running.output
    assert "Traceback" not in running.output
    assert leftovers(small) == []

    edit_params(small, "epochs: 1000000", "epochs: 2")
    dvc(small, "repro")
    assert read_results(small) == read_results(finished_small)


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])  # the first waits for a stage, the second becomes it
@pytest.mark.parametrize("stopping", [SIGTERM, signal.SIGKILL])
def test_a_stage_ends_with_its_dvc(
    small: Path, start: Start, monkeypatch: pytest.MonkeyPatch, stopping: Signals, shell: str
) -> None:
    monkeypatch.setenv("SHELL", shell)
    train_forever(small)
    running = start(small, sys.executable, "-m", "dvc", "repro", "--single-item", "train-torch")
    running.wait_for(FIRST_EPOCH)
    (*_, stage) = running.descendants()
    running.process.send_signal(stopping)

    assert running.process.wait(SOON) != 0
    wait_until(lambda: not is_running(stage), SOON)
    assert leftovers(small) == []

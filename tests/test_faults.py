"""What breaks from outside: processes killed, disks full, files damaged, folders closed, two runs at once."""

import itertools
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.conftest import (
    OUTPUTS,
    STAGES,
    Running,
    Start,
    dvc,
    edit_params,
    forget_results,
    is_running,
    leftovers,
    read_outputs,
    run,
    stage_command,
    stages_run,
    wait_until,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's processes, limits and mounts")

SOON = 20
"""Seconds in which an orphan must have ended: it takes a tenth of one, on a machine that has nothing else to do."""

VICTIMS = ["stage", "dvc"]


def repro(start: Start, project: Path, until: str, *targets: str) -> Running:
    """Run `dvc repro` until it prints a text, or to its end.

    DVC writes its list of running commands in place. A kill just then leaves it empty, and DVC asks for its removal.
    """
    while True:
        running = start(project, sys.executable, "-m", "dvc", "repro", *targets)
        wait_until(lambda: until in running.output or running.process.poll() is not None, 120)
        if "Unable to read RWLock-file '.dvc/tmp/rwlock'" not in running.output:
            return running
        (project / ".dvc" / "tmp" / "rwlock").unlink()


def measure(start: Start, project: Path) -> dict[str, float]:
    """The seconds that each stage takes under DVC, from its start to the next one's."""
    running, seen = repro(start, project, "Running stage"), []
    for stage in STAGES:
        running.wait_for(f"Running stage '{stage}'")
        seen.append(time.monotonic())
    assert running.process.wait() == 0
    seen.append(time.monotonic())
    return {stage: end - begin for stage, (begin, end) in zip(STAGES, itertools.pairwise(seen), strict=True)}


def kill(running: Running, victim: str) -> None:
    """Kill dvc or, where one runs, its stage; an orphan ends by itself."""
    (*_, stage) = running.descendants() or [None]
    os.kill(stage if stage and victim == "stage" else running.process.pid, SIGKILL)
    running.process.wait()
    wait_until(lambda: not (stage and is_running(stage)), SOON)


def kill_at_random_moments(project: Path, start: Start, kills: int) -> None:
    """Each kill hits the repro that mends what the one before it has left: pass by pass, at one stage after another."""
    chance = random.Random(kills)  # noqa: S311
    expected = read_outputs(project)
    forget_results(project)
    seconds = measure(start, project)
    assert read_outputs(project) == expected

    plan = itertools.cycle(itertools.product(STAGES, VICTIMS))
    killed = 0
    while killed < kills:
        forget_results(project)
        for stage, victim in itertools.islice(plan, len(STAGES) * len(VICTIMS)):
            running = repro(start, project, f"Running stage '{stage}'", stage)
            time.sleep(chance.uniform(0, seconds[stage]))
            if running.process.poll() is not None:  # it was faster this time, or a kill came after its work
                assert running.process.returncode == 0, running.output
                continue
            kill(running, victim)
            killed += 1
            for name, content in read_outputs(project).items():
                assert name == "dvc.lock" or content == expected[name], f"{name} is not whole after {running.output}"
        last = repro(start, project, "up to date")
        assert last.process.wait() == 0, last.output
        assert read_outputs(project) == expected
        assert leftovers(project) == []


def test_kills_leave_nothing_that_a_repro_does_not_mend(small: Path, start: Start) -> None:
    kill_at_random_moments(small, start, kills=20)


@pytest.mark.soak
def test_a_hundred_kills(small: Path, start: Start) -> None:
    kill_at_random_moments(small, start, kills=100)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_says_which_file_the_disk_has_no_room_for(small: Path, stage: str) -> None:
    """The limit on a file's size stands for the disk: a write fails, with another errno."""
    before = read_outputs(small)
    done = subprocess.run(
        stage_command(small, stage),
        cwd=small,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
    )

    assert done.returncode == 1
    assert any(f"error: {name} can't be written: File too large" in done.stdout for name in OUTPUTS), done.stdout
    assert "Traceback" not in done.stdout
    assert read_outputs(small) == before
    assert leftovers(small) == []


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk in memory, of 1 MiB: see `resize`."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = run(tmp_path, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder), check=False)
    if mounted.returncode != 0:
        pytest.skip(f"can't mount a disk: {mounted.stdout.strip()}")
    yield folder
    run(tmp_path, "umount", "--lazy", str(folder))


def resize(disk: Path, size: int) -> None:
    run(disk, "mount", "-o", f"remount,size={size}", str(disk))


def test_a_full_disk_stops_dvc_until_there_is_room(small: Path, disk: Path) -> None:
    expected = read_outputs(small)
    forget_results(small)
    resize(disk, 1 << 30)
    run(small, "cp", "-a", ".", str(disk / "project"))
    project = disk / "project"
    status = os.statvfs(disk)
    used = (status.f_blocks - status.f_bfree) * status.f_frsize

    failures = 0
    for room in itertools.count(20_000, 200_000):
        resize(disk, used + room)
        output = dvc(project, "repro", check=False)
        print(room, output[-2000:])
        for name, content in read_outputs(project).items():
            assert name == "dvc.lock" or content == expected[name]
        if "error" not in output.lower():
            break
        failures += 1
    assert failures > 2
    assert read_outputs(project) == expected
    assert leftovers(project) == []

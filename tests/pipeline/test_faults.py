"""What breaks from outside: processes killed, disks full, files damaged, folders closed, two runs at once."""

import hashlib
import itertools
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGINT, SIGKILL

import pytest

from tests.processes import Running, Start, is_running, on_linux, wait_until
from tests.project import (
    OUTPUTS,
    STAGES,
    dvc,
    edit_params,
    failure,
    forget_results,
    leftovers,
    read_outputs,
    read_results,
    run,
    stage_command,
)

pytestmark = [pytest.mark.slow, on_linux]

SOON = 20
"""Seconds in which an orphan must have ended: it takes a tenth of one, on a machine that has nothing else to do."""

VICTIMS = ["stage", "dvc"]


REPAIRS = {
    "Unable to read RWLock-file '.dvc/tmp/rwlock'": ["rm", ".dvc/tmp/rwlock"],
    "join() argument must be str, bytes, or os.PathLike object, not 'NoneType'": [
        *("find", ".dvc/cache/runs", "-empty", "-delete")
    ],
    "'./dvc.lock' validation failed": ["git", "restore", "dvc.lock"],
}
"""What DVC itself half-writes when it is killed in the wrong millisecond, by its words, and what mends it."""


def repro(start: Start, project: Path, until: str, *targets: str) -> Running:
    """Run `dvc repro` until it prints a text, or to its end, and mend what a kill has broken of DVC's own."""
    while True:
        running = start(project, sys.executable, "-m", "dvc", "repro", *targets)
        running.wait_for_end_or(until)
        repairs = [repair for words, repair in REPAIRS.items() if words in running.output]
        if not repairs:
            return running
        print(f"{running.output}mended by {repairs}")
        run(project, *repairs[0])


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
    stages = running.descendants()
    os.kill(stages[-1] if stages and victim == "stage" else running.process.pid, SIGKILL)
    running.process.wait()
    wait_until(lambda: not any(map(is_running, stages)), SOON)


def assert_whole(project: Path, expected: dict[str, bytes]) -> None:
    """Each output is either not there or as it must be."""
    for name, content in read_outputs(project).items():
        assert content == expected[name], f"{name} is not whole"


def kill_at_random_moments(project: Path, start: Start, kills: int) -> None:
    """Each kill hits the repro that mends what the one before it has left: pass by pass, at one stage after another."""
    chance = random.Random(kills)  # noqa: S311
    expected = read_results(project)
    forget_results(project)
    seconds = measure(start, project)
    assert read_results(project) == expected

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
            assert_whole(project, expected[0])
        last = repro(start, project, "up to date")
        assert last.process.wait() == 0, last.output
        assert read_results(project) == expected
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
    said = failure(small, "prlimit", "--fsize=100", *stage_command(small, stage))

    assert any(f"error: {name} can't be written: File too large" in said for name in OUTPUTS), said
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


def test_a_full_disk_stops_dvc_until_there_is_room(small: Path, disk: Path, start: Start) -> None:
    expected = read_results(small)
    forget_results(small)
    resize(disk, 1 << 30)
    run(small, "cp", "-a", ".", str(disk / "project"))
    project = disk / "project"
    status = os.statvfs(disk)
    used = (status.f_blocks - status.f_bfree) * status.f_frsize

    for room in (20_000, 400_000, 1_200_000):
        resize(disk, used + room)
        running = repro(start, project, "up to date")
        assert running.process.wait() != 0
        assert "No space left on device" in running.output
        assert "Traceback" not in running.output
        assert_whole(project, expected[0])
    resize(disk, 1 << 30)
    dvc(project, "repro")
    assert read_results(project) == expected
    assert leftovers(project) == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_says_which_folder_is_read_only(small: Path, stage: str) -> None:
    """Root may write anywhere, so a test that is root gives up that right."""
    before = read_outputs(small)
    folders = [small / "data", small / "models", small / "losses"]
    for folder in folders:
        folder.chmod(0o555)
    obedient = ["setpriv", "--bounding-set=-dac_override"] if os.getuid() == 0 else []
    said = failure(small, *obedient, *stage_command(small, stage))
    for folder in folders:
        folder.chmod(0o755)

    assert any(f"error: {name} can't be written: Permission denied" in said for name in OUTPUTS), said
    assert read_outputs(small) == before


def cache_file(project: Path, content: bytes) -> Path:
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return project / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]


def damage(path: Path) -> None:
    """Change the middle of a file and cut off its end."""
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(content[: len(content) // 2] + b"damage" + content[len(content) // 2 : -10])


def test_damaged_outputs_are_made_again(small: Path) -> None:
    expected = read_results(small)
    for name in OUTPUTS:
        damage(small / name)
    dvc(small, "repro")

    assert read_results(small) == expected


def test_damaged_cache_files_are_noticed(small: Path) -> None:
    """And outputs that are gone, too, so that the cache is asked for them."""
    expected = read_outputs(small)
    for name in OUTPUTS:
        cached = cache_file(small, expected[name])
        if cached.exists():
            damage(cached)
        (small / name).unlink()
    dvc(small, "repro")

    assert read_outputs(small) == expected
    for name in OUTPUTS:
        cached = cache_file(small, expected[name])
        assert not cached.exists() or cached.read_bytes() == expected[name]


def test_of_two_repros_the_second_is_refused(small: Path, start: Start) -> None:
    expected = read_results(small)
    edit_params(small, "epochs: 2", "epochs: 1000000")
    first = start(small, sys.executable, "-m", "dvc", "repro")
    first.wait_for("epoch   1  train_loss")
    second = run(small, sys.executable, "-m", "dvc", "repro", check=False)

    assert second.returncode != 0
    assert f"(PID {first.process.pid}): " in second.stdout
    assert "busy" in second.stdout
    assert first.process.poll() is None
    os.killpg(first.process.pid, SIGINT)
    first.process.wait()
    edit_params(small, "epochs: 1000000", "epochs: 2")
    dvc(small, "repro")
    assert read_results(small) == expected


def test_checkout_brings_back_what_a_refused_file_has_cost(small: Path) -> None:
    """DVC removes a stage's outputs before it runs it."""
    expected = read_outputs(small)
    ratings = small / "data" / "sample.csv"
    ratings.write_bytes(ratings.read_bytes()[:-3])
    output = dvc(small, "repro", check=False)
    assert "error: data/sample.csv: 1 line cut off at the end of the file (line 4,000)" in output
    assert not (small / "data" / "ratings.parquet").exists()

    dvc(small, "checkout")
    assert read_outputs(small) == expected

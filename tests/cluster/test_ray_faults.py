"""What happens to a stage on Ray when something is killed, stopped or missing."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.program.params import Params
from tests.processes import Running, Start, is_running, wait_until
from tests.project import copy_project, edit_params, leftovers, run, stage_command

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through Linux's /proc")

TRAINERS = ["train-torch", "train-keras"]
LOSSES = {"train-torch": "losses/pytorch.json", "train-keras": "losses/keras.json"}
WEIGHTS = {"train-torch": "models/pytorch.safetensors", "train-keras": "models/keras.weights.h5"}
SOON = 20
"""Seconds in which what a stage has started must have ended: it takes one or two where nothing else runs."""


@pytest.fixture(scope="module")
def prepared(on_ray: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that computes on Ray, with its tables; not to be changed."""
    project = copy_project(tmp_path_factory.mktemp("project"))
    sample = project / "data" / "sample.csv"
    sample.write_bytes(b"".join(sample.read_bytes().splitlines(keepends=True)[:20_000]))
    edit_params(project, "engine: local", "engine: ray")
    for name in LOSSES.values():
        (project / name).unlink()
    for stage in ("prepare-ratings", "split"):
        run(project, *stage_command(project, stage))
    return project


@pytest.fixture(scope="module")
def undisturbed(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The losses of trainings that nothing happens to."""
    project = Path(shutil.copytree(prepared, tmp_path_factory.mktemp("undisturbed"), dirs_exist_ok=True))
    for stage in TRAINERS:
        run(project, *stage_command(project, stage))
    return {stage: (project / name).read_bytes() for stage, name in LOSSES.items()}


@pytest.fixture
def project(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the project, to change."""
    return Path(shutil.copytree(prepared, tmp_path / "project", symlinks=True))


def write_random_ratings(folder: Path, files: int, rows: int) -> None:
    random = np.random.default_rng(0)
    folder.mkdir()
    for number in range(files):
        ids = {name: random.integers(0, count, rows) for name, count in (("user_id", 10**6), ("book_id", 10**4))}
        table = pa.table(ids | {"rating": random.integers(1, 6, rows)})
        pq.write_table(table, folder / f"{number}.parquet")


def workers_of(running: Running, task: bytes = b"train_slices") -> list[int]:
    """The processes that train, or do something else."""
    found = []
    for pid in running.descendants():
        try:
            name = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if name.startswith(b"ray::") and task in name:
            found.append(pid)
    return found


def assert_all_end(pids: list[int], seconds: float = SOON) -> None:
    assert pids
    wait_until(lambda: not any(map(is_running, pids)), seconds)


@pytest.mark.parametrize("stage", TRAINERS)
def test_a_killed_worker_changes_nothing(
    stage: str, project: Path, undisturbed: dict[str, bytes], start: Start
) -> None:
    running = start(project, *stage_command(project, stage))
    running.wait_for("epoch   2")
    os.kill(workers_of(running)[-1], signal.SIGKILL)
    assert running.process.wait(240) == 0, running.output

    lost = re.search(r"a worker was lost; all go on after epoch ([2-4])", running.output)
    assert lost, running.output
    assert (project / LOSSES[stage]).read_bytes() == undisturbed[stage]
    assert [line[:9] for line in running.output.splitlines() if line.startswith("epoch")] == [
        f"epoch   {epoch}" for epoch in range(1, 6)
    ]


def test_a_killed_reader_changes_nothing(project: Path, start: Start) -> None:
    write_random_ratings(project / "parts", files=6, rows=1_000_000)
    edit_params(project, "ratings: data/sample.csv", "ratings: parts")
    command = stage_command(project, "prepare-ratings")
    running = start(project, *command)
    killed: set[int] = set()

    def kill_another() -> bool:
        for pid in {*workers_of(running, b"_call_in")} - killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
            return True
        return False

    wait_until(kill_another, 120)
    wait_until(kill_another, 120)
    assert running.process.wait(240) == 0, running.output
    tables = [project / "data" / f"{name}.parquet" for name in ("ratings", "users", "books")]
    there = [table.read_bytes() for table in tables]

    edit_params(project, "engine: ray", "engine: local")
    run(project, *command)
    assert [table.read_bytes() for table in tables] == there


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_twenty_random_kills(project: Path, undisturbed: dict[str, bytes], start: Start) -> None:
    choose = random.Random(0)  # noqa: S311
    for _ in range(20):
        running = start(project, *stage_command(project, "train-torch"))
        wait_until(lambda running=running: len(workers_of(running)) == 2, 120)  # type: ignore[misc]
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.process.wait(choose.uniform(0, 20))
        for pid in workers_of(running)[: choose.choice([1, 2])]:  # none where they are just beginning or ending
            os.kill(pid, signal.SIGKILL)
        assert running.process.wait(240) == 0, running.output
        assert (project / LOSSES["train-torch"]).read_bytes() == undisturbed["train-torch"]


def test_workers_that_are_lost_again_and_again_end_the_stage(project: Path, start: Start) -> None:
    running = start(project, *stage_command(project, "train-torch"))
    killed: set[int] = set()

    def ended() -> bool:
        for pid in workers_of(running):
            if pid not in killed:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
        return running.process.poll() is not None

    wait_until(ended, 240)
    assert running.process.returncode == 1
    assert "error: epoch 1: workers were lost 4 times, the last one so: " in running.output
    assert "Traceback" not in running.output
    assert not (project / LOSSES["train-torch"]).exists()


@pytest.mark.parametrize("stopping", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_stage_ends_its_cluster(stopping: signal.Signals, project: Path, start: Start) -> None:
    edit_params(project, "epochs: 5", "epochs: 1000000")
    running = start(project, *stage_command(project, "train-torch"))
    running.wait_for("epoch   1")
    all_processes = running.descendants()
    os.killpg(running.process.pid, stopping)  # as a terminal does, to all that the stage has started
    assert running.process.wait(SOON) == 128 + stopping

    assert_all_end(all_processes)
    assert f"stopped by {stopping.name}; nothing half-written is left" in running.output
    assert "Traceback" not in running.output
    assert not (project / LOSSES["train-torch"]).exists()
    assert not leftovers(project)
    assert not [*Path("/tmp").glob(f"ray-stage-{running.process.pid}-*")]  # noqa: S108


def test_a_long_folder_for_temporary_files_is_none_for_ray(project: Path, tmp_path: Path, start: Start) -> None:
    """As a batch system's or macOS's: a socket's path may have 107 characters."""
    folder = tmp_path / "a-folder-of-a-job"
    folder.mkdir()
    done = run(project, "env", f"TMPDIR={folder}", *stage_command(project, "train-torch"), check=False)
    assert done.returncode == 0, done.stdout


def test_a_killed_stage_ends_its_cluster_and_the_next_one_completes(
    project: Path, undisturbed: dict[str, bytes], start: Start
) -> None:
    running = start(project, *stage_command(project, "train-torch"))
    running.wait_for("epoch   1")
    all_processes = running.descendants()
    running.process.kill()
    running.process.wait()
    assert_all_end(all_processes, 180)  # those of Ray's that look for its other processes do so for a minute

    run(project, *stage_command(project, "train-torch"))
    assert (project / LOSSES["train-torch"]).read_bytes() == undisturbed["train-torch"]
    folders = Path("/tmp").glob(f"ray-stage-{running.process.pid}-*")  # noqa: S108, where Ray's own are, too
    assert not [*folders]


def test_what_is_wrong_with_a_training_is_said_as_ever(project: Path) -> None:
    edit_params(project, "learning_rate: 0.001", "learning_rate: 1e30")
    done = run(project, *stage_command(project, "train-torch"), check=False)
    assert done.returncode == 1
    assert "error: epoch 1: " in done.stdout
    assert "most likely train.learning_rate is too high" in done.stdout
    assert "Traceback" not in done.stdout


def test_nothing_listens_beyond_loopback(project: Path, start: Start) -> None:
    edit_params(project, "epochs: 5", "epochs: 1000000")
    running = start(project, *stage_command(project, "train-torch"))
    running.wait_for("epoch   1")
    processes = [running.process.pid, *running.descendants()]

    addresses = [address for pid in processes for address in listening(pid)]

    assert len(workers_of(running)) == 2
    assert len(addresses) > 5
    assert set(addresses) <= {"127.0.0.1", "::ffff:127.0.0.1"}


def listening(pid: int) -> list[str]:
    """The addresses at which a process waits for connections."""
    import socket

    found = []
    sockets = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    for table, family, width in (("tcp", socket.AF_INET, 8), ("tcp6", socket.AF_INET6, 32)):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and f"socket:[{rest[5]}]" in sockets:
                words = bytes.fromhex(local[:width])
                turned = b"".join(words[start : start + 4][::-1] for start in range(0, len(words), 4))
                found.append(socket.inet_ntop(family, turned))
    return found


@pytest.mark.parametrize("address", ["127.0.0.1:9", "no-such-host.invalid:6379", "127.0.0.1:99999"])
def test_a_cluster_that_is_not_there(address: str, project: Path) -> None:
    edit_params(project, "address: local", f"address: {address}")
    done = run(project, *stage_command(project, "train-torch"), check=False)
    assert done.returncode == 1
    assert f"error: Ray at {address} (params.yaml): no cluster that takes the token in RAY_AUTH_TOKEN" in done.stdout
    assert "Traceback" not in done.stdout


def test_more_workers_than_rows_in_a_batch(project: Path) -> None:
    edit_params(project, "batch_size: 128", "batch_size: 1")
    done = run(project, *stage_command(project, "train-torch"), check=False)
    assert (done.returncode, done.stdout) == (
        1,
        "error: params.yaml: ray.workers is 2; a batch has only 1 rows\n",
    )


def test_the_losses_are_those_of_one_process(project: Path, undisturbed: dict[str, bytes]) -> None:
    edit_params(project, "engine: ray", "engine: local")
    for stage in TRAINERS:
        run(project, *stage_command(project, stage))
        here, there = json.loads((project / LOSSES[stage]).read_text()), json.loads(undisturbed[stage])
        for epoch, other in zip(here["curve"], there["curve"], strict=True):
            assert epoch == pytest.approx(other, abs=1e-4)

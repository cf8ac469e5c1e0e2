"""What happens to a stage on Ray when something is killed, stopped or missing."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from stages.program.params import Params
from tests.cluster.ray_projects import LOSSES, runs_task, write_random_ratings
from tests.processes import Running, Start, is_running, on_linux, wait_until
from tests.project import copy_project, edit_params, failure, keep_ratings, leftovers, run, run_stages, stage_command

pytestmark = on_linux

TRAINERS = ["train-torch", "train-keras"]
WEIGHTS = {"train-torch": "models/pytorch.safetensors", "train-keras": "models/keras.weights.h5"}
SOON = 20
"""Seconds in which what a stage has started must have ended: it takes one or two where nothing else runs."""


@pytest.fixture(scope="module")
def prepared(on_ray: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that computes on Ray, with its tables; not to be changed."""
    project = copy_project(tmp_path_factory.mktemp("project"))
    keep_ratings(project, 20_000)
    edit_params(project, "engine: local", "engine: ray")
    for name in LOSSES.values():
        (project / name).unlink()
    run_stages(project, "prepare-ratings", "split")
    return project


@pytest.fixture(scope="module")
def undisturbed(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The losses of trainings that nothing happens to."""
    project = Path(shutil.copytree(prepared, tmp_path_factory.mktemp("undisturbed"), dirs_exist_ok=True))
    run_stages(project, *TRAINERS)
    return {stage: (project / name).read_bytes() for stage, name in LOSSES.items()}


@pytest.fixture
def project(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the project, to change."""
    return Path(shutil.copytree(prepared, tmp_path / "project", symlinks=True))


def workers_of(running: Running, task: bytes = b"train_slices") -> list[int]:
    """The processes that train, or do something else."""
    return [pid for pid in running.descendants() if runs_task(pid, task)]


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
    running = start(project, *stage_command(project, "prepare-ratings"))
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
    run_stages(project, "prepare-ratings")
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


def test_a_long_folder_for_temporary_files_is_none_for_ray(project: Path, tmp_path: Path) -> None:
    """As a batch system's or macOS's: a socket's path may have 107 characters."""
    folder = tmp_path / "a-folder-of-a-job"
    folder.mkdir()
    run(project, "env", f"TMPDIR={folder}", *stage_command(project, "train-torch"))


def test_a_killed_stage_ends_its_cluster_and_the_next_one_completes(
    project: Path, undisturbed: dict[str, bytes], start: Start
) -> None:
    running = start(project, *stage_command(project, "train-torch"))
    running.wait_for("epoch   1")
    all_processes = running.descendants()
    running.process.kill()
    running.process.wait()
    assert_all_end(all_processes, 180)  # those of Ray's that look for its other processes do so for a minute

    run_stages(project, "train-torch")
    assert (project / LOSSES["train-torch"]).read_bytes() == undisturbed["train-torch"]
    folders = Path("/tmp").glob(f"ray-stage-{running.process.pid}-*")  # noqa: S108, where Ray's own are, too
    assert not [*folders]


def test_what_is_wrong_with_a_training_is_said_as_ever(project: Path) -> None:
    edit_params(project, "learning_rate: 0.001", "learning_rate: 1e30")
    said = failure(project, *stage_command(project, "train-torch"))
    assert "error: epoch 1: " in said
    assert "most likely train.learning_rate is too high" in said


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
    said = failure(project, *stage_command(project, "train-torch"))
    assert f"error: Ray at {address} (params.yaml): no cluster that takes the token in RAY_AUTH_TOKEN" in said


def test_more_workers_than_rows_in_a_batch(project: Path) -> None:
    edit_params(project, "batch_size: 128", "batch_size: 1")
    said = failure(project, *stage_command(project, "train-torch"))
    assert said == "error: params.yaml: ray.workers is 2; a batch has only 1 rows\n"

"""A cluster of two nodes with an address each, in network namespaces of this machine, and a folder that both share."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from stages.program.params import Params
from tests.cluster.ray_projects import LOSSES, runs_task, write_random_ratings
from tests.processes import Start
from tests.project import DATA, copy_project, edit_params, failure, run, run_stages, stage_command

HEAD, OTHER = "10.213.0.1", "10.213.0.2"
PORT = 6379


@dataclass(frozen=True)
class Cluster:
    """Two nodes, by the names of their network namespaces."""

    head: str
    other: str

    def on_head(self, command: list[str]) -> list[str]:
        return ["ip", "netns", "exec", self.head, *command]

    def processes(self, node: str) -> list[int]:
        return [int(pid) for pid in run(Path.cwd(), "ip", "netns", "pids", node).stdout.split()]


def can_make_namespaces() -> bool:
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    return made and subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not can_make_namespaces(), reason="makes network namespaces, which takes root on Linux")


@pytest.fixture
def project(on_ray: Params, tmp_path: Path) -> Path:
    """A project that computes on the cluster, its ratings in four files."""
    project = copy_project(tmp_path / "shared" / "project")
    header, *lines = (project / "data" / "sample.csv").read_bytes().splitlines(keepends=True)
    (project / "parts").mkdir()
    for number in range(4):
        (project / "parts" / f"{number}.csv").write_bytes(
            b"".join([header, *lines[number * 3000 : number * 3000 + 3000]])
        )
    edit_params(project, "ratings: data/sample.csv", "ratings: parts")
    edit_params(project, "engine: local", "engine: ray")
    edit_params(project, "address: local", f"address: {HEAD}:{PORT}")
    for name in LOSSES.values():
        (project / name).unlink()
    return project


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The namespaces, joined by a cable; what runs in them ends with the test."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(f"ray-a-{os.getpid()}", f"ray-b-{os.getpid()}")
    link = "type veth peer name eth0 netns"
    commands = [
        *(f"netns add {name}" for name in (cluster.head, cluster.other)),
        f"-netns {cluster.head} link add eth0 {link} {cluster.other}",
        *(
            f"-netns {name} {command}"
            for name, address in ((cluster.head, HEAD), (cluster.other, OTHER))
            for command in (f"address add {address}/24 dev eth0", "link set eth0 up", "link set lo up")
        ),
    ]
    try:
        for command in commands:
            run(tmp_path, "ip", *command.split())
        yield cluster
    finally:
        Path(tempfile.gettempdir(), "ray", "ray_current_cluster").unlink(missing_ok=True)  # that `ray start` wrote
        for name in (cluster.head, cluster.other):
            for _ in range(10):  # some start others meanwhile
                for pid in cluster.processes(name):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.1)
            run(tmp_path, "ip", "netns", "del", name, check=False)


def start_nodes(cluster: Cluster, folder: Path, before_other: str = "true") -> None:
    ray = f"{Path(sys.executable).parent}/ray"
    start = f"{ray} start --num-cpus 1 --object-store-memory 100000000 --node-ip-address"
    run(folder, *cluster.on_head([*f"{start} {HEAD} --head --port {PORT} --include-dashboard false".split()]))
    join = f"{before_other} && {start} {OTHER} --address {HEAD}:{PORT}"
    run(folder, *f"ip netns exec {cluster.other} unshare --mount sh -c".split(), join)


def test_two_nodes_give_what_one_process_gives_and_one_lost_is_told(
    nodes: Cluster, project: Path, start: Start, tmp_path: Path
) -> None:
    start_nodes(nodes, tmp_path)

    for stage in ("prepare-ratings", "split"):
        run(project, *nodes.on_head(stage_command(project, stage)))
    there = {name: (project / "data" / f"{name}.parquet").read_bytes() for name in DATA}
    edit_params(project, "engine: ray", "engine: local")
    run_stages(project, "prepare-ratings", "split", "train-torch")
    assert {name: (project / "data" / f"{name}.parquet").read_bytes() for name in DATA} == there
    alone = rounded_losses(project)

    edit_params(project, "engine: local", "engine: ray")
    running = start(project, *nodes.on_head(stage_command(project, "train-torch")))
    running.wait_for("epoch   1")
    assert all(any(map(runs_task, nodes.processes(node))) for node in (nodes.head, nodes.other))
    assert running.process.wait(240) == 0, running.output
    assert rounded_losses(project) == alone

    edit_params(project, "epochs: 5", "epochs: 1000000")
    running = start(project, *nodes.on_head(stage_command(project, "train-torch")))
    running.wait_for("epoch   1")
    for pid in nodes.processes(nodes.other):
        os.kill(pid, signal.SIGKILL)
    assert running.process.wait(120) == 1
    assert f"error: params.yaml: ray.workers is 2, each with 1 processor; the cluster at {HEAD}:{PORT} has 1" in (
        running.output
    )
    assert "Traceback" not in running.output


def rounded_losses(project: Path) -> list[float]:
    curve = json.loads((project / LOSSES["train-torch"]).read_text())["curve"]
    return [round(epoch[loss], 4) for epoch in curve for loss in ("train_loss", "val_loss")]


def test_a_node_without_the_folder_says_so(nodes: Cluster, project: Path, tmp_path: Path) -> None:
    start_nodes(nodes, tmp_path, before_other=f"mount -t tmpfs none {project.parent}")

    said = failure(project, *nodes.on_head(stage_command(project, "prepare-ratings")))

    assert f"error: {project} isn't on " in said
    assert "must share the folder of the project" in said


@pytest.mark.parametrize("capacity", ["0.99", "0.01"])
def test_a_full_object_store_goes_on_on_the_disk_or_says_so(
    capacity: str, nodes: Cluster, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(project / "parts")
    write_random_ratings(project / "parts", files=5, rows=5_000_000)  # 300 MB, and the nodes keep 100 MB each
    monkeypatch.setenv("RAY_local_fs_capacity_threshold", capacity)
    start_nodes(nodes, tmp_path)

    command = nodes.on_head(stage_command(project, "prepare-ratings"))
    if capacity == "0.01":
        assert "its object store is full, and so is the disk" in failure(project, *command)
        return
    run(project, *command)
    there = (project / "data" / "ratings.parquet").read_bytes()
    edit_params(project, "engine: ray", "engine: local")
    run_stages(project, "prepare-ratings")
    assert (project / "data" / "ratings.parquet").read_bytes() == there


def test_a_wrong_token_is_refused(
    nodes: Cluster, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_nodes(nodes, tmp_path)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)

    said = failure(project, *nodes.on_head(stage_command(project, "prepare-ratings")))

    assert f"error: Ray at {HEAD}:{PORT} (params.yaml): no cluster that takes the token in RAY_AUTH_TOKEN" in said

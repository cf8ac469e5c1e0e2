"""What a process takes whatever the ratings: each stage on next to none, and a `dvc repro` that has nothing to do."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from benchmarks.measure import Cell, Spread, Table
from benchmarks.processes import ROOT, Finished, run
from benchmarks.scale import Scale

RATINGS = 400
IMPORTS = ["pass", "import pyarrow", "import torch", "import tensorflow", "import dvc.repo"]
"""What stages have to load, for comparison."""


def measure(scale: Scale, work: Path) -> list[Table]:
    """Each stage in a copy of the project with few ratings and one epoch, and `dvc repro` after all have run."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        project = copy_project(Path(folder) / "project")
        isolate_dvc(Path(folder))
        repro = [sys.executable, "-m", "dvc", "repro"]
        run(repro, project)
        commands = {
            **{code: [sys.executable, "-c", code] for code in IMPORTS},
            **{name: stage_command(stage["cmd"]) for name, stage in read_stages(project).items()},
            "no-op dvc repro": repro,
        }
        finished: dict[str, list[Finished]] = {name: [] for name in commands}
        for _ in range(scale.process_rounds):
            for name, command in commands.items():
                finished[name].append(run(command, project))
    rows: list[list[Cell]] = [
        [
            name,
            Spread.of(process.first_line_seconds for process in processes),
            Spread.of(process.seconds for process in processes),
            Spread.of(process.cpu_seconds for process in processes),
            round(Spread.of(process.peak_megabytes for process in processes).median),
        ]
        for name, processes in finished.items()
    ]
    return [
        Table(
            f"Start-up: {RATINGS} ratings, one epoch",
            ["process", "to first line, s", "to end, s", "CPU s", "MB"],
            rows,
            "A trainer's first line names its framework, which is loaded then; the graph is traced after it.",
        )
    ]


def copy_project(target: Path) -> Path:
    """The project's files as git knows them, in a repository of its own, with few ratings and one epoch."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    sample = target / "data" / "sample.csv"
    sample.write_bytes(b"".join(sample.read_bytes().splitlines(keepends=True)[: RATINGS + 1]))
    settings = yaml.safe_load((target / "params.yaml").read_text(encoding="utf-8"))
    settings["train"]["epochs"] = 1
    (target / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    subprocess.run(["git", "init", "--quiet"], cwd=target, check=True)
    return target


def isolate_dvc(folder: Path) -> None:
    """Keep DVC from this machine's settings, and its cache of checksums from the next run."""
    os.environ.update(
        DVC_NO_ANALYTICS="1",
        DVC_GLOBAL_CONFIG_DIR=str(folder / "global"),
        DVC_SYSTEM_CONFIG_DIR=str(folder / "system"),
        DVC_SITE_CACHE_DIR=str(folder / "site-cache"),
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    )


def read_stages(project: Path) -> dict[str, dict[str, str]]:
    """The pipeline's stages by name."""
    stages: dict[str, dict[str, str]] = yaml.safe_load((project / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    return stages


def stage_command(command: str) -> list[str]:
    """What DVC runs for a stage, with this Python."""
    return [sys.executable, *command.split()[1:]]

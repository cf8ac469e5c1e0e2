"""A small project after `dvc repro`, as far as recommendations need it, and what the command says of it."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.lists import merge
from recommend.network import WEIGHTS
from stages import train_baselines
from stages.program.params import Params, load_params
from stages.ratings.table import Ratings, write_ratings, write_table
from stages.training.fit import run_training
from tests.project import ROOT

SCALE = [1.0, 5.0]
FRAMEWORKS = [*WEIGHTS]


def train_project(folder: Path, params: Params, parts: tuple[Ratings, Ratings, Ratings], keys: list[str]) -> Path:
    """Readers 1000, 1010, …, books b000, b001, …; the weights of some frameworks."""
    from stages.train_keras import KerasTrainer
    from stages.train_torch import TorchTrainer

    for name in ("data", "models", "losses"):
        (folder / name).mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "settings.json").write_text(params.model_dump_json())
    data, losses = folder / "data", folder / "losses"
    train, validation, test = paths = [data / f"{name}.parquet" for name in ("train", "validation", "test")]
    for part, path in zip(parts, paths, strict=True):
        write_ratings(part, path)
    write_ratings(merge(*parts), data / "ratings.parquet")
    write_table(pa.table({"user_id": 1000 + 10 * np.arange(parts[0].user_count)}), data / "users.parquet")
    book_ids = [f"b{number:03}" for number in range(parts[0].book_count)]
    write_table(pa.table({"book_id": book_ids}), data / "books.parquet")
    for key in keys:
        trainer = TorchTrainer if key == "pytorch" else KerasTrainer
        weights = folder / "models" / WEIGHTS[key]
        settings = load_params(folder / "settings.json")
        run_training(trainer, settings, train, validation, test, weights, losses / f"{key}.json")
    train_baselines.main(train, validation, test, losses / "biases.json", losses / "global-mean.json")
    return folder


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def ask(project: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command in another process; without --min-ratings of their own for the tests' few ratings."""
    least = () if "--min-ratings" in arguments else ("--min-ratings", "1")
    return subprocess.run(
        [sys.executable, "-m", "recommend", "--project", project, *map(str, arguments), *least],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def answer(project: Path, *arguments: object) -> str:
    """What the command prints."""
    done = ask(project, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refusal(project: Path, *arguments: object) -> str:
    """The one message that a mistake ends with."""
    done = ask(project, *arguments)
    assert (done.returncode, done.stderr[:7]) == (1, "error: ")
    assert "Traceback" not in done.stderr
    return done.stderr

"""A small project after `dvc repro`, as far as recommendations need it, and what the command says of it."""

import contextlib
import io
import shutil
import signal
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.lists import merge
from recommend.__main__ import main
from recommend.network import WEIGHTS
from stages import train_baselines
from stages.program.errors import StageError
from stages.program.params import Params, load_params
from stages.ratings.table import Ratings, write_ratings, write_table
from stages.training.fit import run_training
from tests.project import ROOT

SCALE = [1.0, 5.0]
FRAMEWORKS = [*WEIGHTS]


def write_tables(folder: Path, params: Params, parts: tuple[Ratings, Ratings, Ratings]) -> list[Path]:
    """Settings, and readers 1000, 1010, …, books b000, b001, …: returns the paths of the three parts."""
    for name in ("data", "models", "losses"):
        (folder / name).mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "settings.json").write_text(params.model_dump_json())
    data = folder / "data"
    paths = [data / f"{name}.parquet" for name in ("train", "validation", "test")]
    for part, path in zip(parts, paths, strict=True):
        write_ratings(part, path)
    write_ratings(merge(*parts), data / "ratings.parquet")
    write_table(pa.table({"user_id": 1000 + 10 * np.arange(parts[0].user_count)}), data / "users.parquet")
    book_ids = [f"b{number:03}" for number in range(parts[0].book_count)]
    write_table(pa.table({"book_id": book_ids}), data / "books.parquet")
    return paths


def train_project(folder: Path, params: Params, parts: tuple[Ratings, Ratings, Ratings]) -> Path:
    """The tables, and what both frameworks and the baselines make of them."""
    from stages.train_keras import KerasTrainer
    from stages.train_torch import TorchTrainer

    train, validation, test = write_tables(folder, params, parts)
    losses, settings = folder / "losses", load_params(folder / "settings.json")
    for key in FRAMEWORKS:
        trainer = TorchTrainer if key == "pytorch" else KerasTrainer
        weights = folder / "models" / WEIGHTS[key]
        run_training(trainer, settings, train, validation, test, weights, losses / f"{key}.json")
    train_baselines.main(train, validation, test, losses / "biases.json", losses / "global-mean.json")
    return folder


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def answer(project: Path, *arguments: object) -> str:
    """What the command prints; without --min-ratings of their own for the tests' few ratings."""
    least = () if "--min-ratings" in arguments else ("--min-ratings", "1")
    command, broken_pipe = ["recommend", "--project", project, *arguments, *least], signal.getsignal(signal.SIGPIPE)
    with patch("sys.argv", [*map(str, command)]), contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            main()
        finally:
            signal.signal(signal.SIGPIPE, broken_pipe)
    return printed.getvalue()


def refusal(project: Path, *arguments: object) -> str:
    """The message that a mistake ends with."""
    with pytest.raises(StageError) as caught:
        answer(project, *arguments)
    return str(caught.value)

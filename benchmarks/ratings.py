"""Simulated ratings, as a file and as the pipeline's own tables, made once and kept in the folder of work."""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import ROOT, run
from stages.program.params import Params, load_params
from stages.ratings.table import Ratings, read_ratings

PARTS = ("train", "validation", "test")
BOOK_USERS = 5.34
"""Users for each book, as in goodbooks-10k."""


def simulate(work: Path, users: int) -> Path:
    """A file of simulated ratings, about 18.4 for each user."""
    path = work / f"{users}.csv"
    if not path.exists():
        sizes = ["--users", str(users), "--books", str(round(users / BOOK_USERS))]
        run([sys.executable, "data/simulate.py", *sizes, "--output", str(path)])
    return path


def write_params(folder: Path, ratings: Path) -> None:
    """The project's parameters, but for the file of ratings."""
    params = change_params({"prepare.ratings": str(ratings.resolve())})
    (folder / "params.yaml").write_text(params.model_dump_json(), encoding="utf-8")  # JSON is YAML


def prepare_command(folder: Path) -> list[str]:
    """The stage prepare-ratings, with its files in a folder that holds params.yaml."""
    outputs = [f"--{name}={folder / name}.parquet" for name in ("ratings", "users", "books")]
    return [sys.executable, "-m", "stages.prepare_ratings", f"--params={folder / 'params.yaml'}", *outputs]


def split_command(folder: Path) -> list[str]:
    """The stage split, likewise."""
    files = [f"--{name}={folder / name}.parquet" for name in ("ratings", *PARTS)]
    return [sys.executable, "-m", "stages.split", f"--params={folder / 'params.yaml'}", *files]


def split_ratings(work: Path, file: Path) -> tuple[Ratings, Ratings, Ratings]:
    """The training, validation and test rows that the pipeline makes of a file."""
    folder = work / file.stem
    if not (folder / "test.parquet").exists():
        folder.mkdir(exist_ok=True)
        write_params(folder, file)
        run(prepare_command(folder))
        run(split_command(folder))
    training, validation, test = (read_ratings(folder / f"{name}.parquet") for name in PARTS)
    return training, validation, test


def draw_ratings(users: int, count: int) -> Ratings:
    """Ratings without any pattern, in which the last user and the last book occur."""
    random = np.random.default_rng(0)
    books = round(users / BOOK_USERS)
    return Ratings(
        np.append(random.integers(0, users, count - 1, np.int32), np.int32(users - 1)),
        np.append(random.integers(0, books, count - 1, np.int32), np.int32(books - 1)),
        random.integers(1, 6, count).astype(np.float32),
    )


def change_params(changes: dict[str, Any]) -> Params:
    """The project's parameters with some changed, by their keys: `model.embedding_dim`."""
    settings = load_params(ROOT / "params.yaml").model_dump()
    for key, value in changes.items():
        section, name = key.split(".")
        settings[section][name] = value
    return Params.model_validate(settings)

"""Projects to ask for books, trained once."""

import csv
import shutil
from pathlib import Path

import pytest

from recommend.library import Library, read_library
from stages.program.params import Params
from stages.ratings.table import Ratings
from tests.recommend.projects import train_project
from tests.samples import change


@pytest.fixture(scope="package")
def trained(tmp_path_factory: pytest.TempPathFactory, params: Params, parts: tuple[Ratings, Ratings, Ratings]) -> Path:
    """Not to be changed."""
    train = {"epochs": 6, "batch_size": 16, "learning_rate": 0.01}
    settings = change(params, train=train, model={"output_bias": "mean"})
    return train_project(tmp_path_factory.mktemp("trained"), settings, parts)


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Path:
    """A copy, to change."""
    return Path(shutil.copytree(trained, tmp_path / "project"))


@pytest.fixture(scope="package")
def titles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Titles of all 40 books; two share theirs, one is an attempt on a page."""
    path = tmp_path_factory.mktemp("titles") / "books.csv"
    names = {7: "The Hobbit", 8: "Dune (Dune, #1)", 9: "Emma", 10: "Emma", 11: "<script>alert(1)</script>"}
    rows = [[f"b{number:03}", names.get(number, f"Book {number}"), f"Author {number % 3}"] for number in range(40)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["book_id", "title", "authors"], *rows])
    return path


@pytest.fixture(scope="package")
def library(trained: Path) -> Library:
    """Without titles."""
    return read_library(trained)


@pytest.fixture(scope="package")
def titled(trained: Path, titles: Path) -> Library:
    """With titles."""
    return read_library(trained, titles)

"""The simulated ratings: their format, their counts, their model, and that the committed sample is what makes it."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv

from data import simulate
from tests.project import ROOT, failure, run

SAMPLE = ROOT / "data" / "sample.csv"
USERS, BOOKS = 2137, 400

Columns = dict[str, np.ndarray]


def table(users: int = USERS, books: int = BOOKS, seed: int = 3, books_per_piece: int = 64) -> pa.Table:
    return pa.concat_tables(simulate.simulate(users, books, seed, books_per_piece))


def columns(ratings: pa.Table) -> Columns:
    return {name: ratings[name].to_numpy() for name in ratings.column_names}


@pytest.fixture(scope="module")
def small() -> Columns:
    return columns(table())


@pytest.fixture(scope="module")
def whole() -> pa.Table:
    """In pieces of 25 books."""
    return table(320, 60, books_per_piece=25)


@pytest.fixture(scope="module")
def sample() -> Columns:
    return columns(csv.read_csv(SAMPLE))


def pair_ids(ratings: Columns) -> np.ndarray:
    return ratings["book_id"] * 10_000_000 + ratings["user_id"]


def test_the_committed_sample_is_what_the_readme_s_command_makes(tmp_path: Path) -> None:
    command = re.search(
        r"python (data/simulate\.py .*--output) data/sample\.csv", (ROOT / "data/README.md").read_text()
    )
    assert command
    again = tmp_path / "sample.csv"
    run(ROOT, sys.executable, *shlex.split(command[1]), str(again))
    assert again.read_bytes() == SAMPLE.read_bytes()


def test_the_sample_has_the_real_file_s_format(sample: Columns) -> None:
    lines = SAMPLE.read_bytes().split(b"\n")
    assert lines[0] == b"book_id,user_id,rating"
    assert lines[-1] == b""
    assert all(re.fullmatch(rb"[1-9]\d*,[1-9]\d*,[1-5]", line) for line in lines[1:-1])
    assert np.all(np.diff(pair_ids(sample)) >= 0)
    assert np.array_equal(np.unique(sample["user_id"]), np.arange(1, 5343))
    assert np.array_equal(np.unique(sample["book_id"]), np.arange(1, 1001))


def test_the_sample_s_ratings_are_spread_as_the_real_ones(sample: Columns) -> None:
    shares = np.bincount(sample["rating"], minlength=6)[1:] / len(sample["rating"])
    assert shares == pytest.approx(simulate.RATING_SHARES, abs=0.01)
    assert sample["rating"].mean() == pytest.approx(3.8565, abs=0.02)


def test_users_and_books_of_the_sample_are_as_active_as_the_real_ones(sample: Columns) -> None:
    per_user = np.bincount(sample["user_id"])[1:]
    assert 85_000 <= per_user.sum() <= 100_000
    assert per_user.min() == 2
    assert np.quantile(per_user, [0.25, 0.5, 0.75, 0.9]) == pytest.approx([3, 8, 22, 47], rel=0.05)
    assert np.quantile(per_user, [0.95, 0.99, 1]) == pytest.approx([71, 134, 200], rel=0.05)
    assert (per_user == 2).mean() == pytest.approx(0.155, abs=0.02)
    per_book = np.bincount(sample["book_id"])[1:]
    assert np.quantile(per_book, [0.01, 0.05, 0.1, 0.25, 0.5, 1]) == pytest.approx([69, 89, 95, 99, 100, 100], abs=2)


def test_as_many_ratings_repeat_as_in_the_real_file(sample: Columns) -> None:
    same_pair = np.diff(pair_ids(sample)) == 0
    changed = np.diff(sample["rating"])[same_pair]
    assert same_pair.mean() == pytest.approx(0.0023, rel=0.2)
    assert (changed == 0).mean() == pytest.approx(0.72, abs=0.1)
    assert np.abs(changed).max() == 1


def test_no_book_gets_more_ratings_than_the_real_file_allows(small: Columns) -> None:
    assert np.bincount(small["book_id"]).max() == 100
    assert np.bincount(small["user_id"])[1:].min() >= 2


def test_the_expected_rating_is_the_model_s_mean(small: Columns) -> None:
    rating, expected = small["rating"], small["expected_rating"]
    assert expected.min() >= 1
    assert expected.max() <= 5
    for low, high in ((1, 3), (3, 4), (4, 5)):
        between = (low <= expected) & (expected < high)
        error = (rating - expected)[between]
        assert abs(error.mean()) < 4 * error.std() / between.sum() ** 0.5
    assert np.mean((rating - expected) ** 2) == pytest.approx(0.56, abs=0.03)


def test_the_mean_rating_agrees_with_a_draw() -> None:
    noise = np.random.default_rng(0).standard_normal(1_000_000) * simulate.NOISE_VARIANCE**0.5
    scores = np.array([-2.0, -0.3, 0.0, 1.1], np.float32)
    drawn = [1 + np.searchsorted(simulate.CUTS, score + noise).mean() for score in scores]
    assert simulate.mean_rating(scores) == pytest.approx(drawn, abs=0.005)


@pytest.mark.parametrize("books_per_piece", [1, 7, 1000])
def test_the_rows_do_not_depend_on_the_piece(books_per_piece: int, whole: pa.Table) -> None:
    assert table(320, 60, books_per_piece=books_per_piece).equals(whole)


def test_the_seed_decides(small: Columns) -> None:
    assert table().equals(table())
    other = columns(table(seed=4))
    assert not np.array_equal(pair_ids(other)[:1000], pair_ids(small)[:1000])


def test_expected_ratings_are_a_fourth_column(tmp_path: Path) -> None:
    plain, with_mean = tmp_path / "plain.csv", tmp_path / "with_mean.csv"
    command = sys.executable, "data/simulate.py", "--users", "640", "--books", "120"
    run(ROOT, *command, "--output", str(plain))
    run(ROOT, *command, "--expected", "--output", str(with_mean))
    assert csv.read_csv(with_mean).column_names == ["book_id", "user_id", "rating", "expected_rating"]
    assert csv.read_csv(with_mean).drop_columns("expected_rating").equals(csv.read_csv(plain))


@pytest.mark.parametrize(
    ("users", "books", "seed", "output", "words"),
    [
        (50, 1000, 1, "ratings.csv", "too few users"),
        (50_000, 1000, 1, "ratings.csv", "too many users"),
        (0, 1000, 1, "ratings.csv", "at least one user"),
        (5342, 0, 1, "ratings.csv", "at least one user and one book"),
        (5342, 1000, -1, "ratings.csv", "non-negative"),
        (640, 120, 1, "absent/ratings.csv", "absent"),
    ],
)
def test_what_cannot_be_simulated_is_said_in_one_line(
    tmp_path: Path, users: int, books: int, seed: int, output: str, words: str
) -> None:
    size = f"--users={users}", f"--books={books}", f"--seed={seed}"
    said = failure(ROOT, sys.executable, "data/simulate.py", *size, f"--output={tmp_path / output}")
    assert said.count("\n") == 1
    assert words in said
    assert not list(tmp_path.iterdir())


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    output = tmp_path / "ratings.csv"
    output.write_text("as it was")

    def pieces_that_break() -> Iterator[pa.Table]:
        yield from simulate.simulate(640, 120, 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate.write(pieces_that_break(), output, expected=False)
    assert output.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [output]

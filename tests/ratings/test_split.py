"""split: a partition of the rows that leaves every user and book something to train on."""

import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import split
from stages.engines.here import HERE, Here
from stages.program.errors import StageError
from stages.program.params import Split
from stages.program.process import parse_arguments
from stages.ratings.table import Ratings, read_ratings, write_ratings, write_table
from stages.split import TEST, TRAIN, VALIDATION, assign_parts, read_pieces
from tests.project import ROOT
from tests.samples import draw_parts, in_pieces, quick, simulate


def make_ratings(pairs: list[tuple[int, int]]) -> Ratings:
    """Users and books numbered from 0 without gaps, as prepare-ratings hands them on."""
    users, books = (np.unique(ids, return_inverse=True)[1].astype(np.int32) for ids in zip(*pairs, strict=True))
    return Ratings(users, books, np.ones(len(pairs), np.float32))


def make_settings(validation: float = 0.1, test: float = 0.1, seed: int = 42) -> Split:
    return Split(validation=validation, test=test, seed=seed)


pairs = st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1).map(sorted)
fractions = st.floats(0.05, 0.45)


@quick
@given(pairs=pairs, validation=fractions, test=fractions, seed=st.integers(0, 2**32 - 1))
def test_every_user_and_book_held_out_is_trained_on(
    pairs: list[tuple[int, int]], validation: float, test: float, seed: int
) -> None:
    ratings = make_ratings(pairs)
    try:
        part, kept = draw_parts(ratings, make_settings(validation, test, seed))
    except StageError as error:
        assert "leaves none to hold out" in str(error)  # noqa: PT017, it may also succeed
        return

    assert part.shape == (len(ratings),)
    sizes = np.bincount(part, minlength=3)
    assert sizes.sum() == len(ratings)
    assert 0 < sizes[VALIDATION] <= round(len(ratings) * validation)
    assert 0 < sizes[TEST] <= round(len(ratings) * test)
    asked_for = round(len(ratings) * validation) + round(len(ratings) * test)
    assert sizes[VALIDATION] + sizes[TEST] + kept == min(asked_for, len(ratings))
    for ids in (ratings.users, ratings.books):
        assert set(ids) == set(ids[part == TRAIN])


@quick
@given(pairs=pairs, seed=st.integers(0, 2**32 - 1))
def test_no_more_rows_stay_in_train_than_users_and_books_need(pairs: list[tuple[int, int]], seed: int) -> None:
    ratings = make_ratings(pairs)
    drawn = np.random.default_rng(seed).permutation(len(ratings))[: 2 * round(len(ratings) * 0.3)]
    try:
        part, kept = draw_parts(ratings, make_settings(0.3, 0.3, seed))
    except StageError:
        return
    returned = drawn[part[drawn] == TRAIN]
    assert len(returned) == kept
    for row in returned:  # the only one in train of its user or of its book, but for others that came back too
        others = np.setdiff1d(np.flatnonzero(part == TRAIN), returned)
        assert not (ratings.users[row] in ratings.users[others] and ratings.books[row] in ratings.books[others])


@quick
@given(pairs=pairs, validation=fractions, cuts=st.lists(st.integers(0, 100), max_size=4), seed=st.integers(0, 99))
def test_a_table_in_pieces_is_split_as_a_whole_one(
    pairs: list[tuple[int, int]], validation: float, cuts: list[int], seed: int
) -> None:
    ratings = make_ratings(pairs)
    cuts = sorted(min(cut, len(pairs)) for cut in cuts)
    try:
        part, kept = draw_parts(ratings, make_settings(validation, 0.1, seed))
    except StageError:
        return
    again, kept_again = assign_parts(in_pieces(ratings, *cuts), make_settings(validation, 0.1, seed))
    np.testing.assert_array_equal(part, again)
    assert kept == kept_again


def test_rows_are_drawn_evenly() -> None:
    ratings = simulate(users=20, books=20, rows=300)
    held_out = np.sum([draw_parts(ratings, make_settings(seed=seed))[0] != TRAIN for seed in range(400)], axis=0)
    assert abs(held_out.mean() - 80) < 2
    assert held_out.std() < 11  # 8 is a binomial's


@pytest.mark.parametrize(
    "pairs",
    [
        [(0, 0)],
        [(0, 0), (0, 1), (1, 0), (1, 1)],
        [(row, row) for row in range(100)],
        [(0, row) for row in range(100)],
    ],
    ids=["one row", "four rows", "each user and book once", "one user, each book once"],
)
def test_refuses_a_table_that_leaves_nothing_to_hold_out(pairs: list[tuple[int, int]]) -> None:
    with pytest.raises(StageError, match=rf"split\.validation 0\.1 of {len(pairs)} ratings leaves none to hold out"):
        draw_parts(make_ratings(pairs), make_settings())


# --- The stage ---

PARTS = ("train", "validation", "test")


def run_stage(folder: Path, monkeypatch: pytest.MonkeyPatch, ratings: Path) -> list[Path]:
    outputs = [folder / f"{name}.parquet" for name in PARTS]
    arguments = [f"--params={ROOT / 'params.yaml'}", f"--ratings={ratings}"]
    arguments += [f"--{name}={path}" for name, path in zip(PARTS, outputs, strict=True)]
    monkeypatch.setattr(sys, "argv", ["split", *arguments])
    split.main(**parse_arguments(split.main))
    return outputs


def test_the_stage_writes_the_same_bytes_again_and_no_row_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ratings = simulate(users=50, books=40, rows=1000)
    write_ratings(ratings, tmp_path / "ratings.parquet")
    one, again = (run_stage(tmp_path / run, monkeypatch, tmp_path / "ratings.parquet") for run in ("one", "again"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in again]

    parts = [read_ratings(path) for path in one]
    rows = [row for part in parts for row in zip(part.users, part.books, part.stars, strict=True)]
    assert sorted(rows) == list(zip(ratings.users, ratings.books, ratings.stars, strict=True))
    train, validation, test = map(len, parts)
    said = capsys.readouterr().out
    assert f"{train:,} ratings to train on, {validation:,} for validation, {test:,} for the test\n" in said
    kept = 2 * round(len(ratings) * 0.1) - validation - test
    assert f"  {kept:,} rows stayed in train so that their user and book have one there\n" in said
    assert "warning" not in said


def test_an_engine_with_several_parts_writes_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ratings = simulate(users=50, books=40, rows=1000)
    write_ratings(ratings, tmp_path / "whole.parquet")
    with monkeypatch.context() as patch:
        patch.setattr("stages.ratings.table.GROUP", 70)
        write_ratings(ratings, tmp_path / "groups.parquet")
    whole = run_stage(tmp_path / "whole", monkeypatch, tmp_path / "whole.parquet")

    monkeypatch.setattr(Here, "part_count", 4)
    in_pieces = run_stage(tmp_path / "pieces", monkeypatch, tmp_path / "groups.parquet")

    assert len(read_pieces(tmp_path / "groups.parquet", HERE).pieces) == 4
    assert [path.read_bytes() for path in whole] == [path.read_bytes() for path in in_pieces]


def test_says_when_a_part_falls_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Most users with one rating only, as in BookCrossing."""
    busy = [(user, book) for user in range(20) for book in range(20)]
    write_ratings(make_ratings(busy + [(user, 0) for user in range(20, 3000)]), tmp_path / "ratings.parquet")
    run_stage(tmp_path, monkeypatch, tmp_path / "ratings.parquet")

    said = capsys.readouterr().out
    for name in ("validation", "test"):
        assert re.search(rf"warning: split\.{name} is [12]\.\d % of the ratings where 10\.0 % were asked for", said)


def test_the_stage_refuses_a_table_that_is_not_there_or_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ratings.parquet"
    with pytest.raises(StageError, match="is missing; run: dvc repro"):
        run_stage(tmp_path / "out", monkeypatch, file)
    write_table(pa.table({"user_id": [1]}), file)
    with pytest.raises(StageError, match="holds other columns than user, book, rating; run: dvc repro"):
        run_stage(tmp_path / "out", monkeypatch, file)
    write_ratings(simulate(users=50, books=40, rows=0), file)
    with pytest.raises(StageError, match="has no ratings; run: dvc repro"):
        run_stage(tmp_path / "out", monkeypatch, file)
    write_ratings(simulate(users=50, books=40, rows=1000), file)
    content = file.read_bytes()
    file.write_bytes(content[:1000] + bytes(500) + content[1500:])
    with pytest.raises(StageError, match=r"is damaged \(.*\); run: dvc repro"):
        run_stage(tmp_path / "out", monkeypatch, file)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(StageError, match=r"is damaged \(.*\); run: dvc repro"):
        run_stage(tmp_path / "out", monkeypatch, file)
    assert not (tmp_path / "out").exists()


def test_one_path_for_two_tables_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StageError, match=r"^--ratings and --train are both .*; each needs a path of its own$"):
        run_stage(tmp_path, monkeypatch, ratings=tmp_path / "train.parquet")

"""split: ratings to train on, to choose by (validation) and to judge by (test), drawn at random."""

from dataclasses import dataclass
from itertools import accumulate, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.engines.cluster import engine_of
from stages.engines.here import HERE, Engine
from stages.program.errors import StageError
from stages.program.params import Params, Split
from stages.program.process import run_stage
from stages.ratings.table import Ratings, count_groups, read_ratings, write_parts

TRAIN, VALIDATION, TEST = 0, 1, 2
HELD_OUT = {"validation": VALIDATION, "test": TEST}
"""By the names of their settings."""


@dataclass(frozen=True)
class Pieces:
    """The ratings in pieces of consecutive rows, which an engine keeps, and what is known of them."""

    pieces: list[Any]
    starts: list[int]
    """The first row of each."""
    rows: int
    user_count: int
    book_count: int

    def cut(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """A value for each row (n,), piece by piece."""
        return np.split(values, self.starts[1:])


def read_pieces(path: Path, engine: Engine) -> Pieces:
    """Read the ratings where the engine keeps them.

    Raises:
        StageError: the file is missing, damaged or empty.
    """
    groups = np.array_split(np.arange(count_groups(path)), engine.part_count)
    if not len(groups[0]):
        raise StageError(f"{path} has no ratings; run: dvc repro")
    kept = engine.starmap(_read_piece, ((path, some.tolist()) for some in groups if len(some)), returns=2)
    pieces, shapes = zip(*kept, strict=True)
    sizes, user_counts, book_counts = zip(*map(engine.get, shapes), strict=True)
    *starts, rows = accumulate(sizes, initial=0)
    return Pieces([*pieces], starts, rows, max(user_counts), max(book_counts))


def _read_piece(path: Path, groups: list[int]) -> tuple[Ratings, tuple[int, int, int]]:
    piece = read_ratings(path, groups)
    return piece, (len(piece), piece.user_count, piece.book_count)


def assign_parts(table: Pieces, settings: Split, engine: Engine = HERE) -> tuple[NDArray[np.int8], int]:
    """Draw the part of each row (n,), and count the rows that stay in train for their user's or book's sake.

    Validation and test take their share of the rows from a random permutation. Then each user and book without a row
    in train takes the first of its rows (in the permutation's order) back: no model is asked about what it never saw.

    Raises:
        StageError: no row is left for validation or for the test.
    """
    count = table.rows
    shuffled = np.arange(count, dtype=np.int32 if count < 2**31 else np.int64)
    np.random.default_rng(settings.seed).shuffle(shuffled)
    validation_rows, test_rows = round(count * settings.validation), round(count * settings.test)
    held_out = shuffled[: validation_rows + test_rows]
    part = np.full(count, TRAIN, np.int8)
    part[held_out[:validation_rows]] = VALIDATION
    part[held_out[validation_rows:]] = TEST

    for column, id_count in (("users", table.user_count), ("books", table.book_count)):
        rows, ids = find_untrained(table, column, id_count, part, engine)
        in_order = held_out[np.isin(held_out, rows)]
        _, first = np.unique(ids[np.searchsorted(rows, in_order)], return_index=True)
        part[in_order[first]] = TRAIN
    for name, value in HELD_OUT.items():
        if not (part == value).any():
            raise StageError(
                f"split.{name} {getattr(settings, name)} of {count:,} ratings leaves none to hold out: too few rows, "
                "or each its user's or book's only one"
            )
    return part, int((part[held_out] == TRAIN).sum())


def find_untrained(
    table: Pieces, column: str, id_count: int, part: NDArray[np.int8], engine: Engine
) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """The rows of all users (or books) that have none in train: (m,), ascending; and whose each of them is (m,)."""
    parts = [*map(engine.share, table.cut(part))]
    trained = np.zeros(id_count, np.bool_)
    for ids in map(engine.get, engine.starmap(_trained_ids, zip(table.pieces, parts, repeat(column)))):
        trained[ids] = True
    arguments = zip(table.pieces, parts, repeat(column), repeat(engine.share(trained)), table.starts)
    rows, ids = zip(*map(engine.get, engine.starmap(_untrained_rows, arguments)), strict=True)
    return np.concatenate(rows), np.concatenate(ids)


def _trained_ids(piece: Ratings, part: NDArray[np.int8], column: str) -> NDArray[np.intp]:
    return np.flatnonzero(np.bincount(getattr(piece, column)[part == TRAIN]))


def _untrained_rows(
    piece: Ratings, part: NDArray[np.int8], column: str, trained: NDArray[np.bool_], start: int
) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    ids = getattr(piece, column)
    rows = np.flatnonzero(part != TRAIN)
    rows = rows[~trained[ids[rows]]]
    return start + rows, ids[rows]


def _take(piece: Ratings, part: NDArray[np.int8], value: int) -> Ratings:
    return piece[np.flatnonzero(part == value)]  # half the time of a mask


def warn_of_small_parts(part: NDArray[np.int8], settings: Split) -> list[str]:
    """A warning for each part that rows kept in train leave under half of what was asked for."""
    warnings = []
    for name, value in HELD_OUT.items():
        asked, left = getattr(settings, name), float((part == value).mean())
        if left < asked / 2:
            warnings.append(
                f"warning: split.{name} is {100 * left:.1f} % of the ratings where {100 * asked:.1f} % were asked for: "
                "the other rows are their user's or book's only ones"
            )
    return warnings


def main(params: Params, ratings: Path, train: Path, validation: Path, test: Path) -> None:
    """Run the stage: read, draw, write."""
    with engine_of(params) as engine:
        table = read_pieces(ratings, engine)
        part, kept = assign_parts(table, params.split, engine)

        for value, path in ((TRAIN, train), (VALIDATION, validation), (TEST, test)):
            taken = engine.starmap(_take, zip(table.pieces, table.cut(part), repeat(value)))
            write_parts(map(engine.get, taken), path)
    counts = np.bincount(part, minlength=3)
    print(
        f"{counts[TRAIN]:,} ratings to train on, {counts[VALIDATION]:,} for validation, {counts[TEST]:,} for the test"
    )
    print(f"  {kept:,} rows stayed in train so that their user and book have one there")
    for warning in warn_of_small_parts(part, params.split):
        print(warning)


if __name__ == "__main__":
    run_stage(main)

"""split: ratings to train on, to choose by (validation) and to judge by (test), drawn at random."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.program.errors import StageError
from stages.program.params import Params, Split
from stages.program.process import run_stage
from stages.ratings.table import Ratings, read_ratings, write_ratings

TRAIN, VALIDATION, TEST = 0, 1, 2


def assign_parts(ratings: Ratings, settings: Split) -> tuple[NDArray[np.int8], int]:
    """Draw the part of each row (n,), and count the rows that stay in train for their user's or book's sake.

    Validation and test take their share of the rows from a random permutation. Then each user and book without a row
    in train takes the first of its rows (in the permutation's order) back: no model is asked about what it never saw.

    Raises:
        StageError: no row is left for validation or for the test.
    """
    count = len(ratings)
    shuffled = np.random.default_rng(settings.seed).permutation(count)
    validation_rows, test_rows = round(count * settings.validation), round(count * settings.test)
    part = np.zeros(count, np.int8)
    part[shuffled[:validation_rows]] = VALIDATION
    part[shuffled[validation_rows : validation_rows + test_rows]] = TEST

    held_out = shuffled[: validation_rows + test_rows]
    for ids in (ratings.users, ratings.books):
        part[_only_rows(ids, held_out[part[held_out] != TRAIN])] = TRAIN
    for value, name in ((VALIDATION, "validation"), (TEST, "test")):
        if not (part == value).any():
            raise StageError(
                f"split.{name} {getattr(settings, name)} of {count:,} ratings leaves none to hold out: too few rows, "
                "or each its user's or book's only one"
            )
    return part, int((part[held_out] == TRAIN).sum())


def _only_rows(ids: NDArray[np.int32], held_out: NDArray[np.intp]) -> NDArray[np.intp]:
    """The first held-out row of each id that has all its rows held out."""
    counts = np.bincount(ids)
    untrained = np.bincount(ids[held_out], minlength=len(counts)) == counts
    orphans = held_out[untrained[ids[held_out]]]
    rows: NDArray[np.intp] = orphans[np.unique(ids[orphans], return_index=True)[1]]
    return rows


def warn_of_small_parts(part: NDArray[np.int8], settings: Split) -> list[str]:
    """A warning for each part that rows kept in train leave under half of what was asked for."""
    warnings = []
    for value, name in ((VALIDATION, "validation"), (TEST, "test")):
        asked, left = getattr(settings, name), float((part == value).mean())
        if left < asked / 2:
            warnings.append(
                f"warning: split.{name} is {100 * left:.1f} % of the ratings where {100 * asked:.1f} % were asked for: "
                "the other rows are their user's or book's only ones"
            )
    return warnings


def main(params: Params, ratings: Path, train: Path, validation: Path, test: Path) -> None:
    """Run the stage: read, draw, write."""
    table = read_ratings(ratings)
    part, kept = assign_parts(table, params.split)

    for value, path in ((TRAIN, train), (VALIDATION, validation), (TEST, test)):
        write_ratings(table[np.flatnonzero(part == value)], path)  # half the time of a mask
    counts = np.bincount(part, minlength=3)
    print(
        f"{counts[TRAIN]:,} ratings to train on, {counts[VALIDATION]:,} for validation, {counts[TEST]:,} for the test"
    )
    print(f"  {kept:,} rows stayed in train so that their user and book have one there")
    for warning in warn_of_small_parts(part, params.split):
        print(warning)


if __name__ == "__main__":
    run_stage(main)

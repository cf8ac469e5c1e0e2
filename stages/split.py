"""split: ratings to train on, to choose by (validation) and to judge by (test), drawn at random."""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.program.params import Split, load_params
from stages.program.process import StageError, run_stage
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


def main() -> None:
    """Run the stage: arguments, read, do, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--ratings", type=Path, required=True, help="the table to split")
    parser.add_argument("--train", type=Path, required=True, help="to write")
    parser.add_argument("--validation", type=Path, required=True, help="to write")
    parser.add_argument("--test", type=Path, required=True, help="to write")
    arguments = parser.parse_args()
    settings = load_params(arguments.params).split

    ratings = read_ratings(arguments.ratings)
    part, kept = assign_parts(ratings, settings)

    for value, path in ((TRAIN, arguments.train), (VALIDATION, arguments.validation), (TEST, arguments.test)):
        write_ratings(ratings[np.flatnonzero(part == value)], path)  # half the time of a mask
    train, validation, test = np.bincount(part, minlength=3)
    print(f"{train:,} ratings to train on, {validation:,} for validation, {test:,} for the test")
    print(f"  {kept:,} rows stayed in train so that their user and book have one there")


if __name__ == "__main__":
    run_stage(main)

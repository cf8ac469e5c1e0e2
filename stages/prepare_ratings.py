"""prepare-ratings: from a ratings file of any origin to one checked table with users and books numbered from 0."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.common.params import Prepare, load_params
from stages.common.program import StageError, run_stage
from stages.common.ratings import Ratings, write_ratings, write_table
from stages.common.source import Source, read_source


@dataclass(frozen=True)
class Step:
    """What a step of the preparation left: for the report."""

    name: str
    rows: int
    users: int
    books: int


@dataclass(frozen=True)
class Prepared:
    """The table, sorted by user and book, and the original id of each user and book by its number."""

    ratings: Ratings
    user_ids: pa.Array
    book_ids: pa.Array
    steps: list[Step]


def prepare(source: Source, settings: Prepare) -> Prepared:
    """Settle duplicates, apply the minimum counts, and number users and books from 0 in the order of their ids.

    Raises:
        StageError: duplicates where `on_duplicate` is `error`, or minimum counts that leave nothing.
    """
    users, user_ids = number_ids(source.user_ids)
    books, book_ids = number_ids(source.book_ids)
    steps = [Step("read", len(users), len(user_ids), len(book_ids))]

    ratings = settle_duplicates(users, books, source, len(book_ids), settings.on_duplicate)
    steps.append(Step("one rating per user and book", len(ratings), len(user_ids), len(book_ids)))

    ratings = ratings[enough_ratings(ratings, settings.min_ratings_per_user, settings.min_ratings_per_book)]
    if not len(ratings):
        raise StageError(
            f"no rating is left of {steps[0].rows:,}: prepare.min_ratings_per_user {settings.min_ratings_per_user} and "
            f"prepare.min_ratings_per_book {settings.min_ratings_per_book} are more than this file has"
        )
    users, kept_users = close_gaps(ratings.users)
    books, kept_books = close_gaps(ratings.books)
    steps.append(Step("enough ratings each", len(ratings), len(kept_users), len(kept_books)))
    return Prepared(
        Ratings(users, books, ratings.stars),
        user_ids.take(pa.array(kept_users)),
        book_ids.take(pa.array(kept_books)),
        steps,
    )


def number_ids(ids: pa.ChunkedArray) -> tuple[NDArray[np.int32], pa.Array]:
    """Number the distinct ids from 0 in ascending order: the number of each row (n,), and the ids by number."""
    encoded = ids.combine_chunks().dictionary_encode()
    ascending = pc.sort_indices(encoded.dictionary).to_numpy()
    numbers = np.empty(len(ascending), np.int32)
    numbers[ascending] = np.arange(len(ascending), dtype=np.int32)
    return numbers[encoded.indices.to_numpy()], encoded.dictionary.take(pa.array(ascending))


def settle_duplicates(
    users: NDArray[np.int32], books: NDArray[np.int32], source: Source, book_count: int, on_duplicate: str
) -> Ratings:
    """One rating for each user and book, sorted by user, then book."""
    pairs = users.astype(np.int64) * book_count + books
    order = np.argsort(pairs, kind="stable")  # stable: within a pair, the file's order
    pairs = pairs[order]
    starts = np.flatnonzero(np.diff(pairs, prepend=-1))
    ends = np.append(starts[1:], len(pairs)) - 1
    if on_duplicate == "error" and len(starts) < len(pairs):
        repeats = np.sort(np.delete(order, starts))
        raise StageError(
            f"{len(repeats):,} rows rate a book that their user has rated before ({source.where(repeats)}), "
            "and prepare.on_duplicate is error; last, first or mean would settle them"
        )
    rows = order[ends if on_duplicate == "last" else starts]
    stars = source.stars[rows]
    if on_duplicate == "mean":
        stars = np.add.reduceat(source.stars[order], starts) / (ends - starts + 1)
    return Ratings(users[rows], books[rows], stars.astype(np.float32))


def enough_ratings(ratings: Ratings, per_user: int, per_book: int) -> NDArray[np.intp]:
    """The rows (ascending) whose user and book both keep their minimum count once all other rows are gone."""
    rows = np.arange(len(ratings))
    while True:
        users, books = ratings.users[rows], ratings.books[rows]
        enough = (np.bincount(users)[users] >= per_user) & (np.bincount(books)[books] >= per_book)
        if enough.all():
            return rows
        rows = rows[enough]


def close_gaps(numbers: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Renumber from 0 without gaps, keeping the order: the new numbers (n,), and the old ones that were in use."""
    in_use = np.bincount(numbers) > 0
    return (np.cumsum(in_use, dtype=np.int32) - 1)[numbers], np.flatnonzero(in_use)


def report(path: str, prepared: Prepared) -> str:
    """What came in, what went out, and why any left."""
    lines = [f"{path:<30}{'rows':>14}{'users':>14}{'books':>14}"]
    lines += [f"  {step.name:<28}{step.rows:>14,}{step.users:>14,}{step.books:>14,}" for step in prepared.steps]
    first, *_, last = prepared.steps
    lines.append(
        f"  {'left out':<28}{first.rows - last.rows:>14,}{first.users - last.users:>14,}{first.books - last.books:>14,}"
    )
    stars = prepared.ratings.stars
    lines.append(f"  ratings from {stars.min():g} to {stars.max():g}, mean {stars.mean(dtype=np.float64):.4f}")
    lines += [f"warning: {warning}" for warning in find_oddities(prepared)]
    return "\n".join(lines)


def find_oddities(prepared: Prepared) -> list[str]:
    """What is valid and still can't be meant."""
    oddities = []
    if len(prepared.user_ids) == 1:
        oddities.append("all ratings are one user's")
    if len(prepared.book_ids) == 1:
        oddities.append("all ratings are of one book")
    if np.ptp(prepared.ratings.stars) == 0:
        oddities.append("all ratings are equal: there is nothing to learn")
    for ids, kind in ((prepared.user_ids, "user"), (prepared.book_ids, "book")):
        if pa.types.is_string(ids.type):
            oddities.append(f"{kind} ids are not all numbers: they are taken for names, such as {ids[-1].as_py()!r}")
    return oddities


def main() -> None:
    """Run the stage: arguments, read, do, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--ratings", type=Path, required=True, help="the table, to write")
    parser.add_argument("--users", type=Path, required=True, help="the users' original ids by number, to write")
    parser.add_argument("--books", type=Path, required=True, help="the books' original ids by number, to write")
    arguments = parser.parse_args()
    settings = load_params(arguments.params).prepare

    source = read_source(Path(settings.ratings), settings.columns, settings.rating_scale)
    prepared = prepare(source, settings)

    write_ratings(prepared.ratings, arguments.ratings)
    write_table(pa.table({"user_id": prepared.user_ids}), arguments.users)
    write_table(pa.table({"book_id": prepared.book_ids}), arguments.books)
    print(report(settings.ratings, prepared))


if __name__ == "__main__":
    run_stage(main)

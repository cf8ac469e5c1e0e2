"""prepare-ratings: from a ratings file of any origin to one checked table with users and books numbered from 0."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.engines.cluster import map_on
from stages.program.errors import StageError, shorten
from stages.program.params import Params, Prepare
from stages.program.process import run_stage
from stages.ratings.checks import EXAMPLES, PLAIN_NUMBER, Source
from stages.ratings.source import read_source
from stages.ratings.table import Ratings, write_ratings, write_table

MAX_GAPS = 4
"""Ids up to this many times the number of rows are numbered through a table of all ids, which is several times as fast
as hashing and needs less memory then."""

UNRATED_SHARE = 0.3
"""The scale's lowest rating is looked at where it has a larger share than this: it may stand for 'not rated'."""


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
    left_out: dict[str, int]
    """Rows that were left out while reading, by the reason."""
    steps: list[Step]
    lowest: float
    """The lowest rating on the scale."""


def prepare(source: Source, settings: Prepare) -> Prepared:
    """Settle duplicates, apply the minimum counts, and number users and books from 0 in the order of their ids.

    Raises:
        StageError: duplicates where `on_duplicate` is `error`, or minimum counts that leave nothing.
    """
    users, user_ids = number_ids(source.user_ids)
    books, book_ids = number_ids(source.book_ids)
    rows = len(users) + sum(source.left_out.values())
    steps = [Step("read", rows, len(user_ids), len(book_ids))]

    ratings = settle_duplicates(Ratings(users, books, source.stars), settings.on_duplicate, user_ids, book_ids)
    steps.append(Step("one rating per user and book", len(ratings), len(user_ids), len(book_ids)))

    ratings = enough_ratings(ratings, settings.min_ratings_per_user, settings.min_ratings_per_book)
    if not len(ratings):
        raise StageError(
            f"no rating is left of {len(source.stars):,}: prepare.min_ratings_per_user "
            f"{settings.min_ratings_per_user} and prepare.min_ratings_per_book {settings.min_ratings_per_book} "
            "are more than this file has"
        )
    users, kept_users = close_gaps(ratings.users)
    books, kept_books = close_gaps(ratings.books)
    steps.append(Step("enough ratings each", len(ratings), len(kept_users), len(kept_books)))
    return Prepared(
        Ratings(users, books, ratings.stars),
        user_ids.take(pa.array(kept_users)),
        book_ids.take(pa.array(kept_books)),
        source.left_out,
        steps,
        settings.rating_scale[0],
    )


def number_ids(ids: pa.Array) -> tuple[NDArray[np.int32], pa.Array]:
    """Number the distinct ids from 0 in ascending order: the number of each row (n,), and the ids by number."""
    if pa.types.is_integer(ids.type) and pc.max(ids).as_py() < MAX_GAPS * len(ids):
        numbers, in_use = close_gaps(ids.to_numpy())
        return numbers, pa.array(in_use)
    encoded = ids.dictionary_encode()  # as it is, where it is text
    ascending = pc.sort_indices(encoded.dictionary).to_numpy()
    numbers = np.empty(len(ascending), np.int32)
    numbers[ascending] = np.arange(len(ascending), dtype=np.int32)
    distinct = encoded.dictionary.take(pa.array(ascending))
    return numbers[encoded.indices.to_numpy()], distinct.cast(pa.int64()) if pa.types.is_integer(ids.type) else distinct


def settle_duplicates(ratings: Ratings, on_duplicate: str, user_ids: pa.Array, book_ids: pa.Array) -> Ratings:
    """One rating for each user and book, sorted by user, then book."""
    ratings = ratings[order_pairs(ratings.users, ratings.books)]
    users, books, stars = ratings.users, ratings.books, ratings.stars
    first = np.append(True, (users[1:] != users[:-1]) | (books[1:] != books[:-1]))
    if on_duplicate == "error" and not first.all():
        repeats = np.flatnonzero(~first)
        pairs = [f"user {user_ids[users[row]]}, book {book_ids[books[row]]}" for row in repeats[:EXAMPLES]]
        raise StageError(
            f"{len(repeats):,} rows rate a book that their user has rated before ({shorten('; '.join(pairs), 200)}), "
            "and prepare.on_duplicate is error; last, first or mean would settle them"
        )
    if on_duplicate == "mean":
        starts = np.flatnonzero(first)
        means = np.add.reduceat(stars, starts, dtype=np.float64) / np.diff(starts, append=len(stars))
        stars = means.astype(np.float32)
    else:
        stars = stars[np.append(first[1:], True) if on_duplicate == "last" else first]
    return Ratings(users[first], books[first], stars)


def order_pairs(users: NDArray[np.int32], books: NDArray[np.int32]) -> NDArray[np.int64]:
    """The rows by user, then book, then place in the file (n,).

    `np.lexsort` does it, but sorting plain numbers is five times as fast, where user, book and row fit into one.
    """
    book_count, row_bits = int(books.max()) + 1, len(books).bit_length()
    if (int(users.max()) + 1) * book_count << row_bits >= 2**63:
        return np.lexsort((books, users))
    keys = users.astype(np.int64)
    keys *= book_count
    keys += books
    keys <<= row_bits
    keys |= np.arange(len(keys))
    keys.sort()
    keys &= (1 << row_bits) - 1
    return keys


def enough_ratings(ratings: Ratings, per_user: int, per_book: int) -> Ratings:
    """The most rows whose users and books all have their minimum count among these very rows."""
    while True:
        users, books = ratings.users, ratings.books
        enough = (np.bincount(users) >= per_user)[users] & (np.bincount(books) >= per_book)[books]
        if enough.all():
            return ratings
        ratings = ratings[enough]


def close_gaps(numbers: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Renumber from 0 without gaps, keeping the order: the new numbers (n,), and the old ones that were in use."""
    in_use = np.zeros(int(numbers.max()) + 1, np.bool_)
    in_use[numbers] = True
    return (np.cumsum(in_use, dtype=np.int32) - 1)[numbers], np.flatnonzero(in_use)


def report(path: str, prepared: Prepared) -> str:
    """What came in, what went out, and why any left."""
    lines = [f"{path:<30}{'rows':>14}{'users':>14}{'books':>14}"]
    steps = [f"  {step.name:<28}{step.rows:>14,}{step.users:>14,}{step.books:>14,}" for step in prepared.steps]
    left_out = [f"    {f'left out: {reason}':<26}{count:>14,}" for reason, count in prepared.left_out.items()]
    lines += [steps[0], *left_out, *steps[1:]]
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
    stars = prepared.ratings.stars
    if np.ptp(stars) == 0:
        oddities.append("all ratings are equal: there is nothing to learn")
    if looks_unrated(stars, prepared.lowest):
        oddities.append(
            f"{np.mean(stars == prepared.lowest):.0%} of the ratings are {prepared.lowest:g}, and few are next to it: "
            f"if it means 'not rated', set prepare.not_rated: [{prepared.lowest:g}] and prepare.rating_scale"
        )
    for ids, kind in ((prepared.user_ids, "user"), (prepared.book_ids, "book")):
        if pa.types.is_string(ids.type):
            names = [name for name in ids.to_pylist() if not PLAIN_NUMBER.fullmatch(name)]
            examples = ", ".join(shorten(repr(name)) for name in names[:3])
            oddities.append(
                f"{len(names):,} of {len(ids):,} {kind} ids are no plain numbers ({examples}): all are taken for names"
            )
    return oddities


def looks_unrated(stars: NDArray[np.float32], lowest: float) -> bool:
    """Whether the scale's lowest rating stands apart: it has a large share, and a gap or a dip is above it."""
    counts = {pair["values"]: pair["counts"] for pair in pa.array(stars).value_counts().to_pylist()}
    rest = sorted(counts.keys() - {np.float32(lowest)})
    if counts.get(np.float32(lowest), 0) < UNRATED_SHARE * len(stars) or len(rest) < 2:
        return False
    gap = rest[0] - lowest > 1.5 * min(np.diff(rest))
    return bool(gap) or counts[rest[0]] < max(counts[star] for star in rest[1:])


def main(params: Params, ratings: Path, users: Path, books: Path) -> None:
    """Run the stage: read, check, number, write; `users` and `books` keep the original ids by number."""
    settings = params.prepare

    with map_on(params) as each:
        source = read_source(settings, each)
    prepared = prepare(source, settings)

    write_ratings(prepared.ratings, ratings)
    write_table(pa.table({"user_id": prepared.user_ids}), users)
    write_table(pa.table({"book_id": prepared.book_ids}), books)
    print(report(settings.ratings, prepared))


if __name__ == "__main__":
    run_stage(main)

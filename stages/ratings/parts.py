"""What is done with one part of the ratings, in whatever process it is; `stages.prepare_ratings` puts it together."""

from collections import Counter
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.ratings.table import Ratings, concatenate

EXAMPLES = 3  # pairs that a message names


class Repeats(NamedTuple):
    """The rows whose user has rated their book before."""

    rows: int
    pairs: list[tuple[int, int]]
    """The first few by user, then book."""


class Summary(NamedTuple):
    """What a part holds."""

    users: NDArray[np.int32]
    """(m,): who has a rating."""
    books: NDArray[np.intp]
    """(k,): which have one."""
    stars: Counter[float]
    """How many ratings there are of each height."""


def divide(
    ratings: Ratings, users: NDArray[np.int32], books: NDArray[np.int32], bounds: NDArray[np.intp]
) -> list[Ratings]:
    """The ratings with other numbers, divided: users below the first bound, from there to the next, and so on."""
    ratings = renumber(ratings, users, books)
    if not len(bounds):
        return [ratings]
    part = np.searchsorted(bounds, ratings.users, side="right").astype(np.uint16)
    ratings = ratings[np.argsort(part, kind="stable")]
    ends = np.cumsum(np.bincount(part, minlength=len(bounds) + 1)).tolist()
    return [ratings[start:end] for start, end in pairwise([0, *ends])]


def renumber(ratings: Ratings, users: NDArray[np.int32], books: NDArray[np.int32]) -> Ratings:
    """The ratings with other numbers: user 7's is now `users[7]`, and likewise for the books."""
    return Ratings(users[ratings.users], books[ratings.books], ratings.stars)


def settle(on_duplicate: str, *pieces: Ratings) -> tuple[Ratings, Repeats]:
    """One rating for each user and book, sorted by user, then book; which is the last depends on the pieces' order."""
    ratings = concatenate(pieces)
    ratings = ratings[order_pairs(ratings.users, ratings.books)]
    users, books, stars = ratings.users, ratings.books, ratings.stars
    first = np.append(True, (users[1:] != users[:-1]) | (books[1:] != books[:-1]))[: len(stars)]
    again = np.flatnonzero(~first)
    pairs = [*zip(users[again[:EXAMPLES]].tolist(), books[again[:EXAMPLES]].tolist(), strict=True)]
    if on_duplicate == "mean":
        starts = np.flatnonzero(first)
        means = np.add.reduceat(stars, starts, dtype=np.float64) / np.diff(starts, append=len(stars))
        stars = means.astype(np.float32)
    else:
        stars = stars[np.append(first[1:], True)[: len(stars)] if on_duplicate == "last" else first]
    return Ratings(users[first], books[first], stars), Repeats(len(again), pairs)


def order_pairs(users: NDArray[np.int32], books: NDArray[np.int32]) -> NDArray[np.int64]:
    """The rows by user, then book, then place in the file (n,).

    `np.lexsort` does it, but sorting plain numbers is five times as fast, where user, book and row fit into one.
    """
    book_count, row_bits = int(books.max(initial=0)) + 1, len(books).bit_length()
    if (int(users.max(initial=0)) + 1) * book_count << row_bits >= 2**63:
        return np.lexsort((books, users))
    keys = users.astype(np.int64)
    keys *= book_count
    keys += books
    keys <<= row_bits
    keys |= np.arange(len(keys))
    keys.sort()
    keys &= (1 << row_bits) - 1
    return keys


def count_books(ratings: Ratings, book_count: int) -> NDArray[np.intp]:
    """How many ratings each book has (books,)."""
    return np.bincount(ratings.books, minlength=book_count)


def drop_rare(ratings: Ratings, per_user: int, enough: NDArray[np.bool_]) -> tuple[Ratings | None, int]:
    """Drop the rows whose user has too few of these, or whose book too few of all: what is left, and how many they are.

    None instead of the rows where nothing was dropped: they needn't be kept twice.
    """
    users = ratings.users - ratings.users[:1]  # they are sorted: the counts of all users before would be 0
    kept = (np.bincount(users) >= per_user)[users] & enough[ratings.books]
    dropped = len(kept) - int(np.count_nonzero(kept))
    return (ratings[kept] if dropped else None), dropped


def summarise(ratings: Ratings) -> Summary:
    """What the part holds, which is sorted by user."""
    users = ratings.users[np.flatnonzero(np.diff(ratings.users, prepend=-1))]
    counts = pa.array(ratings.stars).value_counts().to_pylist()
    stars = Counter({pair["values"]: pair["counts"] for pair in counts})
    return Summary(users, np.flatnonzero(np.bincount(ratings.books)), stars)

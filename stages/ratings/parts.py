"""What is done with one part of the ratings, in whatever process it is; `stages.prepare_ratings` puts it together."""

from collections import Counter
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


class Contents(NamedTuple):
    """What a part holds."""

    users: NDArray[np.bool_]
    """(users,): who has a row."""
    books: NDArray[np.bool_]
    """(books,): likewise."""
    stars: Counter[float]


def divide(
    ratings: Ratings, users: NDArray[np.int32], books: NDArray[np.int32], bounds: NDArray[np.intp]
) -> list[Ratings]:
    """The ratings with other numbers, divided: users below the first bound, from there to the next, and so on."""
    ratings = renumber(ratings, users, books)
    if not len(bounds):
        return [ratings]
    part = np.searchsorted(bounds, ratings.users, side="right")
    return [ratings[part == place] for place in range(len(bounds) + 1)]


def renumber(ratings: Ratings, users: NDArray[np.int32], books: NDArray[np.int32]) -> Ratings:
    """The ratings with other numbers, which stand at the place of the present ones."""
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


def drop_rare(ratings: Ratings, per_user: int, enough: NDArray[np.bool_]) -> tuple[Ratings, int]:
    """The rows whose user has enough of these and whose book has enough of all, and how many others there are."""
    users = ratings.users
    kept = (np.bincount(users) >= per_user)[users] & enough[ratings.books]
    dropped = len(kept) - int(np.count_nonzero(kept))
    return (ratings[kept] if dropped else ratings), dropped


def look_at(ratings: Ratings, user_count: int, book_count: int) -> Contents:
    """What these rows hold."""
    users, books = np.zeros(user_count, np.bool_), np.zeros(book_count, np.bool_)
    users[ratings.users], books[ratings.books] = True, True
    counts = pa.array(ratings.stars).value_counts().to_pylist()
    return Contents(users, books, Counter({pair["values"]: pair["counts"] for pair in counts}))

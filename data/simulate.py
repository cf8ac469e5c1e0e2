"""Simulate book ratings that behave like the first version of goodbooks-10k.

    python data/simulate.py --users 5342 --books 1000 --seed 1 --output data/sample.csv

Who rates what is dealt like cards. A deck holds every book once; it is shuffled, and the users take their hands from it
one after the other; when it is used up, a new deck is shuffled. A book with 100 ratings is in 100 decks, one with 8
only in the first 8. So each book gets its number of ratings, each user gets theirs, and chance says who reads what.

How they rate is an ordered probit. A rating is the number of `CUTS` below a latent score, plus one, and

    score = user bias + book bias + user factors · book factors + noise

is a sum of independent terms of mean 0 whose variances add up to 1. The cuts are placed so that the shares of the
ratings 1 to 5 are those of the real file. The mean rating that this model gives a user and a book is the best
prediction there can be; `--expected` writes it as a fourth column, and nothing can do with less error than it makes.

Books are written in pieces. What stays in memory is a few numbers per user and per book; the ratings never do.
"""

import argparse
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

Floats: TypeAlias = npt.NDArray[np.float32]
Ints: TypeAlias = npt.NDArray[np.int64]
Users: TypeAlias = npt.NDArray[np.int32]

# What the real file is like: the number of ratings of a user and of a book at some quantiles, and the shares of 1 to 5.
RATINGS_PER_USER = {
    0: 2, 0.11: 2, 0.206: 3, 0.294: 4, 0.362: 5, 0.495: 8, 0.603: 12, 0.661: 15, 0.753: 22, 0.851: 35, 0.9: 47,
    0.932: 60, 0.951: 71, 0.971: 90, 0.982: 110, 0.99: 134, 0.995: 173, 0.999: 191, 1: 200,
}  # fmt: skip
RATINGS_PER_BOOK = {0: 8, 0.001: 52, 0.01: 69, 0.02: 78, 0.05: 89, 0.1: 95, 0.2: 99, 0.28: 100, 1: 100}
RATING_SHARES = (0.0199, 0.0644, 0.2533, 0.3640, 0.2984)

# The score's variance, by where it comes from; what is left of 1 is noise.
USER_VARIANCE = 0.275
BOOK_VARIANCE = 0.092
FACTOR_VARIANCE = 0.110  # of the product, all factors together
NOISE_VARIANCE = 1 - USER_VARIANCE - BOOK_VARIANCE - FACTOR_VARIANCE
FACTORS = 5

REPEATED = 0.0023  # the share of rows that repeat a user's rating of a book
CHANGED = 0.28  # the share of those whose rating is another

MAX_SHARE_OF_BOOKS = 0.25  # that one user rates: bounds the hands where there are few books
BOOKS_PER_PIECE = 1 << 14

CUTS = np.array([NormalDist().inv_cdf(share) for share in np.cumsum(RATING_SHARES)[:-1]], np.float32)


class Stream(IntEnum):
    """What random numbers are for. Each purpose has its own generator, so that none depends on the size of a piece."""

    USERS = 0
    BOOKS = 1
    DECKS = 2
    NOISE = 3
    REPEATS = 4


@dataclass(frozen=True)
class World:
    """All users and books, before anyone has rated.

    Attributes:
        seed: where all randomness comes from
        hand_ends: (users,) the number of cards dealt once this user has theirs
        book_counts: (books,) ratings of each book, repeats included
        user_effects: (1 + FACTORS, users) bias, then factors, in units of the latent score
        book_effects: (1 + FACTORS, books) likewise
    """

    seed: int
    hand_ends: Ints
    book_counts: Ints
    user_effects: Floats
    book_effects: Floats


def generator(seed: int, stream: Stream, part: int = 0) -> np.random.Generator:
    """Start the random numbers of one purpose, or of one part of it, such as a deck."""
    return np.random.default_rng([seed, stream, part])


def spread(quantiles: dict[float, int], size: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """`size` numbers in random order that have exactly these quantiles."""
    ranks = (rng.permutation(size) + 0.5) / size
    return np.interp(ranks, list(quantiles.keys()), list(quantiles.values()))


def draw_effects(size: int, bias_variance: float, rng: np.random.Generator) -> Floats:
    """(1 + FACTORS, size): a bias and the factors of as many users or books."""
    sd = np.array([bias_variance**0.5] + [(FACTOR_VARIANCE / FACTORS) ** 0.25] * FACTORS, np.float32)
    return rng.standard_normal((1 + FACTORS, size), np.float32) * sd[:, None]


def draw_world(users: int, books: int, seed: int) -> World:
    """Draw everything that is known of each user and each book.

    Raises:
        ValueError: there are too few users to give these books their ratings, or too many to get two each.
    """
    if users < 1 or books < 1:
        raise ValueError(f"there must be at least one user and one book, not {users:,} and {books:,}")
    user_rng, book_rng = generator(seed, Stream.USERS), generator(seed, Stream.BOOKS)
    book_counts = np.rint(spread(RATINGS_PER_BOOK, books, book_rng)).astype(np.int64)
    cards = int(book_counts.sum())
    smallest_deck = int((book_counts == book_counts.max()).sum())

    least = RATINGS_PER_USER[0]
    hands = np.minimum(spread(RATINGS_PER_USER, users, user_rng), max(least + 1, MAX_SHARE_OF_BOOKS * books)) - least
    wanted = cards - least * users
    if wanted < 0:
        raise ValueError(
            f"too many users: {books:,} books get {cards:,} ratings, but {users:,} users need {least} each"
        )
    hands *= wanted / max(np.cumsum(hands)[-1], 1)
    hand_ends = np.rint(np.cumsum(least + hands)).astype(np.int64)  # rounds the hands so that they add up
    if hand_ends[-1] != cards or np.diff(hand_ends, prepend=0).max() > smallest_deck:
        raise ValueError(f"too few users: {users:,} can't give {books:,} books {cards:,} ratings, at most one per book")
    return World(
        seed=seed,
        hand_ends=hand_ends,
        book_counts=book_counts,
        user_effects=draw_effects(users, USER_VARIANCE, user_rng),
        book_effects=draw_effects(books, BOOK_VARIANCE, book_rng),
    )


def deal(world: World, first: int, last: int) -> Users:
    """Say who rates the books from `first` to before `last`.

    Returns:
        (last - first, decks) user indices, sorted along each book; the number of users stands where there is no card
    """
    nobody = len(world.hand_ends)
    counts = world.book_counts[first:last]
    rank = np.argsort(np.argsort(-world.book_counts, kind="stable"))  # a deck holds the first so many of this ranking
    owners = np.full((last - first, int(world.book_counts.max())), nobody, np.int32)
    dealt = 0
    for deck in range(owners.shape[1]):
        size = int((world.book_counts > deck).sum())
        place = generator(world.seed, Stream.DECKS, deck).permutation(size)  # of each book of the deck
        inside = counts > deck
        cards = dealt + place[rank[first:last][inside]]
        owners[inside, deck] = np.searchsorted(world.hand_ends, cards, side="right")
        dealt += size
    owners.sort(axis=1)
    # A hand that spans two decks may hold a book twice: one card too many.
    owners[:, 1:][owners[:, 1:] == owners[:, :-1]] = nobody
    return owners


def mean_rating(score: Floats) -> Floats:
    """Average the rating over the noise, where `score` is the rest of the latent score. Same shape, exact to 1e-5."""
    grid = np.linspace(-6, 6, 4001)
    below = [0.5 * math.erfc((cut - s) / math.sqrt(2 * NOISE_VARIANCE)) for s in grid for cut in CUTS]
    means = 1 + np.reshape(below, (len(grid), len(CUTS))).sum(axis=1)
    return np.asarray(np.interp(score, grid, means), np.float32)


def rate(world: World, first: int, last: int, noise: np.random.Generator, repeats: np.random.Generator) -> pa.Table:
    """Ratings of the books from `first` to before `last`, one row each, sorted by book, then user."""
    users = deal(world, first, last)
    nobody = len(world.hand_ends)
    hands = np.diff(world.hand_ends, prepend=0, append=world.hand_ends[-1])  # nobody's hand is the last one, empty

    # Some readers rate twice, in the place of the next reader, unless that one has few ratings to spare.
    chance = repeats.random(users.shape, np.float32)
    again = (chance[:, 1:] < REPEATED) & (users[:, :-1] != nobody) & (hands[users[:, 1:]] > RATINGS_PER_USER[0])
    users[:, 1:][again] = users[:, :-1][again]

    cards = users != nobody
    chance, error = chance[cards], noise.standard_normal(users.shape, np.float32)[cards]
    book, user = np.repeat(np.arange(first, last), cards.sum(axis=1)), users[cards]
    score = world.user_effects[0][user] + world.book_effects[0][book]
    for of_user, of_book in zip(world.user_effects[1:], world.book_effects[1:], strict=True):
        score += of_user[user] * of_book[book]
    rating = 1 + np.searchsorted(CUTS, score + error * np.float32(NOISE_VARIANCE**0.5))

    second = 1 + np.flatnonzero((user[1:] == user[:-1]) & (book[1:] == book[:-1]))
    before = rating[second - 1]
    changed = np.where(before < len(RATING_SHARES), before + 1, before - 1)
    rating[second] = np.where(chance[second] < CHANGED * REPEATED, changed, before)
    return pa.table({"book_id": 1 + book, "user_id": 1 + user, "rating": rating, "expected_rating": mean_rating(score)})


def simulate(users: int, books: int, seed: int, books_per_piece: int = BOOKS_PER_PIECE) -> Iterator[pa.Table]:
    """Simulate ratings, one piece of the books after the other; the rows don't depend on the size of a piece.

    Yields:
        columns book_id, user_id (from 1), rating (1 to 5), and expected_rating (the model's mean, not rounded)

    Raises:
        ValueError: as `draw_world` does, before the first piece.
    """
    world = draw_world(users, books, seed)
    noise, repeats = generator(seed, Stream.NOISE), generator(seed, Stream.REPEATS)
    for first in range(0, books, books_per_piece):
        yield rate(world, first, min(first + books_per_piece, books), noise, repeats)


def write(pieces: Iterator[pa.Table], output: Path, expected: bool) -> int:
    """Write a CSV file that appears whole or not at all; return its number of rows."""
    columns = ["book_id", "user_id", "rating", *(["expected_rating"] if expected else [])]
    partial = output.with_name(f".tmp-{os.getpid()}-{output.name}")
    rows = 0
    try:
        with partial.open("wb") as file:
            file.write(f"{','.join(columns)}\n".encode())
            for piece in pieces:
                csv.write_csv(piece.select(columns), file, csv.WriteOptions(include_header=False, batch_size=1 << 16))
                rows += len(piece)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    return rows


def main() -> None:
    """Write a file of simulated ratings as the command line says."""
    parser = argparse.ArgumentParser(description="Simulate book ratings in the format of goodbooks-10k.")
    parser.add_argument("--users", type=int, required=True, help="about 5.3 for each book")
    parser.add_argument("--books", type=int, required=True, help="each gets up to 100 ratings, about 98 on average")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help="the CSV file to write")
    parser.add_argument("--expected", action="store_true", help="add a column with each rating's mean under the model")
    args = parser.parse_args()
    try:
        rows = write(simulate(args.users, args.books, args.seed), args.output, args.expected)
    except (ValueError, OSError) as error:
        sys.exit(f"simulate.py: {error}")
    print(f"{args.output}: {rows:,} ratings, {args.users:,} users, {args.books:,} books")


if __name__ == "__main__":
    main()

"""Which books to read: the highest predicted stars among those that a reader hasn't rated, and what is near a book."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recommend.network import Floats, Network
from stages.ratings.table import Ratings

MIN_RATINGS = 10
"""How many ratings a book needs unless --min-ratings says so: chosen on validation rows (docs/recommending.md)."""

BLOCK = 64
"""Readers that a thread takes at a time."""

GROUP = 64
"""Scores of which the highest is found first."""

REASONS = 3
"""How many rated books `--why` names."""


@dataclass(frozen=True)
class Books:
    """Books, the best first: their numbers (n,), and the predicted stars or the distance of each (n,)."""

    numbers: NDArray[np.intp]
    scores: Floats


def recommend(
    network: Network, vector: Floats, rated: NDArray[np.integer], offered: NDArray[np.intp], count: int
) -> Books:
    """The offered books (ascending) with the most predicted stars for a reader's vector (dim,), less the rated ones.

    `network` has the offered books only: `Network.of_books`.
    """
    stars = network.predict(vector)
    places = np.searchsorted(offered, rated)
    places = places[offered[np.minimum(places, len(offered) - 1)] == rated]
    stars[places] = -np.inf
    best = _highest(stars, min(count, len(stars) - len(places)))
    return Books(offered[best], stars[best])


def recommend_all(
    network: Network, users: NDArray[np.intp], ratings: Ratings, offered: NDArray[np.intp], count: int
) -> Iterator[list[Books]]:
    """The lists of many readers, some readers' at a time, in their order.

    Args:
        network: of the offered books.
        users: the readers (n,).
        ratings: what is not to be recommended again, sorted by user.
        offered: the books (m,), ascending.
        count: books in a list.
    """
    bounds = np.searchsorted(ratings.users, np.stack([users, users + 1]))
    network.book_part  # noqa: B018, once and not in each thread

    def of_block(start: int) -> list[Books]:
        return [
            recommend(network, network.user_vectors[user], ratings.books[first:end], offered, count)
            for user, first, end in zip(users[start : start + BLOCK], *bounds[:, start : start + BLOCK], strict=True)
        ]

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        yield from threads.map(of_block, range(0, len(users), BLOCK))


def nearest(network: Network, book: int, among: NDArray[np.integer], count: int) -> Books:
    """The books whose learned vectors are nearest to a book's, itself left out; the scores are the distances.

    Of goodbooks-10k's books more neighbours are by the same author than with cosines; docs/recommending.md has figures.
    """
    others = among[among != book]
    distances = np.linalg.norm(network.book_vectors[others] - network.book_vectors[book], axis=1)
    best = _highest(-distances, min(count, len(others)))
    return Books(others[best], distances[best])


def _highest(scores: Floats, count: int) -> NDArray[np.intp]:
    """The places of the highest scores, the highest first; of equal ones the first."""
    places = np.arange(len(scores))
    if 0 < count <= len(scores) // GROUP:
        # So many groups hold a score that high; what is lower can't be among the highest. Faster than argpartition.
        highest_of_groups = np.maximum.reduceat(scores, places[::GROUP])
        places = np.flatnonzero(scores >= np.partition(highest_of_groups, -count)[-count])
    return places[np.lexsort((places, -scores[places]))][:count]

"""What lists of ten books are worth: how often they hold what a reader went on to rate. `--help` says how to ask.

Each Python measures what it can: the project's own the trained models and the most rated books, one with `implicit`
item-item neighbours and factors of implicit feedback (`pip install implicit==0.7.3 pyarrow tqdm` in an environment of
its own).
"""

import argparse
import importlib.util
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.program.process import run_program
from stages.ratings.table import Ratings, concatenate, read_ratings

COUNT = 10
"""Books in a list."""

NEIGHBOURS, FACTORS = 20, 256
"""The best on goodbooks-10k's validation rows, of 20, 50, 100, 200, 500 neighbours and of 32, 64, 128, 256 factors."""

Lists = NDArray[np.intp]
"""Books, the best first, a row for each reader (readers, COUNT)."""


def main() -> None:
    """Measure every kind of list on one part of the ratings."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lists", description=__doc__)
    parser.add_argument("--project", type=Path, default=Path(), metavar="FOLDER", help="default: this folder")
    parser.add_argument("--part", choices=("validation", "test"), default="validation", help="default: %(default)s")
    parser.add_argument("--min-ratings", type=int, nargs="+", default=[10], metavar="N", help="for the models")
    asked = parser.parse_args()
    train, validation, part = (
        read_ratings(asked.project / "data" / f"{name}.parquet") for name in ("train", "validation", asked.part)
    )
    known = merge(train, validation) if asked.part == "test" else train
    users = np.unique(part.users).astype(np.intp)
    print(f"{len(users):,} readers, {len(part):,} {asked.part} rows; lists of {COUNT}\n")
    print(f"{'':34}{'any rating':>18}{'4 stars or more':>18}  right order")
    print(f"{'':34}{'hits':>10}{'NDCG':>8}{'hits':>10}{'NDCG':>8}     of pairs")
    for name, lists, order in measured(asked.project, asked.min_ratings, users, train, known, part):
        figures = "".join("{:>10.2%}{:>8.4f}".format(*judge(lists, users, part, least)) for least in (0, 4))
        print(f"{name:<34}{figures}{order:>13}", flush=True)


def measured(
    project: Path, least: list[int], users: NDArray[np.intp], train: Ratings, known: Ratings, part: Ratings
) -> Iterator[tuple[str, Lists, str]]:
    """What this Python can measure: a name, lists, and where stars are predicted the share of pairs in order."""
    count = COUNT + int(np.bincount(known.users).max())
    if importlib.util.find_spec("implicit"):
        for name, rank in peers(train):
            yield name, fill(rank(users, count), users, known), ""
        return
    ratings, random = np.bincount(train.books), np.random.default_rng(42)
    drawn = random.integers(0, len(ratings), (len(users), count))
    yield "drawn at random", fill(drawn, users, known), "50.0%"
    most = np.argsort(-ratings, kind="stable")[:count]
    yield "most rated", fill(np.tile(most, (len(users), 1)), users, known), ""
    from recommend.library import Reader, read_library  # not for the peers' Python: it lacks what these need
    from recommend.lists import recommend
    from recommend.network import NAMES, read_network

    library, rows = read_library(project), reader_rows(known)
    readers = [Reader("", known.books[rows[user]], known.stars[rows[user]], user) for user in users.tolist()]
    for key in NAMES:
        network = read_network(key, project, library)
        order = pairs_in_order(network.predict_rows(part), part)
        for number in least:
            lists = np.full((len(users), COUNT), -1)
            for row, reader in enumerate(readers):
                books = recommend(network, reader, ratings < number, COUNT).numbers
                lists[row, : len(books)] = books
            yield f"{NAMES[key]}, from {number} ratings on", lists, f"{order:.1%}"


def merge(*parts: Ratings) -> Ratings:
    """Parts of a table as one, sorted by user and book."""
    rows = concatenate(parts)
    return rows[np.lexsort((rows.books, rows.users))]


def fill(candidates: Lists, users: NDArray[np.intp], known: Ratings) -> Lists:
    """The first of each reader's candidates (readers, more) that aren't known."""
    pairs = users[:, None] * known.book_count + candidates
    fresh = ~np.isin(pairs, known.users.astype(np.int64) * known.book_count + known.books) & (candidates >= 0)
    first = np.argsort(~fresh, axis=1, kind="stable")[:, :COUNT]
    return np.where(np.take_along_axis(fresh, first, 1), np.take_along_axis(candidates, first, 1), -1)


def judge(lists: Lists, users: NDArray[np.intp], part: Ratings, least_stars: float) -> tuple[float, float]:
    """The share of readers with a hit, and their mean NDCG (Järvelin and Kekäläinen 2002).

    A hit is a book that the reader gave at least so many stars; readers without such a book don't count.
    """
    relevant = part[part.stars >= least_stars]
    wanted = np.bincount(relevant.users, minlength=part.user_count)[users]
    pairs = relevant.users.astype(np.int64) * 10**9 + relevant.books
    hits = np.isin(users[:, None] * 10**9 + lists, pairs)[wanted > 0]
    gains = 1 / np.log2(np.arange(2, COUNT + 2))
    ideal = np.cumsum(gains)[np.minimum(wanted[wanted > 0], COUNT) - 1]
    return float(hits.any(axis=1).mean()), float(((hits @ gains) / ideal).mean())


def pairs_in_order(predictions: NDArray[np.floating[Any]], part: Ratings) -> float:
    """Of two books that a reader gave different stars, how often the better has the higher prediction (the AUC)."""
    right = pairs = 0.0
    for rows in reader_rows(part):
        stars, predicted = part.stars[rows], predictions[rows]
        better = stars[:, None] > stars
        right += float((better * ((predicted[:, None] > predicted) + 0.5 * (predicted[:, None] == predicted))).sum())
        pairs += float(better.sum())
    return right / pairs


def reader_rows(part: Ratings) -> list[slice]:
    """Where each reader's rows are in a table sorted by reader."""
    bounds = np.searchsorted(part.users, np.arange(part.user_count + 1, dtype=np.int32)).tolist()
    return [slice(start, end) for start, end in pairwise(bounds)]


def peers(train: Ratings) -> Iterator[tuple[str, Callable[[NDArray[np.intp], int], Lists]]]:
    """What `implicit` fits to who rated what."""
    import implicit
    from scipy.sparse import csr_matrix

    rated = csr_matrix((np.ones(len(train), np.float32), (train.users, train.books)))

    def fitted(model: Any) -> Callable[[NDArray[np.intp], int], Lists]:
        model.fit(rated, show_progress=False)
        return lambda users, count: model.recommend(users, rated[users], N=count)[0].astype(np.intp)

    yield "ItemKNN", fitted(implicit.nearest_neighbours.CosineRecommender(NEIGHBOURS))
    yield "ALS", fitted(implicit.als.AlternatingLeastSquares(FACTORS, random_state=42))


if __name__ == "__main__":
    run_program(main)

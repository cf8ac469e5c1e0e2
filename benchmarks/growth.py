"""How a whole epoch's time and memory grow with the ratings."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.measure import Cell, Spread, Table, ratio
from benchmarks.processes import in_a_process, peak_megabytes
from benchmarks.ratings import BOOK_USERS, change_params
from benchmarks.scale import Scale
from stages.ratings.table import Ratings

BATCH_SIZE = 1024
ROUNDS = 2
"""An epoch over the most ratings takes so long that chance evens out in it."""

Name = Literal["torch", "keras"]
NAMES: tuple[Name, ...] = ("torch", "keras")


@dataclass(frozen=True)
class Epoch:
    """What one epoch took."""

    seconds: float
    megabytes: float


def measure(scale: Scale, work: Path) -> list[Table]:
    """A whole epoch of each trainer over each number of ratings, the same users and books, each in its own process."""
    rows: list[list[Cell]] = []
    for name in NAMES:
        found = {count: list[Epoch]() for count in scale.epoch_rows}
        for _ in range(ROUNDS):
            for count in scale.epoch_rows:
                found[count].append(in_a_process(train_one_epoch, name, scale.users, count))
        per_row = {
            count: ([1e6 * epoch.seconds / count for epoch in epochs], [epoch.megabytes for epoch in epochs])
            for count, epochs in found.items()
        }
        first, _ = per_row[scale.epoch_rows[0]]
        for count, (microseconds, megabytes) in per_row.items():
            rows.append(
                [f"train-{name}", count, Spread.of(microseconds), ratio(microseconds, first), Spread.of(megabytes)]
            )
    return [
        Table(
            f"One whole epoch by the number of ratings, {scale.users:,} users, batches of {BATCH_SIZE:,}",
            ["stage", "ratings", "µs/rating", "over linear", "peak MB"],
            rows,
        )
    ]


def train_one_epoch(name: Name, users: int, count: int) -> Epoch:
    """Train on ratings drawn at random; what comes before the first step, such as tracing a graph, isn't counted."""
    ratings = draw_ratings(users, count)
    if name == "torch":
        from benchmarks.torch_epochs import make_epoch
    else:
        from benchmarks.keras_epochs import make_epoch
    epoch = make_epoch(change_params(embedding_dim=5, batch_size=min(BATCH_SIZE, count)), ratings, ratings)
    start = time.process_time()
    epoch()
    return Epoch(time.process_time() - start, peak_megabytes())


def draw_ratings(users: int, count: int) -> Ratings:
    """Ratings without any pattern, in which the last user and the last book occur."""
    random = np.random.default_rng(0)
    books = round(users / BOOK_USERS)
    return Ratings(
        np.append(random.integers(0, users, count - 1, np.int32), np.int32(users - 1)),
        np.append(random.integers(0, books, count - 1, np.int32), np.int32(books - 1)),
        random.integers(1, 6, count).astype(np.float32),
    )

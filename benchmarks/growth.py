"""How a whole epoch's time and memory grow with the ratings."""

import importlib
import time
from pathlib import Path

from benchmarks.epochs import Framework, make_epoch
from benchmarks.measure import Cell, Spread, Table, ratio
from benchmarks.processes import in_a_process, peak_megabytes
from benchmarks.ratings import change_params, draw_ratings
from benchmarks.scale import Scale

BATCH_SIZE = 1024


def measure(scale: Scale, work: Path) -> list[Table]:
    """A whole epoch of each trainer over each number of ratings, the same users and books, each in its own process."""
    rows: list[list[Cell]] = []
    for framework in ("torch", "keras"):
        found = {count: list[tuple[float, float]]() for count in scale.epoch_rows}
        for _ in range(scale.process_rounds):
            for count in scale.epoch_rows:
                found[count].append(in_a_process(train_one_epoch, framework, scale.users, count))
        first = [seconds / scale.epoch_rows[0] for seconds, _ in found[scale.epoch_rows[0]]]
        for count, epochs in found.items():
            per_row = [seconds / count for seconds, _ in epochs]
            microseconds = Spread.of(1e6 * seconds for seconds in per_row)
            peak = Spread.of(megabytes for _, megabytes in epochs)
            rows.append([f"train-{framework}", count, microseconds, ratio(per_row, first), peak])
    return [
        Table(
            f"One whole epoch by the number of ratings, {scale.users:,} users, batches of {BATCH_SIZE:,}",
            ["stage", "ratings", "µs/rating", "over linear", "peak MB"],
            rows,
        )
    ]


def train_one_epoch(framework: str, users: int, count: int) -> tuple[float, float]:
    """Seconds and peak megabytes over ratings drawn at random; what comes before the first step isn't counted."""
    found: Framework = importlib.import_module(f"benchmarks.{framework}_epochs").FRAMEWORK
    ratings, size = draw_ratings(users, count), min(BATCH_SIZE, count)
    trainer = found.make_trainer(change_params({"train.batch_size": size, "train.threads": 1}), ratings)
    trainer.train_one_epoch(ratings[: size + count % size], 1)  # Keras traces a graph for each size of a batch
    epoch = make_epoch(trainer, ratings)
    start = time.process_time()
    epoch()
    return time.process_time() - start, peak_megabytes()

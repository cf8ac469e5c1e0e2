"""Two threads against one, on a machine that is idle and on one where another process keeps one core busy."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.growth import NAMES, Name
from benchmarks.measure import Cell, Spread, Table, ratio, take_turns
from benchmarks.processes import in_a_process
from benchmarks.ratings import change_params, simulate, split_ratings
from benchmarks.scale import Scale

BUSY = "import time\nend = time.monotonic() + 600\nwhile time.monotonic() < end: pass"
"""Ends by itself, whatever becomes of who has started it."""
MOST_STEPS = 16
"""Two threads that wait for each other can take a thousand times as long as one."""


def measure(scale: Scale, work: Path) -> list[Table]:
    """How many times as fast two threads are as one, for each trainer and batch."""
    rows: list[list[Cell]] = []
    for name in NAMES:
        for batch_size in scale.batch_sizes:
            idle = compare(name, scale, work, batch_size)
            with another_process():
                busy = compare(name, scale, work, batch_size)
            rows.append([f"train-{name}", batch_size, idle, busy])
    return [
        Table(
            f"Two threads against one, times as fast, on {os.cpu_count()} cores",
            ["stage", "batch", "idle", "one core busy"],
            rows,
        )
    ]


def compare(name: Name, scale: Scale, work: Path, batch_size: int) -> Spread:
    """One thread's time over that of two, each in a process of its own: TensorFlow chooses once."""
    one, two = [in_a_process(time_epochs, name, scale, work, batch_size, threads) for threads in (1, 2)]
    return ratio(one, two)


def time_epochs(name: Name, scale: Scale, work: Path, batch_size: int, threads: int) -> list[float]:
    """The seconds of some epochs over a part of the rows."""
    training, _, _ = split_ratings(work, simulate(work, scale.users))
    steps = min(MOST_STEPS, scale.most_steps, scale.most_rows // batch_size)
    rows = training[np.random.default_rng(0).integers(0, len(training), steps * batch_size)]
    if name == "torch":
        from benchmarks.torch_epochs import make_epoch
    else:
        from benchmarks.keras_epochs import make_epoch
    epoch = make_epoch(change_params(scale.embedding_dims[0], batch_size, threads), training, rows)
    return take_turns({name: epoch}, scale.rounds, time.perf_counter)[name]


@contextmanager
def another_process() -> Iterator[None]:
    """A process that only computes, as long as the block runs."""
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        process.kill()
        process.wait()

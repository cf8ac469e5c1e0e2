"""A training step on one machine and on Ray, and what these figures say of larger clusters.

    python -m benchmarks.cluster --output benchmarks/results/cluster.json

Measures train-torch: in one process as ever, and with one and two workers on a cluster of this machine. From that a
model of a step's seconds,

    step = fixed + rows of the slice · per row + weights · per weight + exchange
    exchange = (machines - 1) · latency + bytes · per byte

which is fitted to the smallest and the largest batch, and checked with the one between. Every worker has all weights,
and Adam passes over all of them at each step: that part doesn't get smaller with more machines.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.machine import describe_machine, list_versions
from benchmarks.measure import Cell, Spread, Table
from benchmarks.processes import ROOT
from benchmarks.ratings import BOOK_USERS, change_params, draw_ratings
from stages.engines.cluster import connect
from stages.program.params import Params
from stages.ratings.table import Ratings, write_ratings
from stages.training.fit import Trainer

USERS = (53_424, 534_240)
BATCHES = (1024, 8192, 65_536)
STEPS = {1024: 64, 8192: 16, 65_536: 4}
ROUNDS = 5
NETWORK = 1.25e9
"""Bytes a second of the cluster that is modelled: 10 Gbit/s."""
RATINGS_PER_USER = 18.4  # goodbooks-10k's
LOOK_UP_BYTES = 48  # of an example: two rows' numbers, and two gradients of five float32
DENSE_BYTES = 4 * (10 * 128 + 128 + 128 * 32 + 32 + 32 + 1)  # of the dense layers' gradients
ADAM_BYTES = 16  # a float32 weight, its gradient and its two means


class Step(NamedTuple):
    """A kind of training step, with the seconds and the bytes that it takes."""

    workers: int
    """0 without Ray."""
    batch: int
    weights: int
    seconds: Spread
    sent: int
    """Bytes that each worker hands over."""


def time_steps(params: Params, rows: Ratings, rank: int, meeting: Any) -> tuple[list[float], int, int]:
    """The seconds of a step in each round, how many bytes it sends, and how many weights there are."""
    import ray

    from stages.engines.data_parallel import SlicedTrainer
    from stages.engines.workers import Workers
    from stages.train_torch import TorchTrainer

    steps, workers = STEPS[params.train.batch_size], None
    trainer: Trainer
    if meeting is None:
        trainer = TorchTrainer(params, rows)
    else:
        workers = Workers(rank, params.ray.workers, ray.util.get_node_ip_address(), meeting)
        trainer = SlicedTrainer(TorchTrainer, params, rows, workers)
    trainer.train_one_epoch(rows, 1)
    sent, seconds = workers.sent if workers else 0, []
    for epoch in range(ROUNDS):
        start = time.perf_counter()
        trainer.train_one_epoch(rows, epoch)
        seconds.append((time.perf_counter() - start) / steps)
    weights = sum(map(np.size, trainer.get_weights()))
    return seconds, (workers.sent - sent) // (ROUNDS * steps) if workers else 0, weights


def measure_steps() -> list[Step]:
    """All kinds of steps."""
    from stages.engines.data_parallel import Meeting

    steps = []
    with connect(change_params({"ray.workers": 2})) as ray:
        start = ray.remote(max_calls=1)(time_steps)
        for workers, users, batch in itertools.product((0, 1, 2), USERS, BATCHES):
            params = change_params({"ray.workers": max(workers, 1), "train.batch_size": batch})
            rows = ray.put(draw_ratings(users, batch * STEPS[batch]))
            meeting = ray.remote(Meeting).options(num_cpus=0).remote() if workers else None
            done = ray.get([start.remote(params, rows, rank, meeting) for rank in range(max(workers, 1))])
            seconds, sent, weights = done[0]
            steps.append(Step(workers, batch, weights, Spread.of(seconds), sent))
            print(steps[-1], file=sys.stderr)
    return steps


def measure_start(workers: int) -> Spread:
    """The seconds of a whole train-torch with next to nothing to train on: imports, and what Ray needs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        params = change_params({"train.epochs": 1, "train.batch_size": 8, "ray.workers": max(workers, 1)})
        params = params.model_copy(update={"engine": "ray" if workers else "local"})
        (folder / "params.yaml").write_text(params.model_dump_json(), encoding="utf-8")  # JSON is YAML
        files = [f"--params={folder / 'params.yaml'}", f"--weights={folder / 'w'}", f"--losses={folder / 'l.json'}"]
        for part in ("train", "validation", "test"):
            write_ratings(draw_ratings(20, 16), folder / part)
            files.append(f"--{part}={folder / part}")
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "stages.train_torch", *files], cwd=ROOT, check=True, capture_output=True
            )
            seconds.append(time.perf_counter() - start)
        return Spread.of(seconds)


class Model:
    """The seconds of a step with workers, fitted to those that were measured."""

    def __init__(self, steps: list[Step]) -> None:
        fitted = [step for step in steps if step.batch != BATCHES[1]]
        alone = [step for step in fitted if step.workers == 1]
        self.fixed, self.per_row, self.per_weight = _fit([(1, s.batch, s.weights) for s in alone], alone, lambda _: 0)
        two = [step for step in fitted if step.workers == 2]
        self.latency, self.per_byte = _fit([(1, s.sent) for s in two], two, lambda s: self.compute(s, 2))

    def compute(self, step: Step, machines: float) -> float:
        """Without the exchange."""
        return self.fixed + step.batch / machines * self.per_row + step.weights * self.per_weight

    def step(self, machines: int, batch: int, weights: int, per_byte: float) -> float:
        """With it."""
        sent = (machines - 1) * (batch / machines * LOOK_UP_BYTES + 2 * DENSE_BYTES / machines)
        exchange = (machines - 1) * self.latency + sent * per_byte if machines > 1 else 0
        return self.compute(Step(1, batch, weights, Spread(0, 0, 0), 0), machines) + exchange


def _fit(terms: list[tuple[float, ...]], steps: list[Step], known: Any) -> list[float]:
    """The costs, none below zero, that come nearest to the measured seconds, relatively."""
    from scipy.optimize import nnls

    seconds = np.array([step.seconds.low for step in steps])
    rest = np.maximum(0, seconds - [known(step) for step in steps])
    return [*nnls(np.array(terms) / seconds[:, None], rest / seconds)[0]]


def tabulate(steps: list[Step], starts: dict[int, Spread]) -> list[Table]:
    """What was measured, and what it says of larger clusters."""
    model = Model(steps)
    alone = {(step.batch, step.weights): step.seconds for step in steps if not step.workers}
    measured: list[list[Cell]] = [
        [
            step.workers or "no Ray",
            step.batch,
            step.weights,
            Spread(*(1000 * second for second in step.seconds.__dict__.values())),
            step.seconds.median / alone[step.batch, step.weights].median,
            step.sent,
        ]
        for step in steps
    ]
    checked: list[list[Cell]] = [
        [step.workers, step.weights, 1000 * step.seconds.low, 1000 * (model.compute(step, step.workers) + exchange)]
        for step in steps
        if step.workers and step.batch == BATCHES[1]
        for exchange in [(model.latency + step.sent * model.per_byte) * (step.workers > 1)]
    ]
    per_byte = max(model.per_byte, 1 / NETWORK)
    modelled: list[list[Cell]] = []
    for ratings, batch, machines in itertools.product((10**9, 10**10, 10**11), (8192, 1 << 20), (1, 8, 64)):
        users = ratings / RATINGS_PER_USER
        weights = round(5 * (users + users / BOOK_USERS))
        seconds = model.step(machines, batch, weights, per_byte)
        shares = f"{model.per_weight * weights / seconds:.0%}"
        hours = seconds * ratings / batch / 3600
        modelled.append([ratings // 10**9, batch, machines, hours, shares, weights * ADAM_BYTES / 2**30])
    columns = ["workers", "batch", "weights", "ms a step", "times no Ray", "bytes a step"]
    return [
        Table("A step of train-torch", columns, measured),
        Table(
            "Seconds of a whole train-torch with 16 ratings",
            ["workers", "seconds"],
            [[workers or "no Ray", seconds] for workers, seconds in starts.items()],
        ),
        Table(
            f"The model at batches of {BATCHES[1]:,}, which it wasn't fitted to",
            ["workers", "weights", "ms measured", "ms modelled"],
            checked,
            f"fixed {model.fixed:.2e} s, per row {model.per_row:.2e} s, per weight {model.per_weight:.2e} s, "
            f"latency {model.latency:.2e} s, per byte {model.per_byte:.2e} s",
        ),
        Table(
            "Modelled: hours an epoch",
            ["billion ratings", "batch", "machines", "hours", "of it Adam's pass", "GiB each machine holds"],
            modelled,
        ),
    ]


def main() -> None:
    """Measure, print the tables, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    tables = tabulate(measure_steps(), {workers: measure_start(workers) for workers in (0, 1, 2)})
    print("\n\n".join(map(str, tables)))
    if arguments.output:
        content = {"machine": describe_machine(), "versions": list_versions(), "tables": [t.as_json() for t in tables]}
        arguments.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

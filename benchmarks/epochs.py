"""The project's epochs against those of tutorials, and both against the machine's limit, in either framework."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeAlias

import numpy as np

from benchmarks import limit
from benchmarks.measure import Cell, Spread, Table, ratio, take_turns
from benchmarks.ratings import change_params, simulate, split_ratings
from benchmarks.scale import Scale
from stages.program.params import Params
from stages.ratings.table import Ratings
from stages.training.fit import Trainer, shuffle_rows

Epoch: TypeAlias = Callable[[], object]


@dataclass(frozen=True)
class Framework:
    """What is measured of a framework."""

    stage: str
    tutorial: str
    make_trainer: Callable[[Params, Ratings], Trainer]
    """The project's."""
    make_tutorial_epoch: Callable[[Params, Ratings, Ratings], Epoch]
    """From the parameters, the rows whose users and books the model knows, and the rows to train on."""
    make_product: Callable[[int], Epoch]
    """The product of two square matrices of this size."""

    def measure(self, scale: Scale, work: Path) -> list[Table]:
        """Both epochs at each size of embedding and batch."""
        training, _, _ = split_ratings(work, simulate(work, scale.users))
        speeds: list[list[Cell]] = []
        shares: list[list[Cell]] = []
        for dim, batch_size in product(scale.embedding_dims, scale.batch_sizes):
            tutorial, project, least = self.measure_steps(scale, training, dim, batch_size)
            speeds.append([dim, batch_size, Spread.of(tutorial), Spread.of(project), ratio(tutorial, project)])
            shares.append([dim, batch_size, Spread.of(least), percent(least, tutorial), percent(least, project)])
        return [
            Table(
                f"{self.stage} against {self.tutorial}",
                ["dim", "batch", "tutorial, ms/step", "project, ms/step", "times as fast"],
                speeds,
            ),
            Table(
                f"{self.stage} and {self.tutorial}: percent of the machine's limit",
                ["dim", "batch", "limit, ms/step", "tutorial", "project"],
                shares,
            ),
        ]

    def measure_steps(self, scale: Scale, training: Ratings, dim: int, batch_size: int) -> list[list[float]]:
        """Milliseconds of a step in each round: the tutorial's, the project's, and the least that the machine needs."""
        params = change_params({"model.embedding_dim": dim, "train.batch_size": batch_size, "train.threads": 1})
        steps = min(scale.max_steps, scale.max_rows // batch_size)
        rows = training[np.random.default_rng(0).integers(0, len(training), steps * batch_size)]
        seconds = take_turns(
            {
                "tutorial": self.make_tutorial_epoch(params, training, rows),
                "project": make_epoch(self.make_trainer(params, training), rows),
                "product": self.make_product(scale.product_size),
                "copies": limit.make_copies(limit.adam_bytes(params.model, training.user_count, training.book_count)),
            },
            scale.rounds,
        )
        products = batch_size * limit.product_flops(params.model) / (2 * scale.product_size**3)
        turns = zip(seconds["product"], seconds["copies"], strict=True)
        return [
            [1e3 * value / steps for value in seconds["tutorial"]],
            [1e3 * value / steps for value in seconds["project"]],
            [1e3 * limit.least_seconds(products * product_seconds, copies) for product_seconds, copies in turns],
        ]


def make_epoch(trainer: Trainer, rows: Ratings) -> Epoch:
    """An epoch as `stages.training.fit` has it, permutation included."""
    return lambda: trainer.train_one_epoch(rows[shuffle_rows(len(rows), seed=42, epoch=1)], 1)


def percent(parts: list[float], wholes: list[float]) -> Spread:
    """What part one is of the other, round by round."""
    return ratio([100 * part for part in parts], wholes)

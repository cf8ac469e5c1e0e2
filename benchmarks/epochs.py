"""The project's epochs against those of tutorials, and both against the machine's limit, in either framework."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from benchmarks import limit
from benchmarks.measure import Spread, Table, ratio, take_turns
from benchmarks.ratings import change_params, simulate, split_ratings
from benchmarks.scale import Scale
from stages.program.params import Params
from stages.ratings.table import Ratings

Epoch: TypeAlias = Callable[[], object]
MakeEpoch: TypeAlias = Callable[[Params, Ratings, Ratings], Epoch]
"""From the parameters, the rows whose users and books the model knows, and the rows to train on."""


@dataclass(frozen=True)
class Framework:
    """What is measured of a framework."""

    stage: str
    tutorial: str
    make_epoch: MakeEpoch
    """The project's."""
    make_tutorial_epoch: MakeEpoch
    make_product: Callable[[int], Epoch]
    """The product of two square matrices of this size."""


@dataclass(frozen=True)
class Steps:
    """The seconds of a step in each round: measured, and the least that the machine needs."""

    embedding_dim: int
    batch_size: int
    tutorial: list[float]
    project: list[float]
    limit: list[float]
    """With Adam's arrays in memory."""
    cached_limit: list[float]
    """With a memory as fast as copies between arrays of the size of Adam's, which may fit into a cache."""


def measure(framework: Framework, scale: Scale, work: Path) -> list[Table]:
    """Both epochs at each size of embedding and batch."""
    training, _, _ = split_ratings(work, simulate(work, scale.users))
    cases = [
        measure_steps(framework, scale, training, embedding_dim, batch_size)
        for embedding_dim in scale.embedding_dims
        for batch_size in scale.batch_sizes
    ]
    speed = Table(
        f"{framework.stage} against {framework.tutorial}",
        ["dim", "batch", "tutorial, ms/step", "project, ms/step", "times as fast"],
        [
            [
                case.embedding_dim,
                case.batch_size,
                Spread.of(1e3 * seconds for seconds in case.tutorial),
                Spread.of(1e3 * seconds for seconds in case.project),
                ratio(case.tutorial, case.project),
            ]
            for case in cases
        ],
    )
    share = Table(
        f"{framework.stage} and {framework.tutorial}: percent of the machine's limit",
        ["dim", "batch", "limit, ms/step", "tutorial", "project", "project, cache"],
        [
            [
                case.embedding_dim,
                case.batch_size,
                Spread.of(1e3 * seconds for seconds in case.limit),
                _percent(case.limit, case.tutorial),
                _percent(case.limit, case.project),
                _percent(case.cached_limit, case.project),
            ]
            for case in cases
        ],
    )
    return [speed, share]


def measure_steps(framework: Framework, scale: Scale, training: Ratings, embedding_dim: int, batch_size: int) -> Steps:
    """Both epochs and the machine's two speeds, taking turns, over rows drawn at random."""
    params = change_params(embedding_dim, batch_size)
    steps = min(scale.most_steps, scale.most_rows // batch_size)
    rows = training[np.random.default_rng(0).integers(0, len(training), steps * batch_size)]
    parameters = limit.count_parameters(params.model, training.user_count, training.book_count)
    adam_bytes = limit.ADAM_ARRAYS * limit.FLOAT_BYTES * parameters
    seconds = take_turns(
        {
            "tutorial": framework.make_tutorial_epoch(params, training, rows),
            "project": framework.make_epoch(params, training, rows),
            "product": framework.make_product(scale.product_size),
            "memory": limit.make_copy(scale.copy_bytes),
            "cache": limit.make_copy(adam_bytes),
        },
        scale.rounds,
    )

    def least_seconds(copy: str, copy_bytes: int) -> list[float]:
        flops = batch_size * limit.product_flops(params.model)
        moved = limit.ADAM_PASSES * limit.FLOAT_BYTES * parameters
        return [
            flops * product / (2 * scale.product_size**3) + moved * memory / limit.copied_bytes(copy_bytes)
            for product, memory in zip(seconds["product"], seconds[copy], strict=True)
        ]

    return Steps(
        embedding_dim,
        batch_size,
        [value / steps for value in seconds["tutorial"]],
        [value / steps for value in seconds["project"]],
        least_seconds("memory", scale.copy_bytes),
        least_seconds("cache", adam_bytes),
    )


def _percent(parts: list[float], wholes: list[float]) -> Spread:
    return ratio([100 * part for part in parts], wholes)

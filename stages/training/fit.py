"""One training, whatever the framework: epochs, averaging, judging, and the best epoch's weights."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.program.errors import StageError
from stages.program.files import write_bytes
from stages.program.params import Params, Train
from stages.ratings.table import Ratings, read_ratings
from stages.training.losses import LossCurve, write_curve

if TYPE_CHECKING:
    from stages.engines.workers import Workers

EVALUATION_BATCH = 65536
"""The batch size for evaluation: it changes the memory that is used, not the result."""

Weights = list[NDArray[np.floating]]


class Trainer(Protocol):
    """A network that a framework trains."""

    def describe(self) -> str:
        """The framework, its version and the device that trains."""

    def train_one_epoch(self, rows: Ratings, epoch: int) -> float:
        """Train on the rows once, batch after batch in their order.

        Returns the mean over all examples of each one's squared error as it was when its batch was trained.
        """

    def evaluate(self, rows: Ratings) -> float:
        """The mean squared error over all rows."""

    def get_weights(self) -> Weights:
        """A copy of all weights."""

    def set_weights(self, weights: Weights) -> None:
        """Go on from these weights; the optimiser's state is kept."""

    def get_optimizer_state(self) -> Weights:
        """A copy of what the optimiser remembers from step to step."""

    def set_optimizer_state(self, state: Weights) -> None:
        """Go on from what `get_optimizer_state` gave."""

    def save(self) -> bytes:
        """The weights in the framework's own format."""


class MakeTrainer(Protocol):
    """A trainer's class."""

    def __call__(self, params: Params, training: Ratings, workers: "Workers | None" = None) -> Trainer:
        """A trainer of the network that suits the training rows; as one of `workers`, where there are such."""


@dataclass
class Progress:
    """What a training has come to at the end of an epoch, beside what is in the trainer."""

    curve: LossCurve = field(default_factory=LossCurve)
    average: Weights = field(default_factory=list)
    """The mean of the weights at the ends of the epochs so far; empty without `train.average_epochs`."""
    best: Weights = field(default_factory=list)
    """The weights of the epoch with the lowest `val_loss`."""


def fit(
    trainer: Trainer,
    training: Ratings,
    validation: Ratings,
    train: Train,
    progress: Progress | None = None,
    after_epoch: Callable[[Progress], None] = lambda progress: None,
) -> LossCurve:
    """Train for all epochs; leave the trainer with the weights of the epoch with the lowest `val_loss`.

    Args:
        trainer: what is trained.
        training: the rows to train on.
        validation: the rows to choose the epoch by.
        train: the settings.
        progress: where an earlier training stood, which this trainer goes on with.
        after_epoch: called at the end of each epoch.

    Raises:
        StageError: one batch would be larger than the whole table, or a loss is no number any more.
    """
    if train.batch_size > len(training):
        raise StageError(
            f"params.yaml: train.batch_size is {train.batch_size:,}; there are only {len(training):,} rows to train on"
        )
    progress = progress or Progress()
    for epoch in range(len(progress.curve.epochs) + 1, train.epochs + 1):
        train_loss = trainer.train_one_epoch(training[shuffle_rows(len(training), train.seed, epoch)], epoch)
        judged = trained = trainer.get_weights()
        if train.average_epochs:
            progress.average = judged = average_weights(progress.average or trained, trained, epoch)
            trainer.set_weights(judged)
        if progress.curve.record(train_loss, trainer.evaluate(validation)):
            progress.best = judged
        if train.average_epochs:
            trainer.set_weights(trained)
        after_epoch(progress)
    trainer.set_weights(progress.best)
    return progress.curve


def average_weights(average: Weights, weights: Weights, count: int) -> Weights:
    """The mean of `count` epochs' weights, from the mean of those before and the last."""
    return [mean + (weight - mean) / count for mean, weight in zip(average, weights, strict=True)]


def shuffle_rows(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The permutation of `count` rows for one epoch, shape (count,): the same for both frameworks.

    Each epoch has its own random stream, so that an epoch's order doesn't depend on how many came before it.
    """
    return np.random.default_rng([seed, epoch]).permutation(count)


@dataclass(frozen=True)
class Trained:
    """What comes of a training."""

    curve: LossCurve
    test_loss: float
    weights: bytes
    """Those of the best epoch, in the framework's own format."""


def train_here(make_trainer: MakeTrainer, params: Params, tables: list[Ratings]) -> Trained:
    """Train in this process, on the first of the tables; choose the epoch by the second, and judge by the third."""
    training, validation, test = tables
    trainer = make_trainer(params, training)
    print(trainer.describe())
    curve = fit(trainer, training, validation, params.train)
    return Trained(curve, trainer.evaluate(test), trainer.save())


def run_training(
    make_trainer: MakeTrainer, params: Params, train: Path, validation: Path, test: Path, weights: Path, losses: Path
) -> None:
    """A training stage from its settings and the three tables to its weights and its loss file."""
    tables = [read_ratings(path) for path in (train, validation, test)]
    if params.engine == "ray":
        from stages.engines.data_parallel import train_on_ray

        trained = train_on_ray(make_trainer, params, tables)
    else:
        trained = train_here(make_trainer, params, tables)

    write_bytes(weights, trained.weights)
    write_curve(losses, trained.curve, trained.test_loss)
    best = trained.curve.best
    print(f"best epoch {best.epoch}: val_loss {best.val_loss:.5f}, test_loss {trained.test_loss:.5f}")

"""One training, whatever the framework: epochs, averaging, judging, and the best epoch's weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stages.program.errors import StageError
from stages.program.files import write_bytes
from stages.program.params import Params, Train
from stages.ratings.table import Ratings, read_ratings
from stages.training.losses import LossCurve, write_curve

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

    def save(self) -> bytes:
        """The weights in the framework's own format."""


def fit(trainer: Trainer, training: Ratings, validation: Ratings, train: Train) -> LossCurve:
    """Train for all epochs; leave the trainer with the weights of the epoch with the lowest `val_loss`.

    Raises:
        StageError: one batch would be larger than the whole table, or a loss is no number any more.
    """
    if train.batch_size > len(training):
        raise StageError(
            f"params.yaml: train.batch_size is {train.batch_size:,}; there are only {len(training):,} rows to train on"
        )
    curve = LossCurve()
    average: Weights = []
    for epoch in range(1, train.epochs + 1):
        train_loss = trainer.train_one_epoch(training[shuffle_rows(len(training), train.seed, epoch)], epoch)
        judged = trained = trainer.get_weights()
        if train.average_epochs:
            average = judged = average_weights(average or trained, trained, epoch)
            trainer.set_weights(judged)
        if curve.record(train_loss, trainer.evaluate(validation)):
            best = judged
        if train.average_epochs:
            trainer.set_weights(trained)
    trainer.set_weights(best)
    return curve


def average_weights(average: Weights, weights: Weights, count: int) -> Weights:
    """The mean of `count` epochs' weights, from the mean of those before and the last."""
    return [mean + (weight - mean) / count for mean, weight in zip(average, weights, strict=True)]


def shuffle_rows(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The permutation of `count` rows for one epoch, shape (count,): the same for both frameworks.

    Each epoch has its own random stream, so that an epoch's order doesn't depend on how many came before it.
    """
    return np.random.default_rng([seed, epoch]).permutation(count)


def run_training(
    make_trainer: Callable[[Params, Ratings], Trainer],
    params: Params,
    train: Path,
    validation: Path,
    test: Path,
    weights: Path,
    losses: Path,
) -> None:
    """A training stage from its settings and the three tables to its weights and its loss file."""
    training_rows, validation_rows, test_rows = (read_ratings(path) for path in (train, validation, test))

    trainer = make_trainer(params, training_rows)
    print(trainer.describe())
    curve = fit(trainer, training_rows, validation_rows, params.train)
    test_loss = trainer.evaluate(test_rows)

    write_bytes(weights, trainer.save())
    write_curve(losses, curve, test_loss)
    print(f"best epoch {curve.best.epoch}: val_loss {curve.best.val_loss:.5f}, test_loss {test_loss:.5f}")

"""train-baselines: what two averages predict, for a network to beat."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.program.process import run_stage
from stages.ratings.table import Ratings, read_ratings
from stages.training.losses import write_json

DAMPING = 5
"""A bias counts as if its user or book had this many further ratings at the mean."""

ALTERNATIONS = 15
"""Rounds of fitting the users' biases, then the books'; the losses have long stopped moving by then."""


@dataclass(frozen=True)
class Biases:
    """rating = mean + the user's bias + the book's bias (Koren, Bell, Volinsky 2009, equation 3)."""

    mean: float
    of_users: NDArray[np.float64]
    of_books: NDArray[np.float64]

    def predict(self, ratings: Ratings) -> NDArray[np.float64]:
        """The prediction for each row (n,), in stars."""
        return self.mean + self.of_users[ratings.users] + self.of_books[ratings.books]


def fit_biases(train: Ratings) -> Biases:
    """Fit users' and books' biases in turn, each a damped mean of what the other leaves."""
    mean = train.mean
    of_users, of_books = np.zeros(train.user_count), np.zeros(train.book_count)
    for _ in range(ALTERNATIONS):
        of_users = _damped_means(train.users, train.stars - mean - of_books[train.books])
        of_books = _damped_means(train.books, train.stars - mean - of_users[train.users])
    return Biases(mean, of_users, of_books)


def _damped_means(ids: NDArray[np.int32], values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.bincount(ids, weights=values) / (np.bincount(ids) + DAMPING)


def mean_squared_error(predictions: NDArray[np.float64] | float, ratings: Ratings) -> float:
    """In squared stars, in float64."""
    return float(np.mean((predictions - ratings.stars.astype(np.float64)) ** 2))


def main(train: Path, validation: Path, test: Path, biases: Path, global_mean: Path) -> None:
    """Run the stage: read, fit, judge, write."""
    parts = {
        "train_loss": read_ratings(train),
        "val_loss": read_ratings(validation),
        "test_loss": read_ratings(test),
    }
    fitted = fit_biases(parts["train_loss"])
    of_mean = {name: mean_squared_error(fitted.mean, part) for name, part in parts.items()}
    of_biases = {name: mean_squared_error(fitted.predict(part), part) for name, part in parts.items()}

    write_json(global_mean, of_mean)
    write_json(biases, of_biases)
    for label, losses in (("global mean", of_mean), ("biases", of_biases)):
        print(f"{label:<12}" + "".join(f"  {name} {loss:.4f}" for name, loss in losses.items()))


if __name__ == "__main__":
    run_stage(main)

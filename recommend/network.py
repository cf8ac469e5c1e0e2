"""The trained recommender in NumPy: its stored weights, its predictions, and a vector for a reader it hasn't met."""

import io
import re
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.program.errors import StageError
from stages.ratings.table import Ratings, read_ratings
from stages.train_baselines import DAMPING, fit_biases
from stages.training.losses import read_validation_loss

Floats = NDArray[np.floating[Any]]

NAMES = {"pytorch": "PyTorch", "keras": "Keras", "biases": "user and book biases"}
WEIGHTS = {"pytorch": "pytorch.safetensors", "keras": "keras.weights.h5"}

TILE = 1024
"""Books predicted at a time: their hidden units stay in a processor's cache."""

PRIOR_WEIGHT = 0.5
"""How many squared stars it costs a new reader's vector to lie one standard deviation from the readers' mean: chosen on
the validation rows of held-out readers, docs/recommending.md says how."""

STEPS, SMALLEST_GAIN = 50, 1e-9
"""A new reader's vector is found when a step gains less than this part of the objective, or after so many."""

CHECKED_ROWS, STANDARD_ERRORS, ROUNDING = 20_000, 6, 1e-4
"""How many validation rows the weights are checked on about, and how far from the stored loss the draw of these rows
and the order of a sum may take them."""


@dataclass(frozen=True)
class Network:
    """Embeddings and dense layers, or what can be written as such, in the precision in which they were trained."""

    key: str
    """pytorch, keras or biases."""
    val_loss: float
    """In squared stars."""
    book_vectors: Floats
    """(books, dim)"""
    user_vectors: Floats
    """(users, dim)"""
    kernels: list[Floats]
    """(fan_in, fan_out) of each dense layer: the first takes a book's vector and a reader's, the last gives stars."""
    biases: list[Floats]
    """(fan_out,) of each dense layer."""
    prior: tuple[Floats, Floats]
    """What a reader's vector is before any rating: its mean (dim,) and its inverse covariance (dim, dim), in units of
    one squared star of error."""

    @cached_property
    def book_part(self) -> Floats:
        """What the books give to the first layer's units (books, units): the same for all readers."""
        return self.book_vectors @ self.kernels[0][: self.book_vectors.shape[1]]

    def user_part(self, vectors: Floats) -> Floats:
        """What readers with these vectors (…, dim) give to the first layer's units (…, units), its bias included."""
        part: Floats = vectors @ self.kernels[0][self.book_vectors.shape[1] :] + self.biases[0]
        return part

    def predict(self, vector: Floats) -> Floats:
        """The predicted stars of each book (books,) for a reader's vector (dim,).

        As relu(x + a) = max(x, −a) + a, a layer is one pass and one product over the books; what a contributes
        goes through the layers once, for all books together.
        """
        shifts = [self.user_part(vector)]
        for kernel, bias in zip(self.kernels[1:], self.biases[1:], strict=True):
            shifts.append(shifts[-1] @ kernel + bias)
        stars = np.empty(len(self.book_part), self.book_part.dtype)
        for start in range(0, len(stars), TILE):
            units = self.book_part[start : start + TILE]
            for shift, kernel in zip(shifts, self.kernels[1:], strict=False):
                units = np.maximum(units, -shift) @ kernel
            stars[start : start + TILE] = units[:, 0]
        return stars + shifts[-1]

    def predict_rows(self, ratings: Ratings) -> Floats:
        """The predicted stars of each row (n,)."""
        units = self.book_part[ratings.books] + self.user_part(self.user_vectors)[ratings.users]
        for kernel, bias in zip(self.kernels[1:], self.biases[1:], strict=True):
            units = np.maximum(units, 0) @ kernel + bias
        return units[:, 0]

    def of_books(self, books: NDArray[np.intp]) -> "Network":
        """The same network with some of its books only."""
        return replace(self, book_vectors=self.book_vectors[books])

    def fit_reader(self, books: NDArray[np.integer], stars: Floats) -> Floats:
        """The vector (dim,) of a reader who gave these books (n,) these stars (n,), with everything else held.

        It has the least sum of squared errors and squared distance from the readers' mean, measured in their own
        spread. Levenberg's and Marquardt's steps from the mean find it (Nocedal and Wright 2006, section 10.3), to
        about a ten-thousandth, as relu has kinks.
        """
        (mean, precision), dim = self.prior, self.book_vectors.shape[1]
        part = self.book_part[books]

        def objective(vector: Floats) -> tuple[float, Floats, Floats]:
            """Its value, and its gradient (dim,) and Gauss and Newton's approximation of the curvature (dim, dim)."""
            units, active = part + self.user_part(vector), []
            for kernel, bias in zip(self.kernels[1:], self.biases[1:], strict=True):
                active.append(units > 0)
                units = np.maximum(units, 0) @ kernel + bias
            slopes = np.ones_like(units)
            for kernel, on in zip(self.kernels[:0:-1], reversed(active), strict=True):
                slopes = (slopes @ kernel.T) * on
            slopes = slopes @ self.kernels[0][dim:].T
            errors, distance = units[:, 0] - stars, vector - mean
            return (
                float(errors @ errors + distance @ precision @ distance),
                errors @ slopes + precision @ distance,
                slopes.T @ slopes + precision,
            )

        vector, damping = mean, 1e-3
        value, gradient, curvature = objective(vector)
        for _ in range(STEPS):
            step = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), -gradient)
            tried = objective(vector + step)
            if tried[0] < value:
                gain, damping = value - tried[0], damping / 10
                vector, (value, gradient, curvature) = vector + step, tried
                if gain < SMALLEST_GAIN * value:
                    break
            else:
                damping *= 10
        return vector.astype(self.user_vectors.dtype)


def read_network(key: str, project: Path, train: Ratings) -> Network:
    """The recommender that a project has trained, or its biases, fitted to the training rows as `train-baselines` does.

    Raises:
        StageError: the weights or the loss are missing or damaged, or don't fit these ratings.
    """
    val_loss = read_validation_loss(project / "losses" / f"{key}.json")
    if key == "biases":
        biases = fit_biases(train)
        ones, nothing = np.ones((2, 1)), np.zeros(1)
        vectors = biases.of_books[:, None], biases.of_users[:, None]
        return Network(key, val_loss, *vectors, [ones], [np.array([biases.mean])], (nothing, DAMPING * np.eye(1)))

    path = project / "models" / WEIGHTS[key]
    try:
        content = path.read_bytes()
        books, users, kernels, offsets = (read_safetensors if key == "pytorch" else read_hdf5)(content)
    except FileNotFoundError as error:
        raise StageError(f"{path} is missing; run: dvc repro") from error
    except Exception as error:  # h5py and safetensors have a kind of their own for every damage
        raise StageError(f"{path} is damaged or holds other weights than a recommender's; run: dvc repro") from error
    _check_weights(path, books, users, kernels, offsets)
    if (len(users), len(books)) != (train.user_count, train.book_count):
        raise StageError(
            f"{path} knows {len(users):,} readers and {len(books):,} books, the tables in {project / 'data'} "
            f"{train.user_count:,} and {train.book_count:,}: it was trained on other ratings; run: dvc repro"
        )
    network = Network(key, val_loss, books, users, kernels, offsets, make_prior(users, PRIOR_WEIGHT))
    _check_loss(path, network, read_ratings(project / "data" / "validation.parquet"))
    return network


def make_prior(vectors: Floats, weight: float) -> tuple[Floats, Floats]:
    """What readers with these vectors (users, dim) let expect of another: `Network.prior`."""
    spread = np.cov(vectors, rowvar=False, bias=True).reshape(2 * vectors.shape[1:]) + 1e-12 * np.eye(vectors.shape[1])
    return vectors.mean(axis=0, dtype=np.float64), weight * np.linalg.inv(spread)


def read_safetensors(content: bytes) -> tuple[Floats, Floats, list[Floats], list[Floats]]:
    """What `train-torch` writes, as `Network` takes it: PyTorch keeps a kernel as (fan_out, fan_in)."""
    from safetensors.numpy import load

    weights = load(content)
    layers = sorted({int(name.split(".")[1]) for name in weights if name.startswith("dense.")})
    return (
        weights["book_embedding.weight"],
        weights["user_embedding.weight"],
        [np.ascontiguousarray(weights[f"dense.{layer}.weight"].T) for layer in layers],
        [weights[f"dense.{layer}.bias"] for layer in layers],
    )


def read_hdf5(content: bytes) -> tuple[Floats, Floats, list[Floats], list[Floats]]:
    """What `train-keras` writes: Keras names a layer by its class and the number of those before it."""
    import h5py

    with h5py.File(io.BytesIO(content)) as file:
        layers = file["layers"]
        names = sorted(layers, key=lambda name: int(re.sub(r"\D", "", name) or 0))
        weights = [[layers[name]["vars"][number][()] for number in sorted(layers[name]["vars"])] for name in names]
    book_vectors, user_vectors = (embedding for (embedding,) in (layer for layer in weights if len(layer) == 1))
    dense = [layer for layer in weights if len(layer) == 2]
    return book_vectors, user_vectors, [kernel for kernel, _ in dense], [bias for _, bias in dense]


def _check_weights(path: Path, books: Floats, users: Floats, kernels: list[Floats], biases: list[Floats]) -> None:
    widths = [books.shape[1] + users.shape[1], *(len(bias) for bias in biases)]
    if [kernel.shape for kernel in kernels] != [*pairwise(widths)] or widths[-1] != 1:
        raise StageError(f"{path} holds other weights than a recommender's; run: dvc repro")
    broken = sum(int(np.count_nonzero(~np.isfinite(weight))) for weight in (books, users, *kernels, *biases))
    if broken:
        raise StageError(f"{path}: {broken:,} of its numbers are NaN or infinite; train again with: dvc repro --force")


def _check_loss(path: Path, network: Network, validation: Ratings) -> None:
    """Weights, loss and ratings belong together if the weights have this loss on these ratings."""
    rows = validation[:: len(validation) // CHECKED_ROWS + 1]
    squares = (network.predict_rows(rows) - rows.stars) ** 2
    allowed = ROUNDING + STANDARD_ERRORS * squares.std() * (1 / len(rows) - 1 / len(validation)) ** 0.5
    if abs(squares.mean() - network.val_loss) > allowed:
        raise StageError(
            f"{path} has a loss of {squares.mean():.3f} on {len(rows):,} validation rows, its loss file says "
            f"{network.val_loss:.3f}: weights, losses and tables are not of one run; run: dvc repro"
        )

"""The trained recommender in NumPy: its stored weights, its predictions, and a vector for a reader it hasn't met."""

import io
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recommend.library import Library
from stages.program.errors import StageError
from stages.ratings.table import Ratings
from stages.train_baselines import DAMPING, fit_biases, mean_squared_error
from stages.training.losses import read_validation_loss

Floats: TypeAlias = NDArray[np.floating[Any]]
Weights: TypeAlias = tuple[Floats, Floats, list[Floats], list[Floats]]
"""The books' vectors (books, dim), the readers' (users, dim), and each dense layer's kernel (fan_in, fan_out) and bias
(fan_out,): the first layer takes a book's vector and a reader's, the last gives stars."""

NAMES = {"pytorch": "PyTorch", "keras": "Keras", "biases": "user and book biases"}
WEIGHTS = {"pytorch": "pytorch.safetensors", "keras": "keras.weights.h5"}

TILE = 4096
"""Books predicted at a time: their hidden units stay in a processor's cache."""

PRIOR_WEIGHT = 0.5
"""How many squared stars it costs a new reader's vector to lie one standard deviation from the readers' mean: chosen on
validation rows of held-out readers (docs/recommending.md)."""

CHECKED_ROWS, TOLERANCE = 20_000, 0.05
"""The weights must have their stored loss, to such a part of it, on about so many of the validation rows."""


@dataclass(frozen=True)
class Network:
    """Embeddings and dense layers, or biases written as such, in the precision in which they were trained."""

    key: str
    """pytorch, keras or biases."""
    val_loss: float
    """In squared stars."""
    book_vectors: Floats
    user_vectors: Floats
    kernels: list[Floats]
    biases: list[Floats]
    prior: tuple[Floats, Floats]
    """What a reader's vector v is before any rating: its mean (dim,), and a matrix W (dim, dim) such that
    |W (v − mean)|² weighs as much as an error of so many squared stars."""

    @cached_property
    def book_units(self) -> Floats:
        """What the books give to the first layer (books, units): the same for all readers."""
        return self.book_vectors @ self.kernels[0][: self.book_vectors.shape[1]]

    def user_units(self, vectors: Floats) -> Floats:
        """What readers with these vectors (…, dim) give to the first layer (…, units), its bias included."""
        units: Floats = vectors @ self.kernels[0][self.book_vectors.shape[1] :] + self.biases[0]
        return units

    def combine(self, book_units: Floats, user_units: Floats) -> Floats:
        """The predicted stars (n,), from what books (n, units) and readers (n, units) or (units,) give.

        As relu(x + a) = max(x, −a) + a, a layer is one pass and one product over the books; what a reader's a
        contributes goes through the layers once, for all books together.
        """
        for kernel, bias in zip(self.kernels[1:], self.biases[1:], strict=True):
            book_units, user_units = np.maximum(book_units, -user_units) @ kernel, user_units @ kernel + bias
        stars: Floats = (book_units + user_units)[:, 0]
        return stars

    def predict(self, vector: Floats) -> Floats:
        """The predicted stars of each book (books,) for a reader's vector (dim,)."""
        units = self.user_units(vector)
        starts = range(0, len(self.book_units), TILE)
        return np.concatenate([self.combine(self.book_units[start : start + TILE], units) for start in starts])

    def predict_rows(self, ratings: Ratings) -> Floats:
        """The predicted stars of each row (n,)."""
        return self.combine(self.book_units[ratings.books], self.user_units(self.user_vectors[ratings.users]))

    def fit_reader(self, books: NDArray[np.integer], stars: Floats) -> Floats:
        """The vector (dim,) of a reader who gave these books (n,) these stars (n,), with everything else held.

        It has the least sum of squared errors and squared distance from the readers' mean, by `prior`: MINPACK's
        Levenberg-Marquardt finds it.
        """
        from scipy.optimize import least_squares  # takes a third of a second to load

        (mean, root), units = self.prior, self.book_units[books]

        def residuals(vector: Floats) -> Floats:
            return np.concatenate([self.combine(units, self.user_units(vector)) - stars, root @ (vector - mean)])

        fitted: Floats = least_squares(residuals, mean, method="lm").x.astype(self.user_vectors.dtype)
        return fitted


def read_network(key: str, project: Path, library: Library) -> Network:
    """The recommender that a project has trained, or its biases, fitted to the training rows as `train-baselines` does.

    Raises:
        StageError: the weights or the loss are missing or damaged, or don't fit these ratings.
    """
    val_loss = read_validation_loss(project / "losses" / f"{key}.json")
    if key == "biases":
        fitted = fit_biases(library.train)
        kernel, prior = np.ones((2, 1)), (np.zeros(1), DAMPING**0.5 * np.eye(1))
        vectors = fitted.of_books[:, None], fitted.of_users[:, None]
        return Network(key, val_loss, *vectors, [kernel], [np.array([fitted.mean])], prior)
    path = project / "models" / WEIGHTS[key]
    weights = _read_weights(path, read_safetensors if key == "pytorch" else read_hdf5)
    books, users, *_ = weights
    if (len(users), len(books)) != (len(library.user_ids), len(library.book_ids)):
        raise StageError(
            f"{path} knows {len(users):,} readers and {len(books):,} books, the tables in {project / 'data'} "
            f"{len(library.user_ids):,} and {len(library.book_ids):,}: it was trained on other ratings; run: dvc repro"
        )
    network = Network(key, val_loss, *weights, make_prior(users, PRIOR_WEIGHT))
    _check_loss(path, network, library.validation)
    return network


def make_prior(vectors: Floats, weight: float) -> tuple[Floats, Floats]:
    """What readers with these vectors (users, dim) let expect of another: `Network.prior`."""
    spread = np.atleast_2d(np.cov(vectors, rowvar=False, bias=True)) + 1e-12 * np.eye(vectors.shape[1])
    return vectors.mean(axis=0, dtype=np.float64), np.linalg.cholesky(weight * np.linalg.inv(spread)).T


def read_safetensors(content: bytes) -> Weights:
    """What `train-torch` writes: PyTorch keeps a kernel as (fan_out, fan_in)."""
    from safetensors.numpy import load

    weights = load(content)
    layers = sorted({int(name.split(".")[1]) for name in weights if name.startswith("dense.")})
    return (
        weights["book_embedding.weight"],
        weights["user_embedding.weight"],
        [np.ascontiguousarray(weights[f"dense.{layer}.weight"].T) for layer in layers],
        [weights[f"dense.{layer}.bias"] for layer in layers],
    )


def read_hdf5(content: bytes) -> Weights:
    """What `train-keras` writes: Keras names a layer by its class and the number of those before it."""
    import h5py

    with h5py.File(io.BytesIO(content)) as file:
        layers = file["layers"]
        names = sorted(layers, key=lambda name: int(re.sub(r"\D", "", name) or 0))
        weights = [[layers[name]["vars"][number][()] for number in sorted(layers[name]["vars"])] for name in names]
    (books,), (users,) = (layer for layer in weights if len(layer) == 1)
    dense = [layer for layer in weights if len(layer) == 2]
    return books, users, [kernel for kernel, _ in dense], [bias for _, bias in dense]


def _read_weights(path: Path, read: Any) -> Weights:
    try:
        weights: Weights = read(path.read_bytes())
        books, users, kernels, biases = weights
        widths = [books.shape[1] + users.shape[1], *map(len, biases)]
        if [kernel.shape for kernel in kernels] != [*pairwise(widths)] or widths[-1] != 1:
            raise ValueError("layers that don't follow on one another")
    except FileNotFoundError as error:
        raise StageError(f"{path} is missing; run: dvc repro") from error
    except Exception as error:  # h5py and safetensors have a kind of their own for every damage
        raise StageError(f"{path} is damaged or holds other weights than a recommender's; run: dvc repro") from error
    if broken := sum(int(np.count_nonzero(~np.isfinite(part))) for part in (books, users, *kernels, *biases)):
        raise StageError(f"{path}: {broken:,} of its numbers are NaN or infinite; train again with: dvc repro --force")
    return weights


def _check_loss(path: Path, network: Network, validation: Ratings) -> None:
    """Weights, loss and ratings belong together if the weights have this loss on these ratings."""
    rows = validation[:: len(validation) // CHECKED_ROWS + 1]
    loss = mean_squared_error(network.predict_rows(rows).astype(np.float64), rows)
    if abs(loss - network.val_loss) > TOLERANCE * network.val_loss:
        raise StageError(
            f"{path} has a loss of {loss:.3f} on {len(rows):,} validation rows, its loss file says "
            f"{network.val_loss:.3f}: weights, losses and tables are not of one run; run: dvc repro"
        )

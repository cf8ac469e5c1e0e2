"""The initial weights of either convention, drawn in NumPy: the same bytes for both frameworks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.program.params import Params

Array = NDArray[np.floating]


@dataclass(frozen=True)
class InitialWeights:
    """Weights to start from; None leaves the framework's own, as the convention `native` does."""

    book_embedding: Array | None
    """(books, embedding_dim)"""
    user_embedding: Array | None
    """(users, embedding_dim)"""
    kernels: list[Array] | None
    """(fan_in, fan_out) of each dense layer, the output layer last; PyTorch keeps the transpose."""
    biases: list[Array] | None
    """(fan_out,) of each dense layer, likewise."""


def draw_initial_weights(params: Params, user_count: int, book_count: int) -> InitialWeights:
    """Draw the weights whose convention isn't `native`, from `train.seed`, in `train.precision`.

    Each tensor has a random stream of its own, so that one convention's choice doesn't move the draws of another; and
    either side's numbers are the same quantiles of its distribution, so that a choice changes nothing else.
    """
    model, conventions, shapes = params.model, params.conventions, params.model.layer_shapes
    streams = np.random.SeedSequence(params.train.seed).spawn(2 + 2 * len(shapes))
    of_books, of_users, *of_layers = map(np.random.default_rng, streams)
    of_kernels, of_biases = of_layers[: len(shapes)], of_layers[len(shapes) :]

    def draw_embedding(random: np.random.Generator, rows: int) -> Array | None:
        if conventions.embedding_init == "native":
            return None
        quantiles = random.uniform(np.finfo(float).tiny, 1, (rows, model.embedding_dim))
        if conventions.embedding_init == "torch":
            from scipy.special import ndtri  # here: most trainings don't need it, and it takes a while to load

            return ndtri(quantiles).astype(params.train.precision)  # type: ignore[no-any-return]
        return (0.1 * quantiles - 0.05).astype(params.train.precision)

    def draw_kernel(random: np.random.Generator, fan_in: int, fan_out: int) -> Array:
        limit = np.sqrt(1 / fan_in if conventions.dense_init == "torch" else 6 / (fan_in + fan_out))
        return random.uniform(-limit, limit, (fan_in, fan_out)).astype(params.train.precision)

    def draw_bias(random: np.random.Generator, fan_in: int, fan_out: int) -> Array:
        limit = np.sqrt(1 / fan_in) if conventions.bias_init == "torch" else 0.0
        return random.uniform(-limit, limit, fan_out).astype(params.train.precision)

    kernels = [draw_kernel(random, *shape) for random, shape in zip(of_kernels, shapes, strict=True)]
    biases = [draw_bias(random, *shape) for random, shape in zip(of_biases, shapes, strict=True)]
    return InitialWeights(
        book_embedding=draw_embedding(of_books, book_count),
        user_embedding=draw_embedding(of_users, user_count),
        kernels=kernels if conventions.dense_init != "native" else None,
        biases=biases if conventions.bias_init != "native" else None,
    )

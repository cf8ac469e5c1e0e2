"""The initial weights of either convention, drawn in NumPy: the same bytes for both frameworks."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.program.params import Params

Weights = NDArray[np.floating]


@dataclass(frozen=True)
class InitialWeights:
    """Weights to start from; None leaves the framework's own, as the convention `native` does."""

    book_embedding: Weights | None
    """(books, embedding_dim)"""
    user_embedding: Weights | None
    """(users, embedding_dim)"""
    kernels: list[Weights] | None
    """(fan_in, fan_out) of each dense layer, the output layer last; PyTorch keeps the transpose."""
    biases: list[Weights] | None
    """(fan_out,) of each dense layer, likewise."""


def draw_initial_weights(params: Params, user_count: int, book_count: int) -> InitialWeights:
    """Draw the weights whose convention isn't `native`, from `train.seed`, in `train.precision`.

    Each tensor has a random stream of its own, so that one convention's choice doesn't move the draws of another; and
    either side's numbers are the same quantiles of its distribution, so that a choice changes nothing else.
    """
    model, conventions = params.model, params.conventions
    streams = iter(np.random.SeedSequence(params.train.seed).spawn(2 + 2 * len(model.layer_shapes)))

    def draw(formula: Callable[[np.random.Generator], NDArray[np.float64]]) -> Weights:
        return formula(np.random.default_rng(next(streams))).astype(params.train.precision)

    def draw_embedding(rows: int) -> Weights:
        from scipy.special import ndtri  # here: most trainings don't draw, and it takes a while to load

        def quantiles(random: np.random.Generator) -> NDArray[np.float64]:
            return random.uniform(np.finfo(float).tiny, 1, (rows, model.embedding_dim))

        if conventions.embedding_init == "torch":
            return draw(lambda random: ndtri(quantiles(random)))
        return draw(lambda random: 0.1 * quantiles(random) - 0.05)

    def draw_kernel(fan_in: int, fan_out: int) -> Weights:
        limit = np.sqrt(1 / fan_in if conventions.dense_init == "torch" else 6 / (fan_in + fan_out))
        return draw(lambda random: random.uniform(-limit, limit, (fan_in, fan_out)))

    def draw_bias(fan_in: int, fan_out: int) -> Weights:
        limit = np.sqrt(1 / fan_in) if conventions.bias_init == "torch" else 0.0
        return draw(lambda random: random.uniform(-limit, limit, fan_out))

    embeddings = [draw_embedding(book_count), draw_embedding(user_count)]
    kernels = [draw_kernel(*shape) for shape in model.layer_shapes]
    biases = [draw_bias(*shape) for shape in model.layer_shapes]
    return InitialWeights(
        book_embedding=embeddings[0] if conventions.embedding_init != "native" else None,
        user_embedding=embeddings[1] if conventions.embedding_init != "native" else None,
        kernels=kernels if conventions.dense_init != "native" else None,
        biases=biases if conventions.bias_init != "native" else None,
    )

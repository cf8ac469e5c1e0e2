"""The least time that a training step can take on this machine: the matrix products' arithmetic and Adam's memory.

A step multiplies with each dense layer's matrix three times: forward, for the weights' gradient, for the inputs'. Adam
reads each parameter, its gradient and its two means, and writes all but the gradient. Look-ups, activations and losses
are left out, and so is what it costs to say what to do.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from stages.program.params import Model

FLOAT_BYTES = 4
ADAM_ARRAYS = 4
"""Parameters, gradients, and the means of these and of their squares."""
ADAM_PASSES = 7
"""The four are read, three are written."""
LEAST_COPIED = 1 << 28
"""Bytes copied in one measurement at least, so that it can be timed."""


def product_flops(model: Model) -> int:
    """Floating-point operations of the matrix products for one example, forward and backward."""
    return 3 * sum(2 * fan_in * fan_out for fan_in, fan_out in _layers(model))


def count_parameters(model: Model, users: int, books: int) -> int:
    """All that Adam updates at each step."""
    return (users + books) * model.embedding_dim + sum((fan_in + 1) * fan_out for fan_in, fan_out in _layers(model))


def make_copy(size: int) -> Callable[[], None]:
    """A copy between two arrays that take `size` bytes together, as often as `copied_bytes` says."""
    source = np.ones(size // 2, np.uint8)
    target = source.copy()

    def copy() -> None:
        for _ in range(_copies(size)):
            np.copyto(target, source)

    return copy


def copied_bytes(size: int) -> int:
    """What `make_copy` reads and writes."""
    return size * _copies(size)


def _copies(size: int) -> int:
    return max(1, LEAST_COPIED // size)


def _layers(model: Model) -> list[tuple[int, int]]:
    return list(pairwise([2 * model.embedding_dim, *model.hidden_units, 1]))

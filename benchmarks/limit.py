"""The least time that a training step can take on this machine: the matrix products' arithmetic and Adam's memory.

A step multiplies with each dense layer's matrix three times: forward, for the weights' gradient, for the inputs'. Adam
reads each parameter, its gradient and its two means, and writes all but the gradient. Look-ups, activations and losses
are left out, and so is what it costs to say what to do.
"""

from collections.abc import Callable

import numpy as np

from stages.program.params import Model

ADAM_ARRAYS, ADAM_PASSES = 4, 7
FLOAT_BYTES = 4
COPIES = 16
"""In one measurement, so that it can be timed."""


def product_flops(model: Model) -> int:
    """Floating-point operations of the matrix products for one example, forward and backward."""
    return 3 * sum(2 * fan_in * fan_out for fan_in, fan_out in model.layer_shapes)


def adam_bytes(model: Model, users: int, books: int) -> int:
    """The size of one of Adam's arrays: as that of all parameters."""
    dense = sum((fan_in + 1) * fan_out for fan_in, fan_out in model.layer_shapes)
    return FLOAT_BYTES * ((users + books) * model.embedding_dim + dense)


def make_copies(size: int) -> Callable[[], None]:
    """Copies between two arrays that together are as large as Adam's, and stay in a cache where these would."""
    source = np.ones(size * ADAM_ARRAYS // 2, np.uint8)
    target = source.copy()

    def copy() -> None:
        for _ in range(COPIES):
            np.copyto(target, source)

    return copy


def least_seconds(products: float, copies: float) -> float:
    """From the seconds of a step's matrix products, and of `make_copies`."""
    return products + copies / COPIES * ADAM_PASSES / ADAM_ARRAYS

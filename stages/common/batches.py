"""The order in which both trainers see the rows."""

import numpy as np
from numpy.typing import NDArray

EVALUATION_BATCH = 65536
"""Rows at a time where nothing is learned: the result doesn't depend on it, the memory does."""


def shuffle_rows(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The permutation of `count` rows for one epoch, shape (count,): the same for both frameworks.

    Each epoch has its own random stream, so that an epoch's order doesn't depend on how many came before it.
    """
    return np.random.default_rng([seed, epoch]).permutation(count)

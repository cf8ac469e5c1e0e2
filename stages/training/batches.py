"""The order in which both trainers see the rows."""

import numpy as np
from numpy.typing import NDArray

from stages.program.process import StageError

EVALUATION_BATCH = 65536
"""Rows at a time where nothing is learned: the result doesn't depend on it, the memory does."""


def check_batch_size(batch_size: int, rows: int) -> None:
    """Refuse batches that the training rows can't fill.

    Raises:
        StageError: one batch would be larger than the whole table.
    """
    if batch_size > rows:
        raise StageError(f"params.yaml: train.batch_size is {batch_size:,}; there are only {rows:,} rows to train on")


def shuffle_rows(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The permutation of `count` rows for one epoch, shape (count,): the same for both frameworks.

    Each epoch has its own random stream, so that an epoch's order doesn't depend on how many came before it.
    """
    return np.random.default_rng([seed, epoch]).permutation(count)

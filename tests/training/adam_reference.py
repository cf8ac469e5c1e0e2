"""The steps on which the tests compare both frameworks' Adams with the reference of `divergence.optimisers`."""

import numpy as np
from numpy.typing import NDArray

from divergence.optimisers import adam, take_steps
from stages.training.conventions import AdamConventions, Side

SIDES: tuple[Side, Side] = ("torch", "keras")
ALL_ADAMS = [AdamConventions(epsilon, betas, rows) for epsilon in SIDES for betas in SIDES for rows in SIDES]
LEARNING_RATE = 0.01
START = np.random.default_rng(1).normal(size=(4, 3))
"""A table of four rows; no batch looks up the last one."""

ROWS = [np.array([0, 0, 1]), np.array([1, 1, 1, 2]), np.array([2, 0, 2])]
"""The rows that each of three batches looks up."""

GRADIENTS = [1e-5 * np.random.default_rng(2).normal(size=(len(rows), 3)) for rows in ROWS]
"""The gradient of each look-up: small, so that it matters where ε goes."""


def reference_adam(conventions: AdamConventions, start: NDArray[np.float64] = START) -> NDArray[np.float64]:
    """The table after the three batches."""
    summed, squared = [np.zeros_like(START) for _ in ROWS], [np.zeros_like(START) for _ in ROWS]
    for step, (rows, gradients) in enumerate(zip(ROWS, GRADIENTS, strict=True)):
        np.add.at(summed[step], rows, gradients)
        np.add.at(squared[step], rows, gradients**2)
    of_keras = conventions.epsilon == "keras"
    steps = take_steps(
        adam,
        summed,
        [LEARNING_RATE] * len(ROWS),
        squares=squared if conventions.repeated_rows == "keras" else None,
        epsilon=1e-7 if of_keras else 1e-8,
        epsilon_hat=of_keras,
        rounded_betas=conventions.betas == "keras",
    )
    table: NDArray[np.float64] = start - sum(steps)
    return table

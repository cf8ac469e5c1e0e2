"""Adam in NumPy, row by row as the formulas stand, and the steps on which the tests compare the frameworks with it.

Kingma and Ba, "Adam: a method for stochastic optimization", 2015: algorithm 1, and its other form before section 2.1.
"""

import numpy as np
from numpy.typing import NDArray

from stages.training.conventions import AdamConventions

LEARNING_RATE = 0.01
START = np.random.default_rng(1).normal(size=(4, 3))
"""A table of four rows; no batch looks up the last one."""

ROWS = [np.array([0, 0, 1]), np.array([1, 1, 1, 2]), np.array([2, 0, 2])]
"""The rows that each of three batches looks up."""

GRADIENTS = [1e-5 * np.random.default_rng(2).normal(size=(len(rows), 3)) for rows in ROWS]
"""The gradient of each look-up: small, so that it matters where ε goes."""


def reference_adam(conventions: AdamConventions, start: NDArray[np.float64] = START) -> NDArray[np.float64]:
    """The table after the three batches."""
    table, m, v = start.copy(), np.zeros_like(START), np.zeros_like(START)
    beta_1, beta_2 = 0.9, 0.999
    for step, (rows, gradients) in enumerate(zip(ROWS, GRADIENTS, strict=True), start=1):
        summed, squared = np.zeros_like(table), np.zeros_like(table)
        np.add.at(summed, rows, gradients)
        if conventions.repeated_rows == "keras":
            np.add.at(squared, rows, gradients**2)
        else:
            squared = summed**2
        m = beta_1 * m + (1 - beta_1) * summed
        v = beta_2 * v + (1 - beta_2) * squared
        if conventions.betas == "keras":
            correction_1 = 1 - float(np.float32(beta_1)) ** step
            correction_2 = 1 - float(np.float32(beta_2)) ** step
        else:
            correction_1, correction_2 = 1 - beta_1**step, 1 - beta_2**step
        if conventions.epsilon == "torch":
            table -= LEARNING_RATE * (m / correction_1) / (np.sqrt(v / correction_2) + 1e-8)
        else:
            table -= LEARNING_RATE * np.sqrt(correction_2) / correction_1 * m / (np.sqrt(v) + 1e-7)
    return table

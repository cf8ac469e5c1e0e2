"""What each framework's convention says of a network's first weights."""

import math
from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray
from scipy.stats import kstest

EMBEDDING = {"torch": ("norm", (0, 1)), "keras": ("uniform", (-0.05, 0.1))}

Floats = NDArray[Any]


def assert_drawn(side: str, tables: Iterable[Floats], layers: Iterable[tuple[Floats, Floats]]) -> None:
    """Hold embeddings, and dense layers' kernels (inputs, outputs) and biases, against a convention."""
    for table in tables:
        assert kstest(table.ravel(), *EMBEDDING[side]).pvalue > 0.001
    for kernel, bias in layers:
        fan_in, fan_out = kernel.shape
        limit = math.sqrt(1 / fan_in if side == "torch" else 6 / (fan_in + fan_out))
        for values in (kernel, bias) if side == "torch" else (kernel,):
            assert kstest(values.ravel(), "uniform", (-limit, 2 * limit)).pvalue > 0.001
        assert side == "torch" or not bias.any()

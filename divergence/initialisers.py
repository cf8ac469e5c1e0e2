"""Which known distribution a tensor's first numbers were drawn from.

By a Kolmogorov-Smirnov test of the numbers against each known initialiser, and by what needs no test: a bounded one's
bounds, constants, orthogonal columns. More than one may fit a small tensor, and some are the same for some shapes.

Sources: Glorot and Bengio 2010; He et al. 2015; Saxe et al. 2014 (orthogonal); torch/nn/init.py and each layer's
`reset_parameters` in torch/nn/modules; keras/src/initializers/random_initializers.py (its normal ones of Glorot, He and
LeCun are cut at two standard deviations and widened by 1/0.8796 to have the variance asked for).
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from divergence.record import Array, Record

SAMPLE = 20_000
"""How many of a tensor's numbers are enough to tell distributions apart."""
SIGNIFICANCE = 1e-6
"""Below it a distribution is ruled out: one tensor in a million is ruled out wrongly."""
DOUBTFUL, UNNAMED = 0.01, 1e-4
"""Below the one a distribution is named after those that fit better, below the other it isn't named."""
FEW = 40
"""Up to so many numbers, as of a last layer's bias, what the program's other weights fit tells more than they do."""
UNLIKELY, NOTABLE = 1e4, 20
"""How many times likelier than the likeliest shared one two tensors' own initialisers are, to differ or to be said."""
CUT = 0.87962566103423978
"""The standard deviation of N(0, 1) cut at ±2."""

DISTRIBUTIONS = {
    "uniform": stats.uniform(-1, 2),
    "positive": stats.uniform(0, 1),
    "normal": stats.norm(0, 1),
    "cut": stats.truncnorm(-2, 2),
}
"""Of numbers divided by their bound or standard deviation."""
OF_ONE_SIZE = {
    "N(0, 1)": ("normal", 1.0),
    "U(−0.05, 0.05)": ("uniform", 0.05),
    **{f"N(0, {sd}²)": ("normal", sd) for sd in (0.05, 0.02, 0.01, 0.1, 0.001)},
    **{f"N(0, {sd}²) cut at ±2 sd": ("cut", sd) for sd in (0.05, 0.02, 0.01, 0.1, 0.001)},
    **{f"U(±{limit})": ("uniform", limit) for limit in (1.0, 0.1, 0.01, 0.5, 0.001)},
    "U(0, 1)": ("positive", 1.0),
}
"""Distributions of a bound or standard deviation that doesn't depend on the layer."""
OF_THE_KERNEL: dict[str, tuple[str, Callable[[int, int], float]]] = {
    "U(±1/√fan_in)": ("uniform", lambda fan_in, _: fan_in**-0.5),
    "Glorot uniform": ("uniform", lambda fan_in, fan_out: (6 / (fan_in + fan_out)) ** 0.5),
    "Glorot normal": ("normal", lambda fan_in, fan_out: (2 / (fan_in + fan_out)) ** 0.5),
    "Glorot normal, cut at ±2 sd": ("cut", lambda fan_in, fan_out: (2 / (fan_in + fan_out)) ** 0.5 / CUT),
    "He uniform": ("uniform", lambda fan_in, _: (6 / fan_in) ** 0.5),
    "He normal": ("normal", lambda fan_in, _: (2 / fan_in) ** 0.5),
    "He normal, cut at ±2 sd": ("cut", lambda fan_in, _: (2 / fan_in) ** 0.5 / CUT),
    "He normal of fan_out": ("normal", lambda _, fan_out: (2 / fan_out) ** 0.5),
    "LeCun uniform": ("uniform", lambda fan_in, _: (3 / fan_in) ** 0.5),
    "LeCun normal": ("normal", lambda fan_in, _: fan_in**-0.5),
    "LeCun normal, cut at ±2 sd": ("cut", lambda fan_in, _: fan_in**-0.5 / CUT),
    "N(0, 1/fan_in), cut at ±2 sd and not widened": ("cut", lambda fan_in, _: fan_in**-0.5),  # Sonnet's
    "unit scaling uniform, factor 1.43": ("uniform", lambda fan_in, _: 1.43 * (3 / fan_in) ** 0.5),  # TensorFlow 1's
}
"""Likewise of one that does. A bias has the first one, from its layer's kernel."""


@dataclass(frozen=True)
class Fit:
    """How well a tensor's numbers fit an initialiser."""

    p: float
    """The smaller p-value of the two tests; 1 where there was nothing to test."""
    likelihood: float = 0.0
    """The logarithm of the numbers' probability density."""

    def __str__(self) -> str:
        return f"p = {self.p:.2g}" if self.p < 1 else "all of them"


def find_origins(record: Record) -> dict[str, dict[str, Fit]]:
    """Which initialisers each weight fits before its first step; none if no known one does.

    The likeliest come first: those not doubtful, and of them those that fit most of the program's weights.
    """
    weights = record.steps[0]["weights"]
    origins = {name: _find_origin(name, record) for name, weight in weights.items() if weight.size}
    often = Counter(itertools.chain(*origins.values()))
    for name, fits in origins.items():
        doubtful = DOUBTFUL if weights[name].size > FEW else DOUBTFUL / 100
        origins[name] = dict(sorted(fits.items(), key=lambda fit: (fit[1].p < doubtful, -often[fit[0]])))
    return origins


def tell_apart(one: dict[str, Fit], other: dict[str, Fit]) -> tuple[float, str]:
    """How many times likelier two tensors' own initialisers are than the likeliest shared one, and which that is."""
    together = {known: one[known].likelihood + other[known].likelihood for known in one if known in other}
    if not together:
        return np.inf, ""
    shared = max(together, key=lambda known: together[known])
    apart = sum(max(fit.likelihood for fit in fits.values()) for fits in (one, other))
    return float(np.exp(min(apart - together[shared], 700))), shared


def likely(fits: dict[str, Fit]) -> dict[str, Fit]:
    """The likeliest, then those that aren't far less likely."""
    ordered = sorted(fits.items(), key=lambda item: -item[1].likelihood)
    return {known: fit for known, fit in ordered if fit.likelihood >= ordered[0][1].likelihood - np.log(UNLIKELY) / 2}


def are_told_apart(fits: Iterable[dict[str, Fit]], arrays: tuple[Array, Array]) -> bool:
    """Whether two tensors have other initialisers, one of which fits without doubt, or are no draws from one.

    One that isn't known may look by chance like a known one in one program, and like none in the other: of few numbers
    both have to fit.
    """
    fits_well = [any(fit.p >= DOUBTFUL for fit in known.values()) for known in fits]
    return all(fits_well) or (any(fits_well) and arrays[0].size > FEW) or not same_distribution(*arrays)


def same_distribution(one: Array, other: Array) -> bool:
    """Whether two tensors may be two draws from one distribution; what is all one number is no draw."""
    is_drawn = [array.size > 1 and np.ptp(array) > 0 for array in (one, other)]
    values = one.ravel(), other.ravel()
    tests = [stats.ks_2samp(*values).pvalue, stats.ks_2samp(*map(np.abs, values)).pvalue]
    return is_drawn[0] == is_drawn[1] and min(tests) > SIGNIFICANCE


def is_telling(array: Array) -> bool:
    """Whether examples drawn anew would hardly give these numbers again in this order."""
    counts = np.unique(array.reshape(len(array), -1), axis=0, return_counts=True)[1]
    return bool((counts * np.log(counts / counts.sum())).sum() < np.log(SIGNIFICANCE))


def _find_origin(name: str, record: Record) -> dict[str, Fit]:
    """How well each initialiser fits that isn't ruled out; rows of zeros (padding) are left out."""
    array = np.asarray(record.steps[0]["weights"][name], dtype=float)
    if array.ndim == 2 and array.any():
        array = array[array.any(axis=1)]
    values = array.ravel()
    if known := _find_constant(values) or _find_orthogonal(array):
        return {known: Fit(1.0)}
    sample = np.random.default_rng(0).choice(values, min(SAMPLE, len(values)), replace=False)
    fits: dict[str, Fit] = {}
    for candidate, kind, scale in _candidates(name, record):
        distribution, within = DISTRIBUTIONS[kind], sample / scale * (1 - 1e-6)  # float32 may round over the bound
        # The largest number tells a uniform distribution's bound far more sharply than all of them.
        largest = np.abs(within).max()
        below = float(distribution.cdf(largest) - distribution.cdf(-largest)) ** len(sample)
        by_largest = 2 * min(below, 1 - below)
        if by_largest > SIGNIFICANCE and (p := stats.kstest(sample / scale, distribution.cdf).pvalue) > SIGNIFICANCE:
            likelihood = float(distribution.logpdf(within).sum() - len(sample) * np.log(scale))
            fits.setdefault(candidate, Fit(min(p, by_largest), likelihood))
    return fits


def _candidates(name: str, record: Record) -> list[tuple[str, str, float]]:
    """Known initialisers: the name, the distribution, and its bound or standard deviation."""
    array = kernel = record.steps[0]["weights"][name]
    of_one_size = [(known, kind, scale) for known, (kind, scale) in OF_ONE_SIZE.items()]
    of_layer, equation = [], ""
    for layer in record.layers.values():
        if name in layer["weights"].values():
            recorded = record.steps[0]["weights"]
            weights = [recorded[weight] for weight in layer["weights"].values() if weight in recorded]
            equation = str(layer.get("equation", equation))
            kernel = array if array.ndim > 1 else max(weights, key=lambda weight: (weight.ndim, weight.size))
            if hidden := layer.get("hidden_size"):  # of all weights of PyTorch's recurrent layers
                of_layer.append(("U(±1/√hidden)", "uniform", hidden**-0.5))
    for is_pytorch in [True, False] if record.is_pytorch is None else [record.is_pytorch]:
        if kernel.ndim > 1:
            field, ends = (kernel.shape[2:], (1, 0)) if is_pytorch else (kernel.shape[:-2], (-2, -1))
            fans = [kernel.shape[end] * int(np.prod(field)) for end in ends]
            if len(letters := equation.partition("->")[0].partition(",")[2]) == kernel.ndim:  # of Keras's EinsumDense
                sizes = dict(zip(letters, kernel.shape, strict=True))
                fan_in = math.prod(sizes[letter] for letter in sizes.keys() & {*equation.partition(",")[0]})
                fans = [fan_in, kernel.size // fan_in]
            of_kernel = [(known, kind, scale(*fans)) for known, (kind, scale) in OF_THE_KERNEL.items()]
            of_layer += of_kernel if array.ndim > 1 else of_kernel[:1]
    return of_one_size + of_layer if name in record.tables else of_layer + of_one_size  # a table's rows are no inputs


def _find_constant(values: Array) -> str | None:
    """What numbers are that weren't drawn at all."""
    if (values == values[0]).all() and (len(values) > 1 or values[0] in (0, 1)):
        return {0.0: "zeros", 1.0: "ones"}.get(values[0], f"constant {values[0]:.6g}")
    gates = np.repeat([0.0, 1.0, 0.0, 0.0], len(values) // 4)
    return "zeros, and ones for the forget gate" if np.array_equal(values, gates) else None


def _find_orthogonal(array: Array) -> str | None:
    """Whether a matrix's columns or rows are orthogonal to each other, and their length.

    PyTorch takes a convolution's kernel for a matrix of (out, rest), Keras for one of (rest, out).
    """
    for matrix in (array.reshape(len(array), -1), array.reshape(-1, array.shape[-1])) if array.ndim > 1 else ():
        if min(matrix.shape) > 1:
            product = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
            square = float(np.mean(np.diag(product)))
            if square and np.abs(product / square - np.eye(len(product))).max() < 1e-4:
                return f"orthogonal, gain {square**0.5:.3g}"
    return None

"""Which known distribution a tensor's first numbers were drawn from.

By a Kolmogorov-Smirnov test of the numbers against each known initialiser, and by what needs no test: a bounded one's
bounds, constants, orthogonal columns. More than one may fit a small tensor, and some are the same for some shapes.

Sources: Glorot and Bengio 2010; He et al. 2015; Saxe et al. 2014 (orthogonal); torch/nn/init.py and each layer's
`reset_parameters` in torch/nn/modules; keras/src/initializers/random_initializers.py (its normal ones of Glorot, He and
LeCun are cut at two standard deviations and widened by 1/0.8796 to have the variance asked for).
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from scipy import special, stats

from divergence.record import Array, Record

Cdf: TypeAlias = Callable[[Any], Any]
"""A distribution: the probability of a number below x."""

SAMPLE = 20_000
"""How many of a tensor's numbers are enough to tell distributions apart."""
SIGNIFICANCE = 1e-6
"""Below it a distribution is ruled out: one tensor in a million is ruled out wrongly."""
DOUBTFUL = 0.01
"""Below it a distribution is named after those that fit better."""
CUT = 0.87962566103423978
"""The standard deviation of N(0, 1) cut at ±2."""


@dataclass(frozen=True)
class Origin:
    """Where a tensor's numbers may come from."""

    fits: dict[str, float]
    """The p-value of each initialiser that isn't ruled out, the likeliest first; 1 where it is seen and not tested."""
    count: int
    """How many numbers were tested."""
    described: str
    """The numbers in a few words."""

    @property
    def name(self) -> str:
        """The likeliest, in a few words."""
        return next(iter(self.fits), f"no known initialiser ({self.described})")

    @property
    def evidence(self) -> str:
        """What speaks for it."""
        p = next(iter(self.fits.values()), None)
        return self.described if p is None else f"p = {p:.2g} of {self.count}" if p < 1 else f"all {self.count}"


def find_origins(names: list[str], record: Record) -> dict[str, Origin]:
    """Which initialisers each weight fits before its first step, those first that fit most weights of the program."""
    origins = {name: find_origin(name, record) for name in names}
    often = Counter(itertools.chain(*(origin.fits for origin in origins.values())))

    def rank(fit: tuple[str, float]) -> tuple[bool, int]:
        return fit[1] < DOUBTFUL, -often[fit[0]]

    return {name: replace(origin, fits=dict(sorted(origin.fits.items(), key=rank))) for name, origin in origins.items()}


def find_origin(name: str, record: Record) -> Origin:
    """Which initialisers a weight of the record fits before its first step; rows of zeros (padding) are left out."""
    array = np.asarray(record.steps[0]["weights"][name], dtype=float)
    kind, sibling = _look_up(name, record)
    if array.ndim == 2 and array.any():
        array = array[array.any(axis=1)]
    values = array.ravel()
    described = f"mean {values.mean():.3g}, sd {values.std():.3g}, {values.min():.3g} to {values.max():.3g}"
    if known := _find_constant(values) or _find_orthogonal(array):
        return Origin({known: 1.0}, len(values), described)
    sample = np.random.default_rng(0).choice(values, min(SAMPLE, len(values)), replace=False)
    fits: dict[str, float] = {}
    for candidate, cdf in _candidates(array, kind, sibling, record.is_pytorch):
        p = min(float(stats.kstest(sample, cdf).pvalue), _of_largest(sample, cdf), 0.99)
        if p > SIGNIFICANCE:
            fits.setdefault(candidate, p)
    return Origin(fits, len(sample), described)


def _of_largest(values: Array, cdf: Cdf) -> float:
    """The p-value of the numbers' largest size: of a uniform distribution it tells the bound far more sharply."""
    largest = np.abs(values).max() * (1 - 1e-6)  # float32 may round a number over the bound
    inside = float(cdf(largest) - cdf(-largest))
    below = inside ** len(values)
    return 0.0 if inside == 1 else min(1.0, 2 * min(below, 1 - below))


def _find_constant(values: Array) -> str | None:
    """What numbers are that weren't drawn at all."""
    if (values == values[0]).all() and (len(values) > 1 or values[0] in (0, 1)):
        return {0.0: "zeros", 1.0: "ones"}.get(values[0], f"constant {values[0]:.6g}")
    gates = np.repeat([0.0, 1.0, 0.0, 0.0], len(values) // 4)
    return "zeros, and ones for the forget gate" if np.array_equal(values, gates) else None


def same_distribution(one: Array, other: Array) -> bool:
    """Whether two tensors may be two draws from one distribution."""
    return bool(stats.ks_2samp(one.ravel(), other.ravel()).pvalue > SIGNIFICANCE)


def _look_up(name: str, record: Record) -> tuple[str, Array | None]:
    """The kind of a weight's layer, and the layer's largest weight, whose fan_in PyTorch takes for a bias too."""
    for layer in record.settings.get("layers", {}).values():
        if name in layer["weights"].values():
            weights = [record.steps[0]["weights"][weight] for weight in layer["weights"].values()]
            return layer["kind"], max(weights, key=lambda weight: (weight.ndim, weight.size))
    return "", None


def _fans(array: Array, is_pytorch: bool | None) -> tuple[int, int]:
    """fan_in and fan_out of a kernel."""
    if array.ndim < 2:
        return array.size, array.size
    if is_pytorch:
        field = int(np.prod(array.shape[2:]))
        return array.shape[1] * field, array.shape[0] * field
    field = int(np.prod(array.shape[:-2]))
    return array.shape[-2] * field, array.shape[-1] * field


def _candidates(array: Array, kind: str, sibling: Array | None, is_pytorch: bool | None) -> Iterator[tuple[str, Cdf]]:
    """Known initialisers by name: what the frameworks' layers take first, then the rest."""
    of_embeddings = [("N(0, 1)", _normal(1)), ("U(−0.05, 0.05)", _uniform(0.05))]
    yield from of_embeddings if kind.startswith("Embedding") else []
    kernel = array if array.ndim > 1 else sibling
    if kernel is not None and kernel.ndim > 1:
        for torch_layout in [True, False] if is_pytorch is None else [is_pytorch]:
            fan_in, fan_out = _fans(kernel, torch_layout)
            yield "U(±1/√fan_in)", _uniform(fan_in**-0.5)
            if array.ndim > 1:
                yield from _scaled(fan_in, fan_out)
            if gates := {"LSTM": 4, "GRU": 3, "RNN": 1}.get(
                kind
            ):  # PyTorch: U(±1/√hidden) for all of a recurrent layer
                yield "U(±1/√hidden)", _uniform((fan_out / gates) ** -0.5)
    yield from of_embeddings
    for sd in (0.05, 0.02, 0.01, 0.1, 0.001):
        yield f"N(0, {sd}²)", _normal(sd)
        yield f"N(0, {sd}²) cut at ±2 sd", _cut_normal(sd)
    for limit in (1.0, 0.1, 0.01, 0.5, 0.001):
        yield f"U(±{limit})", _uniform(limit)
    yield "U(0, 1)", lambda x: np.clip(x, 0, 1)


def _scaled(fan_in: int, fan_out: int) -> Iterator[tuple[str, Cdf]]:
    """The initialisers whose size is that of the layer."""
    for author, variance in (("Glorot", 2 / (fan_in + fan_out)), ("He", 2 / fan_in), ("LeCun", 1 / fan_in)):
        yield f"{author} uniform", _uniform((3 * variance) ** 0.5)
        yield f"{author} normal", _normal(variance**0.5)
        yield f"{author} normal, cut at ±2 sd", _cut_normal(variance**0.5 / CUT)
    yield "He normal of fan_out", _normal((2 / fan_out) ** 0.5)
    yield "N(0, 1/fan_in), cut at ±2 sd and not widened", _cut_normal(fan_in**-0.5)  # Sonnet's
    yield "unit scaling uniform, factor 1.43", _uniform(1.43 * (3 / fan_in) ** 0.5)  # TensorFlow 1's for relu


def _uniform(limit: float) -> Cdf:
    return lambda x: np.clip((x / limit + 1) / 2, 0, 1)


def _normal(sd: float) -> Cdf:
    return lambda x: special.ndtr(x / sd)


def _cut_normal(sd: float) -> Cdf:
    return lambda x: np.clip((special.ndtr(x / sd) - special.ndtr(-2)) / (1 - 2 * special.ndtr(-2)), 0, 1)


def _find_orthogonal(array: Array) -> str | None:
    """Whether a matrix's columns or rows are orthogonal to each other, and their length."""
    if array.ndim != 2 or min(array.shape) < 2:
        return None
    product = array.T @ array if array.shape[0] >= array.shape[1] else array @ array.T
    square = float(np.mean(np.diag(product)))
    is_scaled_identity = square and np.abs(product / square - np.eye(len(product))).max() < 1e-4
    return f"orthogonal, gain {square**0.5:.3g}" if is_scaled_identity else None

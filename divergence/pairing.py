"""Which tensor of one program is which of the other: by name, by shape, by layout, by value."""

import difflib
import itertools
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from divergence.record import Array, Record, RecordError

TO_PYTORCH = {1: (0,), 2: (1, 0), 3: (2, 1, 0), 4: (3, 2, 0, 1), 5: (4, 3, 0, 1, 2)}
"""How a Keras kernel's axes, (…, in, out), are ordered for PyTorch, (out, in, …), by their number."""
DEPTHWISE = (2, 3, 0, 1)
"""Likewise for a depthwise kernel, (height, width, channels, 1)."""

SAME_ROLE = {
    "kernel": "weight", "gamma": "weight", "scale": "weight", "embeddings": "weight", "beta": "bias",
    "depthwise_kernel": "weight", "recurrent_kernel": "weight_hh", "moving_mean": "running_mean",
    "moving_variance": "running_var",
}  # fmt: skip
"""Keras's names for PyTorch's."""


@dataclass(frozen=True)
class Pair:
    """The same tensor in both programs."""

    one: str
    other: str
    axes: tuple[int, ...]
    """What to transpose the other's array by to have the one's layout."""

    def align(self, array: Array) -> Array:
        """The other's array in the one's layout."""
        return array.transpose(self.axes) if array.ndim == len(self.axes) else array

    @property
    def label(self) -> str:
        """The name, or both where they differ."""
        return self.one if self.one == self.other else f"{self.one} = {self.other}"


@dataclass(frozen=True)
class Pairing:
    """All that was found, and what was not."""

    pairs: list[Pair]
    only_one: list[str]
    only_other: list[str]


def pair_weights(one: Record, other: Record, mapping: dict[str, str] | None = None) -> Pairing:
    """Pair the weights of two records; `mapping` gives names of the other's by the one's, which are taken first."""
    layouts = one.is_pytorch, other.is_pytorch
    return _pair(
        one.steps[0]["weights"], other.steps[0]["weights"], layouts, mapping or {}, (_norms(one), _norms(other))
    )


def fit_weights(
    own: dict[str, Array], is_pytorch: bool, record: Record, mapping: dict[str, str] | None = None
) -> dict[str, Array]:
    """A record's first weights for a program's own names and layout.

    Raises:
        RecordError: a weight has no counterpart in the record.
    """
    theirs = record.steps[0]["weights"]
    pairing = _pair(own, theirs, (is_pytorch, record.is_pytorch), mapping or {})
    if pairing.only_one:
        raise RecordError(f"the record has nothing for {', '.join(pairing.only_one)}; name it in a mapping")
    return {pair.one: np.ascontiguousarray(pair.align(theirs[pair.other])) for pair in pairing.pairs}


def read_mapping(path: Path) -> dict[str, str]:
    """Read a JSON object of names.

    Raises:
        RecordError: it is something else.
    """
    try:
        mapping = json.loads(path.read_text(encoding="utf-8"))
        return {str(one): str(other) for one, other in mapping.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise RecordError(f'{path} isn\'t a JSON object such as {{"fc.weight": "dense/kernel"}}: {error}') from error


def _norms(record: Record) -> set[str]:
    """The weights of normalising layers, which a convolution's biases are easily taken for."""
    layers = record.settings.get("layers", {}).values()
    return {name for layer in layers if "Norm" in layer["kind"] for name in layer["weights"].values()}


def _pair(
    one: dict[str, Array],
    other: dict[str, Array],
    pytorch: tuple[bool | None, bool | None],
    mapping: dict[str, str],
    norms: tuple[set[str], set[str]] = (set(), set()),
) -> Pairing:
    from scipy.optimize import linear_sum_assignment

    unknown = [*(mapping.keys() - one.keys()), *(set(mapping.values()) - other.keys())]
    if unknown:
        raise RecordError(f"the mapping names {', '.join(sorted(unknown))}, which the records don't have")
    ranks = _ranks(one), _ranks(other)
    costs, axes = np.full((len(one), len(other)), 1e6), {}
    for (i, (left, a)), (j, (right, b)) in itertools.product(enumerate(one.items()), enumerate(other.items())):
        fitting = _layouts(left, a, b, pytorch)
        if left in mapping or right in mapping.values():
            fitting = [*fitting, tuple(range(b.ndim))] if mapping.get(left) == right else []
        if fitting:
            equal = [order for order in fitting if _says_the_same(a, b.transpose(order))]
            axes[left, right] = [*equal, *fitting][0]
            other_kind = (_role(left) != _role(right)) + 2 * ((left in norms[0]) != (right in norms[1]))
            other_place = abs(ranks[0][left] - ranks[1][right]) / max(len(one), len(other))
            costs[i, j] = other_kind + other_place + 1 - _similarity(left, right) - 10 * bool(equal)
    names_one, names_other = [*one], [*other]
    pairs = [
        Pair(names_one[i], names_other[j], axes[names_one[i], names_other[j]])
        for i, j in zip(*linear_sum_assignment(costs), strict=True)
        if (names_one[i], names_other[j]) in axes
    ]
    return Pairing(
        pairs,
        [name for name in one if name not in {pair.one for pair in pairs}],
        [name for name in other if name not in {pair.other for pair in pairs}],
    )


def _layouts(name: str, a: Array, b: Array, pytorch: tuple[bool | None, bool | None]) -> list[tuple[int, ...]]:
    """The orders of b's axes that give a's shape, the likeliest first."""
    if a.ndim != b.ndim:
        return []
    crossing = None not in pytorch and pytorch[0] != pytorch[1]
    same, crossed = tuple(range(b.ndim)), [TO_PYTORCH.get(b.ndim, ()), DEPTHWISE if b.ndim == 4 else ()]
    if not pytorch[0]:
        crossed = [tuple(int(axis) for axis in np.argsort(order)) for order in crossed]
    is_table = "embed" in name.lower()
    orders = [same, *crossed] if is_table or not crossing else [*crossed, same]
    return [order for order in orders if len(order) == b.ndim and b.transpose(order).shape == a.shape]


def _says_the_same(a: Array, b: Array) -> bool:
    return a.size > 0 and a.shape == b.shape and bool(np.ptp(a) > 0 and np.allclose(a, b, rtol=1e-6, atol=0))


def _role(name: str) -> str:
    last = re.split(r"[./]", re.sub(r"_l\d+$", "", name))[-1]
    return SAME_ROLE.get(last, last)


def _ranks(arrays: dict[str, Array]) -> dict[str, int]:
    """Each tensor's place among those of its role."""
    seen: Counter[str] = Counter()
    ranks = {}
    for name in arrays:
        ranks[name] = seen[_role(name)]
        seen[_role(name)] += 1
    return ranks


def _similarity(left: str, right: str) -> float:
    return difflib.SequenceMatcher(None, _stem(left), _stem(right)).ratio()


def _stem(name: str) -> str:
    return re.sub(r"[._/]", "", re.sub(r"[^./]*$", "", name.lower()))

"""Which tensor of one program is which of the other: by name, by shape, by layout, by value."""

import difflib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from divergence.record import Array, Record, RecordError, read_record

Shape: TypeAlias = tuple[int, ...]

TO_PYTORCH: dict[int, list[tuple[int, ...]]] = {
    2: [(1, 0)],
    3: [(2, 1, 0)],
    4: [(3, 2, 0, 1), (2, 3, 0, 1)],
    5: [(4, 3, 0, 1, 2)],
}
"""How a Keras kernel's axes, (…, in, out), are ordered for PyTorch, (out, in, …), by their number; the second of four
is a depthwise kernel's, (height, width, channels, 1)."""
SAME_ROLE = {
    "kernel": "weight", "gamma": "weight", "scale": "weight", "embeddings": "weight", "beta": "bias",
    "depthwise_kernel": "weight", "recurrent_kernel": "weight_hh", "moving_mean": "running_mean",
    "moving_variance": "running_var",
}  # fmt: skip
"""Keras's names for PyTorch's."""


RECURRENT = (
    "PyTorch keeps two biases where Keras has their sum, and a GRU's gates in another order (r, z, n; Keras z, r, h); "
    "start_from knows no way from one to the other: set such a network's weights by hand"
)


def label_of(one: str, other: str) -> str:
    """What a pair is called: the name, or both where they differ."""
    return one if one == other else f"{one} = {other}"


@dataclass(frozen=True)
class Pair:
    """The same tensor in both programs."""

    one: str
    other: str
    shape: Shape
    """Of the one's array."""
    joined: Shape
    """Of the other's array, with the axes joined that the one has as a single one."""
    axes: Shape
    """What to transpose that by to have the one's layout."""

    def align(self, array: Array) -> Array:
        """The other's array in the one's layout."""
        if array.size != math.prod(self.joined):
            return array
        return array.reshape(self.joined).transpose(self.axes).reshape(self.shape)

    @property
    def label(self) -> str:
        """The name, or both where they differ."""
        return label_of(self.one, self.other)


def pair_weights(one: Record, other: Record, mapping: dict[str, str]) -> list[Pair]:
    """Pair the weights of two records; `mapping` gives names of the other's by the one's, which are taken first.

    Of all ways of pairing them by shape it is the one with the most equal values, then the likest roles, places and
    names; numbers in names count where both programs have all names in common, as each framework counts in its own
    way. A bias goes with its layer's kernel.
    """
    from scipy.optimize import linear_sum_assignment  # recording does without

    left, right = one.steps[0]["weights"], other.steps[0]["weights"]
    if unknown := (mapping.keys() - left.keys()) | (set(mapping.values()) - right.keys()):
        raise RecordError(f"the mapping names {', '.join(sorted(unknown))}, which the records don't have")
    traits = _traits(one), _traits(other)
    headed = one.weights_of("EinsumDense") | other.weights_of("EinsumDense")  # of an attention
    costs, layouts = np.full((len(left), len(right)), 1e6), {}
    for (i, name), (j, partner) in itertools.product(enumerate(left), enumerate(right)):
        a, b = left[name], right[partner]
        is_table = name in one.tables or partner in other.tables
        may_join = mapping.get(name) == partner or name in headed or partner in headed
        ways = [
            Pair(name, partner, a.shape, *layout)
            for layout in _layouts(a.shape, b.shape, (one.is_pytorch, other.is_pytorch), is_table, may_join)
        ]
        if mapping.get(name) == partner and not ways:
            raise RecordError(f"the mapping pairs {name} {a.shape} with {partner} {b.shape}")
        if (name in mapping or partner in mapping.values()) and mapping.get(name) != partner:
            ways = []
        if ways:
            is_told = a.size > 0 and np.ptp(a) > 0  # not all numbers are one
            equal = [way for way in ways if is_told and np.allclose(a, way.align(b), rtol=1e-6, atol=0)]
            layouts[i, j] = [*equal, *ways][0]
            (role, place, stem), (other_role, other_place, other_stem) = traits[0][name], traits[1][partner]
            costs[i, j] = (role != other_role) + abs(place - other_place) / max(len(left), len(right))
            letters, other_letters = (re.sub(r"[\d_]", "", text) for text in (stem, other_stem))
            likeness = difflib.SequenceMatcher(None, letters, other_letters).ratio()
            same_name = stem == other_stem if left.keys() == right.keys() else likeness
            costs[i, j] += 1 - same_name - 10 * bool(equal)

    def assign() -> list[Pair]:
        return [layouts[place] for place in zip(*linear_sum_assignment(costs), strict=True) if place in layouts]

    layers = {traits[0][pair.one][2]: traits[1][pair.other][2] for pair in assign() if left[pair.one].ndim > 1}
    for (i, name), (j, partner) in itertools.product(enumerate(left), enumerate(right)):
        layer, other_layer = traits[0][name][2], traits[1][partner][2]
        costs[i, j] += layers.get(layer, other_layer) != other_layer
    return assign()


def list_unpaired(record: Record, paired: set[str]) -> list[str]:
    """The weights of a record that have no counterpart, with their shapes."""
    return [f"{name} {array.shape}" for name, array in record.steps[0]["weights"].items() if name not in paired]


def first_weights(
    own: dict[str, Array], settings: dict[str, Any], path: Path, mapping: dict[str, str] | None = None
) -> dict[str, Array]:
    """A record's first weights for a program's own names and layout.

    Raises:
        RecordError: a weight has no counterpart in the record, or a recurrent layer's is made otherwise there.
    """
    record, program = read_record(path), Record([{"weights": own}], settings)
    recurrent = [layer["kind"] for layer in program.layers.values() if layer["kind"].startswith(("GRU", "LSTM"))]
    if recurrent and {program.is_pytorch, record.is_pytorch} == {True, False}:
        raise RecordError(f"{recurrent[0]}: {RECURRENT}")
    pairs = pair_weights(program, record, mapping or {})
    if missing := ", ".join(sorted(list_unpaired(program, {pair.one for pair in pairs}))):
        left = ", ".join(sorted(list_unpaired(record, {pair.other for pair in pairs}))) or "nothing"
        raise RecordError(f"the record has nothing for {missing} and {left} left over; name pairs in a mapping")
    return {pair.one: pair.align(record.steps[0]["weights"][pair.other]) for pair in pairs}


def read_mapping(path: Path) -> dict[str, str]:
    """Read a JSON object of names.

    Raises:
        RecordError: it is something else.
    """
    try:
        mapping = json.loads(path.read_text(encoding="utf-8"))
        return {str(one): str(other) for one, other in mapping.items()}
    except (OSError, ValueError, AttributeError) as error:
        example = '{"fc.weight": "sequential/dense/kernel"}'
        raise RecordError(f"{path} isn't a JSON object such as {example}: {error}") from error


def _layouts(
    one: Shape, other: Shape, are_pytorch: tuple[bool | None, bool | None], is_table: bool, may_join: bool
) -> Iterator[tuple[Shape, Shape]]:
    """With which axes joined, and in which order, the other's shape is the one's, the likeliest first."""
    ones, others = ([shape, *_join(shape)] if may_join else [shape] for shape in (one, other))
    same = [(joined, tuple(range(len(joined)))) for joined in others]
    crossed = [(joined, order) for joined in others for order in TO_PYTORCH.get(len(joined), [])]
    if not are_pytorch[0]:
        crossed = [(joined, tuple(order.index(axis) for axis in range(len(order)))) for joined, order in crossed]
    is_crossing = {*are_pytorch} == {True, False} and not is_table
    for joined, order in crossed + same if is_crossing else same + crossed:
        if tuple(joined[axis] for axis in order) in ones:
            yield joined, order


def _join(shape: Shape) -> list[Shape]:
    """With two neighbouring axes taken for one, as of the heads of an attention and the numbers of each."""
    places = range(len(shape) - 1)
    return [(*shape[:place], shape[place] * shape[place + 1], *shape[place + 2 :]) for place in places]


def _traits(record: Record) -> dict[str, tuple[str, int, str]]:
    """Each weight's role, its place among those of that role, and the rest of its name."""
    of_norms = {
        name
        for layer in record.layers.values()
        if "Norm" in layer["kind"] or {"running_mean", "moving_mean"} & layer["weights"].keys()
        for name in layer["weights"].values()
    }
    seen: Counter[str] = Counter()
    traits = {}
    for name in record.steps[0]["weights"]:
        *stem, last = re.split(r"[./]", re.sub(r"_l\d+$", "", name))
        role = SAME_ROLE.get(last, last) + (" of a norm" if name in of_norms else "")
        traits[name] = role, seen[role], "".join(stem).lower()
        seen[role] += 1
    return traits

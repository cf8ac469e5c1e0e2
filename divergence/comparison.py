"""Two records side by side, and what can be said of a pair of arrays."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from scipy.special import expit, log_softmax, softmax

from divergence.pairing import Pair, pair_weights
from divergence.record import Array, Record, read_record

LABELS = {
    "shapes": "shapes", "weights": "weights", "batch": "batch", "output": "output", "loss": "loss",
    "gradients": "gradients", "after": "step",
}  # fmt: skip
"""The checkpoints, in the order in which a difference can arise, and what they are called."""
TOLERANCE = {
    "float64": dict.fromkeys(("weights", "batch", "output", "loss", "gradients", "after"), 1e-9),
    "float32": {"weights": 2e-6, "batch": 1e-6, "output": 5e-5, "loss": 2e-5, "gradients": 2e-4, "after": 1e-3},
}
"""How far two arrays may be apart, of the largest number in them, and be taken for the same (`after`: of the step)."""
NO_SETTING = "no setting in either framework, and hardly ever matters"
FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "zero": np.zeros_like,
    "the softmax of {}": lambda x: softmax(x, axis=-1),
    "the logarithm of the softmax of {}": lambda x: log_softmax(x, axis=-1),
    "the sigmoid of {}": expit,
    "the positive part (relu) of {}": lambda x: np.maximum(x, 0),
    "the tanh of {}": np.tanh,
}
"""What one array may be of another."""


@dataclass(frozen=True)
class Finding:
    """A difference of its own: what the one program does and what the other does."""

    step: int
    checkpoint: str
    what: str
    one: str
    other: str
    evidence: list[str] = field(default_factory=list)

    @property
    def has_setting(self) -> bool:
        """Whether either program can do as the other does."""
        return not any(NO_SETTING in line for line in self.evidence)

    def __str__(self) -> str:
        which = f" ({'; '.join(self.evidence)})" if self.checkpoint == "shapes" else ""
        return f"step {self.step}, {LABELS[self.checkpoint]}: {self.what}: {self.one} | {self.other}{which}"


@dataclass(frozen=True)
class Comparison:
    """Two records and which tensor of one is which of the other."""

    one: Record
    other: Record
    pairs: list[Pair]
    precision: str
    """The coarser of the two records' precisions."""

    @classmethod
    def read(cls, one: Path, other: Path, mapping: dict[str, str] | None = None) -> "Comparison":
        """Read both records."""
        return cls.of(read_record(one), read_record(other), mapping)

    @classmethod
    def of(cls, one: Record, other: Record, mapping: dict[str, str] | None = None) -> "Comparison":
        """Pair the records' weights; `mapping` gives names of the other's by the one's, which are taken first."""
        return cls(one, other, pair_weights(one, other, mapping or {}), min(one.precision, other.precision))

    @property
    def records(self) -> tuple[Record, Record]:
        """Both."""
        return self.one, self.other

    @property
    def steps(self) -> range:
        """The steps that both recorded, from 1."""
        return range(1, min(len(record.steps) for record in self.records) + 1)

    def tolerance(self, checkpoint: str) -> float:
        """How far arrays of a checkpoint may be apart."""
        return TOLERANCE[self.precision][checkpoint]

    def aligned(self, step: int, checkpoint: str) -> Iterator[tuple[Pair, Array, Array]]:
        """The paired arrays of a step, counted from 1, in the one's layout."""
        one, other = (record.steps[step - 1][checkpoint] for record in self.records)
        for pair in self.pairs:
            if pair.one in one and pair.other in other:
                yield pair, one[pair.one], pair.align(other[pair.other])

    def named(self, step: int, checkpoint: str) -> Iterator[tuple[str, Array, Array]]:
        """The arrays of a step that aren't a weight's, by the one's names, in one layout."""
        one, other = (record.steps[step - 1][checkpoint] for record in self.records)
        found = in_order(one, other)
        for name, array in one.items():
            if name == "target" and name in found and array.size == found[name].size:
                yield name, array, found[name].reshape(array.shape)  # that a program may have flattened
            elif name in found:
                yield name, *align_channels(array, found[name])

    def differences(self, step: int, checkpoint: str) -> dict[str, float]:
        """How far each pair of arrays is apart, of the largest number in them; of the step for `after`."""
        if checkpoint in ("batch", "output", "loss"):
            read = as_classes if checkpoint == "batch" else np.asarray
            return {name: distance(read(a), read(b)) for name, a, b in self.named(step, checkpoint)}
        before = {pair: both for pair, *both in self.aligned(step, "weights")} if checkpoint == "after" else {}
        moved = {
            pair: [new - old for new, old in zip(both, before.get(pair, (0, 0)), strict=True)]
            for pair, *both in self.aligned(step, checkpoint)
        }
        # A gradient that would be zero, as of a bias that a batch norm takes off again, is the others' round-off.
        of_all = 256 * max((np.abs(x).max(initial=0) for both in moved.values() for x in both), default=0.0)
        found = {}
        for pair, (a, b) in moved.items():
            of_subtraction = 4 * np.abs(before.get(pair, (0, 0))[0]).max(initial=0)
            rounding = float(np.finfo(self.precision).eps * max(of_all, of_subtraction))
            found[pair.label] = distance(a, b, rounding / self.tolerance(checkpoint))
        return found


def in_order(one: dict[str, Array], other: dict[str, Array]) -> dict[str, Array]:
    """The other's arrays by the one's names: equal ones together, whatever their order, the rest by their place."""
    names = [*one]
    if len(one) != len(other):
        return other
    found = {**other} if one.keys() == other.keys() else dict(zip(names, other.values(), strict=True))
    for place, name in enumerate(names):
        equal = (n for n in names[place:] if distance(as_classes(one[name]), as_classes(found[n])) == 0)
        same = next(equal, name)
        found[name], found[same] = found[same], found[name]
    return found


def as_classes(array: Array) -> Array:
    """The class of each example where an array has a 1 among zeros for each; else the array."""
    is_one_hot = array.ndim > 1 and array.shape[-1] > 1 and (np.sort(array)[..., [0, -2, -1]] == [0, 0, 1]).all()
    return array.argmax(axis=-1) if is_one_hot else array


def as_rows(array: Array) -> Array:
    """A row of numbers for each example."""
    return np.asarray(array, dtype=float).reshape(len(array) if array.size and array.ndim else 1, -1)


def distance(a: Array, b: Array, least: float = 0.0) -> float:
    """The largest difference of two arrays, of the largest number in them or the `least` that it counts as.

    Infinite where the shapes differ.
    """
    a, b = align_channels(a, b)
    if a.shape != b.shape and a.squeeze().shape != b.squeeze().shape:
        return np.inf
    a, b = (np.asarray(array, dtype=float).ravel() for array in (a, b))
    largest, apart = max(np.abs(a).max(initial=least), np.abs(b).max(initial=least)), np.abs(a - b).max(initial=0)
    if not np.isfinite(apart):
        return 0.0 if np.array_equal(a, b, equal_nan=True) else np.inf
    return float(apart / largest) if largest else 0.0


def align_channels(a: Array, b: Array) -> tuple[Array, Array]:
    """Both with the channels last, where one has them first."""
    if a.ndim == b.ndim > 2 and a.shape != b.shape:
        if np.moveaxis(a, 1, -1).shape == b.shape:
            return np.moveaxis(a, 1, -1), b
        if a.shape == np.moveaxis(b, 1, -1).shape:
            return a, np.moveaxis(b, 1, -1)
    return a, b


def relations(
    a: Array, b: Array, tolerance: float, counts: Mapping[str, int] = {}, parts: Mapping[str, Array] = {}
) -> Iterator[str]:
    """What one of two arrays, with examples along its first axis, is of the other, the simplest first.

    `counts` are what a ratio may be, by what it is called; `parts` what may be on top, by what is to be said of it with
    its factor as `{0}` and half of it as `{1}`.
    """
    x, y = as_rows(a), as_rows(b)
    if x.shape != y.shape:
        yield f"the shapes are {a.shape} and {b.shape}"
        return
    if x.shape[1] > 1 and distance(np.sort(x, axis=1), np.sort(y, axis=1)) <= tolerance:
        yield "each example's numbers are the same in another order (channels first or last? joined in another order?)"
    functions = FUNCTIONS | {f"{count} times {{}}{name}": partial(np.multiply, count) for name, count in counts.items()}
    for here, there, left, right in (("here", "there", x, y), ("there", "here", y, x)):
        for name, function in functions.items():
            if distance(left, function(right)) <= tolerance:
                yield f"{here} is {name.format(there)}"
        for sentence, part in parts.items() if a.size > 1 else ():  # of one number any part would do
            factor = _ratio(left - right, part.reshape(left.shape), 10 * tolerance)
            if factor and factor > 0:
                yield f"{here}, {sentence.format(factor, factor / 2)}"
    if (ratio := _ratio(x, y, tolerance)) and f"{ratio:.6g}" != "1":
        yield f"here is {ratio:.6g} times there"


def _ratio(a: Array, b: Array, tolerance: float) -> float | None:
    """How many times the one is the other, if it is."""
    ratio = float((a * b).sum() / ((b * b).sum() or 1.0))
    return ratio if np.isfinite(ratio) and distance(a, ratio * b) <= tolerance else None

"""Two records side by side, and what can be said of a pair of arrays."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from divergence.pairing import Pair, Pairing, pair_weights
from divergence.record import Array, Record

CHECKPOINTS = {
    "shapes": "shapes", "weights": "weights", "batch": "batch", "output": "output", "loss": "loss",
    "gradients": "gradients", "after": "step",
}  # fmt: skip
"""The checkpoints, in the order in which a difference can arise, and what they are called."""
TOLERANCE = {
    "float64": dict.fromkeys(("weights", "batch", "output", "loss", "gradients", "after"), 1e-9),
    "float32": {"weights": 2e-6, "batch": 1e-6, "output": 5e-5, "loss": 2e-5, "gradients": 2e-4, "after": 1e-3},
}
"""How far two arrays may be apart, of the largest number in them, and be taken for the same (`after`: of the step)."""


@dataclass(frozen=True)
class Finding:
    """A difference of its own: what the one program does and what the other does."""

    step: int
    checkpoint: str
    what: str
    one: str
    other: str
    evidence: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"step {self.step}, {CHECKPOINTS[self.checkpoint]}: {self.what}: {self.one} | {self.other}"


@dataclass(frozen=True)
class Comparison:
    """Two records and which tensor of one is which of the other."""

    one: Record
    other: Record
    pairing: Pairing
    precision: str
    """The coarser of the two records' precisions."""

    @classmethod
    def of(cls, one: Record, other: Record, mapping: dict[str, str] | None = None) -> "Comparison":
        """Pair the records' weights; `mapping` gives names of the other's by the one's, which are taken first."""
        weights = [array for record in (one, other) for array in record.steps[0]["weights"].values()]
        kinds = {array.dtype for array in weights if array.dtype.kind == "f"}
        precision = "float64" if kinds == {np.dtype("float64")} else "float32"
        return cls(one, other, pair_weights(one, other, mapping), precision)

    def aligned(self, step: int, checkpoint: str) -> Iterator[tuple[Pair, Array, Array]]:
        """The paired arrays of a step, counted from 1, in the one's layout."""
        one, other = self.one.steps[step - 1][checkpoint], self.other.steps[step - 1][checkpoint]
        for pair in self.pairing.pairs:
            if pair.one in one and pair.other in other:
                yield pair, one[pair.one], pair.align(other[pair.other])

    def differences(self, step: int, checkpoint: str) -> dict[str, float]:
        """How far each pair of arrays is apart, of the largest number in them; of the step for `after`."""
        if checkpoint in ("batch", "output", "loss"):
            one, other = self.one.steps[step - 1][checkpoint], self.other.steps[step - 1][checkpoint]
            if sorted(one) != sorted(other) and len(one) == len(other):
                other = dict(zip(one, other.values(), strict=True))
            return {name: distance(one[name], other[name]) for name in one if name in other}
        if checkpoint == "after":
            before = {pair.one: (a, b) for pair, a, b in self.aligned(step, "weights")}
            return {
                pair.label: distance(a - before[pair.one][0], b - before[pair.one][1], self._rounding(a))
                for pair, a, b in self.aligned(step, checkpoint)
                if pair.one in before
            }
        return {pair.label: distance(a, b) for pair, a, b in self.aligned(step, checkpoint)}

    def _rounding(self, weights: Array) -> float:
        """What the subtraction of two weights loses."""
        return 4 * float(np.finfo(self.precision).eps) * float(np.abs(weights).max(initial=0))


def distance(a: Array, b: Array, rounding: float = 0.0) -> float:
    """The largest difference of two arrays, of the largest number in them; infinite where the shapes differ."""
    if a.shape != b.shape and (a.size != b.size or a.squeeze().shape != b.squeeze().shape):
        moved = to_channels_last(a), to_channels_last(b)
        fitting = [(x, y) for x, y in ((moved[0], b), (a, moved[1])) if x.shape == y.shape]
        if not fitting:
            return np.inf
        a, b = fitting[0]
    a, b = (np.asarray(array, dtype=float).ravel() for array in (a, b))
    largest = max(np.abs(a).max(initial=0), np.abs(b).max(initial=0))
    apart = float(np.abs(a - b).max(initial=0))
    if np.isnan(apart):
        return 0.0 if np.array_equal(a, b, equal_nan=True) else np.inf
    return 0.0 if apart <= rounding or largest == 0 else apart / float(largest)


def to_channels_last(array: Array) -> Array:
    """An array of (batch, channels, …) as (batch, …, channels)."""
    return np.moveaxis(array, 1, -1) if array.ndim > 2 else array


def describe_difference(a: Array, b: Array, precision: str) -> str | None:
    """What one of two arrays is of the other, where that is something known."""
    tolerance = TOLERANCE[precision]["output"]
    if a.size != b.size:
        return f"the shapes are {a.shape} and {b.shape}"
    x, y = (np.asarray(array, dtype=float).reshape(len(array) if array.ndim else 1, -1) for array in (a, b))
    if distance(np.sort(x, axis=1), np.sort(y, axis=1)) <= tolerance and x.shape[1] > 1:
        return "each example's numbers are the same in another order (channels first or last?)"
    if (
        distance(np.sort(x[:, 0]), np.sort(y[:, 0])) <= tolerance
        and distance(_sort_rows(x), _sort_rows(y)) <= tolerance
    ):
        return "the same examples in another order"
    for left, right, sentence in ((x, y, "here is {} of there"), (y, x, "there is {} of here")):
        for name, function in FUNCTIONS.items():
            with np.errstate(all="ignore"):
                if distance(left, function(right)) <= tolerance:
                    return sentence.format(name)
    ratio = float((x * y).sum() / ((y * y).sum() or 1))
    return f"here is {ratio:.6g} times there" if distance(x, ratio * y) <= tolerance else None


def _sort_rows(matrix: Array) -> Array:
    return matrix[np.lexsort(matrix.T[::-1])]


def softmax(rows: Array) -> Array:
    """Of each row of numbers along the last axis."""
    powers: Array = np.exp(rows - rows.max(axis=-1, keepdims=True))
    return powers / np.sum(powers, axis=-1, keepdims=True)  # type: ignore[no-any-return]


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "the softmax": softmax,
    "the sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "the logarithm of the softmax": lambda x: np.log(softmax(x)),
    "the positive part (relu)": lambda x: np.maximum(x, 0),
    "the tanh": np.tanh,
}

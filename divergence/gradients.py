"""What the gradients of equal weights, batches and outputs differ by."""

from collections.abc import Iterator

import numpy as np

from divergence.comparison import TOLERANCE, Comparison, distance
from divergence.losses import name_ratio
from divergence.pairing import Pair
from divergence.record import Array, Step


def relate_gradients(comparison: Comparison, step: int) -> Iterator[tuple[Pair, str, str]]:
    """Each weight whose gradients differ in a step, counted from 1, with what they are in the one and in the other."""
    tolerance = TOLERANCE[comparison.precision]["gradients"]
    weights = {pair.one: weight for pair, weight, _ in comparison.aligned(step, "weights")}
    earlier = {pair.one: (a, b) for pair, a, b in comparison.aligned(step - 1, "gradients")} if step > 1 else {}
    for pair, a, b in comparison.aligned(step, "gradients"):
        if distance(a, b) > tolerance:
            known = _relations(a, b, weights[pair.one], comparison.one.steps[step - 1], tolerance)
            if pair.one in earlier and (uncleared := _uncleared(a, b, *earlier[pair.one], 10 * tolerance)):
                yield pair, *uncleared
            else:
                yield pair, *next(known)


def _uncleared(a: Array, b: Array, last_a: Array, last_b: Array, tolerance: float) -> tuple[str, str] | None:
    added, alone = "the last step's is added: not cleared", "this step's alone"
    if distance(a - b, last_a) <= tolerance:
        return added, alone
    return (alone, added) if distance(b - a, last_b) <= tolerance else None


def _relations(a: Array, b: Array, weight: Array, step: Step, tolerance: float) -> Iterator[tuple[str, str]]:
    """What is known of two gradients of one weight, the simplest first; the last says how large they are."""
    if not a.any() or not b.any():
        yield ("not zero", "zero") if a.any() else ("zero", "not zero")
        return
    ratio = float((a * b).sum() / (b * b).sum())
    if distance(a, ratio * b) <= tolerance:
        known = name_ratio(ratio, step, tolerance)
        yield f"{ratio:.6g} times that of there" + (f": {known}" if known else ""), "1"
    factor = float(((a - b) * weight).sum() / ((weight * weight).sum() or 1))
    if distance(a - b, factor * weight) <= 10 * tolerance:
        penalty = f"{abs(factor):.4g}·w on top: a penalty of {abs(factor) / 2:.4g}·Σw² in the loss"
        yield (penalty, "without") if factor > 0 else ("without", penalty)
    rows: Array = np.flatnonzero((np.abs(a - b) > tolerance * np.abs(b).max()).any(axis=tuple(range(1, a.ndim))))
    if a.ndim == 2 and len(rows) == 1:
        here, there = (f"row {rows[0]} {'learns' if table[rows[0]].any() else 'does not learn'}" for table in (a, b))
        yield here, there
    yield f"largest {np.abs(a).max():.4g}", f"largest {np.abs(b).max():.4g}"

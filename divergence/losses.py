"""Which loss makes a program's number of its output and target, and what the ratio of two losses or gradients means."""

import itertools
from collections.abc import Iterator

import numpy as np

from divergence.comparison import softmax
from divergence.record import Array, Record, Step

ROUND_OFF = {"float32": 5e-6, "float64": 1e-10}
"""How far, relatively, a loss may be off in each precision."""


def find_loss(record: Record, precision: str) -> dict[str, str]:
    """The losses that give the recorded number in each step, by name, with the first step's; empty where none does.

    Where no known loss does, one with a penalty λΣw² on top counts, for a round λ that is the same in all steps.
    """
    tolerance = ROUND_OFF[precision]
    for explain in (_fitting, _penalised):
        by_step = [dict(explain(record, step, tolerance)) for step in record.steps]
        if common := [name for name in by_step[0] if all(name in fits for fits in by_step)]:
            return {name: by_step[0][name] for name in common}
    return {}


def _values(step: Step) -> tuple[float, dict[str, float]]:
    """A step's recorded loss, and what known losses of its output and target are; not a number where one is missing."""
    if not (step["loss"] and step["output"] and "target" in step["batch"]):
        return np.nan, {}
    output, target = (
        np.asarray(a, dtype=float) for a in (next(iter(step["output"].values())), step["batch"]["target"])
    )
    with np.errstate(all="ignore"):
        known = {name: float(value) for name, value in _losses(output, target)}
    return float(np.ravel(next(iter(step["loss"].values())))[0]), known


def _fitting(_: Record, step: Step, tolerance: float) -> Iterator[tuple[str, str]]:
    loss, known = _values(step)
    for name, value in known.items():
        if abs(value - loss) <= tolerance * abs(loss):
            yield name, f"{value:.9g}"


def _losses(output: Array, target: Array) -> Iterator[tuple[str, float]]:
    """Known losses of an output and a target by what they are called, the usual ones first."""
    if output.size == target.size:
        yield from _elementwise(output.reshape(target.shape), target)
    elif output.ndim > 1:
        for axis in {1, output.ndim - 1}:
            yield from _of_classes(np.moveaxis(output, axis, -1), target)
    if output.shape != target.shape and output.ndim != target.ndim:
        try:
            both = np.broadcast_arrays(output, target)
        except ValueError:
            return
        if both[0].size > max(output.size, target.size):
            shape = " × ".join(str(length) for length in both[0].shape)
            for name, value in _elementwise(*both):
                yield f"{name}, over all pairs: {output.shape} and {target.shape} broadcast to {shape}", value


def _elementwise(output: Array, target: Array) -> Iterator[tuple[str, float]]:
    apart = np.abs(output - target)
    probability = np.clip(output, 1e-7, 1 - 1e-7)
    of_probabilities = -target * np.log(probability) - (1 - target) * np.log1p(-probability)
    of_logits = np.logaddexp(0, output) - target * output
    entropy = "binary cross-entropy"
    if (
        (output >= 0).all() and (output <= 1).all() and 0.3 < output.mean() < 0.7
    ):  # few small logits may be in there too
        entropies = {
            entropy: of_probabilities,
            f"{entropy} of the sigmoid of probabilities: a second sigmoid": of_logits,
        }
    else:
        wrong = f"{entropy} of numbers outside [0, 1]: logits where probabilities are expected"
        outside = (output < 0).any() or (output > 1).any()
        entropies = {entropy: of_logits, wrong if outside else f"{entropy} of probabilities": of_probabilities}
    errors = {
        "squared error": apart**2,
        "halved squared error": apart**2 / 2,
        "absolute error": apart,
        "Huber loss (δ = 1)": np.where(apart < 1, apart**2 / 2, apart - 0.5),
        **entropies,
    }
    for name, error in errors.items():
        yield f"mean of the {name}", error.mean()
        yield f"sum of the {name}", error.sum()
        if error.ndim > 1 and error.shape[0] != error.size:
            yield f"sum over an example's numbers, mean over the batch, of the {name}", error.sum() / len(error)
    if output.ndim > 1 and output.shape[-1] > 1 and np.allclose(target.sum(axis=-1), 1):
        yield from _of_classes(output, target.argmax(axis=-1))


def _of_classes(output: Array, target: Array) -> Iterator[tuple[str, float]]:
    """Cross-entropies of outputs (…, classes) and class numbers (…)."""
    chosen = target.astype(int).reshape(-1)
    rows = output.reshape(-1, output.shape[-1])
    if len(rows) != len(chosen) or chosen.min() < 0 or chosen.max() >= rows.shape[1]:
        return
    of_chosen = np.arange(len(rows)), chosen
    of_logits = -np.log(softmax(rows))[of_chosen]
    of_probabilities = -np.log(np.clip(rows / rows.sum(axis=1, keepdims=True), 1e-7, 1 - 1e-7))[of_chosen]
    entropy = "cross-entropy"
    if (rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=1e-5):
        entropies = {
            entropy: of_probabilities,
            f"{entropy} of the softmax of probabilities: a second softmax": of_logits,
        }
    else:
        wrong = f"{entropy} of numbers that are no probabilities: logits where probabilities are expected"
        entropies = {entropy: of_logits, wrong: of_probabilities}
        if not np.allclose(np.exp(rows).sum(axis=1), 1, atol=1e-5):
            entropies["negative output of the class: logits where log-probabilities are expected"] = -rows[of_chosen]
    for name, values in entropies.items():
        yield f"mean of the {name}", values.mean()
        yield f"sum of the {name}", values.sum()


def _penalised(record: Record, step: Step, tolerance: float) -> Iterator[tuple[str, str]]:
    """Known losses that lack a round λ times the squares of some weights."""
    tables = {
        name
        for layer in record.settings.get("layers", {}).values()
        if layer["kind"].startswith("Embedding")
        for name in layer["weights"].values()
    }
    squares = {
        name: float(np.square(step["weights"][name], dtype=float).sum())
        for name in step["gradients"] or step["weights"]
    }
    matrices = [name for name in squares if step["weights"][name].ndim > 1]
    groups = {
        "kernels": [name for name in matrices if name not in tables],
        "embeddings": [name for name in matrices if name in tables],
        "kernels and embeddings": matrices,
        "all weights": [*squares],
    }
    loss, known = _values(step)
    for (name, value), (group, members) in itertools.product(known.items(), groups.items()):
        total, rest = sum(squares[member] for member in members), loss - value
        factor = float(f"{rest / total:.1e}") if total and np.isfinite(rest) else 0.0
        if rest > 100 * tolerance * loss and abs(rest - factor * total) <= tolerance * loss:
            yield f"{name} + {factor:g}·Σw² over {group}", f"{value:.9g} + {factor:g}·{total:.6g}"


def name_ratio(ratio: float, step: Step, tolerance: float) -> str | None:
    """What a ratio between two losses or gradients is, or is one over."""
    batch = next(iter(step["batch"].values()), np.empty(0))
    output = next(iter(step["output"].values()), np.empty(0))
    known = {"2": 2.0}
    if batch.ndim:
        known["the batch size: a sum here against a mean there"] = float(len(batch))
    if output.ndim > 1:
        known["the numbers of an example"] = float(output[0].size)
        known["the numbers of the batch: a sum here against a mean there"] = float(output.size)
    for name, value in known.items():
        for factor, side in ((value, ""), (1 / value, "1 / ")):
            if value != 1 and abs(ratio / factor - 1) <= tolerance:
                return f"{side}{value:g} ({name})" if name != "2" else f"{side}2"
    return None

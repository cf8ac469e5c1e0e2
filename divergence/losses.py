"""Which loss makes a program's number of its output and target.

Each known error, of each number or of each example's class, is reduced in each known way, and over all pairs where the
arrays broadcast. Where none gives the recorded number, one with a penalty λΣw² on top counts.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
from scipy.special import expit, log_softmax, softmax

from divergence.comparison import Comparison
from divergence.layers import find_layers
from divergence.record import Array, Record, Step

ROUND_OFF = {"float32": 5e-6, "float64": 1e-10}
"""How far, relatively, a loss may be off in each precision."""
SMOOTHINGS = 0, 0.1, 0.05, 0.2
PENALTY = re.compile(r"(.*) \+ (.*)·Σw² over (.*)")
"""A penalised loss: the loss without it, λ, and the group of weights."""
REDUCTIONS: dict[str, Callable[[Array], float]] = {
    "mean": lambda errors: float(errors.mean()),
    "sum": lambda errors: float(errors.sum()),
    "sum over an example's numbers, mean over the batch,": lambda errors: float(errors.sum() / len(errors)),
}


def find_loss(comparison: Comparison, side: int) -> dict[str, str]:
    """The losses that give the recorded number in each step, by name, with the first step's; empty where none does."""
    record = comparison.records[side]
    tolerance, groups = ROUND_OFF[record.precision], find_groups(comparison, side)
    for explain in (_plain, partial(_penalised, groups)):
        by_step = [dict(explain(record, step, tolerance)) for step in record.steps]
        if common := [name for name in by_step[0] if all(name in fits for fits in by_step)]:
            return {name: by_step[0][name] for name in common}
    return {}


def complete_losses(comparison: Comparison) -> tuple[dict[str, str], dict[str, str]]:
    """Both programs' losses; where one's is known, and isn't nearly the other's too, the other's is called unknown."""
    found = [find_loss(comparison, side) for side in (0, 1)]
    for side, record in enumerate(comparison.records):
        known = found[1 - side]
        recorded = [dict(_plain(record, step, np.inf)) for step in record.steps]
        if known and not found[side] and all(recorded):
            near = [dict(_plain(record, step, 4 * ROUND_OFF[record.precision])) for step in record.steps]
            shared = [name for name in known if all(name in fits for fits in near)]
            found[side] = dict.fromkeys(shared, "nearly") or _multiples(record, known) or _unknown(record)
    return found[0], found[1]


def _multiples(record: Record, known: Iterable[str]) -> dict[str, str]:
    """The losses that give the recorded number when they are taken some times, the same in each step."""
    found = {}
    for name in known:
        values = [{n: (value, loss) for n, value, loss in _known(record, step)}.get(name) for step in record.steps]
        ratios = [loss / value if value else np.nan for value, loss in filter(None, values)]
        if len(ratios) == len(record.steps) and np.ptp(ratios) <= 4 * ROUND_OFF[record.precision] * abs(ratios[0]):
            found[f"{ratios[0]:.5g} times the {name}"] = f"{values[0][1]:.9g}" if values[0] else ""
    return found


def _unknown(record: Record) -> dict[str, str]:
    nearest = min(abs(value / loss - 1) for _, value, loss in _known(record, record.steps[0]) if loss)
    hint = "; record in float64 to tell a small penalty" if record.precision == "float32" and nearest < 1e-3 else ""
    return {f"no known formula fits ({record.precision}{hint})": f"{next(_known(record, record.steps[0]))[2]:.9g}"}


def _plain(record: Record, step: Step, tolerance: float) -> Iterator[tuple[str, str]]:
    for name, value, loss in _known(record, step):
        if abs(loss - value) <= tolerance * abs(loss):
            yield name, f"{value:.9g}"


def find_groups(comparison: Comparison, side: int) -> dict[str, set[str]]:
    """The weights of one program that a penalty may be over, by names that are the same for both."""
    record = comparison.records[side]
    step, tables = record.steps[0], record.tables
    learned = {*(step["gradients"] or step["weights"])}
    matrices = {name for name in learned if step["weights"][name].ndim > 1}
    groups = {"kernels": matrices - tables, "embeddings": matrices & tables, "kernels and embeddings": matrices}
    groups["all weights"] = learned
    paired = {pair.one: (pair.one, pair.other) for pair in comparison.pairs}
    stated = []
    for place, program in enumerate(comparison.records):
        penalised = {name for layer in program.layers.values() for name in layer.get("penalised", [])}
        stated.append({name for name, both in paired.items() if both[place] in penalised})
    for names in (*stated, *({name} for name in paired)):
        members = {paired[name][side] for name in names} & matrices
        if members and members not in groups.values():
            groups[", ".join(sorted(names))] = members
    return groups


def count_digits(number: float) -> int:
    """How many digits of a number count: 1 of 0.01."""
    return len(f"{number:e}".partition("e")[0].replace(".", "").rstrip("0"))


def _penalised(groups: dict[str, set[str]], record: Record, step: Step, tolerance: float) -> Iterator[tuple[str, str]]:
    """Known losses that lack a round λ times the squares of some weights, those with the roundest one first."""
    found: list[tuple[int, str, str]] = []
    squares = {name: float(np.square(weight, dtype=float).sum()) for name, weight in step["weights"].items()}
    for (name, value, loss), (group, members) in itertools.product(_known(record, step), groups.items()):
        total, rest = sum(squares[member] for member in members), loss - value
        if not total or not np.isfinite(rest) or rest <= 20 * tolerance * loss:
            continue
        digits = 3 if rest > 1e6 * tolerance * loss else 1 if rest > 1000 * tolerance * loss else 0  # as the rest tells
        factor = float(f"{rest / total:.{digits}e}")
        sizes = factor, float(np.float32(factor))  # Keras on TensorFlow takes it through float32
        if any(abs(rest - size * total) <= tolerance * loss for size in sizes):
            found.append(
                (count_digits(factor), f"{name} + {factor:g}·Σw² over {group}", f"{value:.9g} + {factor:g}·{total:.6g}")
            )
    for _, words, numbers in sorted(found, key=lambda fit: fit[0]):
        yield words, numbers


def _known(record: Record, step: Step) -> Iterator[tuple[str, float, float]]:
    """What known losses of a step's output and target are, by name, beside the recorded one."""
    if not (step["loss"] and step["output"] and "target" in step["batch"]):
        return
    loss = float(np.ravel(next(iter(step["loss"].values())))[0])
    output, target = next(iter(step["output"].values())), np.asarray(step["batch"]["target"], dtype=float)
    with np.errstate(all="ignore"):
        errors = _errors(output, target, _is_squashed(record, step, output))
        for (error, values), (reduction, reduce) in itertools.product(errors, REDUCTIONS.items()):
            yield f"{reduction} of the {error}", reduce(values), loss


def _errors(output: Array, target: Array, is_squashed: bool | None) -> Iterator[tuple[str, Array]]:
    """Known errors by what they are called."""
    if output.size == target.size:
        yield from _of_numbers(output.reshape(target.shape), target, is_squashed)
    elif output.ndim > 1:
        for axis in {1, output.ndim - 1}:
            yield from _of_classes(np.moveaxis(output, axis, -1), target)
    if output.ndim != target.ndim:
        try:
            shape = np.broadcast_shapes(output.shape, target.shape)
        except ValueError:
            return
        broadcast = f"over all pairs: {output.shape} and {target.shape} broadcast to {' × '.join(map(str, shape))}"
        if np.prod(shape) > max(output.size, target.size):
            yield from ((f"{name}, {broadcast}", values) for name, values in _of_numbers(output, target, is_squashed))


def _is_squashed(record: Record, step: Step, output: Array) -> bool | None:
    """Whether the output comes from a sigmoid or softmax; None where that can't be told."""
    last = find_layers(record, step)[-1:]
    if not last or not np.array_equal(last[0].raw("output"), output):
        return None
    known = last[0].settings
    return bool(re.search("sigmoid|softmax", f"{known['kind']} {known.get('activation')}", re.IGNORECASE))


def _of_numbers(output: Array, target: Array, is_squashed: bool | None) -> Iterator[tuple[str, Array]]:
    apart = np.abs(output.astype(float) - target)
    yield "squared error", apart**2
    yield "halved squared error", apart**2 / 2
    yield "absolute error", apart
    yield "Huber loss (δ = 1)", np.where(apart < 1, apart**2 / 2, apart - 0.5)
    output, raw = output.astype(float), output
    highest = np.subtract(1, 1e-7, dtype=raw.dtype if raw.dtype.kind == "f" else float)  # that Keras takes
    entropy, probability = "binary cross-entropy", np.clip(output, 1e-7, float(highest))
    may_be_probabilities = (output >= 0).all() and (output <= 1).all() and is_squashed is not False
    are_probabilities = may_be_probabilities and (is_squashed or 0.3 < output.mean() < 0.7)  # logits may be there too
    second = f"{entropy} of the sigmoid of probabilities: a second sigmoid"
    yield second if are_probabilities else entropy, np.logaddexp(0, output) - target * output
    if not may_be_probabilities:  # the program may take the sigmoid after its model
        yield second, np.logaddexp(0, expit(output)) - target * expit(output)
    wrong = f"{entropy} of numbers outside [0, 1]: logits where probabilities are expected"
    of_probabilities = -target * np.log(probability) - (1 - target) * np.log1p(-probability)
    yield entropy if may_be_probabilities else wrong, of_probabilities
    are_shares = output.shape == target.shape and output.ndim > 1 and np.allclose(target.sum(axis=-1), 1)
    if are_shares and output.shape[-1] > 1:
        yield from _of_classes(output, target.argmax(axis=-1))


def _of_classes(output: Array, target: Array) -> Iterator[tuple[str, Array]]:
    """Cross-entropies of outputs (…, classes) and class numbers (…)."""
    rows, chosen = output.reshape(-1, output.shape[-1]).astype(float), target.astype(int).reshape(-1)
    if len(rows) != len(chosen) or chosen.min() < 0 or chosen.max() >= rows.shape[1]:
        return
    of_chosen, entropy = (np.arange(len(rows)), chosen), "cross-entropy"
    are_probabilities = (rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=1e-5)
    second = f"{entropy} of the softmax of probabilities: a second softmax"
    wrong = f"{entropy} of numbers that are no probabilities: logits where probabilities are expected"
    shares = np.clip(rows / rows.sum(axis=1, keepdims=True), 1e-7, 1 - 1e-7)  # as Keras takes them
    clipped = np.clip(rows, 1e-7, 1 - 1e-7)  # as it takes class numbers on TensorFlow
    of_softmax, of_shares = (second, entropy) if are_probabilities else (entropy, wrong)
    ways = [(of_softmax, log_softmax(rows, axis=1)), (of_shares, np.log(shares))]
    if not are_probabilities:  # the program may take the softmax after its model
        ways += [(wrong, np.log(clipped / clipped.sum(axis=1, keepdims=True)))]
        ways += [(second, log_softmax(softmax(rows, axis=1), axis=1))]
    for smoothing, (name, logarithms) in itertools.product(SMOOTHINGS, ways):
        smoothed = f"{name}, labels smoothed by {smoothing:g}" if smoothing else name
        yield smoothed, -(1 - smoothing) * logarithms[of_chosen] - smoothing * logarithms.mean(axis=1)
    if not np.allclose(np.exp(rows).sum(axis=1), 1, atol=1e-5):
        yield "negative output of the class, which should be a log-probability", -rows[of_chosen]

"""Which optimiser, with which mixture of conventions, takes a program's weights and gradients to its next weights.

Every known mixture is tried on what the program recorded (`optimisers` has the formulas): clipping, then coupled weight
decay, then the optimiser, then decoupled weight decay. Settings that the record doesn't have are tried at their usual
values.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from divergence.optimisers import adagrad, adam, rmsprop, sgd, take_steps
from divergence.record import Array, Record, Step

Mixture: TypeAlias = tuple[tuple[str, str], ...]
"""What is chosen for each part of a step, in words."""
Hint: TypeAlias = tuple[str, float]
"""What is clipped, in words, and to how much; or `EPSILON` and its size."""
Arrays: TypeAlias = Sequence[Array]
"""Of consecutive steps."""
Words: TypeAlias = dict[str, dict[str, Any]]
"""What can be chosen, in words, and the formula's arguments that say the same."""
Options: TypeAlias = dict[str, Words]
"""The choices for each part of a step."""

EPSILON, DECAY, RATE = "ε", "weight decay", "learning rate"
EACH, ALL, NUMBERS = "each tensor to norm ", "all together to norm ", "each number to ±"
HINTS = {"clipnorm": EACH, "global_clipnorm": ALL, "clipvalue": NUMBERS, "epsilon": EPSILON}
"""By Keras's names."""
NOT_TRAINED: Mixture = (("optimiser", "none (not trained)"),)
NAMED = "SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "SparseAdam"
"""The frameworks' optimisers that have a formula here."""
APART = "squared look-up by look-up"
REPEATED, UNUSED, OF_STEPS = "repeated rows", "rows not looked up", "momentum of"
"""Parts; the last two are open where each step looks up all rows, as of a dense layer, and where the rate stays."""
OTHER_GRADIENTS = "unknown: the optimiser got other gradients than the loss gave (scaled, or of several batches)"
SAMPLE = 3000
"""How many of a tensor's numbers are enough to tell formulas apart."""
CANCELLED = 1e-3
"""What is left of two numbers of opposite signs, of their size, to have lost the digits that a step is told by."""
PRECISION = {"float32": (1e-4, 3e-7, 1e-6), "float64": (1e-9, 1e-15, 1e-11)}
"""How far a step may be off: of itself, of the weight, and of the tensor's largest step."""


def explain_steps(record: Record, hints: set[Hint]) -> dict[str, set[Mixture]]:
    """The mixtures that explain each weight's steps, of those the ones whose parts explain the most of the weights.

    So a tensor that clipping never touched counts as clipped where the others are. A weight whose steps weren't
    recorded, or that round-off alone moves, is left out; one that no mixture explains has none.
    """
    found: dict[str, set[Mixture]] = {}
    for name, weight in record.steps[0]["weights"].items():
        if weight.size and all(name in step[kind] for step in record.steps for kind in ("weights", "after")):
            if all(_is_rounding(name, step["gradients"], record.precision) for step in record.steps):
                continue
            learns = all(name in step["gradients"] for step in record.steps)
            stays = all(np.array_equal(step["weights"][name], step["after"][name]) for step in record.steps)
            if learns:
                found[name] = set(_explain(name, record, hints))
            if stays and not found.get(name):
                found[name] = {NOT_TRAINED}
    often = Counter(part for mixtures in found.values() for part in {*itertools.chain(*mixtures)})
    support = {m: sum(often[part] for part in m) / len(m) for mixtures in found.values() for m in mixtures}
    most = {name: max((support[m] for m in mixtures), default=0) for name, mixtures in found.items()}
    return {name: {m for m in mixtures if support[m] == most[name]} for name, mixtures in found.items()}


def _is_rounding(name: str, gradients: dict[str, Array], precision: str) -> bool:
    """Whether a gradient is only the others' round-off, which many formulas fit: of a bias before a batch norm."""
    largest = max((np.abs(array).max(initial=0) for array in gradients.values()), default=0.0)
    return bool(0 < np.abs(gradients.get(name, 0.0)).max(initial=0) < 256 * np.finfo(precision).eps * largest)


def find_hints(record: Record) -> set[Hint]:
    """The clippings and the ε that the record's settings, or its clipped gradients, speak of."""
    settings = record.optimizer_of()
    found = {(way, float(settings[name])) for name, way in HINTS.items() if settings.get(name)}
    for step in record.steps:
        if any(
            not np.array_equal(array, step["gradients"].get(name, array)) for name, array in step["clipped"].items()
        ):
            norms = [float(np.linalg.norm(array)) for array in step["clipped"].values()]
            largest = max(float(np.abs(array).max()) for array in step["clipped"].values())
            found |= {(EACH, max(norms)), (ALL, float(np.linalg.norm(norms))), (NUMBERS, largest)}
    return found


def _explain(name: str, record: Record, hints: set[Hint]) -> Iterator[Mixture]:
    looked_up, chosen = _choose(name, record)

    def sample(arrays: Arrays) -> Arrays:
        return [np.asarray(array, dtype=float).ravel()[chosen] for array in arrays]

    before, after = (sample([step[kind][name] for step in record.steps]) for kind in ("weights", "after"))
    rates = record.rates_of(name)
    of_step, of_weight, of_largest = PRECISION[record.precision]
    tolerances = of_step, of_weight * _count_repeats(name, record) ** 0.5, of_largest
    for clipping, clipped, of_look_ups in _clipped(name, record, hints):
        gradients = sample(clipped)
        squares, rows = (arrays and sample(arrays) for arrays in (of_look_ups, looked_up))
        for mixture, rule in _mixtures(name, record, hints, squares, rows):
            with np.errstate(all="ignore"):  # a wrong formula may take the root of what is below zero
                steps = rule(gradients, rates or [1.0] * len(before), weights=before)
            rate = 1.0 if rates else _find_rate(steps[0], before[0] - after[0], record.precision)
            told = ~_cancelling(gradients, before, rule.keywords.get("coupled", 0.0))
            moved = zip(steps, before, after, strict=True)
            if told.any() and all(_fits(rate * s[told], b[told], a[told], tolerances) for s, b, a in moved):
                shown = ", ".join(dict.fromkeys(f"{given:.7g}" for given in rates or [rate]))
                yield (*mixture, (RATE, shown), ("clipping", clipping))


def _choose(name: str, record: Record) -> tuple[Arrays | None, Array]:
    """Which rows each step looked up, if not all; and a sample of the numbers' places.

    Rows looked up in some steps and not in others tell the most, those never looked up the least.
    """
    moved = [step["gradients"][name] != 0 for step in record.steps]
    rows = [np.broadcast_to(m.any(axis=tuple(range(1, m.ndim)), keepdims=True), m.shape) for m in moved]
    order = np.random.default_rng(0).permutation(moved[0].size)
    often = np.sum(rows, axis=0).ravel()[order]
    by_use = order[np.argsort(np.where(often == 0, len(rows) + 1, often), kind="stable")]
    chosen = np.concatenate([by_use[:SAMPLE], order[often == 0][:100]])
    return None if all(m.all() for m in rows) else rows, chosen


def _cancelling(gradients: Arrays, weights: Arrays, decay: float) -> Array:
    """Where a coupled weight decay takes off nearly all of a gradient: Adam makes a step of what round-off leaves."""
    pairs = zip(gradients, weights, strict=True)
    found: Array = np.any([np.abs(g + decay * w) < CANCELLED * np.abs(decay * w) for g, w in pairs], axis=0)
    return found


def _count_repeats(name: str, record: Record) -> int:
    """How often a step looks up one row at most, where each look-up may be taken off by itself, and is rounded so."""
    if name not in record.steps[0]["squares"]:
        return 1
    ids = [array for name, array in record.steps[0]["batch"].items() if name != "target" and array.dtype.kind in "iu"]
    return max((int(np.unique(array, return_counts=True)[1].max()) for array in ids if array.size), default=1)


def _fits(step: Array, before: Array, after: Array, tolerances: tuple[float, float, float]) -> bool:
    of_step, of_weight, of_largest = tolerances
    allowed = of_step * np.abs(step) + of_weight * np.abs(before) + of_largest * np.abs(before - after).max()
    return bool((np.abs(before - step - after) <= allowed).all())


def _find_rate(unit_step: Array, step: Array, precision: str) -> float:
    """The learning rate that the first step tells, to four digits where it is a round number."""
    rate = float((unit_step * step).sum() / ((unit_step**2).sum() or 1.0))
    rounded = float(f"{rate:.3e}")
    return rounded if abs(rate / (rounded or 1.0) - 1) < PRECISION[precision][0] else rate


def _clipped(name: str, record: Record, hints: set[Hint]) -> Iterator[tuple[str, Arrays, Arrays | None]]:
    """A weight's gradients and squares under each way of clipping, in words; of those that give what was recorded."""
    ways = {"none": (ALL, np.inf, False)}
    for way, limit in sorted(hint for hint in hints if hint[0] != EPSILON):
        ways[f"{way}{limit:.4g}"] = way, limit, False
        if way != NUMBERS and any(step["squares"] for step in record.steps):
            ways[f"{way}{limit:.4g}, taken before the rows are summed"] = way, limit, True
    used = [step["clipped"].get(name, step["gradients"][name]) for step in record.steps]
    fitting = []
    for words, settings in ways.items():
        gradients, squares = zip(*(_clip(step, name, *settings) for step in record.steps), strict=True)
        if not any(step["clipped"] for step in record.steps):
            yield words, gradients, None if any(square is None for square in squares) else squares
        elif all(np.allclose(g, u, 1e-4, 1e-6 * np.abs(u).max()) for g, u in zip(gradients, used, strict=True)):
            fitting.append(words)
    if any(step["clipped"] for step in record.steps):
        yield from ((words, used, None) for words in fitting or [OTHER_GRADIENTS])


def _clip(step: Step, name: str, way: str, limit: float, apart: bool) -> tuple[Array, Array | None]:
    """A weight's gradient, clipped, and its look-ups' squares; `apart`: by the norm of look-ups not yet summed."""
    gradients, squares = step["gradients"], step["squares"]
    if way == NUMBERS:
        return np.clip(gradients[name], -limit, limit), None
    norms = squares if apart else {}
    names = [name] if way == EACH else [*gradients]
    total = sum(float(np.sum(norms[n] if n in norms else np.square(gradients[n], dtype=float))) for n in names)
    factor = min(1.0, limit / total**0.5) if total else 1.0
    return factor * gradients[name], factor**2 * squares[name] if name in squares else None


def _mixtures(
    name: str, record: Record, hints: set[Hint], squares: Arrays | None, looked_up: Arrays | None
) -> Iterator[tuple[Mixture, partial[list[Array]]]]:
    """Each optimiser with each mixture of its options: in words, and as a function of gradients, rates and weights."""
    settings = record.optimizer_of(name)

    def numbers(names: str, *usual: float, cast: bool = False) -> list[float]:
        """What the record says, or the usual values; `cast`: also what Keras on TensorFlow makes of them in float64."""
        values = [float(settings[name]) for name in names.split() if name in settings][:1] or [*usual]
        rounded = [float(np.float32(value)) for value in values] if cast and record.precision == "float64" else []
        return [*dict.fromkeys(values + rounded)]

    momenta = numbers("momentum", 0.0, 0.9, cast=True)
    stated = {size for what, size in hints if what == EPSILON}  # by either program: one that steps can't tell is shared
    epsilons = {*(stated or {1e-10}), 1e-8, 1e-7}  # a subclass may have another than it says
    if "epsilon" not in settings:
        epsilons |= {1e-6, 1e-5}
    decay: Options = {DECAY: {"none": {}}}
    for size in numbers("weight_decay", 0.1, 0.01, 1e-3, 5e-4, 1e-4, 1e-5, cast=True):
        if size:
            decay[DECAY][f"coupled: {size:.9g}·w joins the gradient"] = {"coupled": size}
            decay[DECAY][f"decoupled: rate·{size:.9g}·w off the weight"] = {"decoupled": size}
    momentum: Words = {f"{m:.9g}": {"momentum": m} for m in momenta}
    velocity: Words = momentum | {f"{m:.9g}, Nesterov": {"momentum": m, "nesterov": True} for m in momenta if m}
    for m, dampening in itertools.product(momenta, numbers("dampening", 0.9)):
        if m and dampening:
            velocity[f"{m:.9g}, dampening {dampening:.9g}"] = {"momentum": m, "dampening": dampening}
    betas = itertools.product(numbers("beta_1", 0.9, 0.5), numbers("beta_2", 0.999, 0.98))
    beta = {f"{b1:g}, {b2:g}": {"beta_1": b1, "beta_2": b2} for b1, b2 in betas}
    after = {f"{e:g} added to √v̂, after the bias correction": {"epsilon": e} for e in epsilons}
    before = {f"{e:g} added to √v, before the bias correction": {"epsilon": e, "epsilon_hat": True} for e in epsilons}
    root = {f"{e:g} added to the root": {"epsilon": e} for e in epsilons}
    root |= {f"{e:g} under the root": {"epsilon": e, "epsilon_inside": True} for e in epsilons}
    rho = {f"{value:g}": {"rho": value} for value in numbers("alpha rho", 0.9, 0.99)}
    powers: Words = {"exact": {}, "of β rounded to float32": {"rounded_betas": True}}
    sums = {f"{s:.9g}": {"initial": s} for s in numbers("initial_accumulator_value", 0.0, 0.1, cast=True)}
    one_by_one: Words = {APART: {"squares": squares}} if squares else {}
    rows: Options = {REPEATED: {"summed, then squared": {}} | one_by_one}
    lazy: Options = {UNUSED: {"move on": {}, "stay (lazy)": {"looked_up": looked_up}}}
    of_adam: Options = {"β": beta, EPSILON: after | before, "βᵗ": powers} | rows | lazy | decay
    first: Words = {"0": {}, "1": {"initial": 1}}
    of_rmsprop: Options = {"ρ": rho, EPSILON: root, "momentum": momentum, "first mean square": first}
    found: dict[str, tuple[Callable[..., Array], Options]] = {
        "SGD": (sgd, {"momentum": velocity, OF_STEPS: {"gradients": {}, "steps": {"rate_inside": True}}} | decay),
        "Adam": (adam, of_adam),
        "RMSprop": (rmsprop, of_rmsprop | rows | decay),
        "RMSprop, centered": (partial(rmsprop, centered=True), of_rmsprop | rows | decay),
        "Adagrad": (adagrad, {EPSILON: root, "first sum of squares": sums} | rows | decay),
    }
    if settings.get("amsgrad", not settings):
        found["AMSGrad"] = partial(adam, amsgrad=True), of_adam
    for optimiser, (rule, choices) in found.items():
        for chosen in itertools.product(*(words.items() for words in choices.values())):
            mixture = (("optimiser", optimiser), *zip(choices, (word for word, _ in chosen), strict=True))
            arguments = {setting: value for _, options in chosen for setting, value in options.items()}
            yield mixture, partial(take_steps, rule, **arguments)


def differing_parts(
    one: set[Mixture], other: set[Mixture], records: tuple[Record, Record]
) -> list[tuple[str, str, str]]:
    """The parts in which two sets of mixtures have to differ, as few as possible, with what each program does.

    Where several values of ε explain the steps, it is the one that the program's own settings have.
    """
    stated = [record.optimizer_of().get("epsilon") for record in records]
    usual = ["after" if record.is_pytorch else "before" for record in records]

    def rank(parts: list[tuple[str, str, str]]) -> tuple[Any, ...]:
        """The fewest parts, then those whose ε is as the programs state it and where their frameworks put it."""
        epsilons = [of for part, *both in parts if part == EPSILON for of in zip(both, stated, usual, strict=True)]
        unstated = sum(own is not None and words.split()[0] != f"{own:g}" for words, own, _ in epsilons)
        unusual = sum("bias correction" in words and place not in words for words, _, place in epsilons)
        return len(parts), unstated, unusual, len(str(parts)), parts

    return min(itertools.starmap(_differing, itertools.product(one, other)), key=rank)


def _differing(one: Mixture, other: Mixture) -> list[tuple[str, str, str]]:
    a, b = dict(one), dict(other)
    if a["optimiser"] != b["optimiser"]:
        return [("the optimiser", a["optimiser"], b["optimiser"])]
    parts = [(part, a[part], b[part]) for part in a if a[part] != b[part]]
    return [part for part in parts if part[0] != RATE or not _is_rounded(*part[1:])]


def _is_rounded(*both: str) -> bool:
    """Whether two programs' rates are the same but that one has rounded them to float32."""
    here, there = ([float(rate) for rate in words.split(", ")] for words in both)
    return len(here) == len(there) and np.allclose(here, there, rtol=1e-5, atol=0)


def describe_mixtures(mixtures: set[Mixture], precision: str, looks_up: bool) -> str:
    """What mixtures that explain the same steps have in common, and what that precision leaves open.

    What becomes of rows is said only where a program `looks_up` some.
    """
    told = ", ".join(
        f"{part} {next(iter(found))}" for part, found in _values(mixtures, looks_up).items() if len(found) == 1
    )
    left_open = ", ".join(list_open(mixtures, looks_up))
    return told + (f"; can't be told apart in {precision}: {left_open}" if left_open else "")


def list_open(mixtures: set[Mixture], looks_up: bool) -> list[str]:
    """The parts for which several choices explain the same steps, but for those that steps hardly ever tell."""
    values = _values(mixtures, looks_up)
    return [part for part, found in values.items() if len(found) > 1 and part not in (UNUSED, OF_STEPS)]


def _values(mixtures: set[Mixture], looks_up: bool) -> dict[str, set[str]]:
    """What is chosen for each part that all mixtures have."""
    return {
        part: {dict(mixture)[part] for mixture in mixtures}
        for part, _ in next(iter(mixtures))
        if all(part in dict(mixture) for mixture in mixtures) and (looks_up or part not in (REPEATED, UNUSED))
    }

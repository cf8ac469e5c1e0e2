"""Which optimiser, with which mixture of conventions, takes a program's weights and gradients to its next weights.

Every known mixture is tried on what the program recorded (`optimisers` has the formulas): clipping, then coupled weight
decay, then the optimiser, then decoupled weight decay. Settings that the record doesn't have are tried at their usual
values.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from divergence import optimisers
from divergence.record import Array, Record

Convention: TypeAlias = tuple[tuple[str, str], ...]
"""A mixture: what is chosen for each of its parts, in words."""

USUAL = {
    "repeated rows": "summed, then squared",
    "rows not looked up": "move on",
    "first mean square": "0",
    "dampening": "0",
}
"""What a mixture that doesn't speak of a part does."""

SAMPLE = 3000
"""How many of a tensor's numbers are enough to tell formulas apart."""
NORMS = {"clipnorm": "each tensor", "global_clipnorm": "all together"}
"""Clippings to a norm, by Keras's names."""
PRECISION = {"float32": (1e-4, 3e-7, 1e-6), "float64": (1e-9, 1e-15, 1e-11)}
"""How far a step may be off: of itself, of the weight, and of the tensor's largest step."""


@dataclass(frozen=True)
class Trace:
    """One tensor's steps: a sample of its numbers, the same of each array, in float64."""

    before: list[Array]
    after: list[Array]
    gradients: list[Array]
    squares: list[Array] | None
    looked_up: list[Array] | None
    rates: list[float] | None
    precision: str


def explain_steps(name: str, record: Record) -> set[Convention]:
    """All mixtures that explain a weight's steps in the record; an empty set is none."""
    fits = set()
    settings = record.settings.get("optimizer", {})
    for clipping, trace in _clippings(name, record):
        for decay, coupled, decoupled in _decays(settings, trace.precision):
            gradients = [g + coupled * w for g, w in zip(trace.gradients, trace.before, strict=True)]
            for parts, rule in _rules(settings, trace, coupled):
                rates = trace.rates or [1.0] * len(gradients)
                with np.errstate(all="ignore"):  # a wrong formula may take the root of what is below zero
                    updates = rule(gradients, rates)
                shrinking = [decoupled * rate * w for rate, w in zip(rates, trace.before, strict=True)]
                steps = [update + shrunk for update, shrunk in zip(updates, shrinking, strict=True)]
                rate = 1.0 if trace.rates else _find_rate(steps[0], trace.before[0] - trace.after[0])
                if _explains([rate * step for step in steps], trace):
                    shown = f"{(trace.rates or [rate])[0]:.6g}"
                    fits.add((*parts, ("learning rate", shown), ("weight decay", decay), ("clipping", clipping)))
    return fits


def has_steps(name: str, record: Record) -> bool:
    """Whether the record has what it takes to explain the weight's steps."""
    return all(name in step[kind] for step in record.steps for kind in ("weights", "gradients", "after"))


def _explains(steps: list[Array], trace: Trace) -> bool:
    of_step, of_weight, of_largest = PRECISION[trace.precision]
    for step, before, after in zip(steps, trace.before, trace.after, strict=True):
        allowed = of_step * np.abs(step) + of_weight * np.abs(before) + of_largest * np.abs(before - after).max()
        if not (np.abs(before - step - after) <= allowed).all():
            return False
    return True


def _find_rate(unit_step: Array, step: Array) -> float:
    """The learning rate that the first step tells, to four digits where it is a round number."""
    rate = float((unit_step * step).sum() / ((unit_step**2).sum() or 1.0))
    rounded = float(f"{rate:.3e}")
    return rounded if abs(rate / (rounded or 1.0) - 1) < 1e-4 else rate


def _clippings(name: str, record: Record) -> Iterator[tuple[str, Trace]]:
    """The weight's trace under each way of clipping that the record leaves open."""
    settings = record.settings.get("optimizer", {})
    raw, squares = ([step[kind] for step in record.steps] for kind in ("gradients", "squares"))
    own, own_squares = [step[name] for step in raw], [step[name] for step in squares if name in step]
    if any(step["clipped"] for step in record.steps):
        used = [{**step["gradients"], **step["clipped"]} for step in record.steps]
        changed = [pair for pair in zip(raw, used, strict=True) if _describe_clipping(*pair) != "none"]
        yield (
            _describe_clipping(*(changed or [(raw[0], used[0])])[0]),
            _trace(name, record, [step[name] for step in used], []),
        )
        return
    limits = [(kind, float(settings[kind])) for kind in NORMS if settings.get(kind)]
    if not limits and not settings.get("clipvalue"):
        yield "none", _trace(name, record, own, own_squares)
    if limit := settings.get("clipvalue"):
        yield f"each number to ±{limit:g}", _trace(name, record, [np.clip(g, -limit, limit) for g in own], [])
    if not record.settings.get("framework"):
        limits += [(kind, limit) for kind in NORMS for limit in (0.5, 1.0, 5.0, 10.0)]
    for (kind, limit), apart in itertools.product(limits, [True, False] if any(squares) else [False]):
        names = [name] if kind == "clipnorm" else [*raw[0]]
        factors = [_clip_factor(g, s if apart else {}, names, limit) for g, s in zip(raw, squares, strict=True)]
        which = f"{NORMS[kind]} to norm {limit:g}" if min(factors) < 1 else "none"
        if (own_squares if kind == "clipnorm" else any(squares)) and min(factors) < 1:
            which += f", taken {'before' if apart else 'after'} the rows are summed"
        clipped = [factor * g for factor, g in zip(factors, own, strict=True)]
        clipped_squares = [factor**2 * s for factor, s in zip(factors, own_squares, strict=False)]
        yield which, _trace(name, record, clipped, clipped_squares)


def _clip_factor(gradients: dict[str, Array], squares: dict[str, Array], names: Iterable[str], limit: float) -> float:
    """What a clipping to a norm multiplies the gradients by; `squares` are those of look-ups not yet summed."""
    total = sum(float((squares[n] if n in squares else np.square(gradients[n], dtype=float)).sum()) for n in names)
    return min(1.0, limit / total**0.5) if total else 1.0


def _describe_clipping(raw: dict[str, Array], used: dict[str, Array]) -> str:
    ratios = [float(np.linalg.norm(used[name]) / np.linalg.norm(raw[name])) for name in used if raw[name].any()]
    if max(ratios) - min(ratios) < 1e-4 * max(ratios):
        norm = sum(float(np.square(array, dtype=float).sum()) for array in used.values()) ** 0.5
        return f"all together to norm {norm:.4g}" if min(ratios) < 1 - 1e-5 else "none"
    largest = max(float(np.abs(array).max()) for array in used.values() if array.size)
    if all(np.allclose(used[name], np.clip(raw[name], -largest, largest), rtol=1e-6) for name in used):
        return f"each number to ±{largest:.4g}"
    return "the optimiser got other gradients than the loss gave"


def would_clip(clipping: str, record: Record) -> bool:
    """Whether a clipping described in words would have changed the record's gradients."""
    limit = float(clipping.partition("norm ")[2].partition(",")[0] or clipping.partition("±")[2] or "nan")
    for step in record.steps:
        norms = [float(np.linalg.norm(array)) for array in step["gradients"].values()]
        largest = max(float(np.abs(array).max(initial=0)) for array in step["gradients"].values())
        total = (
            largest if "±" in clipping else max(norms) if "each tensor" in clipping else float(np.linalg.norm(norms))
        )
        if not total <= limit * (1 + 1e-4):
            return True
    return False


def _trace(name: str, record: Record, gradients: list[Array], squares: list[Array]) -> Trace:
    moved = [step["gradients"][name] != 0 for step in record.steps]
    rows = [np.broadcast_to(m.any(axis=tuple(range(1, m.ndim)), keepdims=True), m.shape) for m in moved]
    order = np.random.default_rng(0).permutation(moved[0].size)
    often = np.sum(rows, axis=0).ravel()[order]
    # Rows looked up in some steps and not in others tell the most, those never looked up the least.
    chosen = order[np.argsort(np.where(often == 0, 9, often), kind="stable")][:SAMPLE]
    chosen = np.concatenate([chosen, order[often == 0][:100]])

    def sample(arrays: list[Array]) -> list[Array]:
        return [np.asarray(array, dtype=float).ravel()[chosen] for array in arrays]

    rates = [step["learning_rate"].get("learning_rate") for step in record.steps]
    setting = record.settings.get("optimizer", {}).get("learning_rate")
    given = [
        float(setting if rate is None else rate) for rate in rates if rate is not None or isinstance(setting, float)
    ]
    weights = [step["weights"][name] for step in record.steps]
    return Trace(
        before=sample(weights),
        after=sample([step["after"][name] for step in record.steps]),
        gradients=sample(gradients),
        squares=sample(squares) if squares else None,
        looked_up=None if all(m.all() for m in rows) else [r.ravel()[chosen] for r in rows],
        rates=given if len(given) == len(rates) else None,
        precision="float64" if weights[0].dtype == np.float64 else "float32",
    )


def _decays(settings: dict[str, Any], precision: str) -> Iterator[tuple[str, float, float]]:
    """Ways of weight decay: in words, λ added to the gradient as λw, and λ of the weights taken off as rate·λw."""
    yield "none", 0.0, 0.0
    recorded = settings.get("weight_decay") if settings else None
    sizes = (
        _as_float32([float(recorded)], precision)
        if recorded
        else []
        if settings
        else [0.1, 0.01, 1e-3, 5e-4, 1e-4, 1e-5]
    )
    for size in sizes:
        yield f"coupled: {size:.9g}·w joins the gradient", size, 0.0
        yield f"decoupled: rate·{size:.9g}·w off the weight", 0.0, size


def _rules(
    settings: dict[str, Any], trace: Trace, coupled: float
) -> Iterator[tuple[Convention, Callable[[list[Array], list[float]], list[Array]]]]:
    """Optimisers with each mixture of conventions, in words and as a function of gradients and learning rates."""
    squares = [None, trace.squares] if trace.squares and not coupled else [None]

    def apart(square: list[Array] | None) -> list[tuple[str, str]]:
        return [("repeated rows", "squared look-up by look-up")] if square else []

    for momentum, nesterov, dampening in itertools.product(
        _as_float32(_either(settings, 0.0, 0.9, "momentum"), trace.precision), (False, True), (0.0, 0.9)
    ):
        if momentum or not (nesterov or dampening):
            parts: Convention = (("optimiser", "SGD, Nesterov" if nesterov else "SGD"), ("momentum", f"{momentum:.9g}"))
            parts += (("dampening", f"{dampening:g}"),) if dampening else ()
            yield parts, partial(optimisers.sgd, momentum=momentum, nesterov=nesterov, dampening=dampening)

    betas_1, betas_2 = settings.get("betas") or (settings.get("beta_1"), settings.get("beta_2"))
    epsilons = _either(settings, 1e-8, 1e-7, "eps", "epsilon")
    for b1, b2, epsilon, hat, rounded, corrected, square, lazy, amsgrad in itertools.product(
        [betas_1] if betas_1 else [0.9, 0.5],
        [betas_2] if betas_2 else [0.999, 0.99, 0.98],
        {*epsilons, 1e-8, 1e-7},
        (False, True), (False, True), (True, False), squares, (False, True) if trace.looked_up else (False,),
        (False, True) if settings.get("amsgrad") else (False,),
    ):  # fmt: skip
        if not corrected and (hat or rounded):
            continue
        parts = (
            (
                "optimiser",
                "Adam" + (" (AMSGrad)" if amsgrad else "") + ("" if corrected else " without bias correction"),
            ),
            ("β", f"{b1:g}, {b2:g}"),
            (
                "ε",
                f"{epsilon:g} added to "
                + ("√v, before the bias correction" if hat else "√v̂, after the bias correction"),
            ),
            ("βᵗ", "of β rounded to float32" if rounded else "exact"),
            *apart(square),
            *([("rows not looked up", "stay (lazy)")] if lazy else []),
        )
        yield parts, partial(
            optimisers.adam, squares=square, beta_1=b1, beta_2=b2, epsilon=epsilon, epsilon_hat=hat,
            rounded_betas=rounded, corrected=corrected, amsgrad=amsgrad, looked_up=trace.looked_up if lazy else None,
        )  # fmt: skip

    for rho, epsilon, inside, momentum, centered, initial, square in itertools.product(
        _either(settings, 0.9, 0.99, "alpha", "rho"), {*epsilons, 1e-8, 1e-7}, (False, True),
        _either(settings, 0.0, 0.9, "momentum"), (False, True), (0.0, 1.0), squares,
    ):  # fmt: skip
        parts = (
            ("optimiser", "RMSprop, centered" if centered else "RMSprop"),
            ("momentum", f"{momentum:g}"),
            ("ρ", f"{rho:g}"),
            ("ε", f"{epsilon:g} " + ("under the root" if inside else "added to the root")),
            *([("first mean square", "1")] if initial else []),
            *apart(square),
        )
        yield parts, partial(
            optimisers.rmsprop, squares=square, rho=rho, epsilon=epsilon, epsilon_inside=inside,
            momentum=momentum, centered=centered, initial=initial,
        )  # fmt: skip

    for epsilon, inside, initial, square in itertools.product(
        {*epsilons, 1e-10, 1e-7},
        (False, True),
        {*_as_float32([*_either(settings, 0.0, 0.1, "initial_accumulator_value"), 0.1], trace.precision), 0.0},
        squares,
    ):
        parts = (
            ("optimiser", "Adagrad"),
            ("ε", f"{epsilon:g} " + ("under the root" if inside else "added to the root")),
            ("first sum of squares", f"{initial:.9g}"),
            *apart(square),
        )
        yield (
            parts,
            partial(optimisers.adagrad, squares=square, epsilon=epsilon, epsilon_inside=inside, initial=initial),
        )


def _as_float32(values: list[float], precision: str) -> list[float]:
    """The values, and what becomes of them in float64 in Keras on TensorFlow, where `ops.cast` goes through float32."""
    rounded = [float(np.float32(value)) for value in values] if precision == "float64" else []
    return [*dict.fromkeys(values + rounded)]


def _either(settings: dict[str, Any], first: float, second: float, *names: str) -> list[float]:
    """What the record says, or else both usual values."""
    recorded = [float(settings[name]) for name in names if isinstance(settings.get(name), (int, float))]
    return recorded[:1] or ([first] if settings else [first, second])

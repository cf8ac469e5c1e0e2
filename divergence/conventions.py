"""Names the convention in which two programs differ, checkpoint by checkpoint.

Each program is asked for itself: which known conventions explain what it recorded. Only where no convention explains
both is that a difference. So it is seen however far apart the numbers are, and two draws of one distribution are none.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import numpy as np
from scipy import stats

from divergence.comparison import TOLERANCE, Comparison, Finding, describe_difference, distance
from divergence.gradients import relate_gradients
from divergence.initialisers import find_origins, same_distribution
from divergence.layers import describe_layer, family
from divergence.losses import find_loss, name_ratio
from divergence.pairing import Pair
from divergence.record import Array, Record
from divergence.steps import USUAL, Convention, explain_steps, has_steps, would_clip


def name_shapes(comparison: Comparison) -> Iterator[Finding]:
    """Weights that only one program has."""
    one, other = comparison.pairing.only_one, comparison.pairing.only_other
    if one or other:
        shapes = [
            f"only {'here' if record is comparison.one else 'there'}: {name} {record.steps[0]['weights'][name].shape}"
            for record, names in ((comparison.one, one), (comparison.other, other))
            for name in names
        ]
        yield Finding(1, "shapes", "weights without a counterpart", f"{len(one)}", f"{len(other)}", shapes)


def name_weights(comparison: Comparison) -> Iterator[Finding]:
    """First weights drawn from different distributions."""
    groups: dict[tuple[str, str], list[tuple[Pair, str]]] = defaultdict(list)
    pairs = [*comparison.aligned(1, "weights")]
    origins = [
        find_origins([pair.one for pair, _, _ in pairs], comparison.one),
        find_origins([pair.other for pair, _, _ in pairs], comparison.other),
    ]
    for pair, a, b in pairs:
        one, other = origins[0][pair.one], origins[1][pair.other]
        same = distance(a, b) <= TOLERANCE[comparison.precision]["weights"]
        if same or one.fits.keys() & other.fits.keys():
            continue
        if one.fits or other.fits or not same_distribution(a, b):
            evidence = f"{pair.label}: {one.evidence} here, {other.evidence} there"
            groups[one.name, other.name].append((pair, evidence))
    for (here, there), members in groups.items():
        yield Finding(1, "weights", _names(pair for pair, _ in members), here, there, [line for _, line in members])
    for pair, a, b in comparison.aligned(1, "weights"):
        if a.ndim == 2 and a.any() and b.any():
            zeros = [np.flatnonzero(~table.any(axis=1)) for table in (a, b)]
            if sorted(map(len, zeros)) == [0, 1]:
                here, there = (
                    f"row {rows[0]} is zero (padding)" if len(rows) else "drawn in all rows" for rows in zeros
                )
                yield Finding(1, "weights", _names([pair]), here, there)


def name_batch(comparison: Comparison) -> Iterator[Finding]:
    """Inputs and targets of another kind, size, scale or layout; other rows are chance."""
    one, other = comparison.one.steps[0]["batch"], comparison.other.steps[0]["batch"]
    if len(one) != len(other):
        yield Finding(1, "batch", "what a batch holds", ", ".join(one), ", ".join(other))
        return
    for (name, a), b in zip(one.items(), other.values(), strict=True):
        if {a.dtype.kind, b.dtype.kind} == {"f", "i"} and name != "target":
            largest = max(np.abs(a).max(initial=0), np.abs(b).max(initial=0))
            lost = "beyond 2²⁴ float32 can't hold each id" if largest > 2**24 else "exact up to 2²⁴"
            yield Finding(1, "batch", f"{name}'s type", str(a.dtype), str(b.dtype), [lost])
        if len(a) != len(b):
            yield Finding(1, "batch", f"{name}'s examples", str(len(a)), str(len(b)))
        elif a.shape == b.shape and a.dtype.kind == b.dtype.kind == "f" and _other_scale(a, b):
            here, there = (f"{array.min():.3g} to {array.max():.3g}, mean {array.mean():.3g}" for array in (a, b))
            known = describe_difference(a, b, comparison.precision)
            yield Finding(1, "batch", f"{name}'s scale", here, there, [known] if known else [])


def _other_scale(a: Array, b: Array) -> bool:
    a, b = a.ravel(), b.ravel()
    return bool(distance(a, b) > 1e-6 and stats.ks_2samp(a, b).pvalue < 1e-6)


CHECKPOINT_OF = {
    "running statistics": "after",
    "share of the batch in the running mean": "after",
    "running variance": "after",
    "rows looked up that don't learn": "gradients",
}
"""Where a layer's convention shows, if not in its output."""


def name_layers(comparison: Comparison) -> Iterator[Finding]:
    """Layers of one kind, taken in their order, that follow different conventions."""
    one, other = _families(comparison.one), _families(comparison.other)
    for kind in one.keys() & other.keys():
        differing: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        for here, there in zip(one[kind], other[kind], strict=False):
            left, right = describe_layer(here, comparison.one), describe_layer(there, comparison.other)
            for what in left.keys() & right.keys():
                if not left[what] & right[what]:
                    values = " or ".join(sorted(left[what])), " or ".join(sorted(right[what]))
                    differing[what, *values].append(here if here == there else f"{here} = {there}")
        for (what, one_value, other_value), names in sorted(differing.items()):
            checkpoint, evidence = (
                CHECKPOINT_OF.get(what, "output"),
                f"by what went into and came out of {', '.join(names)}",
            )
            yield Finding(1, checkpoint, f"{kind}: {what}", one_value, other_value, [evidence])


def _families(record: Record) -> dict[str, list[str]]:
    """The layers that have run, in their order, by kind."""
    found = defaultdict(list)
    for key in record.steps[0]["layers"]:
        name, _, side = key.rpartition(":")
        kind = family(record.settings.get("layers", {}).get(name, {}).get("kind", ""))
        if kind and side == "output":
            found[kind].append(name)
    return found


def name_output(comparison: Comparison, step: int) -> Iterator[Finding]:
    """Where, from equal weights and inputs, the layers' outputs part: equal inputs, and an output that only one has."""
    tolerance = TOLERANCE[comparison.precision]["output"]
    layers = [record.steps[step - 1]["layers"] for record in (comparison.one, comparison.other)]
    one, other = ([key.removesuffix(":output") for key in of if key.endswith(":output")] for of in layers)

    def agree(here: str, there: str, side: str) -> bool:
        left, right = (of.get(f"{name}:{side}") for of, name in zip(layers, (here, there), strict=True))
        return left is not None and right is not None and distance(left, right) <= tolerance

    alone = [here for here in one if not any(agree(here, there, "output") for there in other)]
    alone_there = [there for there in other if not any(agree(here, there, "output") for here in one)]
    pairs = [(here, there) for here in alone for there in alone_there if agree(here, there, "input")]
    pairs += itertools.product(alone[:1], alone_there[:1])
    agreeing = ", ".join([name for name in one if name not in alone][-3:])
    evidence = [f"equal outputs: {agreeing}"] if agreeing else []
    if pairs:
        here, there = pairs[0]
        a, b = (of[f"{name}:output"] for of, name in zip(layers, pairs[0], strict=True))
        shown = [_describe_settings(here, comparison.one), _describe_settings(there, comparison.other)]
        what = f"layer {here}" if here == there else f"layer {here} = {there}"
    else:
        a, b = (next(iter(record.steps[step - 1]["output"].values())) for record in (comparison.one, comparison.other))
        shown = [", ".join(names[:3]) or "nothing" for names in (alone, alone_there)]
        what = "layers that the other program has no like of"
    if known := describe_difference(a, b, comparison.precision):
        evidence.append(known)
    yield Finding(step, "output", what, shown[0], shown[1], evidence)


def _describe_settings(name: str, record: Record) -> str:
    layer = dict(record.settings.get("layers", {}).get(name, {}))
    layer.pop("weights", None)
    kind = layer.pop("kind", name)
    telling = ("eps", "epsilon", "momentum", "p", "rate", "stride", "strides", "padding", "dilation", "activation",
        "negative_slope", "approximate", "alpha", "use_bias", "kernel_size", "pool_size", "data_format")  # fmt: skip
    return ", ".join([kind, *(f"{key} {layer[key]}" for key in telling if key in layer)])


def drops_in_both(comparison: Comparison) -> bool:
    """Whether dropout is on in both programs, so that chance alone makes their outputs differ."""
    both = [
        any(describe_layer(name, record).get("dropout") == {"on"} for name in _families(record).get("dropout", []))
        for record in (comparison.one, comparison.other)
    ]
    return all(both)


def name_difference(comparison: Comparison, step: int, checkpoint: str, differing: list[str]) -> Iterator[Finding]:
    """What is known of a difference that arises where all that leads to it agrees."""
    match checkpoint:
        case "output":
            yield from name_output(comparison, step)
        case "loss":
            yield from name_loss_ratio(comparison, step)
        case "gradients":
            groups: dict[tuple[str, str], list[Pair]] = defaultdict(list)
            for pair, here, there in relate_gradients(comparison, step):
                groups[here, there].append(pair)
            for (here, there), pairs in groups.items():
                yield Finding(step, "gradients", f"the gradient of {_names(pairs)}", here, there)
        case "weights":
            changed = f"{_first(differing)}, not as the last step left them"
            yield Finding(step, checkpoint, changed, "changed between the steps, here or there", "")
        case _:
            what = f"the step of {_first(differing)}, from equal weights and gradients"
            yield Finding(step, checkpoint, what, "no known formula", "no known formula")


def name_loss(comparison: Comparison) -> Iterator[Finding]:
    """Losses that are different functions of a program's own output and target."""
    one, other = (find_loss(record, comparison.precision) for record in (comparison.one, comparison.other))
    if one and other and not one.keys() & other.keys():
        here, there = next(iter(one)), next(iter(other))
        yield Finding(1, "loss", "the loss", here, there, [f"{one[here]} here; {other[there]} there"])


def name_loss_ratio(comparison: Comparison, step: int) -> Iterator[Finding]:
    """What the ratio of two losses of equal outputs and targets says."""
    a, b = (
        float(np.ravel(next(iter(record.steps[step - 1]["loss"].values())))[0])
        for record in (comparison.one, comparison.other)
    )
    known = name_ratio(a / b if b else np.inf, comparison.one.steps[step - 1], TOLERANCE[comparison.precision]["loss"])
    yield Finding(
        step,
        "loss",
        "the loss, of equal outputs and targets",
        f"{a:.9g}",
        f"{b:.9g}",
        [f"the ratio is {known}"] if known else [],
    )


def name_steps(comparison: Comparison, explained: "Explained") -> Iterator[Finding]:
    """Optimisers that take weights and gradients to the next weights by different formulas."""
    one, other = explained
    groups: dict[tuple[str, str, str], list[Pair]] = defaultdict(list)
    for pair in comparison.pairing.pairs:
        here, there = one.get(pair.one), other.get(pair.other)
        if here is None or there is None or here & there or not (here or there):
            continue
        if here and there:
            for part, left, right in _closest(here, there):
                if part != "clipping" or _clips_differently(comparison, left, right):
                    groups[part, left, right].append(pair)
        elif comparison.differences(1, "after").get(pair.label, np.inf) > TOLERANCE[comparison.precision]["after"]:
            left, right = ("a known formula" if found else "no known formula explains it" for found in (here, there))
            groups["the formula", left, right].append(pair)
    steps = min(len(comparison.one.steps), len(comparison.other.steps))
    evidence = f"by {steps} steps of weights and gradients, each program's own, in {comparison.precision}"
    for (part, left, right), pairs in sorted(groups.items(), key=lambda group: group[0][0] == "the formula"):
        yield Finding(1, "after", f"{part}, for {_names(pairs)}", left, right, [evidence])


def common_steps(comparison: Comparison, explained: "Explained") -> dict[str, set[Convention]]:
    """The mixtures that explain a weight's steps in both programs, by the pair's label."""
    one, other = explained
    common = {p.label: one.get(p.one, set()) & other.get(p.other, set()) for p in comparison.pairing.pairs}
    return {label: mixtures for label, mixtures in common.items() if mixtures}


def describe_common_step(comparison: Comparison, common: dict[str, set[Convention]]) -> str | None:
    """The formula by which both programs step, and what their precision leaves open."""
    if not common or not (everywhere := set.intersection(*common.values())):
        return None
    values: dict[str, set[str]] = defaultdict(set)
    for convention in everywhere:
        for part, value in convention:
            values[part].add(value)
    told = ", ".join(f"{part} {next(iter(found))}" for part, found in values.items() if len(found) == 1)
    open_parts = ", ".join(part for part, found in values.items() if len(found) > 1)
    return told + (f"; can't be told apart in {comparison.precision}: {open_parts}" if open_parts else "")


def _clips_differently(comparison: Comparison, here: str, there: str) -> bool:
    """Whether a program that doesn't clip would have, had it done as the other: its gradients may have been small."""
    if here == "none":
        return would_clip(there, comparison.one)
    return there != "none" or would_clip(here, comparison.other)


Explained: TypeAlias = list[dict[str, set[Convention]]]
"""For each of two programs, the mixtures that explain each weight's steps."""


def step_conventions(comparison: Comparison) -> Explained:
    """The mixtures that explain each weight's steps: of those the ones that explain the most weights."""
    found = []
    for record, names in (
        (comparison.one, [pair.one for pair in comparison.pairing.pairs]),
        (comparison.other, [pair.other for pair in comparison.pairing.pairs]),
    ):
        by_weight = {name: explain_steps(name, record) for name in names if has_steps(name, record)}
        often = Counter(itertools.chain(*by_weight.values()))
        found.append(
            {
                name: {mixture for mixture in mixtures if often[mixture] == max(often[other] for other in mixtures)}
                for name, mixtures in by_weight.items()
            }
        )
    return found


def _closest(one: set[Convention], other: set[Convention]) -> tuple[tuple[str, str, str], ...]:
    """The parts in which two sets of mixtures have to differ, as few as possible, with what each program does."""
    return min(
        (_differing(dict(a), dict(b)) for a in one for b in other),
        key=lambda parts: (len(parts), len(str(parts)), parts),
    )


def _differing(one: dict[str, str], other: dict[str, str]) -> tuple[tuple[str, str, str], ...]:
    if one["optimiser"] != other["optimiser"]:
        return (("the optimiser", one["optimiser"], other["optimiser"]),)
    one, other = USUAL | one, USUAL | other
    return tuple((part, one[part], other[part]) for part in one if part in other and one[part] != other[part])


def _names(pairs: Iterable[Pair]) -> str:
    """The pairs' names in the one program, three of them at most."""
    return _first([pair.one for pair in pairs])


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

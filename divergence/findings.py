"""Names the convention in which two programs differ, checkpoint by checkpoint.

Each program is asked for itself: which known conventions explain what it recorded. Only where no convention explains
both is that a difference. So it is seen however far apart the numbers are, and two draws of one distribution are none.
Only what no program shows by itself is looked for in the numbers of both, where all that leads to them agrees.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from divergence import initialisers, steps
from divergence.comparison import NO_SETTING, Comparison, Finding, distance, relations
from divergence.layers import CONVENTIONS, pair_layers
from divergence.losses import PENALTY, complete_losses, count_digits, find_groups
from divergence.pairing import label_of, list_unpaired
from divergence.parting import find_parting, sort_rows
from divergence.record import Array, Record, Step

Mixtures: TypeAlias = dict[str, tuple[set[steps.Mixture], set[steps.Mixture]]]
"""The mixtures that explain each pair of weights' steps, in the one program and in the other."""

OWN_FORM = re.compile(r"entropy(?!.*(a second|are expected))")
"""Losses that may have been given what they take."""
UNTOLD = "that can't be told from"
WITHOUT_SETTING = {"batch norm's running variance", "βᵗ", steps.REPEATED, steps.OF_STEPS}
STATED = "; where several ε fit, the one that the program states"
FROM_EQUAL = "only from equal weights and batches would a difference show"
OUTSIDE = "something else, after its step"
ROUNDED = 1e-6
"""How far, likewise, in float64 where one program takes a number through float32."""
NEAR = 0.05
"""How far, of the largest number, gradients may be apart in float32 for a ReLU's corner."""


class Claim(NamedTuple):
    """What each program does at a checkpoint, as far as it shows by itself."""

    checkpoint: str
    what: str
    label: str
    """The weight or the layer that it is claimed of; empty where it is of the whole program."""
    one: dict[str, str]
    """The conventions that explain the one program's numbers, each with what speaks for it."""
    other: dict[str, str]
    """Likewise of the other program."""

    @property
    def disagrees(self) -> bool:
        """Whether no convention explains both programs."""
        return bool(self.one and self.other and not self.one.keys() & self.other.keys())


def unpaired_weights(comparison: Comparison) -> Iterator[Finding]:
    """Weights that only one program has."""
    one = list_unpaired(comparison.one, {pair.one for pair in comparison.pairs})
    other = list_unpaired(comparison.other, {pair.other for pair in comparison.pairs})
    if one or other:
        shapes = [f"only here: {weight}" for weight in one] + [f"only there: {weight}" for weight in other]
        yield Finding(1, "shapes", "weights without a counterpart", str(len(one)), str(len(other)), shapes)


def collect_claims(comparison: Comparison) -> Iterator[Claim]:
    """All that each program shows by itself, but its steps."""
    yield from _weights(comparison)
    yield from _batches(comparison)
    yield from _layers(comparison)
    yield from _changes(comparison)
    apart = [value for step in comparison.steps for value in comparison.differences(step, "loss").values()]
    if max(apart, default=0.0) > comparison.tolerance("loss"):
        yield Claim("loss", "the loss", "", *complete_losses(comparison))


def disagreements(claims: Iterable[Claim]) -> Iterator[Finding]:
    """Where no convention explains both programs; one finding for all weights or layers that differ alike."""
    groups: dict[tuple[str, str, str, str], list[tuple[str, str]]] = defaultdict(list)
    for claim in claims:
        if claim.disagrees:
            (here, of_here), (there, of_there) = (next(iter(fits.items())) for fits in (claim.one, claim.other))
            both = of_here if of_here == of_there else f"{of_here or '–'} here, {of_there or '–'} there"
            line = f"{claim.label}: {both}".removeprefix(": ") if both else ""
            groups[claim.checkpoint, claim.what, here, there].append((claim.label, line))
    for (checkpoint, what, here, there), members in groups.items():
        lines = [line for _, line in members if line]
        yield Finding(1, checkpoint, _of(what, [label for label, _ in members]), here, there, lines)


def untold(claims: Iterable[Claim]) -> Iterator[str]:
    """What first weights may differ in, where they are too few to tell."""
    for claim in claims:
        if claim.what.startswith(UNTOLD):
            here, there = next(iter(claim.one)), next(iter(claim.other))
            both = next(known for known in claim.one if known in claim.other)
            yield f"{claim.label} may start as {here} here and {there} there, or as {both} in both: {claim.what}"


def _weights(comparison: Comparison) -> Iterator[Claim]:
    """The distributions that the first weights were drawn from, and a padding row of zeros."""
    one, other = (initialisers.find_origins(record) for record in comparison.records)
    dense = [record.weights_of("Linear", "Dense", "EinsumDense") for record in comparison.records]
    dense_axes = (1, 0) if {record.is_pytorch for record in comparison.records} == {True, False} else (0, 1)
    for pair, a, b in comparison.aligned(1, "weights"):
        if not a.size:
            continue
        finite = [f"{np.isfinite(array).mean():.0%}" for array in (a, b)]
        yield Claim("weights", "share of finite numbers", pair.label, {finite[0]: ""}, {finite[1]: ""})
        if distance(a, b) > comparison.tolerance("weights"):
            fits = one[pair.one], other[pair.other]
            times, shared = initialisers.tell_apart(*fits)
            if shared and times > initialisers.NOTABLE:
                fits = initialisers.likely(fits[0]), initialisers.likely(fits[1])
            if times > initialisers.NOTABLE and initialisers.are_told_apart(fits, (a, b)):
                least = 0 if shared else initialisers.UNNAMED
                here, there = ({known: str(fit) for known, fit in of.items() if fit.p >= least} for of in fits)
                if shared and times < initialisers.UNLIKELY:
                    what = f"{UNTOLD} {a.size} numbers"
                    yield Claim("weights", what, pair.label, here | {shared: ""}, there | {shared: ""})
                else:
                    yield Claim("weights", "initialiser", pair.label, here or _unknown(a), there or _unknown(b))
            yield Claim("weights", "rows of zeros", pair.label, _zero_rows(a), _zero_rows(b))
        elif a.ndim == 2 and pair.axes != dense_axes and pair.one in dense[0] and pair.other in dense[1]:
            as_it_lies = "the same numbers, transposed" if dense_axes == (0, 1) else "the same numbers, not transposed"
            how = "Linear takes (out, in), Dense (in, out)"
            yield Claim("weights", "square kernel", pair.label, {"as its layer takes it": how}, {as_it_lies: how})


def _range(array: Array) -> str:
    return f"{array.min():.3g} to {array.max():.3g}"


def _unknown(array: Array) -> dict[str, str]:
    return {f"no known initialiser (mean {array.mean():.3g}, sd {array.std():.3g})": _range(array)}


def _zero_rows(table: Array) -> dict[str, str]:
    """Which row of a table is zero, as a padding row is; of several nothing is claimed."""
    if table.ndim != 2 or len(table) == 1:
        return {"none": ""}
    rows = np.flatnonzero(~table.any(axis=1))
    if len(rows) > 1:
        return {}
    return {f"row {rows[0]}" if len(rows) else "none": ""}


def _batches(comparison: Comparison) -> Iterator[Claim]:
    """Inputs and targets of another kind, size, scale or layout; other rows are chance."""
    one, other = (record.steps[0]["batch"] for record in comparison.records)
    if len(one) != len(other):
        if one and other:  # what isn't there isn't compared
            yield Claim("batch", "what it holds", "", {", ".join(one): ""}, {", ".join(other): ""})
        return
    apart = comparison.differences(1, "batch")
    agree = [part for part in apart if apart[part] == 0 and initialisers.is_telling(one[part])]
    for name, a, b in comparison.named(1, "batch"):
        yield Claim("batch", "examples", name, {str(len(a)): ""}, {str(len(b)): ""})
        if {a.dtype.kind, b.dtype.kind} == {"f", "i"} and name != "target":
            here, there = ({str(x.dtype): f"{_range(x)}, and float32 holds all to 16,777,216"} for x in (a, b))
            yield Claim("batch", "type", name, here, there)
        elif a.shape == b.shape and distance(a, b) > comparison.tolerance("batch"):
            shifts, counts = np.unique(a.astype(float) - b, return_counts=True)
            shift, share = shifts[counts.argmax()], counts.max() / a.size
            is_shift = shift != 0 and share > 0.9 and len(np.unique(a)) > 10
            if is_shift or not initialisers.same_distribution(a, b):
                known = next(relations(a, b, comparison.tolerance("output")), "")
                if is_shift:
                    known = f"{shift:+g} here in {share:.0%} of the places"
                    if np.array_equal(one.get("target", []), other.get("target", a)):
                        known += ", of equal targets"
                here, there = ({f"{_range(x)}, mean {x.mean():.3g}": known} for x in (a, b))
                yield Claim("batch", "ids" if is_shift else "scale", name, here, there)
            elif agree:
                known, place = next(relations(a, b, comparison.tolerance("output")), ""), int((a != b).argmax())
                here, there = ({f"{x.ravel()[place]:.4g} in place {place}": known} for x in (a, b))
                yield Claim("batch", f"numbers beside an equal {agree[0]}", name, here, there)


def _layers(comparison: Comparison) -> Iterator[Claim]:
    """What paired layers of one kind do."""
    for here, there in pair_layers(comparison):
        label = label_of(here.name, there.name)
        for (checkpoint, what), find in CONVENTIONS[here.family].items() if here.family == there.family else ():
            how = "by what went into it and came out" + (f"; {NO_SETTING}" if what in WITHOUT_SETTING else "")
            values, others = (dict.fromkeys(find(layer), how) for layer in (here, there))
            yield Claim(checkpoint, what, label, values, others)


def stated_alone(comparison: Comparison, claims: list[Claim]) -> Iterator[str]:
    """The ε in which layers differ as they are set, and not in what they compute, as far as that shows."""
    told = {claim.label for claim in claims if claim.disagrees and claim.what.endswith("ε")}
    for here, there in pair_layers(comparison):
        label = label_of(here.name, there.name)
        one, other = here.epsilon, there.epsilon
        if label not in told and one is not None and other is not None and one != other:
            yield f"{label} has ε {one:g} here and {other:g} there, which its numbers don't show"


def _changes(comparison: Comparison) -> Iterator[Claim]:
    """Whether the weights are, at the next step's beginning, what the optimiser has left."""

    def changes(record: Record, name: str) -> dict[str, str]:
        both = [
            (step["after"][name], following["weights"][name])
            for step, following in itertools.pairwise(record.steps)
            if name in step["after"] and name in following["weights"]
        ]
        is_same = all(np.array_equal(after, before, equal_nan=True) for after, before in both)
        return {"the optimiser alone" if is_same else OUTSIDE: ""} if both else {}

    for pair in comparison.pairs:
        one, other = changes(comparison.one, pair.one), changes(comparison.other, pair.other)
        yield Claim("after", "what changes the weights", pair.label, one, other)


def _optimizers(comparison: Comparison) -> Iterator[Claim]:
    """The optimisers that no formula is known of, by name; of two with one name their settings."""
    one, other = (record.optimizer_of() for record in comparison.records)
    names = one.get("name", ""), other.get("name", "")
    if all(names) and not {*names} & {*steps.NAMED}:
        if names[0].casefold() != names[1].casefold():  # Keras's Nadam is PyTorch's NAdam
            yield Claim("after", "the optimiser", "", {names[0]: ""}, {names[1]: ""})
        else:
            rates = [dict.fromkeys(f"{rate:.7g}" for rate in record.rates_of("")) for record in comparison.records]
            here, there = ({", ".join(each): ""} if each else {} for each in rates)
            yield Claim("after", steps.RATE, "", here, there)
            for setting in _shared_settings(one, other):
                yield Claim("after", f"the setting {setting}", "", {str(one[setting]): ""}, {str(other[setting]): ""})


def _shared_settings(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Those that both optimisers have, but their names and rates."""
    return sorted((one.keys() & other.keys()) - {"name", "lr", "learning_rate"})


def unknown_in_both(claims: Iterable[Claim], mixtures: Mixtures, differing: set[str]) -> Iterator[str]:
    """What differs at these checkpoints and no convention explains in either program."""
    if "loss" in differing and any(claim.checkpoint == "loss" and not claim.one | claim.other for claim in claims):
        yield f"No known formula gives the loss of either program: {FROM_EQUAL}"
    if "after" in differing and (labels := [label for label, both in mixtures.items() if not any(both)]):
        names = labels if len(labels) < len(mixtures) else ["all weights"]
        yield f"{_of('No known formula explains the steps of either program', names)}: {FROM_EQUAL}"


def explain_both(comparison: Comparison) -> Mixtures:
    """The mixtures that explain the steps of each pair of weights whose steps both programs recorded."""
    hints = set().union(*map(steps.find_hints, comparison.records))
    one, other = (steps.explain_steps(record, hints) for record in comparison.records)
    learned = {**comparison.one.steps[0]["gradients"], **comparison.other.steps[0]["gradients"]}
    pairs = [pair for pair in comparison.pairs if pair.one in learned or pair.other in learned]
    return {pair.label: (one[pair.one], other[pair.other]) for pair in pairs if pair.one in one and pair.other in other}


def join_penalty(
    comparison: Comparison, claims: list[Claim], mixtures: Mixtures
) -> tuple[list[Claim], Mixtures, list[str]]:
    """Where one program's loss has a penalty and the other's optimiser adds one: the optimiser's in both, and a remark.

    λΣw² in the loss puts 2λ·w on the gradient, as a coupled weight decay of 2λ does.
    """
    losses = next(((claim.one, claim.other) for claim in claims if claim.checkpoint == "loss"), ({}, {}))
    parts = [{part for both in mixtures.values() for part in itertools.chain(*both[side])} for side in (0, 1)]
    for side, where in enumerate(("here", "there")):
        found = [match for name in losses[side] if (match := PENALTY.fullmatch(name)) and match[1] in losses[1 - side]]
        decays = any(part == steps.DECAY and words.startswith("coupled") for part, words in parts[1 - side])
        if found and decays and ("clipping", "none") in parts[side]:
            groups = find_groups(comparison, side)
            widest = min(found, key=lambda match: (count_digits(float(match[2])), -len(groups[match[3]])))
            size, group = float(widest[2]), groups[widest[3]]
            decay = steps.DECAY, f"coupled: {2 * size:.9g}·w joins the gradient"
            for pair in comparison.pairs:
                if pair.label in mixtures and (pair.one, pair.other)[side] in group:
                    both = [*mixtures[pair.label]]
                    both[side] = {
                        tuple(decay if part == (steps.DECAY, "none") else part for part in m) for m in both[side]
                    }
                    mixtures = mixtures | {pair.label: (both[0], both[1])}
            remark = f"{size:g}·Σw² in the loss {where} counts as {2 * size:g}·w that joins the gradient"
            claims = [claim for claim in claims if claim.checkpoint != "loss"]
            return claims, mixtures, [f"{remark}: the same step, and another printed loss"]
    return claims, mixtures, []


def stepping(comparison: Comparison, mixtures: Mixtures) -> Iterator[Finding]:
    """Optimisers that take weights and gradients to the next weights by different formulas."""
    by_step = [comparison.differences(step, "after") for step in comparison.steps]
    differences = {label: max(apart.get(label, np.inf) for apart in by_step) for label in mixtures}
    looks_up = any(record.tables for record in comparison.records)
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for label, (one, other) in mixtures.items():
        if one and other and not one & other:
            for difference in steps.differing_parts(one, other, comparison.records):
                groups[difference].append(label)
        elif (
            bool(one) != bool(other)
            and differences[label] > comparison.tolerance("after")
            and not _only_one_keeps_look_ups(comparison, one | other)
        ):
            here, there = map(_tell_formula, comparison.records, (one, other))
            groups["the formula", here, there].append(label)
    if any(not any(both) and differences[label] > comparison.tolerance("after") for label, both in mixtures.items()):
        yield from disagreements(_optimizers(comparison))
    by = f"by {len(comparison.steps)} steps of weights and gradients, each program's own, in {comparison.precision}"
    for (part, here, there), labels in sorted(groups.items(), key=lambda group: group[0][0] == "the formula"):
        is_place = part == steps.EPSILON and here.split()[0] == there.split()[0]
        is_apart = part == "clipping" and here.partition(", taken")[0] == there.partition(", taken")[0]
        is_rounding = _in_float32(here) == _in_float32(there)  # Keras on TensorFlow casts its settings so
        lines = [by + STATED if part == steps.EPSILON else by]
        by_label = [{*steps.list_open(both, looks_up)} for label in labels for both in mixtures[label] if both]
        left_open = set.intersection(*by_label) - {found[0] for found in groups}
        if part == "the formula":
            lines += _list_settings(comparison)
        elif left_open:
            lines.append(f"can't be told apart in {comparison.precision}: {', '.join(sorted(left_open))}")
        if part in WITHOUT_SETTING or is_place or is_apart or is_rounding:
            lines.append(NO_SETTING)
        names = labels if len(labels) < max(2, len(mixtures)) else ["all weights"]
        yield Finding(1, "after", _of(part, names), here, there, lines)


def _tell_formula(record: Record, found: set[steps.Mixture]) -> str:
    name = record.optimizer_of().get("name")
    return ("a known formula" if found else "no known formula explains it") + (f" ({name})" if name else "")


def _list_settings(comparison: Comparison) -> Iterator[str]:
    """The optimisers' settings that differ."""
    one, other = (record.optimizer_of() for record in comparison.records)
    for setting in _shared_settings(one, other):
        if one[setting] != other[setting]:
            yield f"the setting {setting}: {one[setting]} here, {other[setting]} there"


def _in_float32(words: str) -> str:
    return re.sub(r"\d+\.\d+(e-\d+)?", lambda number: f"{np.float32(number[0]):.7g}", words)


def _only_one_keeps_look_ups(comparison: Comparison, mixtures: set[steps.Mixture]) -> bool:
    """Whether only look-up by look-up explains the one program's steps, and the other's record has no look-ups."""
    are_kept = all(record.steps[0]["squares"] for record in comparison.records)
    return not are_kept and all(dict(mixture).get(steps.REPEATED) == steps.APART for mixture in mixtures)


def earlier_parting(comparison: Comparison, claims: Iterable[Claim]) -> Iterator[Finding]:
    """Where outputs part before the first layer that shows another convention by itself, from all that is equal."""
    own = {claim.label for claim in claims if claim.checkpoint == "output" and claim.disagrees}
    pairs = [(here, there) for here, there in pair_layers(comparison) if label_of(here.name, there.name) in own]
    before = [value for kind in ("weights", "batch") for value in comparison.differences(1, kind).values()]
    if pairs and max(before, default=0) <= comparison.tolerance("batch"):
        ran = [*comparison.one.steps[0]["layers"]]
        here, there = min(pairs, key=lambda pair: ran.index(f"{pair[0].name}:input"))
        into = sort_rows(here.raw("input")), sort_rows(there.raw("input"))
        if distance(*into) > comparison.tolerance("output"):
            yield find_parting(comparison, 1, here.name)


def difference(comparison: Comparison, step: int, checkpoint: str, labels: list[str]) -> Iterator[Finding]:
    """What is known of a difference that arises where all that leads to it agrees."""
    one, other = (record.steps[step - 1] for record in comparison.records)
    if checkpoint == "output":
        yield find_parting(comparison, step)
    elif checkpoint == "loss":
        a, b = next(iter(one["loss"].values())), next(iter(other["loss"].values()))
        here, there = (f"{float(np.ravel(loss)[0]):.9g}" for loss in (a, b))
        known = [*relations(a, b, comparison.tolerance("loss"), _counts(one))][:1]
        what = "the loss, of equal outputs and targets" if one["output"] and one["batch"] else "the loss"
        yield Finding(step, "loss", what, here, there, known)
    elif checkpoint == "gradients":
        yield from _gradients(comparison, step, labels)
    elif checkpoint == "weights":
        yield Finding(step, checkpoint, _of("what changes the weights after equal steps", labels), "–", "–")
    else:
        what = _of("the step, from equal weights and gradients", labels)
        yield Finding(step, checkpoint, what, "no known formula", "no known formula")


def _gradients(comparison: Comparison, step: int, labels: list[str]) -> Iterator[Finding]:
    """What the gradients of equal weights, outputs and losses differ by."""
    weights = {pair: weight for pair, weight, _ in comparison.aligned(step, "weights")}
    last = {pair: gradient for pair, gradient, _ in comparison.aligned(step - 1, "gradients")} if step > 1 else {}
    tolerance, counts = comparison.tolerance("gradients"), _counts(comparison.one.steps[step - 1])
    groups: dict[str, list[tuple[str, Array, Array]]] = defaultdict(list)
    for pair, a, b in comparison.aligned(step, "gradients"):
        if pair.label in labels:
            parts = {"{0:.4g}·w is added: a penalty of {1:.4g}·Σw² in the loss": weights[pair]}
            if pair in last:
                parts["the last step's gradient is added: not cleared"] = last[pair]
            known = next(itertools.chain(relations(a, b, tolerance, counts, parts), _still_rows(a, b, tolerance)), "")
            groups[known].append((pair.label, a, b))
    for known, members in groups.items():
        names, *sides = zip(*members, strict=True)
        here, there = (f"largest {max(np.abs(array).max() for array in arrays):.4g}" for arrays in sides)
        yield Finding(step, "gradients", _of("the gradient", names), here, there, [known] if known else [])


def near_gradients(comparison: Comparison, step: int, labels: list[str]) -> str | None:
    """What to say of gradients that are a little apart, by nothing known, though all that leads to them agrees."""
    largest = max(comparison.differences(step, "gradients").values())
    is_float64 = comparison.precision == "float64"
    if largest > (ROUNDED if is_float64 else NEAR) or any(f.evidence for f in _gradients(comparison, step, labels)):
        return None
    if is_float64:
        return (
            f"Gradients are {largest:.1g} apart, though all that leads to them agrees: a number that one program takes "
            "through float32 does that, as Keras on TensorFlow takes settings"
        )
    return (
        f"Gradients are up to {NEAR:.0%} apart, though all that leads to them agrees: in float32, round-off at the "
        "corner of a ReLU does that; float64 would show another cause"
    )


def _still_rows(a: Array, b: Array, tolerance: float) -> Iterator[str]:
    """Rows, of those looked up, that one program lets learn and the other doesn't."""
    if a.ndim == 2:
        rows = np.flatnonzero(np.abs(a - b).max(axis=1) > tolerance * np.abs(a).max())
        for where, gradient in (("here", a), ("there", b)):
            if len(rows) and not gradient[rows].any():
                yield f"{where}, rows looked up don't learn: {', '.join(map(str, rows[:5]))}"


def transformed_output(comparison: Comparison, step: int, claims: list[Claim]) -> str | None:
    """What outputs are of each other, as probabilities are of logits, where each loss takes its own kind."""
    one, other = (next(iter(record.steps[step - 1]["output"].values())) for record in comparison.records)
    known = next(relations(one, other, comparison.tolerance("output")), "")
    losses = [fits for claim in claims if claim.checkpoint == "loss" for fits in (claim.one, claim.other)]
    are_fit = all(OWN_FORM.search(next(iter(fits), "")) for fits in losses)
    if ("softmax" in known or "sigmoid" in known) and are_fit:
        return f"The outputs aren't of one kind ({known}), and each loss takes its own"
    return None


def _counts(step: Step) -> dict[str, int]:
    """What a sum is of, and a mean is over."""
    output = next(iter(step["output"].values()), np.empty(0))
    sizes = {"the batch size": len(output), "the numbers of the batch": output.size} if output.ndim else {}
    return {"": 2, **{f", {name}: a sum against a mean": size for name, size in sizes.items() if size > 2}}


def _of(what: str, labels: Sequence[str]) -> str:
    """What is said, and of which weights or layers, as they are called here."""
    names = ", ".join(label.partition(" = ")[0] for label in labels)
    return f"{what}, for {names}" if names else what

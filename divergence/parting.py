"""The layers at which two programs part: the first ones with outputs that the other program has nowhere."""

import itertools
from collections.abc import Iterator

import numpy as np

from divergence.comparison import FUNCTIONS, Comparison, Finding, distance, relations
from divergence.record import Array, Record

TELLING = (
    "eps", "epsilon", "momentum", "p", "rate", "stride", "strides", "padding", "dilation", "activation", "alpha",
    "negative_slope", "approximate", "use_bias", "kernel_size", "pool_size", "data_format",
)  # fmt: skip
"""The settings to show of a layer."""
ACTIVATIONS = [function for name, function in FUNCTIONS.items() if name != "zero"]
NOTHING: Array = np.empty(0)


def find_parting(comparison: Comparison, step: int) -> Finding:
    """Where the layers' outputs part, from equal weights and batches.

    Outputs are looked for with each example's numbers sorted, so that channels may be first or last, and an activation
    may be a layer, a function or part of the layer before.
    """
    tolerance, records = comparison.tolerance("output"), comparison.records
    layers = [record.steps[step - 1]["layers"] for record in records]
    numbers = [{name: _sorted(array) for name, array in of.items()} for of in layers]

    def is_in(side: int, array: Array) -> bool:
        return any(distance(array, known) <= tolerance for known in numbers[side].values())

    def is_known(side: int, name: str) -> bool:
        """Whether the other program has a layer's output, or fuses the layer with an activation that follows here."""
        own = numbers[side][f"{name}:output"]
        activated = (f(own) for f in ACTIVATIONS)
        return is_in(1 - side, own) or any(is_in(side, array) and is_in(1 - side, array) for array in activated)

    names = [outputs(of) for of in layers]
    alone = [[name for name in names[side] if not is_known(side, name)] for side in (0, 1)]
    equal = ", ".join([name for name in names[0] if name not in alone[0]][-3:])
    evidence = [f"equal outputs: {equal}"] if equal else []
    if pair := next(_pairs(comparison, step, alone[0], alone[1]), None):
        what = "layer " + " = ".join(dict.fromkeys(pair))
        shown = [_settings(name, record) for name, record in zip(pair, records, strict=True)]
        compared = [of[f"{name}:output"] for name, of in zip(pair, layers, strict=True)]
        here, there = (of.get(f"{name}:input", NOTHING) for name, of in zip(pair, layers, strict=True))
        if _is_reordered(here, there, tolerance):
            what, compared = f"what goes into {what}: flattened in another order", [here, there]
    else:
        what = "layers that the other program has no like of"
        shown = [", ".join(of[:3]) or "nothing" for of in alone]
        compared = [next(iter(record.steps[step - 1]["output"].values())) for record in records]
    return Finding(
        step, "output", what, shown[0], shown[1], evidence + [*relations(compared[0], compared[1], tolerance)][:1]
    )


def outputs(layers: dict[str, Array]) -> list[str]:
    """The layers with an output, in their order."""
    return [key.removesuffix(":output") for key in layers if key.endswith(":output")]


def _pairs(comparison: Comparison, step: int, alone: list[str], alone_there: list[str]) -> Iterator[tuple[str, str]]:
    """Layers that may do the same, the likeliest first: by equal inputs, or these in another order, or by weights."""
    one, other = (record.steps[step - 1]["layers"] for record in comparison.records)
    tolerance = comparison.tolerance("output")
    ranked = []
    for pair in itertools.product(alone, alone_there):
        a, b = (of.get(f"{name}:input", NOTHING) for name, of in zip(pair, (one, other), strict=True))
        is_equal = a.size > 0 and distance(a, b) <= tolerance
        both = zip(pair, comparison.records, strict=True)
        have_weights = all(record.layers.get(name, {}).get("weights") for name, record in both)
        fits = one[f"{pair[0]}:output"].size == other[f"{pair[1]}:output"].size
        if is_equal or fits:
            ranked.append(((not is_equal, not fits, not _is_reordered(a, b, tolerance), not have_weights), pair))
    return (pair for _, pair in sorted(ranked, key=lambda ranking: ranking[0]))


def _is_reordered(a: Array, b: Array, tolerance: float) -> bool:
    """Whether each example has the same numbers, in another order."""
    return a.size > 0 and distance(_sorted(a), _sorted(b)) <= tolerance < distance(a, b)


def _sorted(array: Array) -> Array:
    rows = np.asarray(array, dtype=float).reshape(len(array) if array.ndim else 1, -1)
    return np.sort(rows, axis=1)


def _settings(name: str, record: Record) -> str:
    """A layer's kind and its settings."""
    layer = record.layers.get(name, {})
    return ", ".join([layer.get("kind", name), *(f"{key} {layer[key]}" for key in TELLING if key in layer)])

"""The layers at which two programs part: the first ones with outputs that the other program has nowhere."""

import itertools
from collections.abc import Sequence

import numpy as np

from divergence.comparison import FUNCTIONS, Comparison, Finding, as_rows, distance, relations
from divergence.layers import outputs, pair_layers
from divergence.pairing import label_of
from divergence.record import Array, Record

TELLING = (
    "eps", "epsilon", "momentum", "p", "rate", "stride", "strides", "padding", "dilation", "activation", "alpha",
    "negative_slope", "approximate", "use_bias", "kernel_size", "pool_size", "data_format",
)  # fmt: skip
"""The settings to show of a layer."""
ACTIVATIONS = [function for name, function in FUNCTIONS.items() if name != "zero"]
ENDS = "input", "output"


def find_parting(comparison: Comparison, step: int, last: str | None = None) -> Finding:
    """Where the layers' outputs part, from equal weights and batches; looked for up to a `last` layer of the one's.

    Outputs are looked for with each example's numbers sorted, so that channels may be first or last, and an activation
    may be a layer, a function or part of the layer before.
    """
    tolerance, records = comparison.tolerance("output"), comparison.records
    layers = [record.steps[step - 1]["layers"] for record in records]
    numbers = [{name: sort_rows(array) for name, array in of.items()} for of in layers]

    def is_in(side: int, array: Array) -> bool:
        return any(distance(array, known) <= tolerance for known in numbers[side].values())

    def is_known(side: int, name: str) -> bool:
        """Whether the other program has a layer's output, or fuses the layer with an activation that follows here."""
        own = numbers[side][f"{name}:output"]
        activated = (f(own) for f in ACTIVATIONS)
        return is_in(1 - side, own) or any(is_in(side, array) and is_in(1 - side, array) for array in activated)

    names = [outputs(of) for of in layers]
    names[0] = names[0][: names[0].index(last) + 1 if last else None]
    alone = [[name for name in names[side] if not is_known(side, name)] for side in (0, 1)]
    equal = [name for name in names[0] if name not in alone[0]]
    if pair := _find_pair(comparison, step, alone):
        what = f"layer {label_of(*pair)}"
        into, compared = ([of[f"{name}:{end}"] for name, of in zip(pair, layers, strict=True)] for end in ENDS)
        shown = [
            _settings(name, r) + _activation(name, r, of) for name, r, of in zip(pair, records, names, strict=True)
        ]
        made = [_make(name, of, record) for name, of, record in zip(pair, layers, records, strict=True)]
        if shown[0] == shown[1] and made[0] != made[1]:
            shown = [f"{said}, {how}" for said, how in zip(shown, made, strict=True)]
        equal = [name for name in equal if names[0].index(name) < names[0].index(pair[0])]
        apart = distance(sort_rows(into[0]), sort_rows(into[1]))
        if tolerance < apart < np.inf:
            what, compared = f"what goes into {what} differs{f' (after {equal[-1]})' if equal else ''}", into
            shown = [_list(of[: of.index(name)], r) for of, name, r in zip(alone, pair, records, strict=True)]
        elif apart == np.inf:  # as where one program pads in a layer and the other before it
            what += ", or what goes into it"
        elif distance(into[0], into[1]) > tolerance:
            what, compared = f"what goes into {what}: flattened or joined in another order", into
    else:
        what, shown = "layers that the other program has no like of", list(map(_list, alone, records))
        if not all(names):
            what, shown = "the outputs; not both programs' layers were recorded", ["–", "–"]
        elif not any(alone):
            what, shown = "what is done between the layers, whose outputs are equal, or after them", ["–", "–"]
        compared = [next(iter(record.steps[step - 1]["output"].values())) for record in records]
    evidence = [f"equal outputs: {', '.join(equal[-3:])}"] if equal else []
    evidence += [*relations(compared[0], compared[1], tolerance)][:1]
    return Finding(step, "output", what, shown[0], shown[1], evidence)


def _find_pair(comparison: Comparison, step: int, alone: Sequence[list[str]]) -> tuple[str, str] | None:
    """Of layers whose outputs the other program lacks, the first known as the same, else with outputs of one size."""
    one, other = (record.steps[step - 1]["layers"] for record in comparison.records)
    known = {(here.name, there.name) for here, there in pair_layers(comparison)}
    pairs = [*itertools.product(*alone)]
    alike = [(here, there) for here, there in pairs if one[f"{here}:output"].size == other[f"{there}:output"].size]
    return next(iter([pair for pair in pairs if pair in known] + alike), None)


def sort_rows(array: Array) -> Array:
    """Each example's numbers in ascending order, wherever its layout has them."""
    return np.sort(as_rows(array), axis=1)


def _settings(name: str, record: Record) -> str:
    """A layer's kind and its settings."""
    layer = record.layers.get(name, {})
    return ", ".join([layer.get("kind", name), *(f"{key} {layer[key]}" for key in TELLING if key in layer)])


def _activation(name: str, record: Record, names: list[str]) -> str:
    """The layer without weights that follows a layer: the other program may have it in the layer itself."""
    following = names[names.index(name) + 1 :][:1]
    is_plain = following and not record.layers.get(following[0], {"weights": "unknown"})["weights"]
    return f", then {_settings(following[0], record)}" if is_plain else ""


def _make(name: str, layers: dict[str, Array], record: Record) -> str:
    """What else two layers of one kind and the same settings may differ in: their weights, and the precision."""
    weights = " and ".join(record.layers.get(name, {}).get("weights", {})) or "no weights"
    return f"with {weights}, in {layers[f'{name}:output'].dtype}"


def _list(names: list[str], record: Record) -> str:
    return "; ".join(f"{name}: {_settings(name, record)}" for name in names[:3]) or "no layer of its own"

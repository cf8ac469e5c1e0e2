"""The layers at which two programs part: the first ones with outputs that the other program has nowhere."""

from collections.abc import Sequence

import numpy as np

from divergence.comparison import FUNCTIONS, Comparison, Finding, as_rows, distance, relations
from divergence.layers import Layer, find_layers, pair_layers
from divergence.pairing import label_of
from divergence.record import Array

TELLING = (
    "eps", "epsilon", "momentum", "p", "rate", "stride", "strides", "padding", "dilation", "activation", "alpha",
    "negative_slope", "approximate", "use_bias", "kernel_size", "pool_size", "data_format",
)  # fmt: skip
"""The settings to show of a layer."""
ACTIVATIONS = [function for name, function in FUNCTIONS.items() if name != "zero"]


def find_parting(comparison: Comparison, step: int, last: str | None = None) -> Finding:
    """Where the layers' outputs part, from equal weights and batches; looked for up to a `last` layer of the one's.

    Outputs are looked for with each example's numbers sorted, so that channels may be first or last, and an activation
    may be a layer, a function or part of the layer before.
    """
    tolerance, steps = comparison.tolerance("output"), [record.steps[step - 1] for record in comparison.records]
    numbers = [[sort_rows(array) for array in recorded["layers"].values()] for recorded in steps]

    def is_in(side: int, array: Array) -> bool:
        return any(_apart(array, known) <= tolerance for known in numbers[side])

    def is_known(side: int, layer: Layer) -> bool:
        """Whether the other program has a layer's output, or fuses the layer with an activation that follows here."""
        own = sort_rows(layer.raw("output"))
        activated = (f(own) for f in ACTIVATIONS)
        return is_in(1 - side, own) or any(is_in(side, array) and is_in(1 - side, array) for array in activated)

    ran = [find_layers(*both) for both in zip(comparison.records, steps, strict=True)]
    if last:
        del ran[0][[layer.name for layer in ran[0]].index(last) + 1 :]
    alone = [[layer for layer in ran[side] if not is_known(side, layer)] for side in (0, 1)]
    equal = [layer for layer in ran[0] if layer not in alone[0]]
    if pair := _find_pair(comparison, alone):
        what = f"layer {label_of(pair[0].name, pair[1].name)}"
        into, compared = ([layer.raw(end) for layer in pair] for end in ("input", "output"))
        shown = [_settings(layer) + _activation(layer, layers) for layer, layers in zip(pair, ran, strict=True)]
        made = [_make(layer) for layer in pair]
        if shown[0] == shown[1] and made[0] != made[1]:
            shown = [f"{said}, {how}" for said, how in zip(shown, made, strict=True)]
        equal = [layer for layer in ran[0][: ran[0].index(pair[0])] if layer in equal]
        apart = distance(sort_rows(into[0]), sort_rows(into[1]))
        if tolerance < apart < np.inf:
            after = f" (after {equal[-1].name})" if equal else ""
            what, compared = f"what goes into {what} differs{after}", into
            shown = [_list(layers[: layers.index(layer)]) for layers, layer in zip(alone, pair, strict=True)]
        elif apart == np.inf:  # as where one program pads in a layer and the other before it
            what += ", or what goes into it"
        elif distance(as_rows(into[0]), as_rows(into[1])) > tolerance:
            what, compared = f"what goes into {what}: flattened or joined in another order", into
    else:
        what, shown = "layers that the other program has no like of", [*map(_list, alone)]
        if not all(ran):
            what, shown = "the outputs; not both programs' layers were recorded", ["–", "–"]
        elif not any(alone):
            what, shown = "what is done between the layers, whose outputs are equal, or after them", ["–", "–"]
        compared = [next(iter(recorded["output"].values())) for recorded in steps]
    evidence = [f"equal outputs: {', '.join(layer.name for layer in equal[-3:])}"] if equal else []
    evidence += [*relations(compared[0], compared[1], tolerance)][:1]
    return Finding(step, "output", what, shown[0], shown[1], evidence)


def _find_pair(comparison: Comparison, alone: Sequence[list[Layer]]) -> tuple[Layer, Layer] | None:
    """Of layers whose outputs the other program lacks, the first known as the same, else with outputs of one size."""
    known = {(here.name, there.name) for here, there in pair_layers(comparison)}
    pairs = [(here, there) for here in alone[0] for there in alone[1]]
    alike = [(here, there) for here, there in pairs if here.raw("output").size == there.raw("output").size]
    return next(iter([(here, there) for here, there in pairs if (here.name, there.name) in known] + alike), None)


def _apart(one: Array, other: Array) -> float:
    """How far sorted rows are apart; the numbers of a layer that is called without the batch are each example's."""
    if one.shape != other.shape and one.size == other.shape[1]:
        one = np.broadcast_to(np.sort(one, axis=None), other.shape)
    elif one.shape != other.shape and other.size == one.shape[1]:
        other = np.broadcast_to(np.sort(other, axis=None), one.shape)
    return distance(one, other)


def sort_rows(array: Array) -> Array:
    """Each example's numbers in ascending order, wherever its layout has them."""
    return np.sort(as_rows(array), axis=1)


def _settings(layer: Layer) -> str:
    """A layer's kind and its settings."""
    known = layer.settings
    return ", ".join([known["kind"], *(f"{key} {known[key]}" for key in TELLING if key in known)])


def _activation(layer: Layer, ran: list[Layer]) -> str:
    """The layer without weights that follows a layer: the other program may have it in the layer itself."""
    following = ran[ran.index(layer) + 1 :][:1]
    is_plain = following and following[0].name in layer.record.layers and not following[0].weights
    return f", then {_settings(following[0])}" if is_plain else ""


def _make(layer: Layer) -> str:
    """What else two layers of one kind and the same settings may differ in: their weights, and the precision."""
    return f"with {' and '.join(layer.settings['weights']) or 'no weights'}, in {layer.raw('output').dtype}"


def _list(layers: list[Layer]) -> str:
    return "; ".join(f"{layer.name}: {_settings(layer)}" for layer in layers[:3]) or "no layer of its own"

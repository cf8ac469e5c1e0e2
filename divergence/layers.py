"""What a layer does, from its own input and output: conventions that both programs' layers can be asked for."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from divergence.comparison import TOLERANCE, Comparison
from divergence.record import Array, Record, Step

FAMILIES = {
    "BatchNorm": "batch norm", "BatchNormalization": "batch norm", "LayerNorm": "layer norm",
    "LayerNormalization": "layer norm", "Dropout": "dropout", "AlphaDropout": "dropout", "SpatialDropout": "dropout",
}  # fmt: skip
ROLES = {
    "scale": ("weight", "gamma"), "shift": ("bias", "beta"), "mean": ("running_mean", "moving_mean"),
    "variance": ("running_var", "moving_variance"),
}  # fmt: skip
"""What a layer's weights are called in PyTorch and in Keras."""
EPSILONS = (0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of a record, in one of its steps."""

    name: str
    record: Record
    step: Step

    @property
    def settings(self) -> dict[str, Any]:
        """As its program recorded them."""
        return {"kind": self.name, "weights": {}} | self.record.layers.get(self.name, {})

    def raw(self, side: str) -> Array:
        """Its input or output."""
        return self.step["layers"][f"{self.name}:{side}"]

    @property
    def epsilon(self) -> float | None:
        """The ε that it is set to, if any."""
        stated = [self.settings[name] for name in ("eps", "epsilon") if name in self.settings]
        return stated[0] if stated else None

    @property
    def weights(self) -> set[str]:
        """Their full names."""
        return {*self.settings["weights"].values()}

    @property
    def family(self) -> str:
        """What its class is called here, without the number of its dimensions; nothing where it has no conventions."""
        averages = self.settings["weights"].keys() & {*ROLES["mean"]}  # a subclass has a name of its own
        return FAMILIES.get(self.settings["kind"].rstrip("123dD"), "batch norm" if averages else "")

    def array(self, side: str) -> Array:
        """Likewise, in float64; a batch norm's as (numbers, channels)."""
        array = np.asarray(self.raw(side), dtype=float)
        channel = 1 if self.record.is_pytorch else array.ndim - 1
        is_batch_norm = self.family == "batch norm"
        return np.moveaxis(array, channel, -1).reshape(-1, array.shape[channel]) if is_batch_norm else array

    def weight(self, role: str, checkpoint: str = "weights") -> Array | None:
        """One of its weights at a checkpoint, if it has one of that role."""
        names = [name for called, name in self.settings["weights"].items() if called in ROLES[role]]
        arrays = self.step[checkpoint]
        return np.asarray(arrays[names[0]], dtype=float) if names and names[0] in arrays else None

    def of_batch(self) -> tuple[Array, Array]:
        """The input's mean and variance over what it normalises."""
        x, scale = self.array("input"), self.weight("scale")
        axes = 0 if self.family == "batch norm" else tuple(range(x.ndim - (1 if scale is None else scale.ndim), x.ndim))
        return x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)


def find_layers(record: Record, step: Step) -> list[Layer]:
    """The layers with an input and an output in a step, in their order."""
    names = [key.removesuffix(":output") for key in step["layers"] if key.endswith(":output")]
    return [Layer(name, record, step) for name in names if f"{name}:input" in step["layers"]]


def pair_layers(comparison: Comparison) -> list[tuple[Layer, Layer]]:
    """Which layer is which: those that own paired weights, then those of one name, then those of a kind, in order."""
    one, other = (find_layers(record, record.steps[0]) for record in comparison.records)
    partners = {pair.one: pair.other for pair in comparison.pairs}
    ways: list[Callable[[Layer, Layer], bool]] = [
        lambda here, there: any(partners.get(weight) in there.weights for weight in here.weights),
        lambda here, there: here.name == there.name,
        lambda here, there: here.family == there.family != "",
    ]
    found = []
    for is_pair in ways:
        for here in [*one]:
            if there := next((layer for layer in other if is_pair(here, layer)), None):
                found.append((here, there))
                one.remove(here)
                other.remove(there)
    return found


def _sources(layer: Layer) -> dict[str, list[str]]:
    """By which statistics it normalises, each with the ε, its own first or usual ones, that fit all numbers.

    output = scale·(input − mean)/√(variance + ε) + shift
    """
    scale, shift = layer.weight("scale"), layer.weight("shift")
    shifted = layer.array("output") - (0 if shift is None else shift)
    allowed = TOLERANCE[layer.record.precision]["output"] * np.abs(shifted).max()
    sources = {}
    own = [layer.epsilon] if layer.epsilon is not None else []
    running = layer.weight("mean"), layer.weight("variance")
    for source, (mean, variance) in {"the batch's": layer.of_batch(), "the running ones": running}.items():
        if mean is not None and variance is not None:
            scaled = (layer.array("input") - mean) * (1 if scale is None else scale)
            with np.errstate(all="ignore"):
                off = {e: np.abs(scaled / np.sqrt(variance + e) - shifted).max() for e in (*own, *EPSILONS)}
            if fitting := [f"{e:g}" for e, most in off.items() if most <= allowed]:
                sources[source] = fitting
    return sources


def _epsilon(layer: Layer) -> list[str]:
    return next(iter(_sources(layer).values()), [])


def _share(layer: Layer, role: str = "mean", factor: float = 1.0) -> set[str]:
    """The share s of new = (1 − s)·old + s·(factor·the batch's), where one fits all."""
    old, new = layer.weight(role), layer.weight(role, "after")
    if old is None or new is None or np.array_equal(old, new):
        return set()
    mean, variance = layer.of_batch()
    toward, moved = factor * (mean if role == "mean" else variance)[0] - old, new - old
    share = float((toward * moved).sum() / ((toward**2).sum() or 1.0))
    fits = np.allclose(moved, share * toward, rtol=1e-5, atol=1e-5 * np.abs(moved).max())
    return {f"{share:.3g}"} if fits else set()


def _variance(layer: Layer) -> list[str]:
    """Which variance the running one takes its share of: the same share as the running mean's."""
    count = len(layer.array("input"))
    factors = {"biased (/n)": 1.0, "unbiased (/(n − 1))": count / max(count - 1, 1)}
    return [which for which, factor in factors.items() if _share(layer) & _share(layer, "variance", factor)]


def _drops(layer: Layer) -> set[str]:
    """Whether it drops numbers, and the rate p: what it keeps is scaled by 1/(1 - p)."""
    x, y = layer.array("input"), layer.array("output")
    if x.shape != y.shape or not x.any():
        return set()
    scales = y[(x != 0) & (y != 0)] / x[(x != 0) & (y != 0)]
    if not len(scales) or np.ptp(scales) > 1e-5 * scales[0]:  # all dropped, or AlphaDropout
        return {f"on, rate {layer.settings.get('p', layer.settings.get('rate', 'unknown'))}"}
    return {f"on, rate {1 - 1 / scales[0]:.3g}" if scales[0] > 1 + 1e-6 else "off"}


CONVENTIONS: dict[str, dict[tuple[str, str], Callable[[Layer], Iterable[str]]]] = {
    "": {},
    "batch norm": {
        ("output", "batch norm's mean and variance"): lambda layer: [*_sources(layer)][:1],
        ("output", "batch norm's ε"): _epsilon,
        ("after", "share of the batch in batch norm's running mean"): _share,
        ("after", "batch norm's running variance"): _variance,
    },
    "layer norm": {("output", "layer norm's ε"): _epsilon},
    "dropout": {("output", "dropout"): _drops},
}
"""By a layer's family: where a convention shows, what it is, and which of its values a layer's numbers allow."""

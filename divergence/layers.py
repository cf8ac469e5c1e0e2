"""What a layer does, from its own input and output: conventions that both programs' layers can be asked for."""

from typing import Any

import numpy as np

from divergence.record import Array, Record

FAMILIES = {
    "BatchNorm": "batch norm", "BatchNormalization": "batch norm", "LayerNorm": "layer norm",
    "LayerNormalization": "layer norm", "Dropout": "dropout", "AlphaDropout": "dropout", "SpatialDropout": "dropout",
    "Embedding": "embedding",
}  # fmt: skip


def family(kind: str) -> str | None:
    """What a layer's class is called here, without the number of its dimensions."""
    return FAMILIES.get(kind.rstrip("123dD"))


def describe_layer(name: str, record: Record) -> dict[str, set[str]]:
    """What the layer's first step allows to be said of each of its conventions, by what they concern.

    More than one value is left where the numbers don't tell them apart.
    """
    layer = record.settings.get("layers", {}).get(name, {})
    arrays = record.steps[0]["layers"]
    if f"{name}:input" not in arrays or f"{name}:output" not in arrays:
        return {}
    x, y = (np.asarray(arrays[f"{name}:{kind}"], dtype=float) for kind in ("input", "output"))
    tolerance = 1e-9 if arrays[f"{name}:output"].dtype == np.float64 else 1e-5
    match family(layer.get("kind", "")):
        case "batch norm":
            return _batch_norm(x, y, layer, record, tolerance)
        case "layer norm":
            return _layer_norm(x, y, layer, record, tolerance)
        case "embedding":
            return _embedding(x, layer, record)
        case "dropout" if x.shape == y.shape and x.any():
            return {"dropout": {"on" if ((y == 0) & (x != 0)).any() else "off"}}
    return {}


def _weight(layer: dict[str, Any], arrays: dict[str, Array], *roles: str) -> Array | None:
    """The layer's weight in the first role that it has."""
    names = [layer["weights"][role] for role in roles if role in layer["weights"]]
    return np.asarray(arrays[names[0]], dtype=float) if names and names[0] in arrays else None


def _batch_norm(x: Array, y: Array, layer: dict[str, Any], record: Record, tolerance: float) -> dict[str, set[str]]:
    step = record.steps[0]
    channel = 1 if record.is_pytorch else x.ndim - 1
    x, y = (np.moveaxis(array, channel, -1).reshape(-1, array.shape[channel]) for array in (x, y))
    scale, shift = (_weight(layer, step["weights"], *roles) for roles in (("weight", "gamma"), ("bias", "beta")))
    running = ("running_mean", "moving_mean"), ("running_var", "moving_variance")
    old, new = ([_weight(layer, step[when], *roles) for roles in running] for when in ("weights", "after"))
    sources: list[tuple[str, list[Any]]] = [("the batch's", [x.mean(axis=0), x.var(axis=0)])]
    sources += [("the running ones", old)] if old[0] is not None else []
    found: dict[str, set[str]] = {}
    for source, (center, spread) in sources:
        if fitting := _epsilons(x - center, y, spread, scale, shift, tolerance):
            found |= {"mean and variance": {source}, "ε": fitting}
            break
    if old[0] is not None and new[0] is not None:
        found |= _moving(old, new, sources[0][1], len(x))
    return found


def _moving(old: list[Any], new: list[Any], of_batch: list[Array], count: int) -> dict[str, set[str]]:
    """How running statistics move towards a batch's: the share of the new, and which variance."""
    if np.array_equal(old[0], new[0]) and np.array_equal(old[1], new[1]):
        return {"running statistics": {"stay"}}
    found, share = {"running statistics": {"move"}}, _share(old[0], new[0], of_batch[0])
    if share is not None:
        found["share of the batch in the running mean"] = {f"{share:.3g}"}
    variance = of_batch[1]
    unbiased = variance * count / max(count - 1, 1)
    for which, value in (("biased (/n)", variance), ("unbiased (/(n − 1))", unbiased)):
        of_variance = _share(old[1], new[1], value)
        if share and of_variance and abs(of_variance - share) < 1e-3 * share:
            found.setdefault("running variance", set()).add(which)
    return found


def _share(old: Array, new: Array, value: Array) -> float | None:
    """The share s of new = (1 − s)·old + s·value, where one fits all."""
    toward = value - old
    share = float((toward * (new - old)).sum() / ((toward**2).sum() or 1.0))
    return share if np.allclose(new, old + share * toward, rtol=1e-5, atol=1e-5 * np.abs(new - old).max()) else None


def _layer_norm(x: Array, y: Array, layer: dict[str, Any], record: Record, tolerance: float) -> dict[str, set[str]]:
    weights = record.steps[0]["weights"]
    scale, shift = (_weight(layer, weights, *roles) for roles in (("weight", "gamma"), ("bias", "beta")))
    axes = tuple(range(x.ndim - (1 if scale is None else scale.ndim), x.ndim))
    center, spread = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    fitting = _epsilons(x - center, y, spread, scale, shift, tolerance)
    return {"ε": fitting} if fitting else {}


def _epsilons(
    centered: Array, output: Array, variance: Array, scale: Array | None, shift: Array | None, tolerance: float
) -> set[str]:
    """Which ε of output = scale·centered/√(variance + ε) + shift fit all numbers."""
    scaled = centered if scale is None else centered * scale
    shifted = output if shift is None else output - shift
    with np.errstate(all="ignore"):
        estimates = ((scaled / shifted) ** 2 - variance)[np.abs(shifted) > 0.3 * np.abs(shifted).max()]
    usual = [0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2]
    own = [float(np.median(estimates))] if len(estimates) and np.median(estimates) > 0 else []
    allowed = tolerance * np.abs(shifted).max()

    def fits(epsilon: float) -> bool:
        with np.errstate(all="ignore"):
            return bool((np.abs(scaled / np.sqrt(variance + epsilon) - shifted) <= allowed).all())

    return {f"{epsilon:g}" for epsilon in usual if fits(epsilon)} or {
        f"{epsilon:.3g}" for epsilon in own if fits(epsilon)
    }


def _embedding(rows: Array, layer: dict[str, Any], record: Record) -> dict[str, set[str]]:
    """Whether a row that the batch looks up gets no gradient."""
    gradient = _weight(layer, record.steps[0]["gradients"], "weight", "embeddings")
    if gradient is None or not gradient.any():
        return {}
    still = [row for row in np.unique(rows).astype(int) if not gradient[row].any()]
    return {"rows looked up that don't learn": {", ".join(map(str, still[:5])) if still else "none"}}

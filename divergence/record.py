"""What a program did in its first training steps, in one file that any program can write.

A record is an `.npz` or `.safetensors` file of arrays, named `step/checkpoint/name`, with steps counted from 1:

| checkpoint      | what it holds                                                                                     |
|-----------------|---------------------------------------------------------------------------------------------------|
| `weights`       | the weights and buffers before the step, by name                                                  |
| `batch`         | what the step is trained on: `input`, `input1`, …, and `target`                                   |
| `layers`        | `NAME:input` and `NAME:output` of each layer, in the order in which they ran                      |
| `output`        | what the model gave                                                                               |
| `loss`          | the number whose gradients are taken (the name may be left out: `1/loss`)                         |
| `gradients`     | the loss's gradients by the weights' names, before any clipping; rows looked up twice are summed  |
| `squares`       | the sum of the squares of each row's look-ups, where the program keeps look-ups apart             |
| `clipped`       | the gradients as the optimiser got them, where that is something else                             |
| `learning_rate` | the optimiser's, for this step; by a weight's name where it has another                            |
| `after`         | the weights and buffers after the step                                                            |

All are optional but the first weights; what isn't there isn't compared. A further string `settings` may hold JSON:
`framework`, the `optimizer`'s settings, in `groups` those that a weight has otherwise, by its name, and each layer's,
with the full names of its weights (`pytorch.py` and `keras.py` write them). So
`np.savez("one.npz", **{"1/weights/dense": w, "1/loss": loss})` is a record.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Step: TypeAlias = dict[str, dict[str, Array]]
"""The arrays of one step, by checkpoint and name."""

CHECKPOINTS = (
    "weights", "batch", "layers", "output", "loss", "gradients", "squares", "clipped", "learning_rate", "after",
)  # fmt: skip
NUMBERS = {
    "eps", "epsilon", "beta_1", "beta_2", "alpha", "rho", "momentum", "dampening", "weight_decay",
    "initial_accumulator_value", "clipnorm", "global_clipnorm", "clipvalue",
}  # fmt: skip
"""The optimisers' settings that are numbers, where they are there."""


class RecordError(Exception):
    """What is wrong with a record, for the person who made it."""


@dataclass(frozen=True)
class Record:
    """A program's steps and its settings."""

    steps: list[Step]
    settings: dict[str, Any]

    @property
    def layers(self) -> dict[str, dict[str, Any]]:
        """Each layer's `kind`, its settings, and its `weights`: their full names by their role."""
        return self.settings.get("layers", {})  # type: ignore[no-any-return]

    def optimizer_of(self, weight: str = "") -> dict[str, Any]:
        """The optimiser's settings, of a weight's own group where it has one, by Keras's names; nothing is 0."""
        settings = self.settings.get("optimizer", {}) | self.settings.get("groups", {}).get(weight, {})
        settings |= dict(zip(("beta_1", "beta_2"), settings.pop("betas", []), strict=False))
        return {"epsilon" if name == "eps" else name: 0 if value is None else value for name, value in settings.items()}

    def rates_of(self, weight: str) -> list[float]:
        """The learning rate for a weight in each step; none where they weren't recorded."""
        rates = [step["learning_rate"].get(weight, step["learning_rate"].get("learning_rate")) for step in self.steps]
        return [float(np.ravel(rate)[0]) for rate in rates if rate is not None and rate.size]

    @property
    def is_pytorch(self) -> bool | None:
        """Whether weights are laid out as in PyTorch, (out, in), and not as in Keras, (in, out); None is unknown."""
        return {"PyTorch": True, "Keras": False}.get(str(self.settings.get("framework", "")).partition(" ")[0])

    @cached_property
    def tables(self) -> set[str]:
        """The weights whose rows are looked up."""
        return self.weights_of("Embedding", "EmbeddingBag")

    def weights_of(self, *kinds: str) -> set[str]:
        """The weights of the layers of some kinds."""
        layers = [layer for layer in self.layers.values() if layer["kind"] in kinds]
        return {name for layer in layers for name in layer["weights"].values()}

    @cached_property
    def precision(self) -> str:
        """float64 where all weights are, else float32."""
        types = {str(weight.dtype) for weight in self.steps[0]["weights"].values() if weight.dtype.kind == "f"}
        return "float64" if types == {"float64"} else "float32"

    @property
    def title(self) -> str:
        """The framework, the optimiser and the precision in a few words."""
        known = self.settings.get("framework"), self.settings.get("optimizer", {}).get("name"), self.precision
        return ", ".join([*map(str, filter(None, known)), f"{len(self.steps)} steps"])


class Recorder:
    """Collects a program's steps and keeps the file up to date."""

    def __init__(self, path: str | os.PathLike[str], settings: dict[str, Any], steps: int) -> None:
        self.path, self.settings, self.steps = Path(path), settings, steps
        if not self.path.parent.is_dir():
            raise RecordError(f"{self.path.parent} is no folder: the record can't be written there")
        self._arrays: dict[str, Array] = {}
        self._step: dict[str, Array] = {}
        self._done = 0

    @property
    def done(self) -> bool:
        """Whether all steps are written."""
        return self._done == self.steps

    def begin(self) -> None:
        """Start a step, and forget what was begun and not ended."""
        self._step = {}

    def add(self, checkpoint: str, name: str, array: Any) -> None:
        """Keep an array of the present step; the first one under a name counts."""
        array = np.array(array, order="C")
        narrow = array.dtype.name == "bfloat16"  # not NumPy's own
        self._step.setdefault(f"{checkpoint}/{name}", array.astype(np.float32) if narrow else array)

    def add_all(self, checkpoint: str, name: str, arrays: Iterable[Any]) -> None:
        """Keep arrays as `name`, `name1`, …."""
        for position, array in enumerate(arrays):
            self.add(checkpoint, f"{name}{position or ''}", array)

    def add_look_ups(self, checkpoint: str, name: str, shape: Iterable[int], rows: Array, values: Array) -> None:
        """Keep the gradient of a table that is given look-up by look-up, and the sum of the look-ups' squares."""
        summed, squares = (np.zeros(tuple(shape), values.dtype) for _ in range(2))
        np.add.at(summed, rows, values)
        np.add.at(squares, rows, values**2)
        self.add(checkpoint, name, summed)
        self.add("squares", name, squares)

    def has(self, checkpoint: str) -> bool:
        """Whether anything of the present step was kept there."""
        return any(name.startswith(f"{checkpoint}/") for name in self._step)

    def end(self) -> None:
        """Write all the steps so far, whole or not at all."""
        self._done += 1
        self._arrays |= {f"{self._done}/{name}": array for name, array in self._step.items()}
        self.begin()
        half, settings = self.path.with_name(f".{self.path.name}.part"), json.dumps(self.settings)
        if self.path.suffix == ".safetensors":
            from safetensors.numpy import save_file

            save_file(self._arrays, half, {"settings": settings})
        else:
            with half.open("wb") as file:
                np.savez(file, allow_pickle=False, settings=np.array(settings), **self._arrays)
        half.replace(self.path)


def keep_plain(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that JSON holds: numbers, words, nothing, and lists of them."""
    plain = int, float, str, type(None)
    parts = {key: value if isinstance(value, (list, tuple)) else [value] for key, value in settings.items()}
    return {key: value for key, value in settings.items() if all(isinstance(part, plain) for part in parts[key])}


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        RecordError: the file isn't there, isn't a record, or holds no weights.
    """
    try:
        arrays, settings = _read(path)
    except FileNotFoundError as error:
        raise RecordError(f"{path}: no such file") from error
    except json.JSONDecodeError as error:
        raise RecordError(f"{path}: its settings are no JSON: {error}") from error
    except Exception as error:
        raise RecordError(f"{path} is no record: not a whole .npz or .safetensors file of arrays") from error
    steps: dict[int, Step] = {}
    for key, array in arrays.items():
        number, _, rest = key.partition("/")
        checkpoint, _, name = rest.partition("/")
        if not number.isdecimal() or checkpoint not in CHECKPOINTS:
            known = ", ".join(CHECKPOINTS)
            raise RecordError(f"{path}: {key!r} isn't step/checkpoint/name with a checkpoint of {known}")
        of_step = steps.setdefault(int(number), {name: {} for name in CHECKPOINTS})
        if array.dtype.kind not in "fiub":
            raise RecordError(f"{path}: {key!r} holds {array.dtype}, not numbers")
        numbers = array.astype(np.uint8) if array.dtype == bool else array
        of_step[checkpoint][name or checkpoint] = np.atleast_1d(numbers) if checkpoint == "batch" else numbers
    if sorted(steps) != [*range(1, len(steps) + 1)] or not steps:
        raise RecordError(f"{path}: steps are counted 1, 2, …; found {sorted(steps) or 'none'}")
    if not steps[1]["weights"]:
        raise RecordError(f"{path}: no weights before the first step (1/weights/…)")
    for place, step in steps.items():
        for checkpoint in ("gradients", "squares", "clipped", "after"):
            for name, array in step[checkpoint].items():
                if name not in step["weights"] or array.shape != step["weights"][name].shape:
                    raise RecordError(
                        f"{path}: '{place}/{checkpoint}/{name}' {array.shape} isn't as a weight before it"
                    )
        step["loss"] = {name: array for name, array in step["loss"].items() if array.size}
    return Record([steps[number] for number in sorted(steps)], _complete(path, settings))


def _complete(path: Path, settings: Any) -> dict[str, Any]:
    """The settings, in which each layer has its kind and its weights."""
    try:
        layers = {name: {"kind": "", "weights": {}} | layer for name, layer in settings.get("layers", {}).items()}
        for layer in layers.values():  # what isn't a word or a number raises here, where it can be named
            "".join([layer["kind"], *layer["weights"].values()])
            float(layer.get("hidden_size", 0))
        optimizer, groups = {**settings.get("optimizer", {})}, {**settings.get("groups", {})}
        for group in (optimizer, *groups.values()):
            np.array([group[name] or 0 for name in NUMBERS & group.keys()] + [*group.get("betas", [])], float)
        return {**settings, "layers": layers, "optimizer": optimizer, "groups": groups}
    except (AttributeError, TypeError, ValueError) as error:
        raise RecordError(
            f"{path}: its settings are no object with objects for the optimizer and each layer, of words and numbers"
        ) from error


def _read(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            settings = (file.metadata() or {}).get("settings", "{}")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    else:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        settings = str(arrays.pop("settings", "{}"))
    return arrays, json.loads(settings)

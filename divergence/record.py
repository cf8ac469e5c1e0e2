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
| `learning_rate` | the optimiser's, for this step                                                                    |
| `after`         | the weights and buffers after the step                                                            |

All are optional; what isn't there isn't compared. A further string `settings` may hold JSON: `framework`, the
`optimizer`'s settings, and each layer's, with the full names of its weights (`pytorch.py` and `keras.py` write them).
So `np.savez("one.npz", **{"1/weights/dense": w, "1/loss": loss})` is a record.
"""

import json
import os
from dataclasses import dataclass
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


class RecordError(Exception):
    """What is wrong with a record, for the person who made it."""


@dataclass(frozen=True)
class Record:
    """A program's steps and its settings."""

    steps: list[Step]
    settings: dict[str, Any]

    @property
    def is_pytorch(self) -> bool | None:
        """Whether weights are laid out as in PyTorch, (out, in), and not as in Keras, (in, out); None is unknown."""
        framework = str(self.settings.get("framework", ""))
        return framework.startswith("PyTorch") if framework.startswith(("PyTorch", "Keras")) else None

    @property
    def title(self) -> str:
        """The framework, the optimiser and the precision in a few words."""
        weights = self.steps[0]["weights"].values()
        precision = {str(weight.dtype) for weight in weights if weight.dtype.kind == "f"}
        optimizer = self.settings.get("optimizer", {}).get("name")
        known = [self.settings.get("framework"), optimizer, "/".join(sorted(precision))]
        return ", ".join([*filter(None, known), f"{len(self.steps)} steps"])


class Recorder:
    """Collects a program's steps and keeps the file up to date."""

    def __init__(self, path: str | os.PathLike[str], settings: dict[str, Any]) -> None:
        self.path = Path(path)
        self.settings = settings
        self.steps = 0
        self._arrays: dict[str, Array] = {}
        self._step: dict[str, Array] = {}

    def begin(self) -> None:
        """Start a step, and forget what was begun and not ended."""
        self._step = {}

    def add(self, checkpoint: str, name: str, array: Any) -> None:
        """Keep an array of the present step; the first one under a name counts."""
        self._step.setdefault(f"{checkpoint}/{name}", np.array(array))

    def has(self, checkpoint: str) -> bool:
        """Whether anything of the present step was kept there."""
        return any(name.startswith(f"{checkpoint}/") for name in self._step)

    def drop_repeated(self, checkpoint: str, first: str) -> None:
        """Forget a checkpoint that holds the same arrays as the first."""
        names = [name for name in self._step if name.startswith(f"{checkpoint}/")]
        if all(np.array_equal(self._step[name], self._step[first + name.removeprefix(checkpoint)]) for name in names):
            for name in names:
                del self._step[name]

    def end(self) -> None:
        """Write all the steps so far."""
        self.steps += 1
        self._arrays.update({f"{self.steps}/{name}": array for name, array in self._step.items()})
        write_arrays(self.path, self._arrays, self.settings)
        self.begin()


def write_arrays(path: Path, arrays: dict[str, Array], settings: dict[str, Any]) -> None:
    """Write a record, whole or not at all."""
    half = path.with_name(f".{path.name}.part")
    if path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        metadata = {"settings": json.dumps(settings)}
        save_file({name: array.copy(order="C") for name, array in arrays.items()}, half, metadata)
    else:
        with half.open("wb") as file:
            np.savez(file, allow_pickle=False, settings=np.array(json.dumps(settings)), **arrays)
    half.replace(path)


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        RecordError: the file isn't there, isn't a record, or holds no weights.
    """
    try:
        arrays, settings = _read_safetensors(path) if path.suffix == ".safetensors" else _read_npz(path)
    except FileNotFoundError as error:
        raise RecordError(f"{path}: no such file") from error
    except Exception as error:
        raise RecordError(f"{path} can't be read as a record: {error}") from error
    steps: dict[int, Step] = {}
    for key, array in arrays.items():
        number, _, rest = key.partition("/")
        checkpoint, _, name = rest.partition("/")
        if not number.isdecimal() or checkpoint not in CHECKPOINTS:
            known = ", ".join(CHECKPOINTS)
            raise RecordError(f"{path}: {key!r} isn't step/checkpoint/name with a checkpoint of {known}")
        of_step = steps.setdefault(int(number), {name: {} for name in CHECKPOINTS})
        of_step[checkpoint][name or checkpoint] = array
    if sorted(steps) != [*range(1, len(steps) + 1)] or not steps:
        raise RecordError(f"{path}: steps are counted 1, 2, …; found {sorted(steps) or 'none'}")
    if not steps[1]["weights"]:
        raise RecordError(f"{path}: no weights before the first step (1/weights/…)")
    return Record([steps[number] for number in sorted(steps)], settings)


def _read_npz(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return arrays, json.loads(str(arrays.pop("settings", "{}")))


def _read_safetensors(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        settings = json.loads((file.metadata() or {}).get("settings", "{}"))
        return {name: file.get_tensor(name) for name in file.keys()}, settings  # noqa: SIM118

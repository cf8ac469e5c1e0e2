"""A loss curve, and the JSON file that keeps it."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from stages.program.errors import StageError
from stages.program.files import write_text


@dataclass(frozen=True)
class Epoch:
    """The losses of one epoch, counted from 1, in squared stars.

    `train_loss` is the mean over the epoch's examples of each one's squared error before its batch's update;
    `val_loss` is that of the validation rows at the end of the epoch.
    """

    epoch: int
    train_loss: float
    val_loss: float

    def __str__(self) -> str:
        return f"epoch {self.epoch:>3}  train_loss {self.train_loss:.5f}  val_loss {self.val_loss:.5f}"


@dataclass
class LossCurve:
    """The losses of a training, epoch by epoch."""

    epochs: list[Epoch] = field(default_factory=list)

    def record(self, train_loss: float, val_loss: float) -> bool:
        """Add the next epoch; true if its `val_loss` is the lowest so far.

        Raises:
            StageError: a loss is NaN or infinite.
        """
        epoch = Epoch(len(self.epochs) + 1, train_loss, val_loss)
        if not math.isfinite(val_loss):
            raise diverged(epoch.epoch, f"val_loss is {val_loss}")
        self.epochs.append(epoch)
        tqdm.write(str(epoch))
        return self.best is epoch

    def to_json(self) -> list[dict[str, float]]:
        """The epochs as a list that JSON takes."""
        return [asdict(epoch) for epoch in self.epochs]

    @classmethod
    def from_json(cls, epochs: list[dict[str, Any]]) -> "LossCurve":
        """What `to_json` gave."""
        return cls([Epoch(**epoch) for epoch in epochs])

    @property
    def best(self) -> Epoch:
        """The first epoch with the lowest `val_loss`."""
        return min(self.epochs, key=lambda epoch: epoch.val_loss)


def average_batches(losses: NDArray[np.floating], sizes: Sequence[int], epoch: int) -> float:
    """The mean over an epoch's examples, from the mean losses of its batches (steps,) and their sizes.

    Raises:
        StageError: a loss is NaN or infinite.
    """
    if not np.isfinite(losses).all():
        step = int(np.argmin(np.isfinite(losses)))
        raise diverged(epoch, f"the loss of step {step + 1:,} of {len(losses):,} is {losses[step]}")
    return float(np.average(losses, weights=sizes))


def diverged(epoch: int, what: str) -> StageError:
    """The error of a training whose loss is no number any more."""
    return StageError(f"epoch {epoch}: {what}; most likely train.learning_rate is too high")


def write_curve(path: Path, curve: LossCurve, test_loss: float) -> None:
    """Write the best epoch's losses (DVC's metrics) and the curve (DVC's plot)."""
    content = {
        "best_epoch": curve.best.epoch,
        "train_loss": curve.best.train_loss,
        "val_loss": curve.best.val_loss,
        "test_loss": test_loss,
        "curve": curve.to_json(),
    }
    write_json(path, content)


def read_curve(path: Path) -> LossCurve:
    """Read the curve that `write_curve` wrote.

    Raises:
        StageError: the file is missing or isn't a loss file.
    """
    content = read_json(path)
    try:
        return LossCurve.from_json(content["curve"])
    except (KeyError, TypeError) as error:
        raise StageError(f"{path} holds no loss curve; run: dvc repro") from error


def read_validation_loss(path: Path) -> float:
    """The headline `val_loss` of a loss file.

    Raises:
        StageError: the file is missing or isn't a loss file.
    """
    try:
        return float(read_json(path)["val_loss"])
    except (KeyError, TypeError, ValueError) as error:
        raise StageError(f"{path} holds no val_loss; run: dvc repro") from error


def write_json(path: Path, content: object) -> None:
    """Write `content` for people and for git: indented, keys in their given order, a line end at the end."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a loss file.

    Raises:
        StageError: the file is missing or isn't JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StageError(f"{path} is missing; run: dvc repro") from error
    except json.JSONDecodeError as error:
        raise StageError(f"{path} is damaged ({error}); run: dvc repro") from error

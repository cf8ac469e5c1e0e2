"""The loss curves that the trainings of the ablation hand on."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from stages.program.errors import StageError
from stages.training.losses import LossCurve, read_json

Curves: TypeAlias = dict[str, list[LossCurve]]
"""The loss curves of each kind of training by its name, one for each seed."""


def read_curves(path: Path) -> Curves:
    """Read the curves that a stage of trainings wrote.

    Raises:
        StageError: the file holds no curves.
    """
    try:
        content = read_json(path)
        return {name: [LossCurve.from_json(curve) for curve in curves] for name, curves in content.items()}
    except (AttributeError, TypeError) as error:
        raise StageError(f"{path} holds no loss curves; run: dvc repro ablation/dvc.yaml") from error


def follow_path(pytorch: Curves, path: Curves, order: Sequence[str]) -> Curves:
    """PyTorch's curves from its own conventions to Keras's, each after the first named after what was switched last."""
    return {
        "own": pytorch["own"],
        **{name: path[f"path:{name}"] for name in order[:-1]},
        order[-1]: pytorch["other"],
    }

"""What the curves of the ablation's trainings say: estimates over the seeds, and the gap taken apart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd
from scipy import stats

from ablation.curves import Curves, follow_path
from ablation.plan import CONVENTIONS
from stages.training.losses import LossCurve

LOSS_AT: dict[str, Callable[[LossCurve], float]] = {
    "best_epoch": lambda curve: curve.best.val_loss,
    "last_epoch": lambda curve: curve.epochs[-1].val_loss,
}
"""The two losses that a training is judged by."""


@dataclass(frozen=True)
class Estimate:
    """A mean over the seeds, and half its 95 % confidence interval, by Student's t."""

    mean: float
    margin: float

    @classmethod
    def of(cls, values: pd.Series) -> "Estimate":
        """Of one value for each seed."""
        quantile = stats.t.ppf(0.975, len(values) - 1)
        return cls(float(values.mean()), float(quantile * values.sem()))


@dataclass(frozen=True)
class Effects:
    """The gap at one of `LOSS_AT` and what makes it, in squared stars; positive is what PyTorch's loss has on top."""

    pytorch: Estimate
    """The loss of PyTorch with its own conventions."""
    keras: Estimate
    """The loss of Keras with its own conventions, from the same quantiles of its distributions."""
    gap: Estimate
    parts: dict[str, Estimate]
    """What makes the gap: what each convention takes off on the path from PyTorch's to Keras's, in that order; and what
    is left between the two programs once all conventions, weights and batches are the same (`remainder`)."""
    native_gap: Estimate
    """The gap where each framework draws its first weights itself: the same but for chance, of which it has more."""
    share: dict[str, Estimate]
    """The parts as fractions of the gap."""
    alone_in_pytorch: dict[str, Estimate]
    """What switching one convention alone to Keras's takes off PyTorch's loss."""
    alone_in_keras: dict[str, Estimate]
    """What switching one convention alone to PyTorch's adds to Keras's loss."""


def share_of(part: pd.Series, gap: pd.Series) -> Estimate:
    """The part's mean over the gap's, both given for each seed.

    The margin is that of a ratio of means (the delta method): of what remains of the part once its share of each
    seed's gap is taken off.
    """
    whole = Estimate.of(gap).mean
    share = Estimate.of(part).mean / whole
    return Estimate(share, Estimate.of(part - share * gap).margin / abs(whole))


def rank_conventions(pytorch: Curves) -> list[str]:
    """The conventions by the size of what each alone does to PyTorch's best loss, the largest first."""
    effects = find_effects_alone(tabulate(pytorch, "best_epoch"))
    return sorted(CONVENTIONS, key=lambda name: -abs(effects[name].mean))


def find_effects_alone(losses: pd.DataFrame) -> dict[str, Estimate]:
    """What switching each convention alone takes off a framework's loss."""
    return {name: Estimate.of(losses["own"] - losses[f"alone:{name}"]) for name in CONVENTIONS}


def tabulate(curves: Curves, epoch: str) -> pd.DataFrame:
    """The validation losses at one of `LOSS_AT`: a row for each seed, a column for each kind of training."""
    return pd.DataFrame({kind: [LOSS_AT[epoch](curve) for curve in of_kind] for kind, of_kind in curves.items()})


def find_effects(pytorch: Curves, keras: Curves, path: Curves, order: Sequence[str], epoch: str) -> Effects:
    """Take the gap apart: the parts add up to it exactly, seed by seed."""
    torch_losses, keras_losses = tabulate(pytorch, epoch), tabulate(keras, epoch)
    on_path = tabulate(follow_path(pytorch, path, order), epoch)
    gap = torch_losses["own"] - keras_losses["own"]
    parts = {name: on_path[before] - on_path[name] for before, name in pairwise(["own", *order])}
    parts["remainder"] = torch_losses["other"] - keras_losses["own"]
    return Effects(
        pytorch=Estimate.of(torch_losses["own"]),
        keras=Estimate.of(keras_losses["own"]),
        gap=Estimate.of(gap),
        parts={name: Estimate.of(part) for name, part in parts.items()},
        native_gap=Estimate.of(torch_losses["native"] - keras_losses["native"]),
        share={name: share_of(part, gap) for name, part in parts.items()},
        alone_in_pytorch=find_effects_alone(torch_losses),
        alone_in_keras={name: Estimate.of(keras_losses[f"alone:{name}"] - keras_losses["own"]) for name in CONVENTIONS},
    )

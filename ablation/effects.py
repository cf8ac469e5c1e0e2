"""What each convention does to the gap: a table, the metrics, a waterfall and the curves on the path."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator

from ablation.curves import Curves, read_curves
from ablation.plan import CONVENTIONS
from stages.program.files import write_text
from stages.training.losses import LossCurve, write_json
from stages.pictures import GREY, KERAS, MSE_LABEL, PYTORCH, picture
from stages.program.process import run_stage

EPOCHS: dict[str, Callable[[LossCurve], float]] = {
    "best_epoch": lambda curve: curve.best.val_loss,
    "last_epoch": lambda curve: curve.epochs[-1].val_loss,
}
"""The two losses that a training is judged by."""


@dataclass(frozen=True)
class Estimate:
    """A mean over the seeds, and its standard error."""

    mean: float
    standard_error: float

    @classmethod
    def of(cls, values: pd.Series) -> "Estimate":
        """Of one value for each seed."""
        return cls(float(values.mean()), float(values.sem()))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Effects:
    """The gap at one of `EPOCHS` and what makes it, in squared stars; positive is what PyTorch's loss has on top."""

    pytorch: Estimate
    """The loss of PyTorch as it is."""
    keras: Estimate
    """The loss of Keras as it is."""
    gap: Estimate
    parts: dict[str, Estimate]
    """What makes the gap: what each convention takes off on the path from PyTorch's to Keras's, in that order;
    what the frameworks' own random numbers do instead of shared ones (`random_draws`), nothing but chance; and what is
    left between the two programs once all conventions, weights and batches are the same (`remainder`)."""
    shares: dict[str, Estimate]
    """The parts as fractions of the gap."""
    alone_in_pytorch: dict[str, Estimate]
    """What switching one convention alone to Keras's takes off PyTorch's loss."""
    alone_in_keras: dict[str, Estimate]
    """What switching one convention alone to PyTorch's adds to Keras's loss."""


def share_of(part: pd.Series, gap: pd.Series) -> Estimate:
    """The part's mean over the gap's, both given for each seed.

    The standard error is that of a ratio of means (the delta method): of what remains of the part once its share of
    each seed's gap is taken off.
    """
    whole = Estimate.of(gap).mean
    share = Estimate.of(part).mean / whole
    return Estimate(share, Estimate.of(part - share * gap).standard_error / abs(whole))


def rank_conventions(pytorch: Curves) -> list[str]:
    """The conventions by the size of what each alone does to PyTorch's best loss, the largest first."""
    losses = tabulate(pytorch, "best_epoch")
    sizes = {name: abs(Estimate.of(losses["own"] - losses[f"alone:{name}"]).mean) for name in CONVENTIONS}
    return sorted(CONVENTIONS, key=lambda name: -sizes[name])


def tabulate(curves: Curves, epoch: str) -> pd.DataFrame:
    """The validation losses at one of `EPOCHS`: a row for each seed, a column for each kind of training."""
    return pd.DataFrame({kind: [EPOCHS[epoch](curve) for curve in of_kind] for kind, of_kind in curves.items()})


def find_effects(pytorch: Curves, keras: Curves, path: Curves, order: Sequence[str], epoch: str) -> Effects:
    """Take the gap apart: the parts add up to it exactly, seed by seed."""
    torch_losses, keras_losses, path_losses = (tabulate(curves, epoch) for curves in (pytorch, keras, path))
    points = [torch_losses["own"], *(path_losses[f"path:{name}"] for name in order[:-1]), torch_losses["other"]]
    gap = torch_losses["native"] - keras_losses["native"]
    parts = {
        **{name: before - after for name, (before, after) in zip(order, pairwise(points), strict=True)},
        "random_draws": (torch_losses["native"] - torch_losses["own"]) + (keras_losses["own"] - keras_losses["native"]),
        "remainder": torch_losses["other"] - keras_losses["own"],
    }
    return Effects(
        pytorch=Estimate.of(torch_losses["native"]),
        keras=Estimate.of(keras_losses["native"]),
        gap=Estimate.of(gap),
        parts={name: Estimate.of(part) for name, part in parts.items()},
        shares={name: share_of(part, gap) for name, part in parts.items()},
        alone_in_pytorch={
            name: Estimate.of(torch_losses["own"] - torch_losses[f"alone:{name}"]) for name in CONVENTIONS
        },
        alone_in_keras={name: Estimate.of(keras_losses[f"alone:{name}"] - keras_losses["own"]) for name in CONVENTIONS},
    )


def to_metrics(effects: dict[str, Effects]) -> dict[str, object]:
    """What `dvc metrics` shows: losses in squared stars, shares of the gap as fractions, by epoch."""
    metrics: dict[str, object] = {}
    for epoch, found in effects.items():
        metrics[epoch] = {
            "pytorch": asdict(found.pytorch),
            "keras": asdict(found.keras),
            "gap": asdict(found.gap),
            "share": {name: asdict(share) for name, share in found.shares.items()},
            "alone_in_pytorch": {name: asdict(part) for name, part in found.alone_in_pytorch.items()},
            "alone_in_keras": {name: asdict(part) for name, part in found.alone_in_keras.items()},
        }
    return metrics


def to_table(effects: Effects) -> str:
    """The effects as a Markdown table."""
    lines = [
        "| convention | on the path | share of the gap | alone in PyTorch | alone in Keras |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, part in effects.parts.items():
        label, alone = name.replace("_", " "), "| | |"
        if name in CONVENTIONS:
            label = f"`{name}`"
            alone = f"| {_pm(effects.alone_in_pytorch[name])} | {_pm(effects.alone_in_keras[name])} |"
        lines.append(f"| {label} | {_pm(part)} | {_percent(effects.shares[name])} {alone}")
    lines.append(f"| **gap** | **{_pm(effects.gap)}** | 100 % | | |")
    return "\n".join(lines)


def _pm(estimate: Estimate) -> str:
    return f"{estimate.mean:+.4f} ± {estimate.standard_error:.4f}"


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.mean:.2f} ± {100 * estimate.standard_error:.2f} %"


def plot_waterfall(effects: Effects, title: str, path: Path) -> None:
    """Draw the path from PyTorch's loss to Keras's, part by part, with the standard errors."""
    with picture(path) as (_, [axes]):
        level = lowest = effects.pytorch.mean
        axes.bar("PyTorch\nas it is", level, color=PYTORCH)
        axes.text(0, level, f"{level:.4f}", ha="center", va="bottom")
        for position, (name, part) in enumerate(effects.parts.items(), start=1):
            axes.bar(name.replace("_", "\n"), -part.mean, bottom=level, color=GREY, yerr=part.standard_error, capsize=3)
            axes.plot([position - 0.6, position + 0.4], [level, level], color=GREY, linewidth=0.8)
            top = max(level, level - part.mean) + part.standard_error
            axes.text(position, top, _note(part, effects.shares[name]), ha="center", va="bottom", fontsize=9)
            level -= part.mean
            lowest = min(lowest, level)
        axes.bar("Keras\nas it is", level, color=KERAS)
        axes.text(len(effects.parts) + 1, level, f"{level:.4f}", ha="center", va="bottom")
        height = effects.pytorch.mean - lowest
        axes.set_ylim(lowest - 0.15 * height, effects.pytorch.mean + 0.2 * height)
        axes.set_title(title, loc="left")
        axes.set_ylabel(f"validation loss at the best epoch,\n{MSE_LABEL}")
        axes.tick_params(axis="x", labelsize=9, length=0)


def _note(part: Estimate, share: Estimate) -> str:
    return f"{-part.mean:+.4f}\n{100 * share.mean:.2f} %\n± {100 * share.standard_error:.2f}".replace("-", "−")


def plot_path(pytorch: Curves, path: Curves, order: Sequence[str], file: Path) -> None:
    """Draw the mean validation loss by epoch at each point of the path from PyTorch's conventions to Keras's."""
    labels = ["PyTorch's conventions", *(f"+ Keras's {name}" for name in order)]
    points = [pytorch["own"], *(path[f"path:{name}"] for name in order[:-1]), pytorch["other"]]
    curves = [pd.DataFrame([[epoch.val_loss for epoch in curve.epochs] for curve in point]).mean() for point in points]
    colours = LinearSegmentedColormap.from_list("path", [PYTORCH, "#CC79A7", KERAS])
    with picture(file, panels=2) as (figure, panels):
        for position, (label, losses) in enumerate(zip(labels, curves, strict=True)):
            colour = colours(position / (len(labels) - 1))
            panels[0].plot(losses.index + 1, losses, "-o", color=colour, label=label)
            if position:
                panels[1].plot(losses.index + 1, 1000 * (losses - curves[-1]), "-o", color=colour)
        panels[0].set_title("Validation loss (stars²)", loc="left")
        panels[1].set_title("Above the last curve (stars²/1000)", loc="left")
        for axes in panels:
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside lower center", ncols=2)


def main() -> None:
    """Run the stage: arguments, read, do, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pytorch", type=Path, required=True, help="PyTorch's curves, conventions switched alone")
    parser.add_argument("--keras", type=Path, required=True, help="Keras's curves, conventions switched alone")
    parser.add_argument("--path", type=Path, required=True, help="PyTorch's curves on the path to Keras's conventions")
    parser.add_argument("--effects", type=Path, required=True, help="the metrics, to write")
    parser.add_argument("--table", type=Path, required=True, help="the effects as a Markdown table, to write")
    parser.add_argument("--waterfall", type=Path, required=True, help="to write")
    parser.add_argument("--curves", type=Path, required=True, help="the picture of the curves on the path, to write")
    arguments = parser.parse_args()

    pytorch, keras, path = (read_curves(file) for file in (arguments.pytorch, arguments.keras, arguments.path))
    order = rank_conventions(pytorch)
    effects = {epoch: find_effects(pytorch, keras, path, order, epoch) for epoch in EPOCHS}

    write_json(arguments.effects, to_metrics(effects))
    title = f"What each convention does to the gap, and its share (mean of {len(pytorch['own'])} seeds)"
    plot_waterfall(effects["best_epoch"], title, arguments.waterfall)
    plot_path(pytorch, path, order, arguments.curves)
    table = "\n\n".join(
        f"{epoch.replace('_', ' ').capitalize()}:\n\n{to_table(found)}" for epoch, found in effects.items()
    )
    write_text(arguments.table, table + "\n")
    print(table)


if __name__ == "__main__":
    run_stage(main)

"""What each convention does to the gap: a table, the metrics, a waterfall and the curves on the path."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator

from ablation.curves import Curves, follow_path, read_curves
from ablation.estimates import LOSS_AT, Effects, Estimate, find_effects, rank_conventions
from ablation.plan import CONVENTIONS
from stages.pictures import GREY, KERAS, MSE_LABEL, PYTORCH, picture
from stages.program.files import write_text
from stages.program.process import run_stage
from stages.training.losses import write_json


def to_metrics(effects: dict[str, Effects]) -> dict[str, object]:
    """What `dvc metrics` shows: losses in squared stars, shares of the gap as fractions, by epoch."""
    return {
        epoch: {name: value for name, value in asdict(found).items() if name != "parts"}
        for epoch, found in effects.items()
    }


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
        lines.append(f"| {label} | {_pm(part)} | {_percent(effects.share[name])} {alone}")
    lines.append(f"| **gap** | **{_pm(effects.gap)}** | 100 % | | |")
    lines.append(f"| the gap from each framework's own draws | {_pm(effects.native_gap)} | | | |")
    return "\n".join(lines)


def _pm(estimate: Estimate) -> str:
    return f"{estimate.mean:+.4f} ± {estimate.margin:.4f}"


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.mean:.2f} ± {100 * estimate.margin:.2f} %"


def plot_waterfall(effects: Effects, title: str, path: Path) -> None:
    """Draw the path from PyTorch's loss to Keras's, part by part, with the 95 % confidence intervals."""
    with picture(path) as (_, [axes]):
        level = lowest = effects.pytorch.mean
        axes.bar("PyTorch", level, color=PYTORCH)
        axes.text(0, level, f"{level:.4f}", ha="center", va="bottom")
        for position, (name, part) in enumerate(effects.parts.items(), start=1):
            axes.bar(name.replace("_", "\n"), -part.mean, bottom=level, color=GREY, yerr=part.margin, capsize=3)
            axes.plot([position - 0.6, position + 0.4], [level, level], color=GREY, linewidth=0.8)
            top = max(level, level - part.mean + part.margin)
            axes.text(position, top, _note(part, effects.share[name]), ha="center", va="bottom", fontsize=9)
            level -= part.mean
            lowest = min(lowest, level)
        axes.bar("Keras", level, color=KERAS)
        axes.text(len(effects.parts) + 1, level, f"{level:.4f}", ha="center", va="bottom")
        height = effects.pytorch.mean - lowest
        axes.set_ylim(lowest - 0.15 * height, effects.pytorch.mean + 0.2 * height)
        axes.set_title(title, loc="left")
        axes.set_ylabel(f"validation loss at the best epoch,\n{MSE_LABEL}")
        axes.tick_params(axis="x", labelsize=9, length=0)


def _note(part: Estimate, share: Estimate) -> str:
    return f"{-part.mean:+.4f}\n{100 * share.mean:.2f} %\n± {100 * share.margin:.2f}".replace("-", "−")


def plot_path(pytorch: Curves, path: Curves, order: Sequence[str], file: Path) -> None:
    """Draw the mean validation loss by epoch at each point of the path from PyTorch's conventions to Keras's."""
    labels = ["PyTorch's conventions", *(f"+ Keras's {name}" for name in order)]
    points = follow_path(pytorch, path, order).values()
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


def warn_of_chance(effects: Effects) -> str:
    """What to say where a share of the gap isn't known to a percent of it; else nothing."""
    margin = max(share.margin for share in effects.share.values())
    advice = "more seeds narrow that (ablation.seeds in ablation/params.yaml)"
    return f"chance leaves shares of the gap open by up to ± {100 * margin:.1f} %; {advice}" if margin > 0.01 else ""


def main(
    pytorch: Path, keras: Path, path: Path, effects: Path, table: Path, waterfall: Path, path_curves: Path
) -> None:
    """Run the stage: the curves of each framework and of the path; the metrics, the table and the pictures to write."""
    of_pytorch, of_keras, on_path = (read_curves(file) for file in (pytorch, keras, path))
    order = rank_conventions(of_pytorch)
    found = {epoch: find_effects(of_pytorch, of_keras, on_path, order, epoch) for epoch in LOSS_AT}

    write_json(effects, to_metrics(found))
    title = f"What each convention does to the gap, and its share ({len(of_pytorch['own'])} seeds, 95 %)"
    plot_waterfall(found["best_epoch"], title, waterfall)
    plot_path(of_pytorch, on_path, order, path_curves)
    text = "\n\n".join(f"{epoch.replace('_', ' ').capitalize()}:\n\n{to_table(at)}" for epoch, at in found.items())
    write_text(table, text + "\n")
    print(text)
    if warning := warn_of_chance(found["best_epoch"]):
        print(f"\nwarning: {warning}")


if __name__ == "__main__":
    run_stage(main)

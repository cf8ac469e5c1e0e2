"""plot-losses: the loss curves as pictures, and what `dvc plots show` needs to draw them without a network."""

from pathlib import Path

import vl_convert
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from stages.pictures import GREY, KERAS, MSE_LABEL, PYTORCH, picture
from stages.program.files import write_text
from stages.program.process import run_stage
from stages.training.losses import LossCurve, read_curve, read_validation_loss

COLOURS = {"PyTorch": PYTORCH, "Keras": KERAS}

# The page that DVC writes asks for Vega-Lite 5, and so does .dvc/plots/loss-curves.json.
VEGA_LITE_VERSION = "5.21"


def plot_curves(curves: dict[str, LossCurve], baselines: dict[str, float], title: str, path: Path) -> None:
    """Draw each framework's train (dashed) and validation (solid) loss by epoch, with the baselines as lines.

    Args:
        curves: by the framework's name.
        baselines: the `val_loss` of each by its name.
        title: of the picture.
        path: the PNG to write.
    """
    with picture(path) as (figure, [axes]):
        axes.set_ylim(*_scale(curves, baselines))
        for framework, curve in curves.items():
            _plot_curve(axes, framework, curve)
        for name, loss in baselines.items():
            axes.axhline(loss, color=GREY, linewidth=1, linestyle=(0, (1, 2)))
            axes.text(1.01, loss, f"{name}\n{loss:.4f}", transform=axes.get_yaxis_transform(), color=GREY, va="center")
        axes.set_title(title, loc="left")
        axes.set_xlabel("epoch")
        axes.set_ylabel(MSE_LABEL)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside lower center", ncols=len(curves))


def _plot_curve(axes: Axes, framework: str, curve: LossCurve) -> None:
    epochs = [epoch.epoch for epoch in curve.epochs]
    train_losses = [epoch.train_loss for epoch in curve.epochs]
    val_losses = [epoch.val_loss for epoch in curve.epochs]
    colour, best = COLOURS[framework], curve.best
    train = f"{framework}, train"
    if train_losses[0] > axes.get_ylim()[1]:
        train += f" (epoch 1 off the scale: {train_losses[0]:.2f})"
    validation = f"{framework}, validation (best {best.val_loss:.4f}, epoch {best.epoch})"
    axes.plot(epochs, train_losses, "--o", color=colour, label=train)
    axes.plot(epochs, val_losses, "-o", color=colour, label=validation)
    axes.plot(best.epoch, best.val_loss, "o", markersize=13, markerfacecolor="none", markeredgecolor=colour)


def _scale(curves: dict[str, LossCurve], baselines: dict[str, float]) -> tuple[float, float]:
    """The lowest and highest loss on the axis: a first epoch's train loss, far above the rest, doesn't stretch it."""
    compared = [*baselines.values()]
    for curve in curves.values():
        compared += [epoch.val_loss for epoch in curve.epochs] + [epoch.train_loss for epoch in curve.epochs[1:]]
    margin = 0.08 * (max(compared) - min(compared))
    return min(compared) - margin, max(compared) + margin


def write_vega_bundle(path: Path) -> None:
    """Write Vega, Vega-Lite and Vega-Embed to `path`, as one script that defines the global `vegaEmbed`.

    DVC's own page loads these three from a CDN, so that its charts stay blank without a network. Our page
    (.dvc/plots-page.html) takes this file instead where it finds it. It is made from the installed vl-convert
    rather than committed: the same version gives the same bytes.
    """
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE_VERSION)
    # Without a function around it, each of the bundle's thousands of short names would be a global of the page.
    write_text(path, f"(() => {{\n{bundle}\n}})();\n")


def main(
    pytorch: Path,
    keras: Path,
    biases: Path,
    global_mean: Path,
    pytorch_plot: Path,
    keras_plot: Path,
    comparison_plot: Path,
    vega: Path,
) -> None:
    """Run the stage: read, draw, write."""
    curves = {"PyTorch": read_curve(pytorch), "Keras": read_curve(keras)}
    baselines = {
        "mean of all ratings": read_validation_loss(global_mean),
        "user + book bias": read_validation_loss(biases),
    }
    plot_curves({"PyTorch": curves["PyTorch"]}, baselines, "PyTorch", pytorch_plot)
    plot_curves({"Keras": curves["Keras"]}, baselines, "Keras", keras_plot)
    plot_curves(curves, baselines, "The same network in PyTorch and in Keras", comparison_plot)
    write_vega_bundle(vega)


if __name__ == "__main__":
    run_stage(main)

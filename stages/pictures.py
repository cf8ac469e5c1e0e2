"""How all pictures look: the same colours for the same things, readable at a README's width."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stages.program.files import replacing

# Okabe and Ito's palette, told apart by the colour-blind; .dvc/plots/loss-curves.json has the same.
PYTORCH, KERAS = "#D55E00", "#0072B2"
GREY = "#666666"

MSE_LABEL = "mean squared error (stars²)"

STYLE: Any = {
    "figure.figsize": (8, 4.5),
    "figure.dpi": 120,
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#E5E5E5",
    "lines.linewidth": 2,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.handlelength": 3,
}


@contextmanager
def picture(path: Path, panels: int = 1) -> Iterator[tuple[Figure, list[Axes]]]:
    """Yield a figure with panels side by side to draw on, and write it to `path` as PNG: the same bytes each time."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(ncols=panels, squeeze=False, layout="constrained")
        yield figure, [*axes[0]]
        with replacing(path) as temporary:
            figure.savefig(temporary, metadata={"Software": None})
        plt.close(figure)

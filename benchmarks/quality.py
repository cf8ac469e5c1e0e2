"""Test error against training time, the networks' and the peers': `python -m benchmarks.quality --help`.

Each Python adds what it can fit to one file of results: ours needs the project's requirements, each peer its package.
Times are CPU seconds of the whole process, frameworks' own threads included: other people's load blurs them less.
"""

import argparse
import importlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, TypeAlias

from benchmarks.machine import describe_machine, list_versions
from benchmarks.peers import PEERS, Fit, Fitted, Prepare, fit_peer
from benchmarks.processes import ROOT
from stages.ratings.table import Ratings, read_ratings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEEDS = (42, 43, 44)
PLAIN_BATCH = 1024
HIGHEST = 0.714
"""In squared stars; two lie far above all others: at their own height the rest would be one line."""
LEFT, BELOW = ("PyTorch, accurate", "Surprise"), ("Cornac", "LensKit biased ALS")
"""Where a name would meet another if it stood to the right of its point, and above."""

Result: TypeAlias = dict[str, Any]
"""CPU seconds, val_mse and test_mse, one for each seed; the machine and the versions."""
Results: TypeAlias = dict[str, Result]
"""By a contender's name."""


def main() -> None:
    """Fit what this Python has, add it to the results, draw them all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--parts", type=Path, help="a folder with {train,validation,test}.parquet; without: only draw")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the contenders")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results/quality.json")
    parser.add_argument("--picture", type=Path, help="the picture, to write; needs Matplotlib")
    arguments = parser.parse_args()

    results: Results = json.loads(arguments.results.read_text("utf-8")) if arguments.results.exists() else {}
    if arguments.parts:
        measured_with = {"machine": describe_machine(), "versions": list_versions()}
        parts = [read_ratings(arguments.parts / f"{name}.parquet") for name in ("train", "validation", "test")]
        for name, fits in contenders().items():
            if arguments.only and name not in arguments.only:
                continue
            try:
                of_seeds = zip(*fits(*parts), strict=True)
            except ImportError as error:
                print(f"{name}: left out, {error}", flush=True)
                continue
            results[name] = dict(zip(Fitted._fields, map(list, of_seeds), strict=True)) | measured_with
            print(f"{name}: {results[name]}", flush=True)
            arguments.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if arguments.picture:
        draw(results, arguments.picture)


def contenders() -> dict[str, Callable[[Ratings, Ratings, Ratings], Iterable[Fitted]]]:
    """By name, how to fit to the training rows and judge by the validation's and the test's."""
    networks = {"PyTorch": "torch", "Keras": "keras"}
    return {
        **{
            name: partial(fit_once, prepare)
            for name, prepare in {"user and book biases": project_biases, **PEERS}.items()
        },
        **{f"{name}, plain": partial(fit_network, framework, dict) for name, framework in networks.items()},
        **{f"{name}, accurate": partial(fit_network, framework, read_settings) for name, framework in networks.items()},
    }


def fit_once(prepare: Prepare, training: Ratings, validation: Ratings, test: Ratings) -> Iterator[Fitted]:
    """A peer, whose seed is its own."""
    yield fit_peer(prepare, training, validation, test)


def project_biases(training: Ratings) -> Fit:
    """The line that a network has to beat."""
    from stages.train_baselines import fit_biases

    return lambda: fit_biases(training).predict


def fit_network(
    framework: str, read: Callable[[], dict[str, Any]], training: Ratings, validation: Ratings, test: Ratings
) -> Iterator[Fitted]:
    """One of the project's two trainers, with each seed; its framework is loaded before the clock starts."""
    from benchmarks.ratings import change_params  # the peers' Python lacks what it needs
    from stages.training.fit import fit

    make_trainer = importlib.import_module(f"benchmarks.{framework}_epochs").FRAMEWORK.make_trainer
    changes = {"train.batch_size": PLAIN_BATCH, **read()}
    make_trainer(change_params(changes), training)
    for seed in SEEDS:
        params = change_params({**changes, "train.seed": seed})
        start = time.process_time()
        trainer = make_trainer(params, training)
        curve = fit(trainer, training, validation, params.train)
        seconds = time.process_time() - start
        yield Fitted(seconds, curve.best.val_loss, trainer.evaluate(test))


def read_settings() -> dict[str, Any]:
    """The parameters that settings/accurate.txt changes, by their keys."""
    from ruamel.yaml import YAML

    pairs = (line.split()[1].split("=") for line in (ROOT / "settings/accurate.txt").read_text("utf-8").splitlines())
    return {key: YAML(typ="safe").load(value) for key, value in pairs}


def draw(results: Results, path: Path) -> None:
    """Each contender's median time and mean test error, with the seeds' range; the biases as a line too."""
    from stages.pictures import GREY, KERAS, MSE_LABEL, PYTORCH, picture

    colours = {"PyTorch": PYTORCH, "Keras": KERAS}
    with picture(path) as (_, [axes]):
        axes.axhline(fmean(results["user and book biases"]["test_mse"]), color=GREY, linestyle="--", linewidth=1)
        for name, result in results.items():
            colour = colours.get(name.split(",")[0], GREY)
            draw_contender(axes, name, result, colour)
        axes.set(xscale="log", xlabel="training, CPU seconds", ylabel=f"test: {MSE_LABEL}")
        axes.set_ylim(top=HIGHEST)
        axes.set_xlim(right=2000)  # room for the names of the slowest


def draw_contender(axes: "Axes", name: str, result: Result, colour: str) -> None:
    """A point with its name; one above the picture is an arrow at its top edge, with its error."""
    seconds, losses = median(result["seconds"]), result["test_mse"]
    mean = fmean(losses)
    left = name.startswith(LEFT)
    style: dict[str, Any] = {"textcoords": "offset points", "color": colour, "ha": "right" if left else "left"}
    offset, height = -8 if left else 8, -14 if name.startswith(BELOW) else 4
    if mean > HIGHEST:
        edge = (seconds, HIGHEST - 0.0004)
        axes.plot(*edge, "^", color=colour)
        axes.annotate(f"{name}: {mean:.3f}", edge, (offset, height - 8), **style)
        return
    axes.errorbar(seconds, mean, [[mean - min(losses)], [max(losses) - mean]], fmt="o", color=colour, capsize=3)
    axes.annotate(name, (seconds, mean), (offset, height), **style)


if __name__ == "__main__":
    main()

"""Test error against training time, the networks' and the peers': `python -m benchmarks.quality --help`.

Each Python adds what it can fit to one file of results: ours needs the project's requirements, each peer its package.
Times are CPU seconds of the whole process, frameworks' own threads included: other people's load blurs them less.
"""

import argparse
import importlib.util
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, TypeAlias

from benchmarks.machine import describe_machine, list_versions
from benchmarks.peers import PEERS, squared_error
from stages.ratings.table import Ratings, read_ratings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from stages.program.params import Params

ROOT = Path(__file__).parents[1]
SEEDS = (42, 43, 44)
PLAIN_BATCH = 1024
HIGHEST = 0.714
"""In squared stars; two lie far above all others: at their own height the rest would be one line."""
LEFT, BELOW = ("PyTorch, accurate", "Surprise"), ("Cornac", "LensKit biased ALS")
"""Where a name would meet another if it stood to the right of its point, and above."""

Losses: TypeAlias = tuple[float, float]
"""Mean squared errors of the validation and of the test rows."""
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
        for name, fits in contenders(*parts).items():
            if not arguments.only or name in arguments.only:
                results[name] = measure(fits) | measured_with
                print(f"{name}: {results[name]}", flush=True)
        arguments.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if arguments.picture:
        draw(results, arguments.picture)


def measure(fits: Iterable[tuple[float, Losses]]) -> Result:
    """Lists of what came of each seed."""
    rows = [(seconds, *losses) for seconds, losses in fits]
    return dict(zip(("seconds", "val_mse", "test_mse"), map(list, zip(*rows, strict=True)), strict=True))


def contenders(training: Ratings, validation: Ratings, test: Ratings) -> dict[str, Iterator[tuple[float, Losses]]]:
    """What this Python can fit, by name: for each seed the CPU seconds and the losses, fitted when asked for."""
    found: dict[str, Iterator[tuple[float, Losses]]] = {}
    if importlib.util.find_spec("torch") and importlib.util.find_spec("keras"):
        found["user and book biases"] = fit_biases(training, validation, test)
        for name, changes in {"plain": {"train.batch_size": PLAIN_BATCH}, "accurate": read_settings()}.items():
            found[f"PyTorch, {name}"] = fit_pytorch(change_params(changes), training, validation, test)
            found[f"Keras, {name}"] = fit_keras(change_params(changes), training, validation, test)
    for name, (package, prepare) in PEERS.items():
        if importlib.util.find_spec(package):
            found[name] = fit_peer(prepare, training, validation, test)
    return found


def fit_biases(training: Ratings, validation: Ratings, test: Ratings) -> Iterator[tuple[float, Losses]]:
    """The line that a network has to beat."""
    from stages import train_baselines

    start = time.process_time()
    biases = train_baselines.fit_biases(training)
    seconds = time.process_time() - start
    yield seconds, (squared_error(biases.predict, validation), squared_error(biases.predict, test))


def fit_peer(prepare: Any, training: Ratings, validation: Ratings, test: Ratings) -> Iterator[tuple[float, Losses]]:
    """One of `benchmarks.peers`, once: its seed is its own."""
    fit = prepare(training)
    start = time.process_time()
    predict = fit()
    seconds = time.process_time() - start
    yield seconds, (squared_error(predict, validation), squared_error(predict, test))


def fit_pytorch(
    params: "Params", training: Ratings, validation: Ratings, test: Ratings
) -> Iterator[tuple[float, Losses]]:
    """`train-torch`, with each seed."""
    from stages import train_torch

    for seeded in seed_params(params):
        start = time.process_time()
        model, curve = train_torch.train(seeded, training, validation)
        seconds = time.process_time() - start
        yield seconds, (curve.best.val_loss, train_torch.evaluate(model, train_torch.Tensors.of(test, model)))


def fit_keras(
    params: "Params", training: Ratings, validation: Ratings, test: Ratings
) -> Iterator[tuple[float, Losses]]:
    """`train-keras`, with each seed; Keras is loaded before the clock starts."""
    from stages import train_keras

    train_keras.choose_engine(params)
    import keras  # noqa: F401

    for seeded in seed_params(params):
        start = time.process_time()
        model, curve = train_keras.train(seeded, training, validation)
        seconds = time.process_time() - start
        yield seconds, (curve.best.val_loss, train_keras.evaluate(model, test))


def read_settings(name: str = "accurate") -> dict[str, Any]:
    """The parameters that a file in settings/ changes, by their keys."""
    from ruamel.yaml import YAML

    pairs = (line.split()[1].split("=") for line in (ROOT / "settings" / f"{name}.txt").read_text("utf-8").splitlines())
    return {key: YAML(typ="safe").load(value) for key, value in pairs}


def change_params(changes: dict[str, Any]) -> "Params":
    """The project's parameters with some changed."""
    from stages.program.params import Params, load_params

    settings = load_params(ROOT / "params.yaml").model_dump()
    for key, value in changes.items():
        section, name = key.split(".")
        settings[section][name] = value
    return Params.model_validate(settings)


def seed_params(params: "Params") -> Iterator["Params"]:
    """The parameters with each seed."""
    for seed in SEEDS:
        yield params.model_copy(update={"train": params.train.model_copy(update={"seed": seed})})


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

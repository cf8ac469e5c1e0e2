"""Whether the two programs still compute the same: a few steps of both in float64, under equal conventions.

The metrics say, for PyTorch's conventions and for Keras's, at how many checkpoints the two differ by more than 1e-9,
and where they part first and why. A change to one program and not to the other shows here.
"""

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ablation.plan import CONVENTIONS, Framework
from divergence.__main__ import describe
from divergence.comparison import LABELS, TOLERANCE, Comparison
from divergence.walk import walk
from stages.program.params import Params
from stages.program.process import run_stage
from stages.ratings.table import read_ratings
from stages.training.conventions import Side
from stages.training.fit import shuffle_rows
from stages.training.losses import write_json

if TYPE_CHECKING:
    from torch import Tensor, nn

STEPS = 5


def set_equal(params: Params, side: Side) -> Params:
    """The same parameters in float64, with all conventions one side's."""
    settings = params.model_dump()
    settings["conventions"] = dict.fromkeys(CONVENTIONS, side)
    settings["train"]["precision"] = "float64"
    return Params.model_validate(settings)


def record_steps(framework: Framework, params: Params, train: Path, path: Path) -> None:
    """Train a framework's program for a few batches and record them; in a process of its own."""
    training = read_ratings(train)
    rows = training[shuffle_rows(len(training), params.train.seed, epoch=1)[: STEPS * params.train.batch_size]]
    if framework == "pytorch":
        from divergence import pytorch
        from stages.train_torch import TorchTrainer

        of_torch = TorchTrainer(params, training)
        pytorch.record(of_torch.model, of_torch.optimizer, path, STEPS)
        of_torch.model.register_forward_pre_hook(show_layers)
        of_torch.train_one_epoch(rows, epoch=1)
    else:
        from stages.train_keras import KerasTrainer

        of_keras = KerasTrainer(params, training)
        from divergence import keras  # now that Keras has its backend

        keras.record(of_keras.model, path, STEPS)
        of_keras.train_one_epoch(rows, epoch=1)


def show_layers(model: "nn.Module", columns: "tuple[Tensor, ...]") -> None:
    """Call the layers, too, which the fast engine computes without calling them, for the record to see them."""
    type(model).forward(model, *columns)


def main(params: Params, train: Path, agreement: Path) -> None:
    """Run the stage."""
    metrics = {}
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        for side in get_args(Side):
            records = {framework: Path(folder) / f"{framework}.npz" for framework in get_args(Framework)}
            for framework, path in records.items():
                with ProcessPoolExecutor(1, spawn) as pool:
                    pool.submit(record_steps, framework, set_equal(params, side), train, path).result()
            comparison = Comparison.read(records["pytorch"], records["keras"])
            found = walk(comparison)
            print(f"Under {side}'s conventions:\n\n{describe(comparison, found)}\n")
            beyond = [row for row in found.rows if row.largest > TOLERANCE["float64"][row.checkpoint]]
            first = [f"step {row.step}, {LABELS[row.checkpoint]}: other numbers" for row in beyond]  # none is chance
            metrics[side] = {
                "differing": len(beyond),
                "largest_difference": float(f"{max((row.largest for row in beyond), default=0.0):.2g}"),
                "first": [*map(str, found.findings), *first, "none"][0],
            }
    write_json(agreement, metrics)


if __name__ == "__main__":
    run_stage(main)

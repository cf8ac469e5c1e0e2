"""How far rounding alone moves the losses of the sample, in one process and on Ray.

    python -m benchmarks.rounding

After `dvc repro`. In one process each training takes the rows of each batch in an order of its own: the same sums,
rounded otherwise. So do several workers, and they can't be expected to come nearer.
"""

import importlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Cell, Table
from benchmarks.processes import in_a_process
from benchmarks.ratings import PARTS, change_params
from stages.engines.data_parallel import train_on_ray
from stages.program.params import Params
from stages.ratings.table import Ratings, read_ratings
from stages.training.fit import MakeTrainer, Trained, Trainer, train_here

TRAINERS = {"train-torch": "stages.train_torch.TorchTrainer", "train-keras": "stages.train_keras.KerasTrainer"}
ORDERS = 20
WORKERS = (1, 2)


def measure(stage: str, precision: str) -> list[Cell]:
    """The largest change of any loss of three epochs: in one process, and on Ray."""
    module, _, name = TRAINERS[stage].rpartition(".")
    make_trainer: MakeTrainer = getattr(importlib.import_module(module), name)
    params = change_params({"train.epochs": 3, "train.precision": precision})
    tables = [read_ratings(Path(f"data/{part}.parquet")) for part in PARTS]

    def make_reordered(seed: int) -> MakeTrainer:
        def make(params: Params, training: Ratings, workers: object = None) -> Trainer:
            trainer = make_trainer(params, training)
            train_one_epoch, random = trainer.train_one_epoch, np.random.default_rng(seed)

            def reorder(rows: Ratings, epoch: int) -> float:
                batches = np.array_split(
                    np.arange(len(rows)), range(params.train.batch_size, len(rows), params.train.batch_size)
                )
                return train_one_epoch(rows[np.concatenate([*map(random.permutation, batches)])], epoch)

            trainer.train_one_epoch = reorder  # type: ignore[method-assign]
            return trainer

        return make

    alone = losses(train_here(make_trainer, params, tables))
    reordered = [train_here(make_reordered(seed), params, tables) for seed in range(ORDERS)]
    of_workers = [params.model_copy(update={"ray": params.ray.model_copy(update={"workers": n})}) for n in WORKERS]
    on_ray = [train_on_ray(make_trainer, params, tables) for params in of_workers]
    moved = [float(np.abs(losses(trained) - alone).max()) for trained in reordered + on_ray]
    shown = [*np.quantile(moved[:ORDERS], (0, 0.5, 1)), *moved[ORDERS:]]
    return [stage, precision, *(f"{value:.1e}" for value in shown)]


def losses(trained: Trained) -> NDArray[np.float64]:
    """All losses of a training."""
    epochs = [loss for epoch in trained.curve.epochs for loss in (epoch.train_loss, epoch.val_loss)]
    return np.array([*epochs, trained.test_loss])


def main() -> None:
    """Measure and print the table."""
    rows = [in_a_process(measure, stage, precision) for stage in TRAINERS for precision in ("float32", "float64")]
    columns = ["stage", "precision", "reordered: least", "median", "most", *(f"Ray: {count}" for count in WORKERS)]
    print(Table("How far the losses of three epochs move", columns, rows))


if __name__ == "__main__":
    main()

"""What it costs that Keras's `fit`, once a seed is set, shuffles once and not once an epoch.

Trains Keras as it is on the split ratings, from several seeds, in two ways: with a fresh order for each epoch, as
train-keras does, and by one call of `fit(shuffle=True)` after `keras.utils.set_random_seed`. Prints the mean validation
loss by epoch. Not a stage of the pipeline; run it from the project's folder after `dvc repro`:

    python -m ablation.shuffle --params params.yaml
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.program.params import Params
from stages.program.process import run_stage
from stages.ratings.table import Ratings, read_ratings
from stages.train_keras import KerasTrainer, build_model
from stages.training.fit import EVALUATION_BATCH, fit


def fit_once(params: Params, training: Ratings, validation: Ratings) -> list[float]:
    """The validation losses of one call of `fit`, which `build_model` has set the seed for."""
    import keras

    model = build_model(params, training)
    model.compile(
        keras.optimizers.Adam(params.train.learning_rate),
        loss="mean_squared_error",
        steps_per_execution=params.keras.steps_per_execution,
    )
    history = model.fit(
        [training.books, training.users],
        training.stars,
        params.train.batch_size,
        epochs=params.train.epochs,
        validation_data=([validation.books, validation.users], validation.stars),
        validation_batch_size=EVALUATION_BATCH,
        verbose=0,
    )
    losses: list[float] = history.history["val_loss"]
    return losses


def describe(name: str, losses: NDArray[np.float64]) -> str:
    """The mean over the seeds and its standard error, for losses of shape (seeds, epochs)."""
    means, errors = losses.mean(axis=0), losses.std(axis=0, ddof=1) / np.sqrt(len(losses))
    return f"{name:<28}" + "".join(f"  {mean:.4f} ± {error:.4f}" for mean, error in zip(means, errors, strict=True))


def main(
    params: Params,
    train: Path = Path("data/train.parquet"),
    validation: Path = Path("data/validation.parquet"),
    seeds: int = 5,
) -> None:
    """Train both ways from each seed and print the two rows."""
    training_rows, validation_rows = read_ratings(train), read_ratings(validation)

    fresh, once = [], []
    for seed in range(params.train.seed, params.train.seed + seeds):
        seeded = params.model_copy(update={"train": params.train.model_copy(update={"seed": seed})})
        curve = fit(KerasTrainer(seeded, training_rows), training_rows, validation_rows, seeded.train)
        fresh.append([epoch.val_loss for epoch in curve.epochs])
        once.append(fit_once(seeded, training_rows, validation_rows))
    print(describe("a fresh order each epoch", np.array(fresh)))
    print(describe("fit(shuffle=True), seeded", np.array(once)))


if __name__ == "__main__":
    run_stage(main)

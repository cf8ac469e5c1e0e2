"""train-keras: the recommender in Keras."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from stages.engines.keras import configure, describe, save_weights, share_gradients
from stages.program.params import Params
from stages.program.process import run_stage
from stages.ratings.table import Ratings
from stages.training.conventions import KERAS_PROGRAMS, AdamConventions, resolve_adam
from stages.training.conventions.weights import InitialWeights, draw_initial_weights
from stages.training.fit import EVALUATION_BATCH, Weights, run_training
from stages.training.losses import diverged

if TYPE_CHECKING:
    import keras

    from stages.engines.workers import Workers


def build_model(params: Params, training: Ratings) -> "keras.Model":
    """The untrained network, with the initial weights that the conventions ask for.

    Predicts a user's rating of a book from one learned vector of each: book numbers (batch,) and user numbers (batch,)
    give predicted stars (batch, 1).
    """
    import keras  # not before the engine is configured: Keras chooses its backend when it is first imported

    from stages.training.conventions.keras_adam import choose_embedding

    keras.utils.set_random_seed(params.train.seed)
    embedding = choose_embedding(adam_conventions(params))
    book = keras.Input((), dtype="int32", name="book")
    user = keras.Input((), dtype="int32", name="user")
    vectors = keras.layers.Concatenate()(
        [
            embedding(training.book_count, params.model.embedding_dim, name="book_embedding")(book),
            embedding(training.user_count, params.model.embedding_dim, name="user_embedding")(user),
        ]
    )
    for position, units in enumerate(params.model.hidden_units):
        vectors = keras.layers.Dense(units, activation="relu", name=f"dense_{position}")(vectors)
    rating = keras.layers.Dense(1, name=f"dense_{len(params.model.hidden_units)}")(vectors)
    model = keras.Model([book, user], rating)
    set_initial_weights(model, draw_initial_weights(params, training.user_count, training.book_count))
    if params.model.output_bias == "mean":
        model.layers[-1].bias.assign([training.mean])
    return model


def set_initial_weights(model: "keras.Model", weights: InitialWeights) -> None:
    """Take over the weights that are given; Keras keeps a kernel as (fan_in, fan_out)."""
    if weights.book_embedding is not None:
        model.get_layer("book_embedding").embeddings.assign(weights.book_embedding)
    if weights.user_embedding is not None:
        model.get_layer("user_embedding").embeddings.assign(weights.user_embedding)
    if weights.kernels is not None:
        for position, kernel in enumerate(weights.kernels):
            model.get_layer(f"dense_{position}").kernel.assign(kernel)
    if weights.biases is not None:
        for position, bias in enumerate(weights.biases):
            model.get_layer(f"dense_{position}").bias.assign(bias)


def adam_conventions(params: Params) -> AdamConventions:
    """Which framework's way each detail of Adam follows, `native` resolved."""
    return resolve_adam(params.conventions, KERAS_PROGRAMS[params.keras.backend], params.train.precision)


class KerasTrainer:
    """The recommender with its optimiser, as `stages.training.fit` trains it."""

    def __init__(self, params: Params, training: Ratings, workers: "Workers | None" = None) -> None:
        configure(params)
        from stages.training.conventions.keras_adam import make_adam

        self.batch_size = params.train.batch_size
        self.model = build_model(params, training)
        self.model.compile(
            make_adam(params.train.learning_rate, adam_conventions(params)),
            loss="mean_squared_error",
            steps_per_execution=params.keras.steps_per_execution if params.keras.backend == "tensorflow" else 1,
            jit_compile=False,  # Keras would use XLA on a GPU but not on a CPU: here on neither
        )
        if workers is not None:
            share_gradients(self.model, workers)

    def describe(self) -> str:
        """The framework, its version and the device that trains."""
        return describe()

    def train_one_epoch(self, rows: Ratings, epoch: int) -> float:
        """Train on each batch once; the mean of the examples' losses as they were then."""
        import keras

        steps = math.ceil(len(rows) / self.batch_size)
        with tqdm(total=steps, desc=f"epoch {epoch}", leave=False, disable=None) as bar:

            def show(step: int, logs: dict[str, float]) -> None:
                if not math.isfinite(logs["loss"]):
                    raise diverged(epoch, f"by step {step + 1:,} of {steps:,} the loss is {logs['loss']}")
                bar.update(step + 1 - bar.n)

            history = self.model.fit(
                [rows.books, rows.users],
                rows.stars,
                self.batch_size,
                shuffle=False,  # they come in an order that is drawn for each epoch, the same in both frameworks
                callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=show)],
                verbose=0,
            )
        return float(history.history["loss"][0])

    def evaluate(self, rows: Ratings) -> float:
        """The mean squared error over all rows."""
        return float(self.model.evaluate([rows.books, rows.users], rows.stars, EVALUATION_BATCH, verbose=0))

    def get_weights(self) -> Weights:
        """A copy of all weights."""
        return self.model.get_weights()  # type: ignore[no-any-return]

    def set_weights(self, weights: Weights) -> None:
        """Go on from these weights; the optimiser's state is kept."""
        self.model.set_weights(weights)

    def get_optimizer_state(self) -> Weights:
        """A copy of Adam's step count, learning rate and running means."""
        return [np.array(variable) for variable in self.model.optimizer.variables]

    def set_optimizer_state(self, state: Weights) -> None:
        """Go on from what `get_optimizer_state` gave."""
        self.model.optimizer.build(self.model.trainable_variables)
        for variable, value in zip(self.model.optimizer.variables, state, strict=True):
            variable.assign(value)

    def save(self) -> bytes:
        """The weights by name, as HDF5."""
        return save_weights(self.model)


def main(params: Params, train: Path, validation: Path, test: Path, weights: Path, losses: Path) -> None:
    """Run the stage."""
    run_training(KerasTrainer, params, train, validation, test, weights, losses)


if __name__ == "__main__":
    run_stage(main)

"""train-keras: the recommender in Keras.

Keras chooses its backend once, when it is first imported. Here that is after the parameters are read: hence the imports
inside functions.
"""

import argparse
import io
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from stages.training.batches import EVALUATION_BATCH, check_batch_size, shuffle_rows
from stages.training.conventions import KERAS_PROGRAMS, AdamConventions, resolve_adam
from stages.training.conventions.weights import InitialWeights, draw_initial_weights
from stages.program.files import write_bytes
from stages.training.losses import LossCurve, diverged, write_curve
from stages.program.params import Params, load_params
from stages.program.process import run_stage
from stages.ratings.table import Ratings, read_ratings

if TYPE_CHECKING:
    import keras


def build_model(params: Params, training: Ratings) -> "keras.Model":
    """The untrained network, with the initial weights that the conventions ask for.

    Predicts a user's rating of a book from one learned vector of each: book numbers (batch,) and user numbers (batch,)
    give predicted stars (batch, 1).
    """
    import keras

    from stages.training.conventions.keras_adam import choose_embedding

    keras.utils.set_random_seed(params.train.seed)
    set_precision(params.train.precision)
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
    start_from(model, draw_initial_weights(params, training.user_count, training.book_count))
    if params.model.output_bias == "mean":
        model.layers[-1].bias.assign([training.mean])
    return model


def adam_conventions(params: Params) -> AdamConventions:
    """Whose way Adam follows."""
    return resolve_adam(params.conventions, KERAS_PROGRAMS[params.keras.backend], params.train.precision)


def start_from(model: "keras.Model", weights: InitialWeights) -> None:
    """Take over the weights that are given."""
    if weights.book_embedding is not None:
        model.get_layer("book_embedding").embeddings.assign(weights.book_embedding)
    if weights.user_embedding is not None:
        model.get_layer("user_embedding").embeddings.assign(weights.user_embedding)
    for position, kernel in enumerate(weights.kernels or []):
        model.get_layer(f"dense_{position}").kernel.assign(kernel)
    for position, bias in enumerate(weights.biases or []):
        model.get_layer(f"dense_{position}").bias.assign(bias)


def train_one_epoch(model: "keras.Model", data: Ratings, batch_size: int, epoch: int) -> float:
    """Train on each batch once, in the order of the rows; the mean of the examples' losses as they were then."""
    import keras

    steps = math.ceil(len(data) / batch_size)
    with tqdm(total=steps, desc=f"epoch {epoch}", leave=False, disable=None) as bar:

        def show(step: int, logs: dict[str, float]) -> None:
            if not math.isfinite(logs["loss"]):
                raise diverged(epoch, f"by step {step + 1:,} of {steps:,} the loss is {logs['loss']}")
            bar.update(step + 1 - bar.n)

        history = model.fit(
            [data.books, data.users],
            data.stars,
            batch_size,
            shuffle=False,
            callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=show)],
            verbose=0,
        )
    return float(history.history["loss"][0])


def evaluate(model: "keras.Model", data: Ratings) -> float:
    """The mean squared error over all rows."""
    return float(model.evaluate([data.books, data.users], data.stars, EVALUATION_BATCH, verbose=0))


def train(params: Params, training: Ratings, validation: Ratings) -> tuple["keras.Model", LossCurve]:
    """The model with its best epoch's weights, and the loss curve."""
    choose_engine(params)
    from stages.training.conventions.keras_adam import make_adam

    settings = params.train
    check_batch_size(settings.batch_size, len(training))
    model = build_model(params, training)
    model.compile(
        make_adam(settings.learning_rate, adam_conventions(params)),
        loss="mean_squared_error",
        steps_per_execution=params.keras.steps_per_execution if params.keras.backend == "tensorflow" else 1,
    )

    curve, average = LossCurve(), [np.zeros_like(weight) for weight in model.get_weights()]
    for epoch in range(1, settings.epochs + 1):
        order = shuffle_rows(len(training), settings.seed, epoch)
        train_loss = train_one_epoch(model, training[order], settings.batch_size, epoch)
        trained = model.get_weights()
        if settings.average_epochs:
            average = [mean + (weight - mean) / epoch for mean, weight in zip(average, trained, strict=True)]
            model.set_weights(average)
        if curve.record(train_loss, evaluate(model, validation)):
            best = model.get_weights()
        model.set_weights(trained)
    model.set_weights(best)
    return model, curve


def choose_engine(params: Params) -> None:
    """Load Keras on the backend and the number of threads that params.yaml names; can't be undone in this process."""
    os.environ["KERAS_BACKEND"] = params.keras.backend
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # its kernels round differently from one processor to the next
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if params.keras.backend == "torch":
        import torch

        torch.set_num_threads(params.train.threads)
    else:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(params.train.threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)


def set_precision(precision: str) -> None:
    """Make Keras compute in float32 or float64.

    On every backend but TensorFlow, Keras's type promotion turns float64 into float32, in matrix products and means,
    even under `set_floatx("float64")`; there is no public switch (https://github.com/keras-team/keras/issues/23704).
    """
    import keras
    from keras.src.backend.common import dtypes

    keras.config.set_floatx(precision)
    keras.config.set_dtype_policy(precision)  # layers go by this one, which follows floatx only until the first layer
    if keras.backend.backend() != "tensorflow":
        dtypes.BIT64_TO_BIT32_DTYPE["float64"] = precision


def describe_engine() -> str:
    """The versions and the device that train."""
    import keras

    if keras.backend.backend() == "torch":
        import torch

        return f"PyTorch {torch.__version__} on {keras.ops.zeros(()).device}"
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("CPU")
    return f"TensorFlow {tf.__version__} on {devices[0].device_type}"


class Memory(io.BytesIO):
    """A file in memory, of the kind that Keras asks for by its name."""

    def __str__(self) -> str:
        return "memory.weights.h5"


def save(model: "keras.Model") -> bytes:
    """The weights as HDF5: from memory, because its library crashes the process where it fills up a disk."""
    memory = Memory()
    model.save_weights(memory)
    return memory.getvalue()


def main() -> None:
    """Run the stage: arguments, read, do, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--validation", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="the best epoch's, to write")
    parser.add_argument("--losses", type=Path, required=True, help="the loss curve, to write")
    arguments = parser.parse_args()
    params = load_params(arguments.params)

    training, validation, test = (
        read_ratings(path) for path in (arguments.train, arguments.validation, arguments.test)
    )
    choose_engine(params)
    print(f"Keras on {describe_engine()}", flush=True)
    model, curve = train(params, training, validation)
    test_loss = evaluate(model, test)

    write_bytes(arguments.weights, save(model))
    write_curve(arguments.losses, "keras", curve, test_loss)
    print(f"best epoch {curve.best.epoch}: val_loss {curve.best.val_loss:.5f}, test_loss {test_loss:.5f}")


if __name__ == "__main__":
    run_stage(main)

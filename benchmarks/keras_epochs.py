"""train-keras against `fit` as Keras's tutorials call it."""

from pathlib import Path

from benchmarks.epochs import Epoch, Framework
from benchmarks.epochs import measure as measure_epochs
from benchmarks.measure import Table
from benchmarks.scale import Scale
from stages.program.params import Params
from stages.ratings.table import Ratings
from stages.train_keras import build_model, choose_engine, train_one_epoch

# from stages.training.batches import shuffle_rows
from stages.training.conventions import KERAS_PROGRAMS, resolve_adam


def measure(scale: Scale, work: Path) -> list[Table]:
    """Both epochs, and their share of what TensorFlow's own matrix product reaches."""
    return measure_epochs(FRAMEWORK, scale, work)


def make_epoch(params: Params, known: Ratings, rows: Ratings) -> Epoch:
    """An epoch as `stages.train_keras.train` has it, but for its first steps, where the graph is traced."""
    choose_engine(params)
    from stages.training.conventions.keras_adam import make_adam

    model = build_model(params, known)
    model.compile(
        make_adam(
            params.train.learning_rate,
            resolve_adam(params.conventions, KERAS_PROGRAMS["tensorflow"], params.train.precision),
        ),
        loss="mean_squared_error",
        steps_per_execution=params.keras.steps_per_execution,
    )

    batch_size = params.train.batch_size
    first = rows[: batch_size + len(rows) % batch_size]  # with a last batch of the same size: another is traced anew
    train_one_epoch(model, first, batch_size, 1)

    def epoch() -> None:
        order = shuffle_rows(len(rows), params.train.seed, 1)
        train_one_epoch(model, rows[order], batch_size, 1)

    return epoch


def make_tutorial_epoch(params: Params, known: Ratings, rows: Ratings) -> Epoch:
    """An epoch of plain `fit`, without its progress bar, which would cost it more."""
    choose_engine(params)
    model = build_model(params, known)
    model.compile(optimizer="adam", loss="mean_squared_error")
    return lambda: model.fit(
        [rows.books, rows.users], rows.stars, batch_size=params.train.batch_size, shuffle=True, verbose=0
    )


def make_product(size: int) -> Epoch:
    """TensorFlow's own product of two matrices."""
    import tensorflow as tf

    one, other = tf.random.normal((size, size)), tf.random.normal((size, size))
    return lambda: tf.linalg.matmul(one, other).numpy()


FRAMEWORK = Framework("train-keras", "plain fit", make_epoch, make_tutorial_epoch, make_product)

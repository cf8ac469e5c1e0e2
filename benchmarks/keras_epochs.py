"""train-keras against `fit` as Keras's tutorials call it."""

from benchmarks.epochs import Epoch, Framework
from stages.engines.keras import configure
from stages.program.params import Params
from stages.ratings.table import Ratings
from stages.train_keras import KerasTrainer, build_model


def make_tutorial_epoch(params: Params, known: Ratings, rows: Ratings) -> Epoch:
    """An epoch of plain `fit`, without its progress bar, which would cost it more."""
    configure(params)
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


FRAMEWORK = Framework("train-keras", "plain fit", KerasTrainer, make_tutorial_epoch, make_product)
measure = FRAMEWORK.measure

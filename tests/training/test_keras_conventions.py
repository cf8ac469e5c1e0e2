"""The same as test_conventions.py for Keras, on the backend that KERAS_BACKEND names; the last test changes it."""

import sys
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from stages.engines.keras import configure, set_precision
from stages.program.params import Params, Precision
from stages.train_keras import build_model
from stages.training.conventions import KERAS_PROGRAMS, AdamConventions, own_adam
from stages.training.conventions.keras_adam import AdamByConventions, SparseEmbedding, make_adam
from tests.project import ROOT, run
from tests.samples import change, simulate
from tests.training.adam_reference import ALL_ADAMS, GRADIENTS, LEARNING_RATE, ROWS, START, reference_adam
from tests.training.first_weights import assert_drawn

BACKEND = keras.backend.backend()


@pytest.fixture(scope="module", autouse=True)
def engine(params: Params) -> None:
    """The same threads as a stage's, set before the first tensor."""
    configure(change(params, keras={"backend": BACKEND}))


def test_keras_own_weights_have_the_distribution_of_its_convention(params: Params) -> None:
    model = build_model(change(params, keras={"backend": BACKEND}), simulate(users=900, books=700, rows=4000))

    tables = [model.get_layer(name).get_weights()[0] for name in ("book_embedding", "user_embedding")]
    assert_drawn("keras", tables, [model.get_layer(f"dense_{position}").get_weights() for position in range(3)])


def step_keras(optimizer: Any, sparse: bool, start: NDArray[np.float64] = START) -> NDArray[np.float64]:
    """The table after some steps of the optimizer in `fit`, on rows that repeat within a batch."""
    layer = (SparseEmbedding if sparse and BACKEND == "torch" else keras.layers.Embedding)(*start.shape)
    rows = keras.Input((), dtype="int32")
    model = keras.Model(rows, layer(rows))
    layer.set_weights([start])
    model.compile(optimizer, loss=lambda gradient, looked_up: keras.ops.sum(gradient * looked_up, axis=-1))
    for batch, gradients in zip(ROWS, GRADIENTS, strict=True):
        # Keras takes the mean over the batch, where the reference adds up.
        model.fit(batch, gradients * len(batch), batch_size=len(batch), shuffle=False, verbose=0)
    weights: NDArray[np.float64] = layer.get_weights()[0]
    return weights


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-14), ("float32", 1e-8)])
def test_keras_own_adam_is_what_its_conventions_say(precision: Precision, tolerance: float) -> None:
    set_precision(precision)
    own = own_adam(KERAS_PROGRAMS[BACKEND], precision)
    optimizer = make_adam(LEARNING_RATE, own)
    assert not isinstance(optimizer, AdamByConventions)

    start = np.zeros_like(START)  # float32 is fine enough around zero to tell how β was rounded
    found, expected = step_keras(optimizer, sparse=False, start=start), reference_adam(own, start)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    other = AdamConventions(own.epsilon, "torch" if own.betas == "keras" else "keras", own.repeated_rows)
    assert np.abs(found - reference_adam(other, start)).max() > 2 * tolerance


@pytest.mark.parametrize("conventions", ALL_ADAMS, ids=str)
def test_adam_in_keras_follows_any_mixture_of_conventions(conventions: AdamConventions) -> None:
    set_precision("float64")
    optimizer = AdamByConventions(LEARNING_RATE, conventions)

    np.testing.assert_allclose(
        step_keras(optimizer, sparse=conventions.repeated_rows == "keras"),
        reference_adam(conventions),
        rtol=0,
        atol=1e-14,
    )


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "torch", reason="this is the run on the torch backend")
def test_all_of_this_holds_on_the_torch_backend_too() -> None:
    run(ROOT, "env", "KERAS_BACKEND=torch", sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__)

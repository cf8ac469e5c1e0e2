"""The same as test_conventions.py for Keras, on the backend that KERAS_BACKEND names; the last test changes it."""

import os
import sys
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import kstest

from stages.common.conventions import KERAS_PROGRAMS, OWN_ADAM, AdamConventions
from stages.common.conventions.keras_adam import ConventionalAdam, SparseEmbedding, make_adam
from stages.common.params import Params
from stages.train_keras import build_model, set_precision
from tests.adam_reference import GRADIENTS, LEARNING_RATE, ROWS, START, reference_adam
from tests.conftest import ROOT, change, run, simulate
from tests.test_conventions import ALL_ADAMS, EMBEDDING, assert_uniform, dense_limit

BACKEND = keras.backend.backend()
OWN = OWN_ADAM[KERAS_PROGRAMS[BACKEND]]


def test_keras_own_weights_have_the_distribution_of_its_convention(params: Params) -> None:
    model = build_model(change(params, keras={"backend": BACKEND}), simulate(users=900, books=700, rows=4000))

    for name in ("book_embedding", "user_embedding"):
        weights = model.get_layer(name).get_weights()[0]
        assert kstest(weights.ravel(), *EMBEDDING["keras"]).pvalue > 0.001
    for position in range(3):
        kernel, bias = model.get_layer(f"dense_{position}").get_weights()
        assert_uniform(kernel, dense_limit("keras", *kernel.shape))
        assert not bias.any()


def step_keras(optimizer: Any, sparse: bool) -> NDArray[np.float64]:
    """The table after some steps of the optimizer in `fit`, on rows that repeat within a batch."""
    layer = (SparseEmbedding if sparse and BACKEND == "torch" else keras.layers.Embedding)(*START.shape)
    rows = keras.Input((), dtype="int32")
    model = keras.Model(rows, layer(rows))
    layer.set_weights([START])
    model.compile(optimizer, loss=lambda gradient, looked_up: keras.ops.sum(gradient * looked_up, axis=-1))
    for batch, gradients in zip(ROWS, GRADIENTS, strict=True):
        # Keras takes the mean over the batch, where the reference adds up.
        model.fit(batch, gradients * len(batch), batch_size=len(batch), shuffle=False, verbose=0)
    weights: NDArray[np.float64] = layer.get_weights()[0]
    return weights


def test_keras_own_adam_is_what_its_conventions_say() -> None:
    set_precision("float64")
    optimizer = make_adam(LEARNING_RATE, OWN)
    assert not isinstance(optimizer, ConventionalAdam)

    np.testing.assert_allclose(step_keras(optimizer, sparse=False), reference_adam(OWN), rtol=0, atol=1e-14)


@pytest.mark.parametrize("conventions", ALL_ADAMS, ids=str)
def test_adam_in_keras_follows_any_mixture_of_conventions(conventions: AdamConventions) -> None:
    set_precision("float64")
    optimizer = ConventionalAdam(LEARNING_RATE, conventions)

    np.testing.assert_allclose(
        step_keras(optimizer, sparse=conventions.repeated_rows == "keras"),
        reference_adam(conventions),
        rtol=0,
        atol=1e-14,
    )


@pytest.mark.skipif(BACKEND == "torch", reason="this is the run on the torch backend")
def test_all_of_this_holds_on_the_torch_backend_too() -> None:
    run(ROOT, "env", "KERAS_BACKEND=torch", sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__)

"""The NumPy references of optimisers are what the frameworks' own compute, in float64."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from divergence import optimisers
from divergence.optimisers import take_steps as steps
from divergence.record import CHECKPOINTS, Record
from divergence.steps import Mixture, differing_parts, explain_steps
from stages.engines.keras import set_precision

RATE = 0.01
RANDOM = np.random.default_rng(4)
START = RANDOM.normal(size=(5, 3))
GRADIENTS = [1e-3 * RANDOM.normal(size=START.shape) for _ in range(6)]
Rule = Callable[..., NDArray[np.float64]]

# The framework's optimiser, its reference, and the settings that both are given.
TORCH: dict[str, tuple[Any, Rule, dict[str, Any]]] = {
    "SGD": (torch.optim.SGD, optimisers.sgd, {}),
    "momentum": (torch.optim.SGD, optimisers.sgd, {"momentum": 0.9}),
    "dampening": (torch.optim.SGD, optimisers.sgd, {"momentum": 0.9, "dampening": 0.4}),
    "Nesterov": (torch.optim.SGD, optimisers.sgd, {"momentum": 0.9, "nesterov": True}),
    "Adam": (torch.optim.Adam, optimisers.adam, {}),
    "AMSGrad": (
        partial(torch.optim.Adam, betas=(0.8, 0.7)),
        partial(optimisers.adam, beta_1=0.8, beta_2=0.7),
        {"amsgrad": True},
    ),
    "RMSprop": (torch.optim.RMSprop, optimisers.rmsprop, {}),
    "RMSprop, centered, momentum": (torch.optim.RMSprop, optimisers.rmsprop, {"centered": True, "momentum": 0.9}),
    "Adagrad": (torch.optim.Adagrad, optimisers.adagrad, {}),
}

KERAS_ADAM = partial(optimisers.adam, epsilon=1e-7, epsilon_hat=True)
KERAS_RMSPROP = partial(optimisers.rmsprop, rho=0.9, epsilon=1e-7, epsilon_inside=True)
KERAS_ADAGRAD = partial(optimisers.adagrad, epsilon=1e-7, epsilon_inside=True, initial=float(np.float32(0.1)))
KERAS: dict[str, tuple[Any, Rule, dict[str, Any]]] = {
    "SGD": (keras.optimizers.SGD, optimisers.sgd, {}),
    "momentum": (keras.optimizers.SGD, optimisers.sgd, {"momentum": 0.5}),
    "Nesterov": (
        keras.optimizers.SGD,
        partial(optimisers.sgd, rate_inside=True),
        {"momentum": 0.5, "nesterov": True},
    ),
    "Adam": (keras.optimizers.Adam, partial(KERAS_ADAM, rounded_betas=True), {}),
    "AMSGrad": (keras.optimizers.Adam, KERAS_ADAM, {"amsgrad": True, "beta_1": 0.5, "beta_2": 0.25}),
    "RMSprop": (keras.optimizers.RMSprop, KERAS_RMSPROP, {}),
    "RMSprop, centered, momentum": (keras.optimizers.RMSprop, KERAS_RMSPROP, {"centered": True, "momentum": 0.5}),
    "Adagrad": (keras.optimizers.Adagrad, KERAS_ADAGRAD, {}),
}


def trained(rule: Rule, settings: dict[str, Any]) -> NDArray[np.float64]:
    """The weight after the reference's steps."""
    weight: NDArray[np.float64] = START - sum(steps(rule, GRADIENTS, [RATE] * len(GRADIENTS), **settings))
    return weight


@pytest.mark.parametrize(("kind", "rule", "settings"), TORCH.values(), ids=TORCH)
def test_pytorchs_optimiser_is_the_reference(kind: Any, rule: Rule, settings: dict[str, Any]) -> None:
    weight = torch.nn.Parameter(torch.tensor(START))
    optimizer = kind([weight], RATE, **settings)
    for gradient in GRADIENTS:
        weight.grad = torch.tensor(gradient)
        optimizer.step()

    np.testing.assert_allclose(weight.detach().numpy(), trained(rule, settings), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("kind", "rule", "settings"), KERAS.values(), ids=KERAS)
def test_keras_optimiser_is_the_reference(kind: Any, rule: Rule, settings: dict[str, Any]) -> None:
    set_precision("float64")
    weight = keras.Variable(START, dtype="float64")
    optimizer = kind(RATE, **settings)
    for gradient in GRADIENTS:
        optimizer.apply([keras.ops.convert_to_tensor(gradient, "float64")], [weight])

    np.testing.assert_allclose(np.array(weight), trained(rule, settings), rtol=0, atol=1e-13)


def test_sparse_adam_changes_only_the_rows_looked_up() -> None:
    rows = [np.array([0, 2]), np.array([2, 2, 3]), np.array([0])]
    weight = torch.nn.Parameter(torch.tensor(START))
    optimizer = torch.optim.SparseAdam([weight], RATE)
    dense, looked_up = [], []
    for batch in rows:
        values = torch.tensor(RANDOM.normal(size=(len(batch), 3)))
        weight.grad = torch.sparse_coo_tensor(torch.tensor(batch[None]), values, START.shape)
        dense.append(weight.grad.to_dense().numpy().copy())
        looked_up.append(np.isin(np.arange(5), batch)[:, None] & np.ones(3, bool))
        optimizer.step()

    expected = START - sum(steps(optimisers.adam, dense, [RATE] * 3, epsilon_hat=True, looked_up=looked_up))
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=0, atol=1e-14)


def test_the_learning_rate_inside_the_velocity_matters_only_where_it_changes() -> None:
    same, changing = [RATE] * 6, [RATE, RATE / 2] * 3
    for rates, differ in ((same, False), (changing, True)):
        outside, inside = (
            sum(steps(optimisers.sgd, GRADIENTS, rates, momentum=0.9, rate_inside=where)) for where in (False, True)
        )
        assert np.allclose(outside, inside, rtol=1e-12) != differ


def test_where_several_epsilons_explain_the_steps_it_is_the_programs_own() -> None:
    here: set[Mixture] = {(("optimiser", "Adam"), ("ε", f"{epsilon} added after")) for epsilon in ("1e-07", "1e-08")}
    there: set[Mixture] = {(("optimiser", "Adam"), ("ε", "1e-07 added before"))}
    records = (Record([], {"optimizer": {"eps": 1e-8}}), Record([], {"optimizer": {"epsilon": 1e-7}}))
    assert differing_parts(here, there, records) == [("ε", "1e-08 added after", "1e-07 added before")]


def test_a_decay_that_takes_off_a_gradient_leaves_the_formula() -> None:
    """In float32 the step is of the round-off that is left."""
    weight = torch.nn.Parameter(torch.linspace(0.1, 1, 200))
    optimizer = torch.optim.Adam([weight], weight_decay=0.01)
    random, recorded = np.random.default_rng(0), []
    for _ in range(3):
        gradient = torch.tensor(random.normal(size=200), dtype=torch.float32)
        gradient[:5] = -0.01 * weight.detach()[:5] * (1 + 1e-5)
        before, weight.grad = weight.detach().numpy().copy(), gradient
        optimizer.step()
        arrays = {"weights": before, "gradients": gradient.numpy(), "after": weight.detach().numpy().copy()}
        recorded.append({name: {"w": arrays[name]} if name in arrays else {} for name in CHECKPOINTS})

    (found,) = explain_steps(Record(recorded, {"optimizer": {"weight_decay": 0.01}}), set()).values()
    assert any(("optimiser", "Adam") in mixture for mixture in found)

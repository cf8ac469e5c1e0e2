"""Each framework's own convention is what `stages.training.conventions` says it is, and each emulation follows it."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stages.program.params import Params, Precision
from stages.train_torch import build_model
from stages.training.conventions import AdamConventions, Program, own_adam, resolve_adam
from stages.training.conventions.torch_adam import AdamByConventions
from stages.training.conventions.weights import draw_initial_weights
from tests.samples import change, simulate
from tests.training.adam_reference import ALL_ADAMS, GRADIENTS, LEARNING_RATE, ROWS, SIDES, START, reference_adam
from tests.training.first_weights import assert_drawn


@pytest.mark.parametrize("side", SIDES)
def test_drawn_weights_have_the_distribution_of_their_convention(params: Params, side: str) -> None:
    chosen = change(params, conventions={"embedding_init": side, "dense_init": side, "bias_init": side})
    weights = draw_initial_weights(chosen, user_count=900, book_count=700)

    assert weights.book_embedding is not None
    assert weights.user_embedding is not None
    assert weights.kernels is not None
    assert weights.biases is not None
    assert [weights.book_embedding.shape, weights.user_embedding.shape] == [(700, 5), (900, 5)]
    assert [kernel.shape for kernel in weights.kernels] == [(10, 128), (128, 32), (32, 1)]
    tables = weights.book_embedding, weights.user_embedding
    assert_drawn(side, tables, zip(weights.kernels, weights.biases, strict=True))


def test_pytorchs_own_weights_have_the_distribution_of_its_convention(params: Params) -> None:
    model = build_model(params, simulate(users=900, books=700, rows=4000))

    tables = [table.weight.numpy(force=True) for table in (model.book_embedding, model.user_embedding)]
    layers = [layer for layer in model.dense if isinstance(layer, torch.nn.Linear)]
    assert len(layers) == 3
    weights = [(layer.weight.numpy(force=True).T, layer.bias.numpy(force=True)) for layer in layers]
    assert_drawn("torch", tables, weights)


def test_one_conventions_choice_does_not_move_the_draws_of_another(params: Params) -> None:
    both = draw_initial_weights(change(params, conventions={"dense_init": "torch", "bias_init": "torch"}), 90, 70)
    one = draw_initial_weights(change(params, conventions={"bias_init": "torch"}), 90, 70)

    assert one.book_embedding is None
    assert one.kernels is None
    assert one.biases is not None
    assert both.biases is not None
    for left, right in zip(one.biases, both.biases, strict=True):
        np.testing.assert_array_equal(left, right)


def test_native_leaves_the_framework_its_own_weights(params: Params) -> None:
    weights = draw_initial_weights(params, 90, 70)

    assert [weights.book_embedding, weights.user_embedding, weights.kernels, weights.biases] == [None] * 4


def step_pytorch(
    make: Callable[[list[torch.nn.Parameter]], AdamByConventions | torch.optim.Optimizer], sparse: bool = False
) -> NDArray[np.float64]:
    """The table after some steps of Adam in PyTorch, on rows that repeat within a batch."""
    embedding = torch.nn.Embedding(4, 3, sparse=sparse, dtype=torch.float64)
    embedding.weight.data.copy_(torch.from_numpy(START))
    optimizer = make([*embedding.parameters()])
    for batch, gradients in zip(ROWS, GRADIENTS, strict=True):
        optimizer.zero_grad()
        (embedding(torch.from_numpy(batch)) * torch.from_numpy(gradients)).sum().backward()
        optimizer.step()
    return embedding.weight.detach().numpy()


def test_pytorchs_own_adam_is_what_its_conventions_say() -> None:
    """PyTorch alone, as its users write it."""
    found = step_pytorch(partial(torch.optim.Adam, lr=LEARNING_RATE))

    np.testing.assert_allclose(found, reference_adam(own_adam("pytorch", "float64")), rtol=0, atol=1e-14)


@pytest.mark.parametrize("conventions", ALL_ADAMS, ids=str)
def test_adam_in_pytorch_follows_any_mixture_of_conventions(conventions: AdamConventions) -> None:
    make = partial(AdamByConventions, learning_rate=LEARNING_RATE, conventions=conventions)
    found = step_pytorch(make, sparse=conventions.repeated_rows == "keras")

    np.testing.assert_allclose(found, reference_adam(conventions), rtol=0, atol=1e-14)


def test_the_reference_tells_all_mixtures_apart() -> None:
    tables = [reference_adam(conventions) for conventions in ALL_ADAMS]
    distances = [np.abs(left - right).max() for i, left in enumerate(tables) for right in tables[:i]]

    assert min(distances) > 1e-10


@pytest.mark.parametrize("program", ["pytorch", "keras-tensorflow", "keras-torch"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_native_means_the_programs_own_adam(params: Params, program: Program, precision: Precision) -> None:
    own = own_adam(program, precision)

    assert resolve_adam(params.conventions, program, precision) == own
    for side in SIDES:
        chosen = change(params, conventions={"adam_epsilon": side}).conventions
        expected = AdamConventions(side, own.betas, own.repeated_rows)
        assert resolve_adam(chosen, program, precision) == expected

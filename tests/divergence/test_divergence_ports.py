"""What a stranger's first programs look like: small convolutions, dropout, softmax here and logits there."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from divergence import keras as in_keras
from divergence import pytorch as in_pytorch
from divergence.__main__ import describe
from divergence.comparison import Comparison
from divergence.record import CHECKPOINTS, Record, read_record
from divergence.walk import Walk, walk
from stages.engines.keras import set_precision

BATCH = 32
DATA = np.random.default_rng(5)
NUMBERS = DATA.normal(size=(3 * BATCH, 12)).astype("float32")
IMAGES = DATA.normal(size=(3 * BATCH, 6, 6, 3)).astype("float32")
VALUES = DATA.normal(size=(3 * BATCH, 1)).astype("float32")
CLASSES = DATA.integers(0, 4, 3 * BATCH)


@pytest.fixture(autouse=True)
def in_float32() -> None:
    set_precision("float32")
    keras.utils.set_random_seed(4)
    torch.manual_seed(4)


def compare(
    folder: Path, original: keras.Model, port: nn.Module, x: Any, y: Any, losses: Any = None, optimizers: Any = None
) -> tuple[Walk, str]:
    """Train the port from the original's first weights, and compare: here is PyTorch, there is Keras."""
    loss, port_loss = losses or ("mse", functional.mse_loss)
    original.compile(keras.optimizers.SGD(0.01), loss)
    in_keras.record(original, folder / "keras.npz")
    original.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    in_pytorch.start_from(port, folder / "keras.npz")
    optimizer = optimizers(port) if optimizers else torch.optim.SGD(port.parameters(), 0.01)
    in_pytorch.record(port, optimizer, folder / "torch.npz")
    inputs = torch.tensor(x.transpose(0, 3, 1, 2) if x.ndim == 4 else x)
    for batch, target in zip(inputs.split(BATCH), torch.tensor(y).split(BATCH), strict=True):
        optimizer.zero_grad()
        port_loss(port(batch), target).backward()
        optimizer.step()
    comparison = Comparison.of(read_record(folder / "torch.npz"), read_record(folder / "keras.npz"))
    found = walk(comparison)
    return found, describe(comparison, found)


def convolution(channels: int, filters: int, seed: int, of_pytorch: bool) -> Record:
    """A program that only has first weights, (filters, channels, 3, 3): PyTorch's own or Glorot's."""
    bound = (9 * channels) ** -0.5 if of_pytorch else (6 / (9 * channels + 9 * filters)) ** 0.5
    kernel = np.random.default_rng(seed).uniform(-bound, bound, (filters, channels, 3, 3)).astype("float32")
    step = {name: {"conv": kernel} if name == "weights" else {} for name in CHECKPOINTS}
    return Record([step], {"framework": "PyTorch"})


@pytest.mark.parametrize(("channels", "filters"), [(1, 8), (3, 8)])
@pytest.mark.parametrize("seed", range(3))
def test_a_small_convolutions_first_weights_are_told(channels: int, filters: int, seed: int) -> None:
    mine = convolution(channels, filters, seed, of_pytorch=True)
    for of_pytorch in (False, True):
        found = walk(Comparison.of(mine, convolution(channels, filters, seed + 100, of_pytorch)))
        named = [] if of_pytorch else [("U(±1/√fan_in)", "Glorot uniform")]

        assert [(finding.one, finding.other) for finding in found.findings] == named
        assert not found.remarks


def test_first_weights_too_few_to_tell_are_said_to_be() -> None:
    found = walk(Comparison.of(convolution(1, 4, 0, of_pytorch=True), convolution(1, 4, 100, of_pytorch=False)))

    assert not found.findings
    assert found.remarks == [
        "conv may start as U(±1/√fan_in) here and Glorot uniform there, or as Glorot uniform in both: that can't be "
        "told from 36 numbers"
    ]

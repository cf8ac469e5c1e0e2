"""One epoch of a program, recorded as it trains, in batches that follow each other."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from divergence.comparison import Comparison
from divergence.pytorch import record
from divergence.walk import Walk, walk

Loss = Callable[[Tensor, Tensor], Tensor]


def train_torch(
    path: Path,
    model: nn.Module,
    optimizer: Any,
    loss: Loss,
    inputs: Sequence[Any],
    target: Any,
    batch_size: int,
    after_step: Callable[[], object] = lambda: None,
) -> None:
    record(model, optimizer, path)
    columns = [torch.as_tensor(array).split(batch_size) for array in (*inputs, target)]
    for *batch, wanted in zip(*columns, strict=True):
        optimizer.zero_grad()
        loss(model(*batch), wanted).backward()
        optimizer.step()
        after_step()


def train_keras(
    path: Path, model: Any, optimizer: Any, loss: str, inputs: Any, target: Any, batch_size: int, **compiling: Any
) -> None:
    from divergence import keras  # here, as what PyTorch alone runs needs no Keras

    model.compile(optimizer, loss, **compiling)
    keras.record(model, path)
    model.fit(inputs, target, batch_size=batch_size, shuffle=False, verbose=0)


def compare_records(one: Path, other: Path) -> Walk:
    return walk(Comparison.read(one, other))

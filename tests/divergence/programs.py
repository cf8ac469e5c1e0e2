"""Small PyTorch programs of one shape, each of which may differ from the others in one way."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from divergence.__main__ import describe
from divergence.comparison import Comparison
from divergence.pytorch import record
from divergence.walk import Walk, walk

BATCH, CLASSES = 32, 4


class Network(nn.Module):
    """Looks up a vector, joins it with numbers, and gives CLASSES or one number through a hidden layer."""

    def __init__(
        self,
        outputs: int = CLASSES,
        hidden: nn.Module | None = None,
        padding: int | None = None,
        after: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.table = nn.Embedding(40, 6, padding_idx=padding)
        self.first = nn.Linear(10, 30)
        self.hidden = hidden or nn.ReLU()
        self.last = nn.Linear(30, outputs)
        self.after = after or nn.Identity()

    def forward(self, rows: Tensor, numbers: Tensor) -> Tensor:
        joined = torch.cat([self.table(rows), numbers], dim=1)
        output: Tensor = self.after(self.last(self.hidden(self.first(joined))))
        return output


def classes(random: np.random.Generator) -> Tensor:
    return torch.tensor(random.integers(0, CLASSES, BATCH))


@dataclass(frozen=True)
class Program:
    """A training program; each field is a way in which another may differ."""

    network: Callable[[], nn.Module] = Network
    prepare: Callable[[Any], object] = lambda _: None
    optimizer: Callable[[Any], Any] = lambda model: torch.optim.SGD(model.parameters(), 0.1)
    loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy
    penalty: Callable[[Any], Any] = lambda _: 0.0
    target: Callable[[np.random.Generator], Tensor] = classes
    clip: Callable[[list[nn.Parameter]], object] = lambda _: None
    after: Callable[[Any], object] = lambda _: None
    clears: bool = True
    scale: float = 1.0
    shift: int = 0
    data_seed: int = 1
    seed: int = 0
    precision: torch.dtype = torch.float64

    def run(self, path: Path) -> Path:
        """Train four steps; the first three are recorded."""
        torch.set_default_dtype(self.precision)
        try:
            torch.manual_seed(self.seed)
            model = self.network()
            self.prepare(model)
            optimizer, random = self.optimizer(model), np.random.default_rng(self.data_seed)
            record(model, optimizer, path)
            for _ in range(4):
                rows = torch.tensor(np.minimum(random.integers(0, 30, BATCH), 20)) + self.shift
                inputs = self.scale * torch.tensor(random.normal(size=(BATCH, 4))).to(self.precision)
                if self.clears:
                    optimizer.zero_grad()
                loss = self.loss(model(rows, inputs), self.target(random)) + self.penalty(model)
                loss.backward()
                self.clip([*model.parameters()])
                optimizer.step()
                self.after(model)
        finally:
            torch.set_default_dtype(torch.float32)
        return path


def compare(one: Program, other: Program, folder: Path) -> Walk:
    comparison = Comparison.read(one.run(folder / "one.npz"), other.run(folder / "other.npz"))
    found = walk(comparison)
    assert max(map(len, describe(comparison, found).splitlines())) <= 80
    return found


def adam(kind: Any = torch.optim.Adam, **settings: Any) -> Callable[[Any], Any]:
    return lambda model: kind(model.parameters(), **{"lr": 0.01} | settings)

"""PyTorch's adapter: what it records of unusual steps and layouts, and what can start from a record."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from divergence.pytorch import record, start_from
from divergence.record import RecordError, read_record
from tests.divergence.programs import BATCH, CLASSES, Program
from tests.divergence.recording import compare_records, train_torch


def test_a_step_with_a_closure_is_a_step(tmp_path: Path) -> None:
    def train(path: Path, with_closure: bool) -> Path:
        torch.manual_seed(0)
        model, inputs, target = nn.Linear(4, 1), torch.randn(32, 4), torch.randn(32, 1)
        optimizer = torch.optim.Adam(model.parameters())
        record(model, optimizer, path)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = functional.mse_loss(model(inputs), target)
            loss.backward()
            return loss

        for _ in range(4):
            if with_closure:
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
        return path

    found = compare_records(train(tmp_path / "one.npz", True), train(tmp_path / "other.npz", False))
    assert {row.verdict for row in found.rows} == {"agree"}


def test_another_optimizer_beside_the_recorded_one_steps_as_ever(tmp_path: Path) -> None:
    """Its sparse gradients pass by while the loss's target is looked for; its weights aren't the other's."""
    table, last = nn.Embedding(20, 4, sparse=True), nn.Linear(4, 1)
    model = nn.Sequential(table, last)
    sparse, dense = torch.optim.SparseAdam(table.parameters()), torch.optim.SGD(last.parameters(), 0.1)
    record(model, dense, tmp_path / "one.npz")
    for _ in range(4):
        functional.mse_loss(model(torch.arange(10)), torch.ones(10, 1)).backward()
        sparse.step()
        dense.step()
        dense.zero_grad()
        sparse.zero_grad()

    assert len(read_record(tmp_path / "one.npz").steps) == 3


def test_round_off_before_a_batch_norm_is_no_difference(tmp_path: Path) -> None:
    """A convolution's bias gets a gradient that would be zero; in another layout its round-off is another."""

    def train(path: Path, layout: torch.memory_format) -> Path:
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32)]
        model = nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES))
        model = model.to(memory_format=layout)  # type: ignore[call-overload]
        images = torch.randn(4 * BATCH, 3, 16, 16).to(memory_format=layout)
        target = torch.randint(CLASSES, (4 * BATCH,))
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        train_torch(path, model, optimizer, functional.cross_entropy, [images], target, BATCH)
        return path

    layouts = {"one.npz": torch.contiguous_format, "other.npz": torch.channels_last}
    one, other = (train(tmp_path / name, layout) for name, layout in layouts.items())

    assert compare_records(one, other).findings == []


def test_what_cannot_start_from_a_record_is_told_what_the_record_has_left(tmp_path: Path) -> None:
    path = Program().run(tmp_path / "one.npz")

    with pytest.raises(RecordError, match=r"nothing for weight \(7, 7\) and first.bias \(30,\), .* left over"):
        start_from(nn.Linear(7, 7, bias=False), path)

"""Pairs of small PyTorch programs that differ in one convention alone, and what `divergence` says of each."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from divergence.__main__ import describe, main
from divergence.comparison import Comparison
from divergence.pytorch import record, start_from
from divergence.record import RecordError, read_record
from divergence.walk import Row, Walk, walk
from tests.project import ROOT

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


class Logits(Network):
    """One number of a layer that is its last."""

    def __init__(self) -> None:
        super().__init__(1)
        del self.after

    def forward(self, rows: Tensor, numbers: Tensor) -> Tensor:
        output: Tensor = self.last(self.hidden(self.first(torch.cat([self.table(rows), numbers], dim=1))))
        return output


class Rows(nn.Module):
    """Looks up a vector and lets two ReLUs judge it, which are often both dead; two norms of different ε."""

    def __init__(self, is_first: bool = True) -> None:
        super().__init__()
        self.table, self.units, self.last = nn.Embedding(40, 4), nn.Linear(4, 2), nn.Linear(6, CLASSES)
        self.one, self.other = nn.BatchNorm1d(4, 1e-3), nn.BatchNorm1d(4, 1e-5)
        self.order = ["one", "other"] if is_first else ["other", "one"]

    def forward(self, rows: Tensor, numbers: Tensor) -> Tensor:
        normed = {name: getattr(self, name)(numbers) for name in self.order}
        judged = functional.relu(self.units(self.table(rows)))
        output: Tensor = self.last(torch.cat([judged, normed["one"] + normed["other"]], dim=1))
        return output


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(output, target)


def classes(random: np.random.Generator) -> Tensor:
    return torch.tensor(random.integers(0, CLASSES, BATCH))


def zeros_and_ones(random: np.random.Generator) -> Tensor:
    return torch.tensor(random.integers(0, 2, (BATCH, 1))).to(torch.get_default_dtype())


def numbers(random: np.random.Generator) -> Tensor:
    return torch.tensor(random.normal(size=(BATCH, CLASSES))).to(torch.get_default_dtype())


def nothing(_: nn.Module) -> None:
    pass


@dataclass(frozen=True)
class Program:
    """A training program; each field is a way in which another may differ."""

    network: Callable[[], nn.Module] = Network
    prepare: Callable[[Any], object] = nothing
    optimizer: Callable[[Any], Any] = lambda model: torch.optim.SGD(model.parameters(), 0.1)
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy
    penalty: Callable[[Any], Any] = lambda _: 0.0
    target: Callable[[np.random.Generator], Tensor] = classes
    clip: Callable[[list[nn.Parameter]], object] = lambda _: None
    after: Callable[[Any], object] = nothing
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


def fill(**ways: Callable[[Tensor], object]) -> Callable[[nn.Module], None]:
    """Fills the weights whose names end as the ways' names."""

    def prepare(model: nn.Module) -> None:
        for name, weight in model.named_parameters():
            for ending, way in ways.items():
                if name.endswith(ending.replace("_", ".")):
                    with torch.no_grad():
                        way(weight)

    return prepare


def sgd(**settings: Any) -> Callable[[Any], Any]:
    return lambda model: torch.optim.SGD(model.parameters(), **{"lr": 0.1} | settings)


def adam(kind: Any = torch.optim.Adam, **settings: Any) -> Callable[[Any], Any]:
    return lambda model: kind(model.parameters(), **{"lr": 0.01} | settings)


def without_biases(model: nn.Module) -> Any:
    kernels = [weight for weight in model.parameters() if weight.ndim > 1]
    biases = [weight for weight in model.parameters() if weight.ndim < 2]
    return torch.optim.SGD([{"params": kernels, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0}], 0.1)


def in_groups(rate: float, rate_of_biases: float, *, biases_first: bool = False) -> Callable[[Any], Any]:
    def make(model: nn.Module) -> Any:
        groups = [
            {"params": [weight for weight in model.parameters() if weight.ndim > 1], "lr": rate, "weight_decay": 0.1},
            {"params": [weight for weight in model.parameters() if weight.ndim < 2], "lr": rate_of_biases},
        ]
        return torch.optim.AdamW(groups[:: -1 if biases_first else 1], weight_decay=0.0)

    return make


def batch_norm(**settings: Any) -> Callable[[], nn.Module]:
    return lambda: Network(hidden=nn.BatchNorm1d(30, **settings))


def penalty(size: float) -> Callable[[Any], Any]:
    """On kernels and embeddings."""
    return lambda model: size * sum(weight.square().sum() for weight in model.parameters() if weight.ndim > 1)


def squares(output: Tensor, target: Tensor) -> Tensor:
    return functional.mse_loss(output, target)


FIRST_WEIGHTS: dict[str, Callable[[Tensor], object]] = {
    "N(0, 1)": nn.init.normal_,
    "U(−0.05, 0.05)": lambda w: nn.init.uniform_(w, -0.05, 0.05),
    "N(0, 0.05²) cut at ±2 sd": lambda w: nn.init.trunc_normal_(w, 0, 0.05, -0.1, 0.1),
    "Glorot uniform": nn.init.xavier_uniform_,
    "Glorot normal": nn.init.xavier_normal_,
    "He uniform": nn.init.kaiming_uniform_,
    "He normal": nn.init.kaiming_normal_,
    "orthogonal, gain 1": nn.init.orthogonal_,
    "zeros": nn.init.zeros_,
    "no known initialiser": lambda w: nn.init.normal_(w, 3),
}
ONE_NUMBER = Program(lambda: Network(1), target=zeros_and_ones, loss=squares)
FOUR_NUMBERS = Program(target=numbers, loss=squares)

PAIRS = {
    "a bias less": (
        {}, {"prepare": lambda m: m.first.register_parameter("bias", None)},
        "shapes", "weights without a counterpart", "1", "0",
    ),
    # the first weights
    "embedding": (
        {}, {"prepare": fill(table_weight=lambda w: nn.init.uniform_(w, -0.05, 0.05))},
        "weights", "initialiser, for table.weight", "N(0, 1)", "U(−0.05, 0.05)",
    ),
    "zero biases": (
        {}, {"prepare": fill(bias=nn.init.zeros_)},
        "weights", "initialiser, for first.bias, last.bias", "U(±1/√fan_in)", "zeros",
    ),
    "padding row": (
        {}, {"network": lambda: Network(padding=20)},
        "weights", "rows of zeros, for table.weight", "none", "row 20",
    ),
    # the batch
    "scale": (
        {}, {"scale": 1 / 255},
        "batch", "scale, for input1", "-2.71 to 2.55, mean -0.107", "-0.0106 to 0.00999, mean -0.000418",
    ),
    "ids": ({}, {"shift": 1}, "batch", "ids, for input", "0 to 20, mean 12.9", "1 to 21, mean 13.9"),
    # layers
    "batch norm ε": (
        {"network": batch_norm()}, {"network": batch_norm(eps=1e-3)},
        "output", "batch norm's ε, for hidden", "1e-05", "0.001",
    ),
    "batch norm momentum": (
        {"network": batch_norm()}, {"network": batch_norm(momentum=0.01)},
        "after", "share of the batch in batch norm's running mean, for hidden", "0.1", "0.01",
    ),
    "eval": (
        {"network": batch_norm()}, {"network": batch_norm(), "prepare": nn.Module.eval},
        "output", "batch norm's mean and variance, for hidden", "the batch's", "the running ones",
    ),
    "layer norm ε": (
        {"network": lambda: Network(hidden=nn.LayerNorm(30))},
        {"network": lambda: Network(hidden=nn.LayerNorm(30, eps=1e-3))},
        "output", "layer norm's ε, for hidden", "1e-05", "0.001",
    ),
    "dropout": (
        {"network": lambda: Network(hidden=nn.Dropout(0.3))},
        {"network": lambda: Network(hidden=nn.Dropout(0.3)), "prepare": nn.Module.eval},
        "output", "dropout, for hidden", "on, rate 0.3", "off",
    ),
    "gelu": (
        {"network": lambda: Network(hidden=nn.GELU())}, {"network": lambda: Network(hidden=nn.GELU("tanh"))},
        "output", "layer hidden", "GELU, approximate none", "GELU, approximate tanh",
    ),
    "leaky relu": (
        {"network": lambda: Network(hidden=nn.LeakyReLU())}, {"network": lambda: Network(hidden=nn.LeakyReLU(0.3))},
        "output", "layer hidden", "LeakyReLU, negative_slope 0.01", "LeakyReLU, negative_slope 0.3",
    ),
    # the loss
    "sum": (
        {}, {"loss": lambda y, t: functional.cross_entropy(y, t, reduction="sum")},
        "loss", "the loss", "mean of the cross-entropy", "sum of the cross-entropy",
    ),
    "smoothed labels": (
        {}, {"loss": lambda y, t: functional.cross_entropy(y, t, label_smoothing=0.1)},
        "loss", "the loss", "mean of the cross-entropy", "mean of the cross-entropy, labels smoothed by 0.1",
    ),
    "second softmax": (
        {}, {"network": lambda: Network(after=nn.Softmax(1))},
        "output", "layers that the other program has no like of", "no layer of its own", "after: Softmax",
    ),
    "half": (
        FOUR_NUMBERS, {"loss": lambda y, t: functional.mse_loss(y, t) / 2},
        "loss", "the loss", "mean of the squared error", "mean of the halved squared error",
    ),
    "three times": (
        FOUR_NUMBERS, {"loss": lambda y, t: 3 * functional.mse_loss(y, t)},
        "loss", "the loss", "mean of the squared error", "3 times the mean of the squared error",
    ),
    "over the batch": (
        FOUR_NUMBERS, {"loss": lambda y, t: (y - t).square().sum(1).mean()},
        "loss", "the loss", "mean of the squared error",
        "sum over an example's numbers, mean over the batch, of the squared error",
    ),
    "broadcast": (
        ONE_NUMBER, {"target": lambda r: zeros_and_ones(r)[:, 0], "loss": lambda y, t: (y - t).square().mean()},
        "loss", "the loss", "mean of the squared error",
        "mean of the squared error, over all pairs: (32, 1) and (32,) broadcast to 32 × 32",
    ),
    "logits as probabilities": (
        replace(ONE_NUMBER, loss=functional.binary_cross_entropy_with_logits),
        {"loss": lambda y, t: functional.binary_cross_entropy(y.clamp(1e-7, 1 - 1e-7), t)},
        "loss", "the loss", "mean of the binary cross-entropy",
        "mean of the binary cross-entropy of numbers outside [0, 1]: logits where probabilities are expected",
    ),
    "λ": (
        {"penalty": penalty(0.01)}, {"penalty": penalty(0.005)},
        "loss", "the loss", "mean of the cross-entropy + 0.01·Σw² over kernels and embeddings",
        "mean of the cross-entropy + 0.005·Σw² over kernels and embeddings",
    ),
    # gradients
    "not cleared": (
        {}, {"clears": False},
        "gradients", "the gradient, for table.weight, first.weight, first.bias, last.weight, last.bias",
        "largest 0.07467", "largest 0.13",
    ),
    "frozen": (
        {}, {"prepare": lambda m: m.first.weight.register_hook(torch.zeros_like)},
        "gradients", "the gradient, for first.weight", "largest 0.03975", "largest 0",
    ),
    # the step
    "not trained": (
        {}, {"prepare": lambda m: m.first.requires_grad_(False)},
        "after", "the optimiser, for first.weight, first.bias", "SGD", "none (not trained)",
    ),
    "learning rate": ({}, {"optimizer": sgd(lr=0.01)}, "after", "learning rate, for all weights", "0.1", "0.01"),
    "momentum": ({}, {"optimizer": sgd(momentum=0.9)}, "after", "momentum, for all weights", "0", "0.9"),
    "nesterov": (
        {"optimizer": sgd(momentum=0.9)}, {"optimizer": sgd(momentum=0.9, nesterov=True)},
        "after", "momentum, for all weights", "0.9", "0.9, Nesterov",
    ),
    "dampening": (
        {"optimizer": sgd(momentum=0.9)}, {"optimizer": sgd(momentum=0.9, dampening=0.9)},
        "after", "momentum, for all weights", "0.9", "0.9, dampening 0.9",
    ),
    "optimiser": ({}, {"optimizer": adam(lr=0.1)}, "after", "the optimiser, for all weights", "SGD", "Adam"),
    "ε": (
        {"optimizer": adam()}, {"optimizer": adam(eps=1e-7)},
        "after", "ε, for all weights", "1e-08 added to √v̂, after the bias correction",
        "1e-07 added to √v̂, after the bias correction",
    ),
    "β": (
        {"optimizer": adam()}, {"optimizer": adam(betas=(0.9, 0.98))},
        "after", "β, for all weights", "0.9, 0.999", "0.9, 0.98",
    ),
    "an unknown optimiser": (
        {}, {"optimizer": adam(torch.optim.Adadelta)},
        "after", "the formula, for all weights", "a known formula", "no known formula explains it",
    ),
    "rates of groups": (
        {"optimizer": in_groups(0.1, 0.01)}, {"optimizer": in_groups(0.1, 0.003), "seed": 1},
        "after", "learning rate, for first.bias, last.bias", "0.01", "0.003",
    ),
    "rates of an unknown optimiser": (
        {"optimizer": adam(torch.optim.Adamax)}, {"optimizer": adam(torch.optim.Adamax, lr=0.2), "seed": 1},
        "after", "learning rate", "0.01", "0.2",
    ),
    "two unknown optimisers": (
        {"optimizer": adam(torch.optim.Adamax)}, {"optimizer": adam(torch.optim.NAdam), "seed": 1},
        "after", "the optimiser", "Adamax", "NAdam",
    ),
    "weights that something else changes": (
        {}, {"after": lambda model: [weight.data.clamp_(-0.1, 0.1) for weight in model.first.parameters()]},
        "after", "what changes the weights, for first.weight, first.bias",
        "the optimiser alone", "something else, after its step",
    ),
    "amsgrad": (
        {"optimizer": adam()}, {"optimizer": adam(amsgrad=True)},
        "after", "the optimiser, for all weights", "Adam", "AMSGrad",
    ),
    "decoupled": (
        {"optimizer": adam(weight_decay=0.1)}, {"optimizer": adam(torch.optim.AdamW, weight_decay=0.1)},
        "after", "weight decay, for all weights", "coupled: 0.1·w joins the gradient",
        "decoupled: rate·0.1·w off the weight",
    ),
    "decay": (
        {}, {"optimizer": sgd(weight_decay=0.1)},
        "after", "weight decay, for all weights", "none", "coupled: 0.1·w joins the gradient",
    ),
    "decay of biases": (
        {"optimizer": sgd(weight_decay=0.1)}, {"optimizer": without_biases},
        "after", "weight decay, for first.bias, last.bias", "coupled: 0.1·w joins the gradient", "none",
    ),
    "RMSprop": (
        {"optimizer": adam(torch.optim.RMSprop)}, {"optimizer": adam(torch.optim.RMSprop, centered=True)},
        "after", "the optimiser, for all weights", "RMSprop", "RMSprop, centered",
    ),
    "Adagrad": (
        {"optimizer": adam(torch.optim.Adagrad)},
        {"optimizer": adam(torch.optim.Adagrad, initial_accumulator_value=0.1)},
        "after", "first sum of squares, for all weights", "0", "0.1",
    ),
    "clipping to a norm": (
        {}, {"clip": lambda p: nn.utils.clip_grad_norm_(p, 0.1)},
        "after", "clipping, for all weights", "none", "all together to norm 0.1",
    ),
    "clipping values": (
        {}, {"clip": lambda p: nn.utils.clip_grad_value_(p, 0.005)},
        "after", "clipping, for all weights", "none", "each number to ±0.005",
    ),
}  # fmt: skip


EVIDENCE = {
    "a bias less": "only here: first.bias (30,)",
    "scale": "here is 255 times there",
    "ids": "-1 here in 100% of the places",
    "second softmax": "there is the softmax of here",
    "not cleared": "there, the last step's gradient is added: not cleared",
    "frozen": "there is zero",
}
"""What is said besides."""

QUICK = ["embedding", "scale", "batch norm ε", "sum", "λ", "not cleared", "momentum", "ε"]
"""A pair or two of each checkpoint; the others' tests are slow together."""


def of(settings: Any, base: Program) -> Program:
    return settings if isinstance(settings, Program) else replace(base, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIRST_WEIGHTS)
def test_first_weights_are_told_by_their_distribution(name: str, tmp_path: Path) -> None:
    first = compare(Program(), Program(prepare=fill(first_weight=FIRST_WEIGHTS[name])), tmp_path).findings[0]

    assert (first.checkpoint, first.what) == ("weights", "initialiser, for first.weight")
    assert first.one == "U(±1/√fan_in)"
    assert first.other.startswith(name)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in PAIRS]
)
def test_a_pair_that_differs_in_one_convention_is_told_by_its_name(name: str, tmp_path: Path) -> None:
    left, right, checkpoint, *said = PAIRS[name]
    one = of(left, Program())
    found = compare(one, of(right, one if isinstance(left, Program) else Program()), tmp_path)

    assert found.findings, found.rows
    first = found.findings[0]
    assert [first.checkpoint, first.what, first.one, first.other] == [checkpoint, *said]
    assert name not in EVIDENCE or any(EVIDENCE[name] in line for line in first.evidence)


def test_tensors_that_clipping_did_not_touch_count_as_the_others(tmp_path: Path) -> None:
    together = Program(clip=lambda weights: nn.utils.clip_grad_norm_(weights, 0.3))
    each = Program(clip=lambda weights: [nn.utils.clip_grad_norm_([weight], 0.3) for weight in weights])
    (found,) = compare(together, each, tmp_path).findings

    assert (found.what, found.one) == ("clipping, for all weights", "all together to norm 0.3")
    assert found.other == "each tensor to norm 0.3"


def test_an_epsilon_that_the_steps_cannot_tell_is_none(tmp_path: Path) -> None:
    one = Program(optimizer=adam(torch.optim.Adagrad), precision=torch.float32)
    settings = {"eps": 1e-7, "initial_accumulator_value": 0.1}
    found = compare(one, replace(one, optimizer=adam(torch.optim.Adagrad, **settings)), tmp_path).findings

    assert [finding.what for finding in found] == ["first sum of squares, for all weights"]


@pytest.mark.parametrize(("size", "findings"), [(0.05, []), (0.1, [("coupled: 0.2·w", "coupled: 0.1·w")])])
def test_a_penalty_in_the_loss_counts_as_the_weight_decay_that_it_is(
    size: float, findings: list[tuple[str, str]], tmp_path: Path
) -> None:
    found = compare(Program(penalty=penalty(size)), Program(optimizer=without_biases), tmp_path)

    assert [(f.one.partition(" joins")[0], f.other.partition(" joins")[0]) for f in found.findings] == findings
    assert found.remarks[0].startswith(f"{size:g}·Σw² in the loss here counts as {2 * size:g}·w")


@pytest.mark.slow
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("optimizer", [sgd(momentum=0.9), adam(), adam(torch.optim.RMSprop), adam(torch.optim.Adagrad)])
@pytest.mark.parametrize(("seed", "data_seed"), [(0, 1), (5, 1), (3, 4)])
def test_equal_programs_and_other_seeds_raise_no_alarm(
    precision: torch.dtype, optimizer: Any, seed: int, data_seed: int, tmp_path: Path
) -> None:
    one = Program(
        lambda: Network(hidden=nn.Sequential(nn.BatchNorm1d(30), nn.ReLU())), precision=precision, optimizer=optimizer
    )
    found = compare(one, replace(one, seed=seed, data_seed=data_seed), tmp_path)

    assert not found.findings
    assert found.common_step
    assert {row.verdict for row in found.rows} <= {"agree", "chance", "inherited"}
    assert ("chance" in {row.verdict for row in found.rows}) == ((seed, data_seed) != (0, 1))


def test_layers_are_paired_by_their_weights_and_rows_without_gradient_are_no_convention(tmp_path: Path) -> None:
    one = Program(Rows)

    assert not compare(one, replace(one, network=lambda: Rows(is_first=False)), tmp_path).findings
    assert not compare(one, replace(one, seed=3), tmp_path).findings


def test_a_pair_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, same = (str(Program().run(tmp_path / name)) for name in ("one.npz", "same.safetensors"))
    other = str(Program(optimizer=adam()).run(tmp_path / "other.npz"))

    assert main([one, same]) == 0
    assert "They agree in all that was recorded." in capsys.readouterr().out
    assert main([one, other]) == 1
    output = capsys.readouterr().out
    assert "They part first at step 1, step:" in output
    assert "here   SGD" in output
    assert "there  Adam" in output


@pytest.mark.slow
def test_a_program_without_an_adapter_writes_its_own_record(tmp_path: Path) -> None:
    """Arrays by name in an .npz file, and nothing else: NumPy's own network of one layer."""
    random = np.random.default_rng(0)
    rows, target = random.normal(size=(32, 4)), random.normal(size=(32, 2))
    for name, momentum in (("one.npz", 0.0), ("other.npz", 0.9)):
        weight, velocity = np.eye(4)[:, :2], np.zeros((4, 2))
        arrays: dict[str, Any] = {}
        for step in (1, 2, 3):
            output = rows @ weight
            gradient = 2 * rows.T @ (output - target) / target.size
            arrays |= {f"{step}/weights/w": weight, f"{step}/batch/x": rows, f"{step}/batch/target": target}
            arrays |= {f"{step}/output/y": output, f"{step}/loss": np.mean((output - target) ** 2)}
            velocity = momentum * velocity + gradient
            weight = weight - 0.05 * velocity
            arrays |= {f"{step}/gradients/w": gradient, f"{step}/after/w": weight}
        np.savez(tmp_path / name, **arrays)
    found = walk(Comparison.read(tmp_path / "one.npz", tmp_path / "other.npz")).findings

    assert [(f.checkpoint, f.what, f.one, f.other) for f in found] == [("after", "momentum, for w", "0", "0.9")]


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"weights/w": np.ones(2)}, "isn't step/checkpoint/name"),
        ({"1/weight/w": np.ones(2)}, "with a checkpoint of weights, batch"),
        ({"2/weights/w": np.ones(2)}, "steps are counted 1, 2"),
        ({"1/loss": np.ones(())}, "no weights before the first step"),
        ({"1/weights/w": np.array(["a"])}, "holds <U1, not numbers"),
        ({"1/weights/w": np.ones(2), "1/after/w": np.ones(3)}, "'1/after/w' (3,) isn't as a weight before it"),
        ({"1/weights/w": np.ones(2), "1/clipped/v": np.ones(2)}, "'1/clipped/v' (2,) isn't as a weight before it"),
        ({"1/weights/w": np.ones(2), "settings": np.array('{"layers": [1]}')}, "its settings are no object"),
    ],
)
def test_what_is_no_record_is_named(
    arrays: dict[str, Any], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "one.npz", **arrays)
    good = str(Program().run(tmp_path / "good.npz"))

    assert main([str(tmp_path / "one.npz"), good]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert complaint in error
    for missing in ("none.npz", "none.safetensors"):
        assert main([good, str(tmp_path / missing)]) == 2
        assert "no such file" in capsys.readouterr().err


@pytest.mark.slow
def test_a_mapping_pairs_what_names_and_shapes_do_not(tmp_path: Path) -> None:
    same, swapped = Program(), {"first.bias": "hidden.b", "last.weight": "out.w"}
    one = read_record(same.run(tmp_path / "one.npz"))
    renamed = {"first.weight": "a", "first.bias": "b", "last.weight": "c", "last.bias": "d", "table.weight": "e"}
    arrays = {
        f"{number}/{checkpoint}/{renamed.get(name, name)}": array
        for number, step in enumerate(one.steps, start=1)
        for checkpoint, of in step.items()
        for name, array in of.items()
    }
    np.savez(tmp_path / "other.npz", allow_pickle=False, **arrays)
    other = read_record(tmp_path / "other.npz")

    assert not walk(Comparison.of(one, other)).findings, "the values tell"
    pairs = Comparison.of(one, other, renamed).pairs
    assert {pair.one: pair.other for pair in pairs} == renamed
    files = [str(tmp_path / name) for name in ("one.npz", "other.npz")]
    (tmp_path / "names.json").write_text(json.dumps(renamed))
    assert main([*files, "--mapping", str(tmp_path / "names.json")]) == 0
    with pytest.raises(RecordError, match=r"hidden\.b, out\.w"):
        Comparison.of(one, other, swapped)


def test_what_cannot_start_from_a_record_is_told_what_the_record_has_left(tmp_path: Path) -> None:
    path = Program().run(tmp_path / "one.npz")

    with pytest.raises(RecordError, match=r"nothing for weight \(7, 7\) and first.bias \(30,\), .* left over"):
        start_from(nn.Linear(7, 7, bias=False), path)


def test_a_mapping_of_two_shapes_is_refused(tmp_path: Path) -> None:
    path = Program().run(tmp_path / "one.npz")

    with pytest.raises(RecordError, match=r"the mapping pairs first\.weight \(30, 10\) with last\.weight \(4, 30\)"):
        Comparison.read(path, path, {"first.weight": "last.weight"})


def test_groups_of_weights_in_another_order_raise_no_alarm(tmp_path: Path) -> None:
    one, other = (Program(optimizer=in_groups(0.1, 0.01, biases_first=first)) for first in (True, False))
    found = compare(one, replace(other, seed=3), tmp_path)

    assert found.findings == []
    assert not found.remarks


def test_tied_weights_are_one(tmp_path: Path) -> None:
    def tie(model: Any) -> None:
        model.hidden[0].weight = model.hidden[1].weight

    tied = Program(lambda: Network(hidden=nn.Sequential(nn.Linear(30, 30), nn.Linear(30, 30))), prepare=tie)

    assert compare(tied, replace(tied, seed=3), tmp_path).findings == []


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

    found = walk(Comparison.read(train(tmp_path / "one.npz", True), train(tmp_path / "other.npz", False)))
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
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        record(model, optimizer, path)
        for _ in range(4):
            images, target = torch.randn(BATCH, 3, 16, 16).to(memory_format=layout), torch.randint(CLASSES, (BATCH,))
            optimizer.zero_grad()
            cross_entropy(model(images), target).backward()
            optimizer.step()
        return path

    layouts = {"one.npz": torch.contiguous_format, "other.npz": torch.channels_last}
    one, other = (train(tmp_path / name, layout) for name, layout in layouts.items())

    assert walk(Comparison.read(one, other)).findings == []


@pytest.mark.parametrize("seed", range(4))
def test_logits_between_0_and_1_are_no_probabilities(seed: int, tmp_path: Path) -> None:
    """The last layer, which has no sigmoid, says so."""

    def prepare(model: Any) -> None:
        nn.init.normal_(model.last.weight, 0, 0.01)
        nn.init.constant_(model.last.bias, 0.5)

    logits = replace(ONE_NUMBER, prepare=prepare, loss=functional.binary_cross_entropy_with_logits, seed=seed)
    sigmoid = replace(logits, network=lambda: Network(1, after=nn.Sigmoid()), loss=functional.binary_cross_entropy)

    assert compare(replace(logits, network=Logits), sigmoid, tmp_path).findings == []


def test_buffers_of_truth_values_and_of_nothing_are_no_difference(tmp_path: Path) -> None:
    def prepare(model: nn.Module) -> None:
        model.register_buffer("mask", torch.tril(torch.ones(4, 4)).bool())
        model.register_buffer("none", torch.empty(0))

    assert compare(Program(prepare=prepare), Program(prepare=prepare, seed=3), tmp_path).findings == []


def test_what_one_record_lacks_is_not_compared(tmp_path: Path) -> None:
    path = Program().run(tmp_path / "one.npz")
    with np.load(path) as arrays:
        np.savez(tmp_path / "other.npz", **{name: arrays[name] for name in arrays if "/batch/" not in name})

    assert walk(Comparison.read(path, tmp_path / "other.npz")).findings == []


def test_ids_as_floats_are_named(tmp_path: Path) -> None:
    """Where the program writes the record itself: PyTorch's and Keras's own tables take none."""
    path = Program().run(tmp_path / "one.npz")
    with np.load(path) as arrays:
        floats = {
            name: arrays[name].astype(float) if name.endswith("/batch/input") else arrays[name] for name in arrays
        }
    np.savez(tmp_path / "other.npz", allow_pickle=False, **floats)
    (found,) = walk(Comparison.read(path, tmp_path / "other.npz")).findings

    assert (found.checkpoint, found.what, found.one, found.other) == ("batch", "type, for input", "int64", "float64")
    assert any("float32 holds all to 16,777,216" in line for line in found.evidence)


def test_numbers_that_are_not_finite_bring_no_warnings(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    for path, values in ((tmp_path / "one.npz", (np.nan, np.inf)), (tmp_path / "other.npz", (1.0, 1.0))):
        arrays: Any = {f"1/weights/{name}": np.full((4, 4), value) for name, value in zip("ab", values, strict=True)}
        np.savez(path, **arrays)

    assert main([str(tmp_path / "one.npz"), str(tmp_path / "other.npz")]) in (0, 1)
    assert not recwarn.list


def test_arrays_of_other_shapes_have_no_largest_difference(tmp_path: Path) -> None:
    record = read_record(Program().run(tmp_path / "one.npz"))
    text = describe(Comparison.of(record, record), Walk([Row(1, "batch", 1, 1, np.inf, "own")], [], None, []))

    assert "inf" not in text


def test_the_command_loads_no_framework(tmp_path: Path) -> None:
    one = str(Program().run(tmp_path / "one.npz"))
    frameworks = "{'torch', 'keras', 'tensorflow', 'jax'}"
    code = (
        f"import sys; from divergence.__main__ import main; main([{one!r}] * 2); print({frameworks} & {{*sys.modules}})"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT
    )

    assert output.stdout.endswith("set()\n")

"""Pairs of small PyTorch programs that differ in one convention alone, and what `divergence` says of each."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.divergence.programs import BATCH, CLASSES, Network, Program, adam, classes, compare
from tests.divergence.recording import compare_records


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


def zeros_and_ones(random: np.random.Generator) -> Tensor:
    return torch.tensor(random.integers(0, 2, (BATCH, 1))).to(torch.get_default_dtype())


def numbers(random: np.random.Generator) -> Tensor:
    return torch.tensor(random.normal(size=(BATCH, CLASSES))).to(torch.get_default_dtype())


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


def penalty_on_one_layer(size: float) -> Callable[[Any], Any]:
    return lambda model: size * model.first.weight.square().sum()


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
ONE_NUMBER = Program(lambda: Network(1), target=zeros_and_ones, loss=functional.mse_loss)
FOUR_NUMBERS = Program(target=numbers, loss=functional.mse_loss)

OPTIMISERS = {
    "learning rate": (sgd(), sgd(lr=0.01), "learning rate", "0.1", "0.01"),
    "momentum": (sgd(), sgd(momentum=0.9), "momentum", "0", "0.9"),
    "nesterov": (sgd(momentum=0.9), sgd(momentum=0.9, nesterov=True), "momentum", "0.9", "0.9, Nesterov"),
    "dampening": (sgd(momentum=0.9), sgd(momentum=0.9, dampening=0.9), "momentum", "0.9", "0.9, dampening 0.9"),
    "optimiser": (sgd(), adam(lr=0.1), "the optimiser", "SGD", "Adam"),
    "ε": (
        adam(), adam(eps=1e-7), "ε",
        "1e-08 added to √v̂, after the bias correction", "1e-07 added to √v̂, after the bias correction",
    ),
    "β": (adam(), adam(betas=(0.9, 0.98)), "β", "0.9, 0.999", "0.9, 0.98"),
    "an unknown optimiser": (
        sgd(), adam(torch.optim.Adadelta), "the formula",
        "a known formula (SGD)", "no known formula explains it (Adadelta)",
    ),
    "an unknown setting": (
        adam(), adam(maximize=True), "the formula", "a known formula (Adam)", "no known formula explains it (Adam)",
    ),
    "amsgrad": (adam(), adam(amsgrad=True), "the optimiser", "Adam", "AMSGrad"),
    "decoupled": (
        adam(weight_decay=0.1), adam(torch.optim.AdamW, weight_decay=0.1), "weight decay",
        "coupled: 0.1·w joins the gradient", "decoupled: rate·0.1·w off the weight",
    ),
    "decay": (sgd(), sgd(weight_decay=0.1), "weight decay", "none", "coupled: 0.1·w joins the gradient"),
    "RMSprop": (
        adam(torch.optim.RMSprop), adam(torch.optim.RMSprop, centered=True),
        "the optimiser", "RMSprop", "RMSprop, centered",
    ),
    "Adagrad": (
        adam(torch.optim.Adagrad), adam(torch.optim.Adagrad, initial_accumulator_value=0.1),
        "first sum of squares", "0", "0.1",
    ),
}  # fmt: skip
"""Two optimisers of all weights; PAIRS has those that differ for some."""

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
    "classes in another order": (
        {}, {"target": lambda random: 3 - classes(random)},
        "batch", "numbers beside an equal input, for target", "1 in place 0", "2 in place 0",
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
    "second softmax, in the loop": (
        {}, {"loss": lambda y, t: functional.cross_entropy(y.softmax(1), t)},
        "loss", "the loss", "mean of the cross-entropy",
        "mean of the cross-entropy of the softmax of probabilities: a second softmax",
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
    "λ of one layer": (
        {"penalty": penalty_on_one_layer(0.01)}, {"penalty": penalty_on_one_layer(0.005)},
        "loss", "the loss", "mean of the cross-entropy + 0.01·Σw² over first.weight",
        "mean of the cross-entropy + 0.005·Σw² over first.weight",
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
    "rates of groups": (
        {"optimizer": in_groups(0.1, 0.01)}, {"optimizer": in_groups(0.1, 0.003), "seed": 1},
        "after", "learning rate, for first.bias, last.bias", "0.01", "0.003",
    ),
    "rates of an unknown optimiser": (
        {"optimizer": adam(torch.optim.Adamax)}, {"optimizer": adam(torch.optim.Adamax, lr=0.2), "seed": 1},
        "after", "learning rate", "0.01", "0.2",
    ),
    "an unknown optimiser of a bias that does nothing": (
        {"network": batch_norm()}, {"network": batch_norm(), "optimizer": adam(torch.optim.RAdam)},
        "after", "the formula, for all weights",
        "a known formula (SGD)", "no known formula explains it (RAdam)",
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
    "decay of biases": (
        {"optimizer": sgd(weight_decay=0.1)}, {"optimizer": without_biases},
        "after", "weight decay, for first.bias, last.bias", "coupled: 0.1·w joins the gradient", "none",
    ),
    "clipping to a norm": (
        {}, {"clip": lambda p: nn.utils.clip_grad_norm_(p, 0.1)},
        "after", "clipping, for all weights", "none", "all together to norm 0.1",
    ),
    "clipping values": (
        {}, {"clip": lambda p: nn.utils.clip_grad_value_(p, 0.005)},
        "after", "clipping, for all weights", "none", "each number to ±0.005",
    ),
    **{
        name: ({"optimizer": one}, {"optimizer": other}, "after", f"{what}, for all weights", here, there)
        for name, (one, other, what, here, there) in OPTIMISERS.items()
    },
}  # fmt: skip


EVIDENCE = {
    "a bias less": "only here: first.bias (30,)",
    "scale": "here is 255 times there",
    "ids": "-1 here in 100% of the places",
    "second softmax": "there is the softmax of here",
    "not cleared": "there, the last step's gradient is added: not cleared",
    "frozen": "there is zero",
    "an unknown setting": "the setting maximize: False here, True there",
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


@pytest.mark.parametrize("seed", range(4))
def test_logits_between_0_and_1_are_no_probabilities(seed: int, tmp_path: Path) -> None:
    """The last layer, which has no sigmoid, says so."""

    def prepare(model: Any) -> None:
        nn.init.normal_(model.last.weight, 0, 0.01)
        nn.init.constant_(model.last.bias, 0.5)

    logits = replace(ONE_NUMBER, prepare=prepare, loss=functional.binary_cross_entropy_with_logits, seed=seed)
    sigmoid = replace(logits, network=lambda: Network(1, after=nn.Sigmoid()), loss=functional.binary_cross_entropy)

    assert compare(replace(logits, network=Logits), sigmoid, tmp_path).findings == []


def tie(model: Any) -> None:
    model.hidden[0].weight = model.hidden[1].weight


def add_buffers(model: nn.Module) -> None:
    model.register_buffer("mask", torch.tril(torch.ones(4, 4)).bool())
    model.register_buffer("none", torch.empty(0))


TIED = Program(lambda: Network(hidden=nn.Sequential(nn.Linear(30, 30), nn.Linear(30, 30))), prepare=tie)
NARROW = Program(prepare=fill(_weight=lambda weight: nn.init.normal_(weight, 0, 0.03)), precision=torch.float32)
ALIKE: dict[str, tuple[Program, Program]] = {
    "an initialiser that isn't known": (NARROW, replace(NARROW, seed=3)),
    "layers in another order": (Program(Rows), Program(lambda: Rows(is_first=False))),
    "rows without a gradient": (Program(Rows), Program(Rows, seed=3)),
    "groups of weights in another order": (
        Program(optimizer=in_groups(0.1, 0.01, biases_first=True)),
        Program(optimizer=in_groups(0.1, 0.01), seed=3),
    ),
    "a penalty on one layer": (
        Program(penalty=penalty_on_one_layer(0.001), precision=torch.float32),
        Program(penalty=penalty_on_one_layer(0.001), precision=torch.float32, seed=3, data_seed=4),
    ),
    "tied weights": (TIED, replace(TIED, seed=3)),
    "buffers of truth values and of nothing": (Program(prepare=add_buffers), Program(prepare=add_buffers, seed=3)),
}


@pytest.mark.parametrize(("law", "size"), [("normal", (0, 0.03)), ("uniform", (-0.2, 0.2))])
def test_draws_of_an_unknown_initialiser_are_chance(law: str, size: tuple[float, float], tmp_path: Path) -> None:
    """They may look like one known initialiser here and like another there, or none."""
    for seed in range(40):
        draw = getattr(np.random.default_rng(seed), law)
        np.savez(tmp_path / f"{seed}.npz", **{"1/weights/table": draw(*size, (60, 8))})
    pairs = [(tmp_path / f"{seed}.npz", tmp_path / f"{seed + 1}.npz") for seed in range(0, 40, 2)]

    assert [compare_records(*pair).findings for pair in pairs] == [[]] * len(pairs)


def test_another_bound_of_an_initialiser_is_no_chance(tmp_path: Path) -> None:
    for name, bound in (("one.npz", 0.05), ("other.npz", 0.06)):
        arrays: Any = {"1/weights/table": np.random.default_rng(0).uniform(-bound, bound, (24, 16))}
        np.savez(tmp_path / name, **arrays)
    (found,) = compare_records(tmp_path / "one.npz", tmp_path / "other.npz").findings

    assert found.one == "U(−0.05, 0.05)"
    assert found.other.startswith("no known initialiser")


@pytest.mark.parametrize("rate", [3e-4, 1e-4, 7.77e-5])
def test_equal_rates_that_were_not_recorded_are_equal(rate: float, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("one.npz", "other.npz"):
        weights, gradients = (random.normal(size=(30, 20)).astype("float32") for _ in range(2))
        after = weights - np.float32(rate) * gradients
        arrays: Any = {"1/weights/w": weights, "1/gradients/w": gradients, "1/after/w": after}
        np.savez(tmp_path / name, **arrays)

    assert compare_records(tmp_path / "one.npz", tmp_path / "other.npz").findings == []


@pytest.mark.parametrize(("one", "other"), ALIKE.values(), ids=ALIKE)
def test_what_is_no_convention_raises_no_alarm(one: Program, other: Program, tmp_path: Path) -> None:
    found = compare(one, other, tmp_path)

    assert found.findings == []
    assert not found.remarks

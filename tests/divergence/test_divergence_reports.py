"""Public reports of two programs that part, rebuilt as a pair, and what `divergence` says of each.

docs/where-two-programs-part.md has them in a table; a test compares the two.
"""

from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers
from torch import Tensor, nn
from torch.nn import functional

from stages.engines.keras import set_precision
from tests.divergence.recording import Loss, compare_records, train_keras, train_torch
from tests.project import ROOT

BATCH, STEPS, USERS, ITEMS = 64, 3, 50, 40
RANDOM = np.random.default_rng(7)
ROWS = BATCH * STEPS
PAIRS_OF_IDS = [RANDOM.integers(0, count, ROWS).astype("int64") for count in (USERS, ITEMS)]
CLICKS = RANDOM.integers(0, 2, ROWS).astype("float32")
NUMBERS = RANDOM.normal(size=(ROWS, 20)).astype("float32")
VALUES = RANDOM.normal(size=ROWS).astype("float32")
IMAGES = RANDOM.normal(size=(ROWS, 8, 8, 3)).astype("float32")

in_keras = partial(train_keras, batch_size=BATCH)
in_torch = partial(train_torch, batch_size=BATCH)


class Factors(nn.Module):
    """Embeddings of users and items, joined, and dense layers on top."""

    def __init__(self, last: nn.Module | None = None, sparse: bool = False) -> None:
        super().__init__()
        self.user = nn.Embedding(USERS, 8, sparse=sparse)
        self.item = nn.Embedding(ITEMS, 8, sparse=sparse)
        self.hidden = nn.Linear(16, 32)
        self.logit = nn.Linear(32, 1)
        self.last = last or nn.Identity()

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        joined = torch.cat([self.user(users), self.item(items)], dim=1)
        output: Tensor = self.last(self.logit(functional.relu(self.hidden(joined)))).view(-1)
        return output


def factors(
    activation: str | None = None, table: Any = "uniform", kernel: Any = "glorot_uniform", penalty: Any = None
) -> keras.Model:
    user, item = keras.Input((), dtype="int64"), keras.Input((), dtype="int64")
    tables = [
        layers.Embedding(count, 8, embeddings_initializer=table, embeddings_regularizer=penalty, name=name)(ids)
        for count, name, ids in ((USERS, "user", user), (ITEMS, "item", item))
    ]
    x = layers.Dense(32, "relu", kernel_initializer=kernel, name="hidden")(layers.Concatenate()(tables))
    return keras.Model([user, item], layers.Dense(1, activation, kernel_initializer=kernel, name="logit")(x))


def mlp(kernel: Any = "glorot_uniform") -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((20,)),
            layers.Dense(64, "relu", kernel_initializer=kernel),
            layers.Dense(1, kernel_initializer=kernel),
        ]
    )


def torch_mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 1))


def squares(output: Tensor, target: Tensor) -> Tensor:
    return functional.mse_loss(output.view(-1), target)


def embeddings(one: Path, other: Path) -> None:
    model = Factors(nn.Sigmoid())
    in_torch(one, model, torch.optim.Adam(model.parameters()), functional.binary_cross_entropy, PAIRS_OF_IDS, CLICKS)
    in_keras(other, factors("sigmoid"), keras.optimizers.Adam(), "binary_crossentropy", PAIRS_OF_IDS, CLICKS)


def dense(one: Path, other: Path, kernel: Any = "glorot_uniform", loss: Loss = squares) -> None:
    model = torch_mlp()
    in_torch(one, model, torch.optim.SGD(model.parameters(), 0.01), loss, [NUMBERS], VALUES)
    in_keras(other, mlp(kernel), keras.optimizers.SGD(0.01), "mse", NUMBERS, VALUES)


def unit_scaling(one: Path, other: Path) -> None:
    dense(one, other, keras.initializers.VarianceScaling(1.43**2, "fan_in", "uniform"))


def broadcast(one: Path, other: Path) -> None:
    dense(one, other, loss=lambda y, t: (y - t).square().mean())


def truncated(one: Path, other: Path) -> None:
    model = torch_mlp()
    in_torch(one, model, torch.optim.SGD(model.parameters(), 0.01), squares, [NUMBERS], VALUES)
    original = torch_mlp()
    with torch.no_grad():
        for linear in (layer for layer in original if isinstance(layer, nn.Linear)):
            sd = linear.in_features**-0.5
            nn.init.trunc_normal_(linear.weight, 0, sd, -2 * sd, 2 * sd)
            nn.init.zeros_(linear.bias)
    in_torch(other, original, torch.optim.SGD(original.parameters(), 0.01), squares, [NUMBERS], VALUES)


def reduction_and_l2(one: Path, other: Path) -> None:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        penalty = model.user.weight.square().sum() + model.item.weight.square().sum()
        return functional.binary_cross_entropy(output, target, reduction="sum") + 1e-5 * penalty

    set_precision("float64")  # float32 doesn't hold so small a penalty beside so large a sum
    clicks = CLICKS.astype("float64")
    model = Factors(nn.Sigmoid()).double()
    nn.init.normal_(model.user.weight, 0, 0.01)
    nn.init.normal_(model.item.weight, 0, 0.01)
    in_torch(one, model, torch.optim.Adam(model.parameters()), loss, PAIRS_OF_IDS, clicks)
    original = factors("sigmoid", keras.initializers.RandomNormal(0, 0.01), penalty=keras.regularizers.L2(1e-5))
    in_keras(other, original, keras.optimizers.Adam(), "binary_crossentropy", PAIRS_OF_IDS, CLICKS)


def weight_decay_and_batch_norm(one: Path, other: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 1))
    decayed = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=5e-3)
    in_torch(one, model, decayed, squares, [IMAGES.transpose(0, 3, 1, 2)], VALUES)
    l2 = keras.regularizers.L2(5e-3)
    original = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(6, 3, kernel_regularizer=l2),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(1, kernel_regularizer=l2),
        ]
    )
    in_keras(other, original, keras.optimizers.SGD(0.01, momentum=0.9), "mse", IMAGES, VALUES)


def momentum_the_other_way_round(one: Path, other: Path) -> None:
    model = nn.Sequential(nn.Linear(20, 16), nn.BatchNorm1d(16, momentum=0.15, eps=1e-3), nn.Linear(16, 1))
    in_torch(one, model, torch.optim.SGD(model.parameters(), 0.01), squares, [NUMBERS], VALUES)
    original = keras.Sequential(
        [keras.Input((20,)), layers.Dense(16), layers.BatchNormalization(momentum=0.15), layers.Dense(1)]
    )
    in_keras(other, original, keras.optimizers.SGD(0.01), "mse", NUMBERS, VALUES)


def rmsprop(one: Path, other: Path) -> None:
    model = torch_mlp()
    chosen = torch.optim.RMSprop(model.parameters(), 0.001, alpha=0.9, eps=1e-3)
    in_torch(one, model, chosen, squares, [NUMBERS], VALUES)
    in_keras(other, mlp(), keras.optimizers.RMSprop(0.001, epsilon=1e-3), "mse", NUMBERS, VALUES)


def lazy_adam(one: Path, other: Path) -> None:
    model = Factors(nn.Sigmoid(), sparse=True)

    class Both:
        """SparseAdam for the tables, Adam for the rest."""

        parts = (
            torch.optim.SparseAdam([model.user.weight, model.item.weight], 0.001),
            torch.optim.Adam([*model.hidden.parameters(), *model.logit.parameters()], 0.001),
        )

        def zero_grad(self) -> None:
            for part in self.parts:
                part.zero_grad()

        def step(self) -> None:
            for part in self.parts:
                part.step()  # type: ignore[no-untyped-call]

    in_torch(one, model, Both(), functional.binary_cross_entropy, PAIRS_OF_IDS, CLICKS)
    in_keras(other, factors("sigmoid"), keras.optimizers.Adam(), "binary_crossentropy", PAIRS_OF_IDS, CLICKS)


def ncf(one: Path, other: Path) -> None:
    model = Factors(nn.Sigmoid())
    for table in (model.user, model.item):
        nn.init.normal_(table.weight, 0, 0.01)
    nn.init.xavier_uniform_(model.hidden.weight)
    nn.init.normal_(model.logit.weight, 0, 0.01)
    in_torch(one, model, torch.optim.Adam(model.parameters()), functional.mse_loss, PAIRS_OF_IDS, CLICKS)
    original = factors("sigmoid", keras.initializers.RandomNormal(0, 0.01), "lecun_uniform")
    in_keras(other, original, keras.optimizers.Adam(), "binary_crossentropy", PAIRS_OF_IDS, CLICKS)


REPORTS = {
    "pytorch/pytorch#3121": (embeddings, [("weights", "N(0, 1)", "U(−0.05, 0.05)")]),
    "pytorch/pytorch#10243": (unit_scaling, [("weights", "U(±1/√fan_in)", "unit scaling uniform, factor 1.43")]),
    "discuss.pytorch.org/t/160720": (
        broadcast,
        [("loss", "over all pairs: (64, 1) and (64,) broadcast to 64 × 64", "mean of the squared error")],
    ),
    "yenchenlin/nerf-pytorch#21": (
        dense,
        [("weights", "U(±1/√fan_in)", "Glorot uniform"), ("weights", "U(±1/√fan_in)", "zeros")],
    ),
    "google-deepmind/open_spiel#633": (truncated, [("weights", "U(±1/√fan_in)", "N(0, 1/fan_in), cut at ±2 sd")]),
    "shenweichen/DeepCTR-Torch#311": (
        reduction_and_l2,
        [
            (
                "loss",
                "sum of the binary cross-entropy + 1e-05·Σw² over embeddings",
                "mean of the binary cross-entropy + 1e-05·Σw² over embeddings",
            )
        ],
    ),
    "benchopt/benchmark_resnet_classif#30": (
        weight_decay_and_batch_norm,
        [
            ("step", "coupled: 0.005·w joins the gradient", "coupled: 0.01·w joins the gradient"),
            ("step", "0.1", "0.01"),
        ],
    ),
    "stackoverflow.com/questions/60079783": (momentum_the_other_way_round, [("step", "0.15", "0.85")]),
    "pytorch/pytorch#23796": (rmsprop, [("step", "0.001 added to the root", "0.001 under the root")]),
    "tensorflow/tensorflow#23668": (lazy_adam, [("step", "stay (lazy)", "move on")]),
    "PreferredAI/cornac#536": (
        ncf,
        [
            ("weights", "Glorot uniform", "LeCun uniform"),
            ("loss", "mean of the squared error", "mean of the binary cross-entropy"),
        ],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("report", REPORTS)
def test_the_cause_of_a_public_report_is_named(report: str, tmp_path: Path) -> None:
    set_precision("float32")
    keras.utils.set_random_seed(3)
    torch.manual_seed(3)
    build, expected = REPORTS[report]
    build(tmp_path / "one.npz", tmp_path / "other.npz")
    found = compare_records(tmp_path / "one.npz", tmp_path / "other.npz").findings

    for checkpoint, here, there in expected:
        assert any(
            finding.checkpoint.replace("after", "step") == checkpoint and here in finding.one and there in finding.other
            for finding in found
        ), found


@pytest.mark.parametrize("report", REPORTS)
def test_the_page_says_what_is_said(report: str) -> None:
    page = (ROOT / "docs" / "where-two-programs-part.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| [{report}]")]

    for _, here, there in REPORTS[report][1]:
        assert f"{here} \\| {there}" in row

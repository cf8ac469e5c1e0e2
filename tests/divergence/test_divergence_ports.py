"""What a stranger's first programs look like: small convolutions, dropout, softmax here and logits there."""

import itertools
import re
import subprocess
import sys
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

from divergence.__main__ import describe
from divergence.comparison import Comparison
from divergence.initialisers import find_origins
from divergence.keras import record as record_keras
from divergence.pytorch import start_from
from divergence.record import CHECKPOINTS, Record, read_record
from divergence.walk import Walk, walk
from stages.engines.keras import set_precision
from tests.divergence.recording import compare_records, train_keras, train_torch
from tests.project import ROOT

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
    folder: Path, original: keras.Model, port: nn.Module, x: Any, y: Any, losses: Any = None
) -> tuple[Walk, str]:
    """Train the port from the original's first weights, and compare: here is PyTorch, there is Keras."""
    loss, port_loss = losses or ("mse", functional.mse_loss)
    train_keras(folder / "keras.npz", original, keras.optimizers.SGD(0.01), loss, x, y, BATCH)
    start_from(port, folder / "keras.npz")
    inputs = x.transpose(0, 3, 1, 2) if x.ndim == 4 else x
    optimizer = torch.optim.SGD(port.parameters(), 0.01)
    train_torch(folder / "torch.npz", port, optimizer, port_loss, [inputs], y, BATCH)
    comparison = Comparison.read(folder / "torch.npz", folder / "keras.npz")
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


def test_the_rows_of_a_table_are_no_inputs() -> None:
    """U(±0.05) and U(±1/√400) are the same numbers."""
    settings = {"framework": "Keras", "layers": {"table": {"kind": "Embedding", "weights": {"embeddings": "table"}}}}
    random = np.random.default_rng(0)
    one, other = (
        Record([{name: {} for name in CHECKPOINTS} | {"weights": {"table": table}}], settings)
        for table in (random.uniform(-0.05, 0.05, (400, 16)), random.normal(size=(400, 16)))
    )

    assert walk(Comparison.of(one, other)).findings[0].one == "U(−0.05, 0.05)"


@pytest.mark.parametrize("framework", ["PyTorch", "Keras"])
def test_an_orthogonal_convolution_is_named(framework: str) -> None:
    if framework == "PyTorch":
        kernel = nn.init.orthogonal_(torch.empty(8, 3, 3, 3), gain=2).numpy()
    else:
        kernel = np.array(keras.initializers.Orthogonal(gain=2)((3, 3, 3, 8)))
    step = {name: {"conv": kernel} if name == "weights" else {} for name in CHECKPOINTS}

    assert [*find_origins(Record([step], {"framework": framework}))["conv"]] == ["orthogonal, gain 2"]


def test_first_weights_too_few_to_tell_are_said_to_be() -> None:
    found = walk(Comparison.of(convolution(1, 4, 0, of_pytorch=True), convolution(1, 4, 100, of_pytorch=False)))

    assert not found.findings
    assert found.remarks == [
        "conv may start as U(±1/√fan_in) here and Glorot uniform there, or as Glorot uniform in both: that can't be "
        "told from 36 numbers"
    ]


def test_what_first_weights_may_be_instead_is_another_initialiser() -> None:
    random = np.random.default_rng(0)
    kernels = random.uniform(-((6 / 11) ** 0.5), (6 / 11) ** 0.5, (60, 8, 3))
    records = [
        Record(
            [{name: {"kernel": kernel} if name == "weights" else {} for name in CHECKPOINTS}], {"framework": "Keras"}
        )
        for kernel in kernels
    ]
    pairs = zip(records[::2], records[1::2], strict=True)
    remarks = [remark for pair in pairs for remark in walk(Comparison.of(*pair)).remarks]
    names = [re.match("kernel may start as (.*) here and (.*) there", remark) for remark in remarks]

    assert names
    assert all(name and name[1] != name[2] for name in names), remarks


class Port(nn.Module):
    """A dense network with its activation as a function, where the original has it in its layer."""

    def __init__(self, rate: float = 0.0, last: nn.Module | None = None) -> None:
        super().__init__()
        self.fc1, self.drop, self.fc2, self.fc3 = (
            nn.Linear(12, 16),
            nn.Dropout(rate),
            nn.Linear(16, 16),
            nn.Linear(16, 1),
        )
        self.last = last or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.fc3(self.last(functional.relu(self.fc2(self.drop(functional.relu(self.fc1(x)))))))
        return output


class Convolutions(nn.Module):
    """As PyTorch flattens: channels first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.fc(functional.relu(self.conv(x)).flatten(1))
        return output


def dense(rate: float) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(16, "relu"),
            *([layers.Dropout(rate)] if rate else []),
            layers.Dense(16, "relu"),
            layers.Dense(1),
        ]
    )


def test_dropout_in_both_is_chance_and_hides_what_comes_after(tmp_path: Path) -> None:
    found, text = compare(tmp_path, dense(0.3), Port(0.3, nn.Tanh()), NUMBERS, VALUES)

    assert not found.findings, text
    assert "chance" in {row.verdict for row in found.rows if row.checkpoint == "output"}
    assert "set its rate to 0 in both" in text
    assert "same batches" not in text


def test_a_keep_probability_for_a_dropout_rate_is_named(tmp_path: Path) -> None:
    found, text = compare(tmp_path, dense(0.2), Port(0.8), NUMBERS, VALUES)

    assert [(f.one, f.other) for f in found.findings] == [("on, rate 0.8", "on, rate 0.2")], text


def test_an_activation_in_a_layer_is_no_difference_but_one_more_is(tmp_path: Path) -> None:
    found, text = compare(tmp_path, dense(0), Port(last=nn.Hardtanh(-0.1, 0.1)), NUMBERS, VALUES)

    assert "what goes into layer fc3 = " in found.findings[0].what, text
    assert "differs (after fc2)" in found.findings[0].what
    assert (found.findings[0].one, found.findings[0].other) == ("last: Hardtanh", "no layer of its own")


@pytest.mark.parametrize("is_layer", [True, False])
def test_an_activation_before_a_layer_of_another_epsilon_is_told_first(is_layer: bool, tmp_path: Path) -> None:
    first = [layers.Dense(16), layers.Activation("gelu")] if is_layer else [layers.Dense(16, activation="gelu")]
    rest = [layers.LayerNormalization(), layers.Dense(16), layers.LayerNormalization(), layers.Dense(1)]
    rest_of_port = [nn.LayerNorm(16), nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 1)]
    port = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), *rest_of_port)
    found, text = compare(tmp_path, keras.Sequential([keras.Input((12,)), *first, *rest]), port, NUMBERS, VALUES)
    (activation, epsilon) = found.findings

    assert "ReLU" in activation.one, text
    assert "activation gelu" in activation.other, text
    assert epsilon.what == "layer norm's ε, for 2, 4", text


def test_the_round_off_of_a_gradient_that_is_zero_is_no_difference(tmp_path: Path) -> None:
    """Of a bias before a batch norm."""
    original = keras.Sequential([keras.Input((12,)), layers.Dense(16), layers.BatchNormalization(), layers.Dense(1)])
    port = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16, 1e-3, 0.01), nn.Linear(16, 1))
    found, text = compare(tmp_path, original, port, NUMBERS, VALUES)

    assert {row.verdict for row in found.rows if row.checkpoint == "gradients"} == {"agree"}, text


def test_layers_are_paired_whichever_way_each_framework_counts_them(tmp_path: Path) -> None:
    widths, names = [32, 32, 64, 64], ["conv2d", "conv2d_1", "conv2d_2", "conv2d_3"]
    outputs = inputs = keras.Input((6, 6, 3), name="images")
    for width, name in zip(widths, names, strict=True):
        outputs = layers.Conv2D(width, 3, padding="same", name=name)(outputs)
    outputs = layers.Dense(1, name="dense_1")(layers.Dense(8, name="dense")(layers.GlobalAveragePooling2D()(outputs)))

    class Port(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for number, (before, width) in enumerate(itertools.pairwise([3, *widths]), 1):
                self.add_module(f"conv{number}", nn.Conv2d(before, width, 3, padding=1))
            self.fc1, self.fc2 = nn.Linear(64, 8), nn.Linear(8, 1)

        def forward(self, images: Tensor) -> Tensor:
            for number in range(1, 5):
                images = self.get_submodule(f"conv{number}")(images)
            output: Tensor = self.fc2(self.fc1(images.mean((2, 3))))
            return output

    _, text = compare(tmp_path, keras.Model(inputs, outputs), Port(), IMAGES, VALUES)
    pairs = Comparison.read(tmp_path / "torch.npz", tmp_path / "keras.npz").pairs

    assert "They agree in all that was recorded" in text
    assert [pair.other.split("/")[-2] for pair in pairs] == [n for n in [*names, "dense", "dense_1"] for _ in range(2)]


class Attention(nn.Module):
    """As Keras's, of four heads of three numbers, with the heads within its linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(12, 12) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (of(x).unflatten(-1, (4, 3)).transpose(1, 2) for of in (self.query, self.key, self.value))
        heads = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        output: Tensor = self.out(heads.flatten(2))
        return output


class Reader(nn.Module):
    """Looks up words, lets them attend to each other, and adds a vector for each place, without the batch's axis."""

    def __init__(self, activation: Any = functional.relu) -> None:
        super().__init__()
        self.words, self.places, self.attention = nn.Embedding(20, 12), nn.Embedding(6, 12), Attention()
        self.dense, self.last, self.activation = nn.Linear(12, 7), nn.Linear(7, 1), activation

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words) + self.places(torch.arange(6))
        output: Tensor = self.last(self.activation(self.dense(self.attention(x))).mean(1))
        return output


class Places(layers.Layer):  # type: ignore[misc]
    """A vector for each place, with the batch's axis."""

    def __init__(self) -> None:
        super().__init__()
        self.table = layers.Embedding(6, 12)

    def call(self, words: Any) -> Any:
        return self.table(words * 0 + keras.ops.arange(6))


def read_by_keras() -> keras.Model:
    words = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 12, name="words")(words) + Places()(words)
    x = layers.MultiHeadAttention(4, 3, name="attention")(x, x)
    x = layers.GlobalAveragePooling1D()(layers.Dense(7, activation="relu")(x))
    return keras.Model(words, layers.Dense(1)(x))


@pytest.mark.parametrize("activation", [functional.relu, functional.elu])
def test_attention_starts_from_the_others_heads_and_a_table_without_a_batch_hides_nothing(
    activation: Any, tmp_path: Path
) -> None:
    words = DATA.integers(0, 20, (3 * BATCH, 6))
    original, port = read_by_keras(), Reader(activation)
    train_keras(tmp_path / "keras.npz", original, keras.optimizers.SGD(0.01), "mse", words, VALUES, BATCH)
    start_from(port, tmp_path / "keras.npz")
    optimizer = torch.optim.SGD(port.parameters(), 0.01)
    train_torch(tmp_path / "torch.npz", port, optimizer, functional.mse_loss, [words], VALUES, BATCH)
    comparison = Comparison.read(tmp_path / "torch.npz", tmp_path / "keras.npz")
    outputs = [finding.what for finding in walk(comparison).findings if finding.checkpoint == "output"]

    assert len(comparison.pairs) == 14
    assert outputs == ([] if activation is functional.relu else [f"layer dense = {original.layers[-3].name}"])


def test_heads_as_wide_as_the_vectors_are_transposed(tmp_path: Path) -> None:
    """Their kernel, (12, 4, 12), has as many numbers as it lies as it has transposed."""
    words = keras.Input((6, 12))
    original = keras.Model(words, layers.MultiHeadAttention(4, 12, name="attention")(words, words))
    original.compile(keras.optimizers.SGD(0.01), "mse")
    record_keras(original, tmp_path / "keras.npz", 1)
    values = DATA.normal(size=(BATCH, 6, 12)).astype("float32")
    original.fit(values, values, batch_size=BATCH, verbose=0)
    kernel = read_record(tmp_path / "keras.npz").steps[0]["weights"]["attention/query/kernel"]
    port = nn.ModuleDict({name: nn.Linear(12, 48) for name in ("query", "key", "value")})
    port["attention_output"] = nn.Linear(48, 12)
    start_from(port, tmp_path / "keras.npz")

    np.testing.assert_array_equal(port.get_parameter("query.weight").detach(), kernel.reshape(12, 48).T)


def test_a_square_kernel_that_is_not_transposed_is_named(tmp_path: Path) -> None:
    original = keras.Sequential([keras.Input((12,)), layers.Dense(12), layers.Dense(1)])
    square = nn.Linear(12, 12)
    port = nn.Sequential(square, nn.Linear(12, 1))
    forgotten = torch.tensor(np.array(original.layers[0].kernel))
    found, text = compare(tmp_path, original, port, NUMBERS, VALUES)
    assert found.findings == [], text

    with torch.no_grad():
        square.weight.copy_(forgotten)
    optimizer = torch.optim.SGD(port.parameters(), 0.01)
    train_torch(tmp_path / "torch.npz", port, optimizer, functional.mse_loss, [NUMBERS], VALUES, BATCH)
    first = compare_records(tmp_path / "torch.npz", tmp_path / "keras.npz").findings[0]
    assert first.what.startswith("square kernel, for 0.weight")
    assert first.other == "the same numbers, not transposed"


def test_flattening_after_a_convolution_is_named(tmp_path: Path) -> None:
    original = keras.Sequential(
        [keras.Input((6, 6, 3)), layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(1)]
    )
    found, text = compare(tmp_path, original, Convolutions(), IMAGES, VALUES)

    assert "flattened or joined in another order" in found.findings[0].what, text
    assert found.findings[0].what.startswith("what goes into layer fc = ")


def test_layers_without_weights_are_recorded_by_their_names(tmp_path: Path) -> None:
    original = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(16),
            layers.Activation("relu"),
            layers.Dropout(0.1, name="drop"),
            layers.Dense(1),
        ]
    )
    compare(tmp_path, original, nn.Sequential(nn.Linear(12, 16), nn.Linear(16, 1)), NUMBERS, VALUES)
    record = read_record(tmp_path / "keras.npz")

    assert len(record.layers) == 5, "the input's too"
    assert "drop:output" in record.steps[0]["layers"]


@pytest.mark.parametrize("size", [1e-5, 1e-2])
def test_a_broadcast_loss_is_named_beside_a_penalty_that_float32_hides(size: float, tmp_path: Path) -> None:
    l2 = keras.regularizers.L2(size)
    original = keras.Sequential(
        [keras.Input((12,)), layers.Dense(4, kernel_regularizer=l2), layers.Dense(1, kernel_regularizer=l2)]
    )
    port = nn.Sequential(nn.Linear(12, 4), nn.Linear(4, 1))
    losses = "mse", lambda output, target: (output - target[:, 0]).square().mean()
    found, text = compare(tmp_path, original, port, NUMBERS, VALUES, losses)
    loss = next(finding for finding in found.findings if finding.checkpoint == "loss")

    assert loss.one == "mean of the squared error, over all pairs: (32, 1) and (32,) broadcast to 32 × 32", text
    told = "no known formula fits (float32;" if size < 1e-4 else "mean of the squared error + 0.01·Σw² over kernels"
    assert loss.other.startswith(told), text


@pytest.mark.parametrize(("reduction", "findings"), [("mean", []), ("sum", ["the loss"])])
def test_probabilities_and_logits_of_one_loss_are_a_remark(reduction: str, findings: list[str], tmp_path: Path) -> None:
    original = keras.Sequential([keras.Input((12,)), layers.Dense(4), layers.Softmax()])
    losses = "sparse_categorical_crossentropy", partial(functional.cross_entropy, reduction=reduction)
    found, text = compare(tmp_path, original, nn.Sequential(nn.Linear(12, 4)), NUMBERS, CLASSES, losses)

    assert [finding.what for finding in found.findings] == findings, text
    kinds = "The outputs aren't of one kind (there is the softmax of here), and each loss takes its own"
    assert found.remarks == [kinds]


def test_rows_are_spoken_of_only_where_some_are_looked_up(tmp_path: Path) -> None:
    for name, inputs in (("one.npz", NUMBERS), ("other.npz", -NUMBERS)):
        model = nn.Linear(12, 1)
        optimizer = torch.optim.Adam(model.parameters())
        train_torch(tmp_path / name, model, optimizer, functional.mse_loss, [inputs], VALUES, BATCH)
    found = compare_records(tmp_path / "one.npz", tmp_path / "other.npz")

    assert found.common_step
    assert "rows" not in found.common_step


@pytest.mark.slow
def test_the_command_ends_quietly(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {"1/weights/w": np.ones(2)}
    np.savez(tmp_path / "one.npz", **arrays)
    (tmp_path / "none.npz").write_text("epoch,loss\n")
    program = f"{sys.executable} -m divergence {tmp_path / 'one.npz'}"
    commands = f"{program} {tmp_path / 'one.npz'} | true; {program} {tmp_path / 'none.npz'}"
    ended = subprocess.run(["bash", "-c", commands], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        f"error: {tmp_path / 'none.npz'} is no record: not a whole .npz or .safetensors file of arrays"
    ]

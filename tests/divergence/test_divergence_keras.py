"""A Keras program and its PyTorch port: what both record, and the conventions that only such a pair differs in."""

import importlib.util
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from divergence import keras as in_keras
from divergence import pytorch as in_pytorch
from divergence.__main__ import main
from divergence.record import RecordError, read_record
from divergence.walk import Walk
from stages.engines.keras import set_precision
from tests.divergence.recording import compare_records, train_keras, train_torch
from tests.project import ROOT, run

BATCH, STEPS = 16, 4
DATA = np.random.default_rng(3)
ROWS = DATA.integers(0, 12, BATCH * STEPS).astype("int32")
IMAGES = DATA.normal(size=(BATCH * STEPS, 6, 6, 3))
TARGETS = DATA.normal(size=(BATCH * STEPS, 1))


def keras_model(norm: bool = True, padded: bool = False) -> keras.Model:
    rows, images = keras.Input((), dtype="int32"), keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(5, 3, name="conv")(images)
    x = keras.layers.BatchNormalization(name="norm")(x) if norm else x
    x = keras.layers.Flatten(name="flatten")(keras.layers.ReLU(name="relu")(x))
    x = keras.layers.Concatenate()([keras.layers.Embedding(12, 4, mask_zero=padded, name="table")(rows), x])
    return keras.Model([rows, images], keras.layers.Dense(1, name="dense")(x))


class Port(nn.Module):
    """The same in PyTorch; `flat` is how a port flattens channels-first images."""

    def __init__(self, norm: nn.Module | None, flat: Callable[[Tensor], Tensor], padded: bool = False) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 5, 3), norm or nn.Identity()
        self.relu = nn.ReLU()
        self.table = nn.Embedding(12, 4, padding_idx=0 if padded else None)
        self.flat = flat
        self.dense = nn.Linear(4 + 80, 1)

    def forward(self, rows: Tensor, images: Tensor) -> Tensor:
        pixels = self.flat(self.relu(self.norm(self.conv(images))))
        output: Tensor = self.dense(torch.cat([self.table(rows), pixels], dim=1))
        return output


def like_keras(images: Tensor) -> Tensor:
    return images.permute(0, 2, 3, 1).flatten(1)


def sgd(weights: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(weights, 0.01)


def train_original(path: Path, model: keras.Model | None = None, optimizer: Any = None) -> None:
    keras.utils.set_random_seed(1)
    model = model or keras_model(norm=False)
    executing = 2 if keras.backend.backend() == "tensorflow" else 1
    optimizer = optimizer or keras.optimizers.SGD(0.01)
    loss = "mean_squared_error"
    train_keras(path, model, optimizer, loss, [ROWS, IMAGES], TARGETS, BATCH, steps_per_execution=executing)


def train_port(path: Path, start: Path | None, port: nn.Module | None = None, optimizer: Any = sgd) -> None:
    torch.manual_seed(1)
    port = (port or Port(None, like_keras)).double()
    if start:
        in_pytorch.start_from(port, start)
    inputs = [ROWS, IMAGES.transpose(0, 3, 1, 2)]
    train_torch(path, port, optimizer(port.parameters()), nn.functional.mse_loss, inputs, TARGETS, BATCH)


def compare(
    folder: Path,
    port: nn.Module | None = None,
    original: keras.Model | None = None,
    optimizers: tuple[Any, Any] = (None, sgd),
) -> Walk:
    """Train the original, and its port from the same first weights: here is PyTorch, there is Keras."""
    train_original(folder / "k.npz", original, optimizers[0])
    train_port(folder / "t.safetensors", folder / "k.npz", port, optimizers[1])
    return compare_records(folder / "t.safetensors", folder / "k.npz")


@pytest.fixture(autouse=True)
def precision() -> None:
    set_precision("float64")


def test_a_port_that_follows_its_original_agrees_to_nine_digits(tmp_path: Path) -> None:
    found = compare(tmp_path)

    assert not found.findings
    assert {row.verdict for row in found.rows} == {"agree"}
    assert len(found.rows) == 18


@pytest.mark.parametrize("scheduler_first", [True, False])
def test_recording_changes_nothing(scheduler_first: bool, tmp_path: Path) -> None:
    def keras_weights(record: bool) -> list[np.ndarray]:
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
        )
        model.compile(keras.optimizers.Adam(), "mse")
        if record:
            in_keras.record(model, tmp_path / "k.npz", steps=2)
        model.fit(IMAGES[:, 0, :2, :2].reshape(-1, 4), TARGETS, batch_size=8, shuffle=False, verbose=0)
        assert not model.run_eagerly
        weights: list[np.ndarray] = model.get_weights()
        return weights

    def torch_weights(record: bool) -> list[np.ndarray]:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        optimizer = torch.optim.Adam(model.parameters())
        if scheduler_first:
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        if record:
            in_pytorch.record(model, optimizer, tmp_path / "t.npz", steps=2)
        if not scheduler_first:
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        for _ in range(6):
            optimizer.zero_grad()
            model(torch.rand(8, 4)).square().mean().backward()
            optimizer.step()
            schedule.step()
        return [weight.detach().numpy() for weight in model.parameters()]

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for weights in (keras_weights, torch_weights):
            for left, right in zip(weights(record=False), weights(record=True), strict=True):
                np.testing.assert_allclose(left, right, rtol=0, atol=1e-15)
    assert len(read_record(tmp_path / "k.npz").steps) == len(read_record(tmp_path / "t.npz").steps) == 2


def classify(folder: Path, decay: float, scale: float = 1.0) -> Walk:
    """A classifier in Keras, of one-hot targets, its second layer penalised; and its port, of classes."""
    set_precision("float32")
    labels = np.arange(BATCH * STEPS) % 3
    model = keras.Sequential(
        [
            *(keras.Input((6, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(5, "tanh")),
            keras.layers.Dense(3, "softmax", kernel_regularizer=keras.regularizers.L2(0.01)),
        ]
    )
    optimizer = keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.03, 100, 0.9))
    train_keras(folder / "k.npz", model, optimizer, "categorical_crossentropy", IMAGES, np.eye(3)[labels], BATCH)

    hidden, last = nn.Linear(108, 5), nn.Linear(5, 3)
    port = nn.Sequential(Permuted(), hidden, nn.Tanh(), last)
    in_pytorch.start_from(port, folder / "k.npz")
    groups: list[dict[str, Any]] = [
        {"params": [last.weight], "weight_decay": decay},
        {"params": [*hidden.parameters(), last.bias]},
    ]
    of_port = torch.optim.SGD(groups, 0.03)
    schedule = torch.optim.lr_scheduler.ExponentialLR(of_port, 0.9**0.01)
    images = (scale * IMAGES.transpose(0, 3, 1, 2)).astype("float32")
    loss = nn.functional.cross_entropy
    train_torch(folder / "t.npz", port, of_port, loss, [images], labels, BATCH, schedule.step)
    return compare_records(folder / "t.npz", folder / "k.npz")


class Permuted(nn.Module):
    """Flattens as Keras does."""

    def forward(self, images: Tensor) -> Tensor:
        return like_keras(images)


def test_a_right_port_of_a_classifier_raises_no_alarm(tmp_path: Path) -> None:
    """Classes for one-hot targets, logits for probabilities, decay for a penalty of one layer, and rates in float64."""
    found = classify(tmp_path, decay=0.02)
    assert not found.findings
    assert any("0.01·Σw² in the loss there counts as 0.02·w" in remark for remark in found.remarks)


def test_a_wrong_port_of_a_classifier_is_told(tmp_path: Path) -> None:
    found = classify(tmp_path, decay=0.01, scale=255)
    assert found.findings[0].what == "scale, for input"
    assert "here is 255 times there" in found.findings[0].evidence[0]
    assert ("coupled: 0.01·w joins the gradient", "coupled: 0.02·w joins the gradient") in [
        (finding.one, finding.other) for finding in found.findings
    ]


def test_keras_starts_from_a_record_of_pytorch(tmp_path: Path) -> None:
    train_port(tmp_path / "t.npz", None)
    model = keras_model(norm=False)
    in_keras.start_from(model, tmp_path / "t.npz")
    train_original(tmp_path / "k.npz", model)

    assert not compare_records(tmp_path / "t.npz", tmp_path / "k.npz").findings


def test_a_model_that_cannot_be_recorded_yet_is_refused(tmp_path: Path) -> None:
    model = keras.Sequential([keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="compile the model first"):
        in_keras.record(model, tmp_path / "k.npz")
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="build the model first"):
        in_keras.record(model, tmp_path / "k.npz")


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(("loss", "units"), [("sparse_categorical_crossentropy", 3), ("binary_crossentropy", 1)])
def test_logits_where_probabilities_are_expected_are_told(
    loss: str, units: int, precision: Literal["float32", "float64"], tmp_path: Path
) -> None:
    set_precision(precision)
    squashing = "softmax" if units > 1 else "sigmoid"
    for name, activation in (("logits.npz", None), ("right.npz", squashing)):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(units, activation)])
        train_keras(tmp_path / name, model, "sgd", loss, TARGETS, ROWS % (3 if units > 1 else 2), BATCH)
    found = compare_records(tmp_path / "logits.npz", tmp_path / "right.npz")

    (of_loss,) = (finding for finding in found.findings if finding.checkpoint == "loss")
    assert of_loss.one.endswith("logits where probabilities are expected")
    assert of_loss.other == f"mean of the {'' if units > 1 else 'binary '}cross-entropy"


def test_a_square_layer_is_transposed_whatever_its_name(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="embedding_projection")])
    kernel = np.array(model.layers[0].kernel)
    train_keras(tmp_path / "k.npz", model, "sgd", "mse", np.ones((64, 4)), np.ones((64, 4)), BATCH)
    port = nn.Linear(4, 4).double()
    in_pytorch.start_from(port, tmp_path / "k.npz")

    np.testing.assert_array_equal(port.weight.detach().numpy(), kernel.T)


def test_a_recurrent_layer_of_the_other_framework_is_not_taken_over(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((5, 4)), keras.layers.GRU(3, use_bias=False), keras.layers.Dense(1)])
    train_keras(tmp_path / "k.npz", model, "sgd", "mse", np.ones((64, 5, 4)), np.ones((64, 1)), BATCH)
    port = nn.ModuleDict({"gru": nn.GRU(4, 3, bias=False), "dense": nn.Linear(3, 1)})

    with pytest.raises(RecordError, match=r"GRU: PyTorch keeps two biases .* set such a network's weights by hand"):
        in_pytorch.start_from(port, tmp_path / "k.npz")


class Halved(torch.optim.SGD):
    """Its learning rate is halved after each step."""

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        self.param_groups[0]["lr"] /= 2


CASES: dict[str, tuple[Any, Any, list[tuple[str, str, str]]]] = {
    "Adam": (
        keras.optimizers.Adam,
        torch.optim.Adam,
        [
            ("ε, for", "1e-08 added to √v̂, after", "1e-07 added to √v, before"),
            ("βᵗ, for", "exact", "of β rounded to float32"),
            ("repeated rows, for table.weight", "summed, then", "look-up by look-up"),
        ],
    ),
    "RMSprop": (
        keras.optimizers.RMSprop,
        torch.optim.RMSprop,
        [("ε, for", "1e-08 added to the root", "1e-07 under the root"), ("ρ, for", "0.99", "0.9")],
    ),
    "Adagrad": (
        keras.optimizers.Adagrad,
        torch.optim.Adagrad,
        [("ε, for", "1e-10 added to the root", "1e-07 under the root"), ("first sum of squares, for", "0", "0.1")],
    ),
    "decay": (
        lambda: keras.optimizers.SGD(0.01, 0.9, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, 0.01, 0.9, weight_decay=0.1),
        [("weight decay, for", "coupled", "decoupled"), ("momentum, for", "0.9", "0.899999976")],
    ),
    "clipping": (
        lambda: keras.optimizers.SGD(0.01, clipnorm=0.01),
        lambda p: torch.optim.SGD(p, 0.01),
        [("clipping, for", "none", "each tensor to norm 0.01, taken before the rows are summed")],
    ),
    "momentum of a learning rate that changes": (
        lambda: keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.01, 1, 0.5), 0.5),
        lambda p: Halved(p, 0.01, 0.5),
        [("momentum of, for", "gradients", "steps")],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_frameworks_optimisers_differ_in(name: str, tmp_path: Path) -> None:
    original, port, expected = CASES[name]
    found = compare(tmp_path, optimizers=(original(), port))

    assert {finding.checkpoint for finding in found.findings} == {"after"}
    for what, here, there in expected:
        assert any(what in f.what and here in f.one and there in f.other for f in found.findings), found.findings
    assert not any(finding.has_setting for finding in found.findings if finding.other == "0.899999976")


def test_flattening_in_another_order_is_told(tmp_path: Path) -> None:
    first = compare(tmp_path, Port(None, nn.Flatten())).findings[0]

    assert first.checkpoint == "output"
    assert "flat" in first.what
    assert any("same in another order" in evidence for evidence in first.evidence)


def test_batch_norms_conventions_are_told(tmp_path: Path) -> None:
    findings = compare(tmp_path, Port(nn.BatchNorm2d(5), like_keras), keras_model()).findings
    found = {finding.what: (finding.one, finding.other) for finding in findings}

    assert found["batch norm's ε, for norm"] == ("1e-05", "0.001")
    assert found["share of the batch in batch norm's running mean, for norm"] == ("0.1", "0.01")
    assert found["batch norm's running variance, for norm"] == ("unbiased (/(n − 1))", "biased (/n)")
    assert len(found) == 3


def test_what_no_setting_changes_is_named_and_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare(tmp_path, Port(nn.BatchNorm2d(5, eps=0.001, momentum=0.01), like_keras), keras_model())

    assert main([str(tmp_path / "t.safetensors"), str(tmp_path / "k.npz")]) == 0
    assert "running variance, for norm" in (shown := capsys.readouterr().out)
    assert "no setting in either framework" in shown


def test_padding_rows_that_learn_are_told(tmp_path: Path) -> None:
    first = compare(tmp_path, Port(None, like_keras, padded=True), keras_model(norm=False, padded=True)).findings[0]

    assert (first.checkpoint, first.what) == ("gradients", "the gradient, for table.weight")
    assert first.evidence == ["here, rows looked up don't learn: 0"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_all_of_this_holds_on_another_backend_too(backend: str) -> None:
    if not importlib.util.find_spec(backend):
        pytest.skip(f"{backend} isn't installed")
    variables = f"KERAS_BACKEND={backend}", "JAX_ENABLE_X64=1"
    pytest_alone = sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"
    run(ROOT, "env", *variables, *pytest_alone, __file__, "-k", "agrees or changes or batch or logits")

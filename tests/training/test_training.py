"""The two trainers, and that their results agree to the last digits once their conventions do."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.engines.torch import choose_device
from stages.prepare_ratings import prepare
from stages.program.errors import StageError
from stages.program.params import Params
from stages.ratings.source import read_source
from stages.ratings.table import Ratings, concatenate, write_ratings
from stages.split import TEST, TRAIN, VALIDATION
from stages.train_baselines import fit_biases, mean_squared_error
from stages.train_keras import KerasTrainer
from stages.train_torch import TorchTrainer
from stages.training.fit import fit, shuffle_rows
from stages.training.losses import LossCurve
from tests.project import ROOT, run
from tests.samples import GOODBOOKS, Parts, change, draw_parts, needs_goodbooks, simulate

Weights = list[NDArray[np.floating]]
SIDES = ("torch", "keras")
TRAINERS: list[Any] = [TorchTrainer, KerasTrainer]
KERAS_IF_SLOW = [TorchTrainer, pytest.param(KerasTrainer, marks=pytest.mark.slow)]
"""Where what is shown is what `fit` does, which is the same for both, and takes Keras seconds."""


def follow(params: Params, side: str, **train: object) -> Params:
    """Parameters under which all conventions are one framework's."""
    return change(params, conventions=dict.fromkeys(params.conventions.model_dump(), side), train=train)


def split_file(path: Path, params: Params) -> Parts:
    """What prepare-ratings and split make of a ratings file."""
    settings = change(params, prepare={"ratings": str(path)}).prepare
    ratings = concatenate(prepare(read_source(settings), settings).parts)
    part, _ = draw_parts(ratings, params.split)
    return ratings[part == TRAIN], ratings[part == VALIDATION], ratings[part == TEST]


def train(make_trainer: Any, params: Params, training: Ratings, validation: Ratings) -> tuple[LossCurve, Weights]:
    """The loss curve, and the kept weights in Keras's layout."""
    trainer = make_trainer(params, training)
    curve = fit(trainer, training, validation, params.train)
    weights = trainer.get_weights()
    if make_trainer is TorchTrainer:
        weights = [*weights[:2], *(weight.T for weight in weights[2:])]
    return curve, weights


def train_both(params: Params, training: Ratings, validation: Ratings) -> list[tuple[LossCurve, Weights]]:
    """What PyTorch and what Keras make of it."""
    return [train(make_trainer, params, training, validation) for make_trainer in TRAINERS]


def losses(curve: LossCurve) -> NDArray[np.float64]:
    return np.array([(epoch.train_loss, epoch.val_loss) for epoch in curve.epochs])


@pytest.mark.slow
@pytest.mark.parametrize("side", SIDES)
def test_float64_agrees_to_the_last_digits(params: Params, side: str) -> None:
    training, validation, _ = split_file(ROOT / "data" / "sample.csv", params)
    (torch_curve, torch_weights), (keras_curve, keras_weights) = train_both(
        follow(params, side, precision="float64", epochs=5), training, validation
    )

    np.testing.assert_allclose(losses(torch_curve), losses(keras_curve), rtol=0, atol=1e-10)
    assert torch_curve.best.epoch == keras_curve.best.epoch
    for torch_weight, keras_weight in zip(torch_weights, keras_weights, strict=True):
        np.testing.assert_allclose(torch_weight, keras_weight, rtol=0, atol=1e-9)


@pytest.mark.parametrize("trainer", KERAS_IF_SLOW)
def test_averaging_keeps_the_mean_and_leaves_the_training_alone(params: Params, parts: Parts, trainer: Any) -> None:
    plain, averaging = (
        follow(params, "keras", precision="float64", epochs=2, average_epochs=averages) for averages in (False, True)
    )
    trained, averaged = trainer(plain, parts[0]), trainer(averaging, parts[0])
    ends: list[Weights] = []  # of the epochs
    curve = fit(trained, *parts[:2], plain.train, after_epoch=lambda _: ends.append(trained.get_weights()))
    of_averages = fit(averaged, *parts[:2], averaging.train)

    assert of_averages.best.epoch == 2, "the first epoch's weights were kept: this shows nothing"
    for first, second, mean in zip(*ends, averaged.get_weights(), strict=True):
        np.testing.assert_allclose(mean, (first + second) / 2, rtol=0, atol=1e-12)
    assert [epoch.train_loss for epoch in of_averages.epochs] == [epoch.train_loss for epoch in curve.epochs]


@pytest.mark.slow
@pytest.mark.parametrize("side", SIDES)
def test_keras_on_the_torch_backend_agrees_too(params: Params, parts: Parts, side: str, tmp_path: Path) -> None:
    chosen = follow(params, side, precision="float64", epochs=3)
    for rows, name in zip(parts, ("train", "validation", "test"), strict=True):
        write_ratings(rows, tmp_path / f"{name}.parquet")
    (tmp_path / "params.yaml").write_text(json.dumps(change(chosen, keras={"backend": "torch"}).model_dump()))
    outputs = f"--losses={tmp_path / 'losses.json'}", f"--weights={tmp_path / 'keras.weights.h5'}"
    tables = [f"--{name}={tmp_path / name}.parquet" for name in ("train", "validation", "test")]
    parameters = f"--params={tmp_path / 'params.yaml'}"
    run(ROOT, sys.executable, "-m", "stages.train_keras", parameters, *tables, *outputs)
    on_torch = json.loads((tmp_path / "losses.json").read_text())["curve"]
    _, (keras_curve, _) = train_both(chosen, parts[0], parts[1])

    found = np.array([(epoch["train_loss"], epoch["val_loss"]) for epoch in on_torch])
    np.testing.assert_allclose(found, losses(keras_curve), rtol=0, atol=1e-10)


@pytest.mark.slow
@needs_goodbooks
def test_goodbooks_shows_the_gap_that_people_see(params: Params) -> None:
    training, validation, _ = split_file(GOODBOOKS, params)
    (torch_curve, _), (keras_curve, _) = train_both(
        change(params, train={"batch_size": 1024, "epochs": 5}), training, validation
    )
    biases = mean_squared_error(fit_biases(training).predict(validation), validation)

    assert keras_curve.best.val_loss <= 0.715
    assert torch_curve.best.val_loss > 0.8
    assert biases == pytest.approx(0.70, abs=0.01)


@pytest.mark.parametrize("trainer", KERAS_IF_SLOW)
def test_the_kept_weights_are_the_best_epochs(params: Params, parts: Parts, trainer: Any) -> None:
    training, validation, _ = parts
    chosen = change(params, train={"batch_size": 32, "epochs": 9, "learning_rate": 0.03})
    trained = trainer(chosen, training)
    curve = fit(trained, training, validation, chosen.train)

    assert curve.best.epoch < 9, "the last epoch must not be the best, or this shows nothing"
    assert curve.best.val_loss == min(epoch.val_loss for epoch in curve.epochs)
    assert trained.evaluate(validation) == pytest.approx(curve.best.val_loss, abs=1e-6)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_train_loss_is_the_mean_over_examples(params: Params, parts: Parts, trainer: Any) -> None:
    """Without learning, the train loss is the untrained network's loss, whatever the last batch's size."""
    training = parts[0]
    chosen = follow(params, "torch", batch_size=len(training) - 1, epochs=1, learning_rate=1e-12, precision="float64")
    curve, _ = train(trainer, chosen, training, training)

    assert curve.epochs[0].train_loss == pytest.approx(curve.epochs[0].val_loss, rel=1e-9)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_loss_that_is_no_number_stops_the_training(params: Params, parts: Parts, trainer: Any) -> None:
    chosen = change(params, train={"learning_rate": 1e30})

    with pytest.raises(StageError, match=r"epoch 1: .*step .*train\.learning_rate is too high"):
        train(trainer, chosen, parts[0], parts[1])


def test_a_batch_larger_than_the_table_is_refused(params: Params, parts: Parts) -> None:
    with pytest.raises(StageError, match=r"train\.batch_size is 100,000; there are only"):
        train(TorchTrainer, change(params, train={"batch_size": 100_000}), parts[0], parts[1])


def test_a_device_that_is_not_here_is_refused() -> None:
    with pytest.raises(StageError, match=r"torch\.device is cuda:7, which isn't here"):
        choose_device("cuda:7")


def test_each_epoch_has_its_own_order() -> None:
    first, second = shuffle_rows(1000, seed=1, epoch=1), shuffle_rows(1000, seed=1, epoch=2)

    assert sorted(first) == sorted(second) == list(range(1000))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, shuffle_rows(1000, seed=1, epoch=1))


def test_biases_find_what_was_simulated() -> None:
    ratings = simulate(users=300, books=50, rows=6000)
    biases = fit_biases(ratings)

    assert mean_squared_error(biases.predict(ratings), ratings) < 0.7 * mean_squared_error(biases.mean, ratings)
    assert np.bincount(ratings.users).min() >= 1
    np.testing.assert_allclose(
        biases.of_books,
        np.bincount(ratings.books, ratings.stars - biases.mean - biases.of_users[ratings.users])
        / (np.bincount(ratings.books) + 5),
        atol=1e-6,
    )


@pytest.mark.parametrize("side", ["torch", pytest.param("keras", marks=pytest.mark.slow)])
def test_the_settings_for_accuracy_agree_too(params: Params, parts: Parts, side: str) -> None:
    """Averaged weights and an output bias at the mean: the same in both frameworks, and another result than without."""
    plain = follow(params, side, precision="float64", epochs=3)
    accurate = change(plain, model={"output_bias": "mean"}, train={"average_epochs": True})
    (torch_curve, torch_weights), (keras_curve, keras_weights) = train_both(accurate, parts[0], parts[1])

    np.testing.assert_allclose(losses(torch_curve), losses(keras_curve), rtol=0, atol=1e-10)
    for torch_weight, keras_weight in zip(torch_weights, keras_weights, strict=True):
        np.testing.assert_allclose(torch_weight, keras_weight, rtol=0, atol=1e-9)
    assert np.abs(losses(torch_curve) - losses(train(TorchTrainer, plain, parts[0], parts[1])[0])).min() > 1e-6


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_output_bias_starts_at_the_mean_of_the_training_ratings(params: Params, parts: Parts, trainer: Any) -> None:
    model = trainer(change(params, model={"output_bias": "mean"}), parts[0]).model
    bias = model.dense[-1].bias.detach().numpy() if trainer is TorchTrainer else model.layers[-1].get_weights()[1]

    assert bias[0].item() == pytest.approx(parts[0].stars.mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "batch_size", "tolerance"),
    [(ROOT / "data" / "sample.csv", 128, 2e-3), pytest.param(GOODBOOKS, 1024, 5e-4, marks=needs_goodbooks)],
)
@pytest.mark.parametrize("side", SIDES)
def test_float32_agrees_up_to_the_best_epoch(
    params: Params, side: str, file: Path, batch_size: int, tolerance: float
) -> None:
    training, validation, _ = split_file(file, params)
    (torch_curve, _), (keras_curve, _) = train_both(
        follow(params, side, batch_size=batch_size, epochs=5), training, validation
    )

    best = max(torch_curve.best.epoch, keras_curve.best.epoch)
    np.testing.assert_allclose(losses(torch_curve)[:best], losses(keras_curve)[:best], rtol=0, atol=tolerance)

"""The two trainers, and that their results agree to the last digits once their conventions do."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import mse_loss

from stages import train_keras, train_torch
from stages.training.batches import shuffle_rows
from stages.training.losses import LossCurve
from stages.program.params import Params
from stages.program.process import StageError
from stages.ratings.table import Ratings, read_ratings, write_ratings
from stages.ratings.source import read_source
from stages.prepare_ratings import prepare
from stages.split import TEST, TRAIN, VALIDATION, assign_parts
from stages.train_baselines import fit_biases, mean_squared_error
from tests.conftest import GOODBOOKS, ROOT, change, needs_goodbooks, simulate

Parts = tuple[Ratings, Ratings, Ratings]
Weights = list[NDArray[np.floating]]
SIDES = ("torch", "keras")
TRAINERS: list[Any] = [train_torch, train_keras]


def follow(params: Params, side: str, **train: object) -> Params:
    """Parameters under which all conventions are one framework's."""
    return change(params, conventions=dict.fromkeys(params.conventions.model_dump(), side), train=train)


def split_file(path: Path, params: Params) -> Parts:
    """What prepare-ratings and split make of a ratings file."""
    settings = change(params, prepare={"ratings": str(path)}).prepare
    ratings = prepare(read_source(settings), settings).ratings
    part, _ = assign_parts(ratings, params.split)
    return ratings[part == TRAIN], ratings[part == VALIDATION], ratings[part == TEST]


def train_both(params: Params, training: Ratings, validation: Ratings) -> tuple[tuple[LossCurve, Weights], ...]:
    """Each framework's loss curve and weights, in Keras's layout."""
    model, torch_curve = train_torch.train(params, training, validation)
    torch_weights = [weight.numpy() for weight in model.state_dict().values()]
    transposed = [*torch_weights[:2], *(weight.T for weight in torch_weights[2:])]
    keras_model, keras_curve = train_keras.train(params, training, validation)
    return (torch_curve, transposed), (keras_curve, keras_model.get_weights())


def losses(curve: LossCurve) -> NDArray[np.float64]:
    return np.array([(epoch.train_loss, epoch.val_loss) for epoch in curve.epochs])


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


@pytest.mark.parametrize("hidden_units", [[128, 32], [32], [1], []], ids=str)
def test_the_fast_pytorch_trainer_is_the_plain_loop(params: Params, parts: Parts, hidden_units: list[int]) -> None:
    """Autograd through the module, and PyTorch's own optimiser: what a tutorial would write."""
    training = parts[0]
    batch_size = next(size for size in range(100, len(training)) if len(training) % size == 1)  # the last one's is 1
    train = {"precision": "float64", "epochs": 2, "batch_size": batch_size}
    settings = change(params, model={"hidden_units": hidden_units}, train=train)
    plain = train_torch.build_model(settings, training)
    optimizer = torch.optim.Adam(plain.parameters(), settings.train.learning_rate)
    means = []
    for epoch in range(1, 3):
        batches = torch.from_numpy(shuffle_rows(len(training), settings.train.seed, epoch)).split(
            settings.train.batch_size
        )
        total = 0.0
        for rows in batches:
            books, users = (torch.from_numpy(column).long()[rows] for column in (training.books, training.users))
            optimizer.zero_grad()
            loss = mse_loss(plain(books, users), torch.from_numpy(training.stars).double()[rows])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        means.append(total / len(training))

    fast, curve = train_torch.train(settings, training, parts[1])
    assert curve.best.epoch == 2, "an earlier epoch's weights were kept: this compares nothing"
    np.testing.assert_allclose(losses(curve)[:, 0], means, rtol=0, atol=1e-13)
    for name, weight in plain.state_dict().items():
        np.testing.assert_allclose(fast.state_dict()[name], weight, rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_averaging_keeps_the_mean_and_leaves_the_training_alone(params: Params, parts: Parts, trainer: Any) -> None:
    def train(**settings: object) -> tuple[Weights, LossCurve]:
        model, curve = trainer.train(follow(params, "keras", precision="float64", **settings), parts[0], parts[1])
        assert curve.best.epoch == len(curve.epochs), "an earlier epoch's weights were kept: this shows nothing"
        weights = model.state_dict().values() if trainer is train_torch else model.get_weights()
        return [np.asarray(weight) for weight in weights], curve

    one, two = train(epochs=1), train(epochs=2)
    averaged = train(epochs=2, average_epochs=True)

    for first, second, mean in zip(one[0], two[0], averaged[0], strict=True):
        np.testing.assert_allclose(mean, (first + second) / 2, rtol=0, atol=1e-12)
    assert [epoch.train_loss for epoch in averaged[1].epochs] == [epoch.train_loss for epoch in two[1].epochs]


@pytest.mark.parametrize("side", SIDES)
def test_keras_on_the_torch_backend_agrees_too(params: Params, parts: Parts, side: str, tmp_path: Path) -> None:
    chosen = follow(params, side, precision="float64", epochs=3)
    for rows, name in zip(parts, ("train", "validation", "test"), strict=True):
        write_ratings(rows, tmp_path / f"{name}.parquet")
    (tmp_path / "params.yaml").write_text(json.dumps(change(chosen, keras={"backend": "torch"}).model_dump()))
    subprocess.run(
        [
            *(sys.executable, "-m", "stages.train_keras", "--params", tmp_path / "params.yaml"),
            *("--train", tmp_path / "train.parquet", "--validation", tmp_path / "validation.parquet"),
            *("--test", tmp_path / "test.parquet", "--losses", tmp_path / "losses.json"),
            *("--weights", tmp_path / "keras.weights.h5"),
        ],
        cwd=ROOT,
        check=True,
    )
    on_torch = json.loads((tmp_path / "losses.json").read_text())["curve"]
    _, (keras_curve, _) = train_both(chosen, parts[0], parts[1])

    found = np.array([(epoch["train_loss"], epoch["val_loss"]) for epoch in on_torch])
    np.testing.assert_allclose(found, losses(keras_curve), rtol=0, atol=1e-10)


@needs_goodbooks
@pytest.mark.parametrize("side", SIDES)
def test_float32_agrees_on_goodbooks_up_to_the_best_epoch(params: Params, side: str) -> None:
    training, validation, _ = split_file(GOODBOOKS, params)
    (torch_curve, _), (keras_curve, _) = train_both(
        follow(params, side, batch_size=1024, epochs=5), training, validation
    )

    best = max(torch_curve.best.epoch, keras_curve.best.epoch)
    np.testing.assert_allclose(losses(torch_curve)[:best], losses(keras_curve)[:best], rtol=0, atol=5e-4)


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


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_kept_weights_are_the_best_epochs(params: Params, parts: Parts, trainer: Any) -> None:
    training, validation, _ = parts
    chosen = change(params, train={"batch_size": 32, "epochs": 12, "learning_rate": 0.03})
    model, curve = trainer.train(chosen, training, validation)
    rows = train_torch.Tensors.of(validation, model) if trainer is train_torch else validation

    assert curve.best.epoch < 12, "the last epoch must not be the best, or this shows nothing"
    assert curve.best.val_loss == min(epoch.val_loss for epoch in curve.epochs)
    assert trainer.evaluate(model, rows) == pytest.approx(curve.best.val_loss, abs=1e-6)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_train_loss_is_the_mean_over_examples(params: Params, parts: Parts, trainer: Any) -> None:
    """Without learning, the train loss is the untrained network's loss, whatever the last batch's size."""
    training = parts[0]
    chosen = follow(params, "torch", batch_size=len(training) - 1, epochs=1, learning_rate=1e-12, precision="float64")
    _, curve = trainer.train(chosen, training, training)

    assert curve.epochs[0].train_loss == pytest.approx(curve.epochs[0].val_loss, rel=1e-9)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_loss_that_is_no_number_stops_the_training(params: Params, parts: Parts, trainer: Any) -> None:
    chosen = change(params, train={"learning_rate": 1e30})

    with pytest.raises(StageError, match=r"epoch 1: .*step .*train\.learning_rate is too high"):
        trainer.train(chosen, parts[0], parts[1])


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_batch_larger_than_the_table_is_refused(params: Params, parts: Parts, trainer: Any) -> None:

    with pytest.raises(StageError, match=r"train\.batch_size is 100,000; there are only"):
        trainer.train(change(params, train={"batch_size": 100_000}), parts[0], parts[1])


def test_a_device_that_is_not_here_is_refused() -> None:
    with pytest.raises(StageError, match=r"torch\.device is cuda:7, which isn't here"):
        train_torch.choose_device("cuda:7")


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


def test_ratings_survive_their_file(tmp_path: Path) -> None:
    ratings = simulate(users=30, books=20, rows=100)
    write_ratings(ratings, tmp_path / "ratings.parquet")
    again = read_ratings(tmp_path / "ratings.parquet")

    for left, right in ((ratings.users, again.users), (ratings.books, again.books), (ratings.stars, again.stars)):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("side", SIDES)
def test_the_settings_for_accuracy_agree_too(params: Params, parts: Parts, side: str) -> None:
    """Averaged weights and an output bias at the mean: the same in both frameworks, and another result than without."""
    plain = follow(params, side, precision="float64", epochs=3)
    accurate = change(plain, model={"output_bias": "mean"}, train={"average_epochs": True})
    (torch_curve, torch_weights), (keras_curve, keras_weights) = train_both(accurate, parts[0], parts[1])

    np.testing.assert_allclose(losses(torch_curve), losses(keras_curve), rtol=0, atol=1e-10)
    for torch_weight, keras_weight in zip(torch_weights, keras_weights, strict=True):
        np.testing.assert_allclose(torch_weight, keras_weight, rtol=0, atol=1e-9)
    assert np.abs(losses(torch_curve) - losses(train_torch.train(plain, parts[0], parts[1])[1])).min() > 1e-6


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_output_bias_starts_at_the_mean_of_the_training_ratings(params: Params, parts: Parts, trainer: Any) -> None:
    train_keras.choose_engine(params)
    model = trainer.build_model(change(params, model={"output_bias": "mean"}), parts[0])
    bias = model.layers[-1].bias.detach().numpy() if trainer is train_torch else model.layers[-1].get_weights()[1]

    assert bias[0].item() == pytest.approx(parts[0].stars.mean())


@pytest.mark.parametrize("side", SIDES)
def test_float32_agrees_on_the_sample_up_to_the_best_epoch(params: Params, side: str) -> None:
    training, validation, _ = split_file(ROOT / "data" / "sample.csv", params)
    (torch_curve, _), (keras_curve, _) = train_both(follow(params, side), training, validation)

    best = max(torch_curve.best.epoch, keras_curve.best.epoch)
    np.testing.assert_allclose(losses(torch_curve)[:best], losses(keras_curve)[:best], rtol=0, atol=2e-3)

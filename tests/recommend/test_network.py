"""Predictions equal the frameworks', a new reader's vector is a minimum, and weights that don't fit are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from recommend.library import Library, read_library
from recommend.network import WEIGHTS, Floats, read_network
from stages import train_baselines
from stages.program.params import Params
from stages.ratings.table import Ratings, read_ratings, write_ratings
from stages.train_keras import KerasTrainer
from stages.train_torch import TorchTrainer
from tests.recommend.projects import FRAMEWORKS, refusal, write_tables
from tests.samples import change

MODELS: dict[str, dict[str, Any]] = {
    "the project's": {},
    "no hidden layer": {"hidden_units": []},
    "one unit": {"hidden_units": [1], "embedding_dim": 1},
    "one layer, from the mean": {"hidden_units": [32], "embedding_dim": 16, "output_bias": "mean"},
    "three layers": {"hidden_units": [16, 8, 4], "embedding_dim": 3},
}


def framework_predictions(key: str, trainer: Any, rows: Ratings) -> Floats:
    """What the framework itself predicts."""
    if key == "keras":
        return np.asarray(trainer.model([rows.books, rows.users]))[:, 0]
    books, users = (torch.tensor(column).long() for column in (rows.books, rows.users))
    predictions: Floats = trainer.model(books, users).numpy(force=True)
    return predictions


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("key", FRAMEWORKS)
def test_predicts_what_the_framework_predicts(
    key: str,
    model: dict[str, Any],
    precision: str,
    params: Params,
    parts: tuple[Ratings, Ratings, Ratings],
    tmp_path: Path,
) -> None:
    """With weights drawn at random, whether a training would come to such or not."""
    chosen, random = change(params, model=model, train={"precision": precision}), np.random.default_rng(0)
    write_tables(tmp_path, chosen, parts)
    trainer: Any = (TorchTrainer if key == "pytorch" else KerasTrainer)(chosen, parts[0])
    trainer.set_weights([random.normal(0, 0.2, old.shape).astype(old.dtype) for old in trainer.get_weights()])
    (tmp_path / "models" / WEIGHTS[key]).write_bytes(trainer.save())
    val_loss = np.mean((framework_predictions(key, trainer, parts[1]) - parts[1].stars) ** 2).item()
    (tmp_path / "losses" / f"{key}.json").write_text(json.dumps({"val_loss": val_loss}))
    expected = framework_predictions(key, trainer, parts[2])

    network = read_network(key, tmp_path, read_library(tmp_path))

    tolerance = 1e-5 if precision == "float32" else 1e-12
    assert network.book_vectors.dtype == expected.dtype == precision
    np.testing.assert_allclose(network.predict_rows(parts[2]), expected, rtol=0, atol=tolerance)
    by_reader = [
        network.predict(network.user_vectors[user])[book]
        for user, book in zip(parts[2].users, parts[2].books, strict=True)
    ]
    np.testing.assert_allclose(by_reader, expected, rtol=0, atol=tolerance)


def test_biases_predict_what_the_baseline_predicts(trained: Path, library: Library, parts: tuple[Ratings, ...]) -> None:
    predictions = read_network("biases", trained, library).predict_rows(parts[2])
    expected = train_baselines.fit_biases(parts[0]).predict(parts[2])
    np.testing.assert_allclose(predictions, expected, rtol=0, atol=1e-12)


def test_more_books_than_a_tile_holds(trained: Path, library: Library) -> None:
    network = read_network("keras", trained, library)
    units, vector = network.book_units, network.user_vectors[3]
    expected = np.resize(network.predict(vector), 9000)
    network.__dict__["book_units"] = np.resize(units, (9000, units.shape[1]))
    np.testing.assert_allclose(network.predict(vector), expected, rtol=0, atol=1e-6)


def test_a_bias_is_fitted_as_the_baseline_fits_it(trained: Path, library: Library) -> None:
    books, stars = np.array([3, 5, 8]), np.array([5.0, 4.0, 1.0])
    biases = train_baselines.fit_biases(library.train)
    expected = (stars - biases.mean - biases.of_books[books]).sum() / (3 + train_baselines.DAMPING)
    fitted = read_network("biases", trained, library).fit_reader(books, stars)
    np.testing.assert_allclose(fitted, [expected], rtol=1e-6)


@pytest.mark.parametrize("key", FRAMEWORKS)
def test_a_fitted_vector_is_a_minimum(key: str, trained: Path, library: Library) -> None:
    network = read_network(key, trained, library)
    rated, (mean, root) = library.reader(4), network.prior

    def objective(vector: Floats) -> float:
        errors = network.predict(vector)[rated.books] - rated.stars
        return float((errors**2).sum() + ((root @ (vector - mean)) ** 2).sum())

    fitted = network.fit_reader(rated.books, rated.stars).astype(np.float64)
    least = objective(fitted)
    assert least < objective(mean)
    spread = network.user_vectors.std(axis=0)
    for step in np.random.default_rng(1).standard_normal((50, len(mean))) * 0.05 * spread:
        assert objective(fitted + step) > 0.999 * least  # the network has kinks, and a step may end at one


@pytest.mark.parametrize("key", FRAMEWORKS)
def test_a_prior_is_the_readers_own_spread(key: str, trained: Path, library: Library) -> None:
    network = read_network(key, trained, library)
    mean, root = network.prior
    distances = ((network.user_vectors - mean) @ root.T) ** 2
    assert distances.sum(axis=1).mean() == pytest.approx(0.5 * len(mean), rel=1e-3)  # a half for each dimension


# --- What doesn't fit ---


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def spoil_pytorch(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(project: Path) -> None:
        path = project / "models" / "pytorch.safetensors"
        weights = safetensors.numpy.load_file(path)
        change(weights)
        safetensors.numpy.save_file({name: np.ascontiguousarray(part) for name, part in weights.items()}, path)

    return spoil


def plant_nan(weights: dict[str, Any]) -> None:
    weights["user_embedding.weight"][3, 1] = np.nan


def shuffle_books_and_readers(weights: dict[str, Any]) -> None:
    for name in ("user_embedding.weight", "book_embedding.weight"):
        weights[name] = weights[name][::-1]


def forget_readers(weights: dict[str, Any]) -> None:
    weights["user_embedding.weight"] = weights["user_embedding.weight"][:50]


def rate_unknown_books(project: Path) -> None:
    path = project / "data" / "validation.parquet"
    rows = read_ratings(path)
    write_ratings(Ratings(rows.users, rows.books + np.int32(40), rows.stars), path)


SPOILED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda project: (project / "models/pytorch.safetensors").unlink(), "is missing; run: dvc repro"),
    "cut off": (lambda project: cut(project / "models/pytorch.safetensors"), "is damaged or holds other weights"),
    "NaN": (spoil_pytorch(plant_nan), "1 of its numbers are NaN or infinite"),
    "another model's": (spoil_pytorch(lambda weights: weights.pop("dense.2.bias")), "holds other weights than a"),
    "fewer readers": (spoil_pytorch(forget_readers), "knows 50 readers and 40 books, the tables in"),
    "other ratings, as many": (spoil_pytorch(shuffle_books_and_readers), "are not of one run"),
    "other validation rows": (rate_unknown_books, "are not of one run; run: dvc repro"),
    "no loss": (lambda project: (project / "losses/pytorch.json").write_text("{}"), "holds no val_loss"),
    "no tables": (
        lambda project: (project / "data/users.parquet").unlink(),
        "users.parquet is missing; run: dvc repro",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILED.values(), ids=SPOILED)
def test_refuses_what_does_not_fit(spoil: Callable[[Path], Any], message: str, project: Path) -> None:
    spoil(project)
    assert message in refusal(project, "--user", "1040", "--model", "pytorch")


def test_refuses_damaged_keras_weights(project: Path) -> None:
    cut(project / "models" / "keras.weights.h5")
    assert "is damaged or holds other weights" in refusal(project, "--user", "1040", "--model", "keras")

"""The stage that holds the two programs against each other, and what it says where one of them was changed alone."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch.nn.functional import mse_loss

from ablation import agreement
from ablation.plan import Framework
from stages.program.params import Params
from stages.ratings.table import write_ratings
from tests.samples import change, simulate

pytestmark = pytest.mark.slow
record_steps = agreement.record_steps


def agree(params: Params, folder: Path) -> dict[str, dict[str, Any]]:
    write_ratings(simulate(users=60, books=40, rows=2000), folder / "train.parquet")
    agreement.main(params, folder / "train.parquet", folder / "agreement.json")
    found: dict[str, dict[str, Any]] = json.loads((folder / "agreement.json").read_text())
    return found


def record_with_an_epsilon_of_its_own(framework: Framework, params: Params, train: Path, path: Path) -> None:
    """As someone would leave it who changes one program and forgets the other."""
    if framework == "keras":
        params = change(params, conventions={"adam_epsilon": "torch"})
    record_steps(framework, params, train, path)


def record_with_a_sum(framework: Framework, params: Params, train: Path, path: Path) -> None:
    """Likewise."""
    if framework == "pytorch":
        from stages import train_torch

        vars(train_torch)["mse_loss"] = partial(mse_loss, reduction="sum")
    record_steps(framework, params, train, path)


def record_with_another_activation(framework: Framework, params: Params, train: Path, path: Path) -> None:
    """Likewise."""
    if framework == "keras":
        from stages.engines.keras import configure

        configure(params)
        import keras

        dense = keras.layers.Dense
        vars(keras.layers)["Dense"] = lambda *units, activation=None, **settings: dense(
            *units, activation=activation and "elu", **settings
        )
    record_steps(framework, params, train, path)


def record_with_larger_kernels(framework: Framework, params: Params, train: Path, path: Path) -> None:
    """Likewise, by a millionth."""
    if framework == "pytorch":
        from stages import train_torch

        draw = vars(train_torch)["draw_initial_weights"]

        def draw_larger(*given: Any) -> Any:
            weights = draw(*given)
            return replace(weights, kernels=[kernel * 1.000001 for kernel in weights.kernels or []])

        vars(train_torch)["draw_initial_weights"] = draw_larger
    record_steps(framework, params, train, path)


def test_the_two_programs_agree_under_either_sides_conventions(params: Params, tmp_path: Path) -> None:
    found = agree(params, tmp_path)

    assert found == {side: {"differing": 0, "largest_difference": 0.0, "first": "none"} for side in ("torch", "keras")}


def test_a_change_to_one_program_alone_is_named(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement, "record_steps", record_with_an_epsilon_of_its_own)
    found = agree(params, tmp_path)

    assert found["torch"]["first"] == "none"
    assert found["keras"]["differing"] > 0
    assert "step 1, step: ε, for" in found["keras"]["first"]
    assert "before the bias correction | 1e-08 added to √v̂" in found["keras"]["first"]


def test_a_change_of_a_layer_is_named_though_the_engine_calls_none(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement, "record_steps", record_with_another_activation)
    found = agree(params, tmp_path)

    for side in ("torch", "keras"):
        assert (
            "step 1, output: layer dense.0 = dense_0: Linear, then ReLU | Dense, activation elu" in found[side]["first"]
        )


def test_a_change_that_looks_like_other_draws_is_named(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement, "record_steps", record_with_larger_kernels)
    found = agree(params, tmp_path)

    for side in ("torch", "keras"):
        assert found[side]["differing"] > 0
        assert found[side]["first"] == "step 1, weights: other numbers"


def test_no_difference_is_named_that_the_records_cannot_show(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(agreement, "record_steps", record_with_a_sum)
    found = agree(params, tmp_path)

    for side in ("torch", "keras"):
        assert found[side]["first"] == "step 1, loss: the loss: sum of the squared error | mean of the squared error"
    assert "Further differences" not in capsys.readouterr().out

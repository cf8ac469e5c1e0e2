"""Experiments: run, queued, shown, compared and applied."""

import json
from pathlib import Path

import pytest
import yaml

from tests.project import dvc, read_outputs, run, stages_run

pytestmark = pytest.mark.slow


def read_curve(project: Path) -> list[dict[str, float]]:
    curve: list[dict[str, float]] = json.loads((project / "losses" / "pytorch.json").read_text())["curve"]
    return curve


def shown_experiments(project: Path) -> dict[str, dict[str, dict[str, object]]]:
    """The parameters of each experiment on the current commit, by its name."""
    baseline = json.loads(dvc(project, "exp", "show", "--json"))[-1]
    return {
        experiment["name"]: experiment["revs"][0]["data"]["params"]["params.yaml"]["data"]
        for experiment in baseline["experiments"] or []
    }


def test_an_experiment_is_run_compared_and_applied(small: Path) -> None:
    before = read_outputs(small)
    ran = stages_run(dvc(small, "exp", "run", "--name", "short", "-S", "train.epochs=1"))
    assert ran == ["train-torch", "train-keras", "plot-losses"]
    assert len(read_curve(small)) == 1

    run(small, "git", "restore", ".")
    assert len(read_curve(small)) == 2
    found = json.loads(dvc(small, "exp", "diff", "main", "short", "--json"))
    assert found["params"]["params.yaml"]["train.epochs"] == {"old": 2, "new": 1, "diff": -1}
    assert found["metrics"]["losses/pytorch.json"]["val_loss"]["diff"] != 0

    dvc(small, "exp", "apply", "short")
    assert len(read_curve(small)) == 1
    assert yaml.safe_load((small / "params.yaml").read_text())["train"]["epochs"] == 1
    assert stages_run(dvc(small, "repro")) == []
    assert read_outputs(small) != before


def test_a_queue_of_four_is_run_and_shown(small: Path) -> None:
    """Of a setting that only Keras has, to save time."""
    queued = dvc(small, "exp", "run", "--queue", "-S", "keras.steps_per_execution=1,2,4,8")
    assert queued.count("Queued experiment") == 4
    dvc(small, "exp", "run", "--run-all")

    shown = shown_experiments(small)
    assert {settings["keras"]["steps_per_execution"] for settings in shown.values()} == {1, 2, 4, 8}
    assert len(shown) == 4
    assert run(small, "git", "status", "--porcelain").stdout == ""

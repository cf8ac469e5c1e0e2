"""Experiments, and branches that both retrained."""

import json
from pathlib import Path

import yaml

from tests.conftest import commit, dvc, edit_params, read_outputs, run, stages_run


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
    assert found["metrics"]["losses/pytorch.json"]["pytorch.val_loss"]["diff"] != 0

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


def test_a_merge_of_two_branches_that_both_retrained(small: Path) -> None:
    run(small, "git", "switch", "--quiet", "--create", "faster")
    edit_params(small, "learning_rate: 0.001", "learning_rate: 0.01")
    dvc(small, "repro")
    commit(small, "Learn faster")
    run(small, "git", "switch", "--quiet", "main")
    edit_params(small, "batch_size: 128", "batch_size: 64")
    dvc(small, "repro")
    commit(small, "Take smaller batches")

    merged = run(small, "git", "merge", "faster", check=False)
    assert "CONFLICT" in merged.stdout
    conflicts = run(small, "git", "diff", "--name-only", "--diff-filter=U").stdout.split()
    assert {"dvc.lock", "losses/pytorch.json", "losses/comparison.png"} <= set(conflicts)
    if "params.yaml" in conflicts:  # the two settings stand next to each other
        run(small, "git", "checkout", "--ours", "params.yaml")
        edit_params(small, "learning_rate: 0.001", "learning_rate: 0.01")

    run(small, "git", "checkout", "--ours", "dvc.lock", "losses")
    assert stages_run(dvc(small, "repro")) == ["train-torch", "train-keras", "plot-losses"]
    commit(small, "Merge faster")
    assert stages_run(dvc(small, "repro")) == []
    assert "<<<<<<<" not in "".join(path.read_text() for path in [small / "dvc.lock", *small.glob("losses/*.json")])
    settings = yaml.safe_load((small / "params.yaml").read_text())["train"]
    assert (settings["batch_size"], settings["learning_rate"]) == (64, 0.01)

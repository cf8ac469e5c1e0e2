"""Branches that both retrained."""

from pathlib import Path

import pytest
import yaml

from tests.project import commit, dvc, edit_params, run, stages_run

pytestmark = pytest.mark.slow


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

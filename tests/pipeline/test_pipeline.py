"""The whole pipeline through DVC, as its users run it."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.project import (
    ROOT,
    STAGES,
    clone_project,
    commit,
    copy_project,
    dvc,
    edit_params,
    read_outputs,
    run,
    stages_run,
)

MODELS = ("pytorch", "keras", "biases", "global-mean")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose pipeline has run on the sample, for two epochs to save time, and was committed."""
    project = copy_project(tmp_path_factory.mktemp("project"))
    edit_params(project, "epochs: 5", "epochs: 2")
    # Whatever a developer's own run left in the lock is not the new clone that this stands for.
    assert set(stages_run(dvc(project, "repro"))) >= {"train-torch", "train-keras", "plot-losses"}
    commit(project, "Train for two epochs")
    return project


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project, to change."""
    return Path(shutil.copytree(finished, tmp_path / "project", symlinks=True))


def test_a_second_run_runs_no_stage(finished: Path) -> None:
    output = dvc(finished, "repro")

    assert stages_run(output) == []
    assert "up to date" in output


def test_the_same_inputs_give_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    again = clone_project(finished, tmp_path / "again")
    assert not (again / "data" / "ratings.parquet").exists()
    for committed in (again / "losses").iterdir():
        committed.unlink()

    assert stages_run(dvc(again, "repro")) == STAGES
    assert read_outputs(again) == read_outputs(finished)
    assert run(again, "git", "status", "--porcelain").stdout == ""


def test_the_committed_lock_holds_for_the_data_on_this_machine(finished: Path) -> None:
    """What NumPy and Arrow alone compute doesn't depend on the machine."""
    locks = [yaml.safe_load((folder / "dvc.lock").read_text())["stages"] for folder in (ROOT, finished)]

    for stage in ("prepare-ratings", "split"):
        committed, fresh = (lock[stage]["outs"] for lock in locks)
        assert committed == fresh


@pytest.mark.slow
@pytest.mark.parametrize("file", ["dvc.yaml", "ablation/dvc.yaml"])
def test_the_committed_results_belong_to_the_committed_code(tmp_path: Path, file: str) -> None:
    project = copy_project(tmp_path)

    assert stages_run(dvc(project, "repro", "--allow-missing", "--dry", file)) == []


@pytest.mark.parametrize(
    ("stage", "old", "new"),
    [
        ("train-torch", "device: auto ", "device: cpu "),
        ("train-keras", "steps_per_execution: 32", "steps_per_execution: 8"),
    ],
)
def test_a_framework_s_parameter_runs_its_stages_alone(project: Path, stage: str, old: str, new: str) -> None:
    edit_params(project, old, new)

    ran = stages_run(dvc(project, "repro"))
    assert stage in ran
    assert set(ran) <= {stage, "plot-losses"}


def test_branches_compare_by_their_metrics(project: Path) -> None:
    run(project, "git", "switch", "--quiet", "--create", "faster")
    edit_params(project, "learning_rate: 0.001", "learning_rate: 0.01")
    dvc(project, "repro")
    commit(project, "Learn faster")

    found = json.loads(dvc(project, "metrics", "diff", "--json", "main", "faster"))
    for framework in ("pytorch", "keras"):
        difference = found[f"losses/{framework}.json"]["val_loss"]
        assert difference["diff"] == pytest.approx(difference["new"] - difference["old"])
        assert difference["diff"] != 0
    assert "losses/biases.json" not in found
    shown = dvc(project, "metrics", "diff", "main")
    assert re.search(r"^losses/pytorch.json +val_loss ", shown, re.MULTILINE)
    assert max(map(len, shown.splitlines())) <= 80


def test_a_new_clone_answers_at_once_without_a_remote(finished: Path, tmp_path: Path) -> None:
    clone = clone_project(finished, tmp_path / "clone")

    shown = json.loads(dvc(clone, "metrics", "show", "--json"))[""]["data"]
    for framework in ("pytorch", "keras"):
        expected = json.loads((finished / "losses" / f"{framework}.json").read_text())
        del expected["curve"]
        assert shown[f"losses/{framework}.json"]["data"] == expected
    table = dvc(clone, "metrics", "show", *(f"losses/{name}.json" for name in MODELS)).splitlines()
    assert len(table) == 1 + len(MODELS)
    assert max(map(len, table)) <= 80
    assert dvc(clone, "metrics", "diff", "HEAD").strip() == ""
    dvc(clone, "plots", "show")
    assert (clone / "dvc_plots" / "index.html").exists()


def test_a_users_mistake_has_no_traceback(project: Path) -> None:
    edit_params(project, "batch_size: 128 ", "batch_size: -1 ")

    output = dvc(project, "repro", check=False)
    assert "params.yaml: train.batch_size is -1; it should be greater than or equal to 1" in output
    assert "Traceback" not in output

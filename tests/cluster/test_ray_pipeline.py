"""The whole pipeline on Ray, through DVC."""

import json
from pathlib import Path

import pytest

from stages.program.params import Params
from tests.project import DATA, STAGES, clone_project, commit, dvc, edit_params, forget_results, stages_run


def test_another_engine_runs_no_stage_again(small: Path) -> None:
    edit_params(small, "engine: local", "engine: ray")
    edit_params(small, "workers: 2", "workers: 4")
    assert stages_run(dvc(small, "repro")) == []


def test_a_new_clone_on_ray_has_the_same_tables_and_losses(small: Path, on_ray: Params, tmp_path: Path) -> None:
    edit_params(small, "engine: local", "engine: ray")
    commit(small, "Compute on Ray")
    clone = clone_project(small, tmp_path / "clone")
    forget_results(clone)

    assert stages_run(dvc(clone, "repro")) == STAGES

    for name in DATA:
        file = Path("data", f"{name}.parquet")
        assert (clone / file).read_bytes() == (small / file).read_bytes()
    for name in ("pytorch", "keras"):
        here, there = (json.loads((project / "losses" / f"{name}.json").read_text()) for project in (small, clone))
        for epoch, other in zip(here["curve"], there["curve"], strict=True):
            assert epoch == pytest.approx(other, abs=1e-5)
    assert stages_run(dvc(clone, "repro")) == []

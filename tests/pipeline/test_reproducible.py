"""What differs between machines and people changes no byte of the results."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.project import OUTPUTS, STAGES, read_outputs, stage_command

TABLE_STAGES = ["prepare-ratings", "split", "train-baselines"]

WAYS: dict[str, dict[str, str]] = {
    "hash seed": {"PYTHONHASHSEED": "1"},
    "another hash seed": {"PYTHONHASHSEED": "12345"},
    "plain locale": {"LANG": "C", "LC_ALL": "C"},
    "locale with a decimal comma": {"LANG": "de_DE.UTF-8", "LC_ALL": "de_DE.UTF-8"},
    "locale with another i": {"LANG": "tr_TR.UTF-8", "LC_ALL": "tr_TR.UTF-8"},
    "time zone": {"TZ": "Pacific/Kiritimati"},
    "threads": {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "ARROW_NUM_THREADS": "2"},
    "no variables": {"OMP_NUM_THREADS": ""},
}


def run_stages(
    project: Path,
    stages: list[str],
    variables: dict[str, str] | None = None,
    before: Callable[[], object] | None = None,
) -> dict[str, bytes]:
    """Run stages without DVC in a folder without outputs; the outputs."""
    for name in OUTPUTS:
        (project / name).unlink(missing_ok=True)
    environment = {name: value for name, value in {**os.environ, **(variables or {})}.items() if value}
    for stage in stages:
        subprocess.run(
            stage_command(project, stage),
            cwd=project,
            env=environment,
            preexec_fn=before,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    return read_outputs(project)


def expected_outputs(project: Path, names: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in read_outputs(project).items() if name in names}


@pytest.mark.parametrize("variables", WAYS.values(), ids=WAYS)
def test_the_environment_changes_no_table(small: Path, finished_small: Path, variables: dict[str, str]) -> None:
    found = run_stages(small, TABLE_STAGES, variables)

    assert len(found) == 8
    assert found == expected_outputs(finished_small, found)


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_the_umask_changes_no_table(small: Path, finished_small: Path, umask: int) -> None:
    found = run_stages(small, TABLE_STAGES, before=lambda: os.umask(umask))

    assert found == expected_outputs(finished_small, found)
    assert (small / "data" / "train.parquet").stat().st_mode & 0o777 == 0o666 & ~umask


def test_all_together_change_no_result(small: Path, finished_small: Path, tmp_path: Path) -> None:
    """In a folder of another name, with every stage and nearly everything else different at once."""
    elsewhere = tmp_path / "a folder's “other” name"
    shutil.move(small, elsewhere)
    together = {
        **WAYS["another hash seed"],
        **WAYS["locale with another i"],
        **WAYS["time zone"],
        **WAYS["threads"],
        "HOME": str(tmp_path),
        "COLUMNS": "20",
    }
    found = run_stages(elsewhere, STAGES, together, lambda: os.umask(0o077))

    assert set(found) == set(OUTPUTS)
    assert found == read_outputs(finished_small)

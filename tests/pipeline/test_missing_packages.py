"""A stage needs only the packages that it uses, and names the one that is missing."""

from pathlib import Path

import pytest

from tests.project import edit_params, failure, run_stages, stage_command

pytestmark = pytest.mark.slow

BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""

WITHOUT = {"ray": ["ray"], "torch": ["torch"], "tensorflow": ["tensorflow"], "keras": ["tensorflow", "keras"]}


@pytest.fixture
def block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Make Python processes behave as if packages weren't installed."""
    missing: str = request.param
    folder = tmp_path / "blocker"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCKER.format(blocked=WITHOUT[missing]))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return missing


@pytest.mark.parametrize(
    ("block", "stage"),
    [
        ("torch", "train-keras"),
        *((missing, stage) for missing in ("tensorflow", "keras") for stage in ("train-torch", "train-baselines")),
        *(("keras", stage) for stage in ("prepare-ratings", "split")),
        *(("torch", stage) for stage in ("prepare-ratings", "split", "train-baselines")),
    ],
    indirect=["block"],
)
def test_a_stage_runs_without_what_it_does_not_use(small: Path, block: str, stage: str) -> None:
    run_stages(small, stage)


@pytest.mark.parametrize(
    ("block", "stage"),
    [("torch", "train-torch"), ("tensorflow", "train-keras"), ("keras", "train-keras")],
    indirect=["block"],
)
def test_a_stage_names_what_is_missing(small: Path, block: str, stage: str) -> None:
    said = failure(small, *stage_command(small, stage))

    assert f"error: {WITHOUT[block][0]} isn't installed; run: pip install -r requirements.txt" in said


@pytest.mark.parametrize("block", ["ray"], indirect=True)
@pytest.mark.parametrize("stage", ["prepare-ratings", "train-torch", "train-keras"])
def test_a_stage_on_ray_names_what_to_install(small: Path, block: str, stage: str) -> None:
    edit_params(small, "engine: local", "engine: ray")

    said = failure(small, *stage_command(small, stage))

    assert said.endswith(
        f"error: params.yaml: engine is ray, and {block} isn't installed; run: pip install -r requirements-ray.txt\n"
    )

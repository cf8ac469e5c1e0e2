"""The project on machines as people have them: their Pythons, what is installed, both frameworks in one process."""

import os
import re
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo
from dvc.schema import COMPILED_MULTI_STAGE_SCHEMA
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.project import ROOT, commit, copy_project, edit_params, run

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKED = tomllib.loads((ROOT / "uv.lock").read_text())
PYTHONS = ["3.11", "3.12", "3.13"]
PUBLIC = re.compile(r"https://[a-z.]+\.org/")
"""No mirror's address, no port."""
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def pins(requirements: list[str]) -> set[tuple[str, str, str]]:
    """Names, extras and versions, as they compare whoever wrote them."""
    parsed = [Requirement(requirement) for requirement in requirements]
    return {(it.name.replace(".", "-").lower(), ",".join(it.extras), str(it.specifier)) for it in parsed}


def test_the_lock_file_is_of_these_requirements() -> None:
    (project,) = (package for package in LOCKED["package"] if package["name"] == PROJECT["name"])
    listed = project["metadata"]["requires-dist"]
    for extra, requirements in PROJECT["optional-dependencies"].items():
        locked = {
            (it["name"], ",".join(it.get("extras", [])), it["specifier"])
            for it in listed
            if it.get("marker") == f"extra == '{extra}'"
        }
        assert locked == pins(requirements)
    assert SpecifierSet(LOCKED["requires-python"].replace(" ", "")) == SpecifierSet(PROJECT["requires-python"])


def test_what_is_locked_comes_from_the_public_index_and_has_a_hash() -> None:
    packages = [package for package in LOCKED["package"] if package["name"] != PROJECT["name"]]
    (registry,) = {package["source"]["registry"] for package in packages}
    assert PUBLIC.match(registry)
    files = [file for package in packages for file in [*package.get("wheels", []), package.get("sdist")] if file]
    assert files
    for file in files:
        assert PUBLIC.match(file["url"]), file
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", file["hash"]), file


@pytest.mark.parametrize(
    ("file", "content"),
    [("requirements.txt", "."), ("requirements-dev.txt", ".[dev]"), ("requirements-ray.txt", ".[ray]")],
)
def test_requirements_stand_in_pyproject_alone(file: str, content: str) -> None:
    assert (ROOT / file).read_text().partition(" #")[0] == content


def test_every_requirement_is_pinned() -> None:
    for requirement in [*PROJECT["optional-dependencies"]["run"], *PROJECT["optional-dependencies"]["dev"]]:
        assert re.fullmatch(r"[\w.\-\[\]]+==[\w.]+", requirement)


def test_the_pythons_that_are_taken_are_those_that_are_tried_and_named() -> None:
    taken = SpecifierSet(PROJECT["requires-python"])
    assert [f"3.{minor}" for minor in range(8, 20) if f"3.{minor}" in taken] == PYTHONS
    ci = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert ci["jobs"]["check"]["strategy"]["matrix"]["python"] == PYTHONS
    assert "Python 3.11, 3.12 or 3.13" in (ROOT / "README.md").read_text()


def test_the_fresh_machine_finds_the_two_commands_in_the_readme() -> None:
    pattern = re.search(r"grep -E '([^']+)'", (ROOT / ".ci" / "fresh-machine").read_text())[1]  # type: ignore[index]
    found = [line for line in (ROOT / "README.md").read_text().splitlines() if re.match(pattern, line)]
    assert [line.rpartition(" && ")[2] for line in found] == ["dvc repro", "pytest"]


@pytest.fixture
def crashing_pair(tmp_path: Path) -> str:
    """A path of stand-ins for TensorFlow and triton, which crash the process in the order in which those would."""
    (tmp_path / "tensorflow.py").write_text("")
    (tmp_path / "triton.py").write_text("import os, sys\nif 'tensorflow' in sys.modules: os.abort()\n")
    return f"PYTHONPATH={tmp_path}{os.pathsep}{ROOT}"


DOOR = "from stages.engines.both import load_triton_first; load_triton_first(); "


@pytest.mark.parametrize(
    ("code", "ends"),
    [
        ("import tensorflow, triton", "crash"),
        (DOOR + "import tensorflow, triton", "well"),
        ("import tests.conftest, tensorflow, triton", "well"),
        ("import tensorflow; " + DOOR, "TensorFlow is loaded already"),
        ("import triton, tensorflow; " + DOOR, "well"),
        ("import sys; sys.modules['triton'] = None; " + DOOR, "well"),
    ],
)
def test_triton_is_loaded_before_tensorflow(code: str, ends: str, crashing_pair: str) -> None:
    done = run(ROOT, "env", crashing_pair, sys.executable, "-c", code, check=False)
    outcome = {0: "well", -6: "crash", 1: done.stdout}[done.returncode]
    assert ends in outcome


def test_dvc_yaml_is_valid_and_its_artifacts_are_what_stages_write() -> None:
    for file in [ROOT / "dvc.yaml", ROOT / "ablation" / "dvc.yaml"]:
        COMPILED_MULTI_STAGE_SCHEMA(yaml.safe_load(file.read_text()))
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    written = {out for stage in content["stages"].values() for out in stage.get("outs", [])}
    (artifacts,) = Repo(str(ROOT)).artifacts.read().values()
    assert sorted(artifact.path for artifact in artifacts.values()) == sorted(
        out for out in written if out.startswith("models/")
    )
    assert {artifact.type for artifact in artifacts.values()} == {"model"}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_that_runs_the_code_of_a_pull_request_may_not_write(workflow: Path) -> None:
    content = yaml.safe_load(workflow.read_text())
    rights = [content["permissions"], *(job.get("permissions", {}) for job in content["jobs"].values())]
    may_write = "write" in {right for some in rights for right in some.values()}
    assert not (may_write and "actions/checkout" in workflow.read_text())
    assert "pull_request_target" not in workflow.read_text()


@pytest.mark.slow
def test_the_comparison_shows_losses_parameters_and_pictures(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    edit_params(project, "epochs: 5", "epochs: 4")
    losses = project / "losses" / "keras.json"
    losses.write_text(losses.read_text().replace('"best_epoch": 4', '"best_epoch": 3'))
    (project / "losses" / "comparison.png").write_bytes(b"another")
    commit(project, "Train for less long")

    comment = run(project, "bash", ".ci/compare", "HEAD~1", "HEAD").stdout

    assert re.search(r"losses/keras\.json +\| best_epoch +\| 4 +\| 3 ", comment)
    assert re.search(r"params\.yaml +\| train\.epochs +\| 5 +\| 4 ", comment)
    before, after = re.findall(r"/raw/([0-9a-f]{40})/losses/comparison\.png", comment)
    assert before != after


def test_keras_fit_still_shuffles_as_the_documents_say() -> None:
    import keras
    import numpy as np

    def orders(seed: int) -> list[list[float]]:
        """The order of the rows in each of three epochs of a seeded `fit`."""
        seen: list[list[float]] = []

        def record(labels: Any, predictions: Any) -> Any:
            seen.append(np.asarray(labels).ravel().tolist())
            return keras.ops.mean(predictions)

        keras.utils.set_random_seed(seed)
        model = keras.Sequential([keras.layers.Dense(1)])
        model.compile(loss=record, run_eagerly=True)
        rows = np.arange(16.0)[:, np.newaxis]
        model.fit(rows, rows, batch_size=16, epochs=3, verbose=0)
        return seen

    first, other = orders(1), orders(2)

    told = (
        f"Keras {keras.__version__}: docs/why-the-curves-differ.md and ablation/shuffle.py say otherwise; correct them"
    )
    assert first[0] != sorted(first[0]), f"fit(shuffle=True) no longer shuffles. {told}"
    assert all(one == next_ for one, next_ in pairwise(first)), f"a seeded fit now draws a new order each epoch. {told}"
    assert first != other, f"fit(shuffle=True) now gives the same order for every seed. {told}"

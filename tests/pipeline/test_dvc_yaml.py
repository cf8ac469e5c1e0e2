"""dvc.yaml names all that a stage depends on: DVC sees no Python import by itself."""

from pathlib import Path

import pytest
import yaml

from tests.imports import imported_files, is_only_a_docstring
from tests.project import ROOT

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
ALL_STAGES = STAGES | yaml.safe_load((ROOT / "ablation" / "dvc.yaml").read_text())["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())


def leaf_keys(content: object, prefix: str = "") -> set[str]:
    if not isinstance(content, dict):
        return {prefix}
    return set().union(*(leaf_keys(value, f"{prefix}.{key}" if prefix else key) for key, value in content.items()))


@pytest.mark.parametrize("name", ALL_STAGES)
def test_a_stage_depends_on_the_code_it_imports_and_on_no_other(name: str) -> None:
    """Each by its file, or by the folder that it is in."""
    _, interpreter, flag, module, *_ = ALL_STAGES[name]["cmd"].split()
    assert [interpreter, flag] == ["python", "-m"]
    listed = [Path(path) for path in ALL_STAGES[name]["deps"] if path.endswith(".py") or (ROOT / path).is_dir()]
    imported = {Path(file) for file in imported_files(module) if not is_only_a_docstring(file)}

    def holds(dependency: Path, file: Path) -> bool:
        return file == dependency or dependency in file.parents

    missing = {str(file) for file in imported if not any(holds(dependency, file) for dependency in listed)}
    needless = {str(path) for path in listed if not any(holds(path, file) for file in imported)}
    assert (missing, needless) == (set(), set())


def test_a_change_to_the_pictures_trains_nothing_again() -> None:
    drawing = [
        name
        for name, stage in ALL_STAGES.items()
        if any(Path(path) in (Path("stages/pictures.py"), Path("stages")) for path in stage["deps"])
    ]

    assert drawing == ["plot-losses", "effects"]


@pytest.mark.parametrize("name", ALL_STAGES)
def test_a_stage_describes_itself_and_is_named_after_its_module(name: str) -> None:
    assert ALL_STAGES[name]["desc"]
    assert name not in STAGES or f"exec python -m stages.{name.replace('-', '_')} " in STAGES[name]["cmd"]


def test_every_parameter_belongs_to_a_stage_or_to_recommend() -> None:
    listed = {key for stage in STAGES.values() for key in stage.get("params", [])}
    elsewhere = ("prepare.", "recommend.", "engine", "ray.")
    others = {key for key in leaf_keys(PARAMS) if key.startswith(elsewhere)}
    assert listed == leaf_keys(PARAMS) - others | {"prepare"}  # as a whole: what params.yaml lacks has its default


def test_no_parameter_reaches_a_shell() -> None:
    assert not [name for name, stage in ALL_STAGES.items() if "$" in stage["cmd"]]

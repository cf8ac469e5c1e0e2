"""dvc.yaml names all that a stage depends on: DVC sees no Python import by itself."""

import ast
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
ALL_STAGES = STAGES | yaml.safe_load((ROOT / "ablation" / "dvc.yaml").read_text())["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())


def module_file(name: str) -> Path | None:
    """The file of a module of this project, relative to its root."""
    path = Path(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if (ROOT / candidate).exists():
            return candidate
    return None


def imported_files(module: str) -> set[str]:
    """The files of this project that importing `module` runs: packages, and imports inside functions, included."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = module_file(name) if name else None
        if file is None or str(file) in found:
            continue
        found.add(str(file))
        waiting.append(name.rpartition(".")[0])
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def leaf_keys(content: object, prefix: str = "") -> set[str]:
    if not isinstance(content, dict):
        return {prefix}
    return set().union(*(leaf_keys(value, f"{prefix}.{key}" if prefix else key) for key, value in content.items()))


@pytest.mark.parametrize("name", ALL_STAGES)
def test_a_stage_depends_on_the_modules_it_imports_and_on_no_others(name: str) -> None:
    interpreter, flag, module, *_ = ALL_STAGES[name]["cmd"].split()
    assert [interpreter, flag] == ["python", "-m"]
    listed = {dependency for dependency in ALL_STAGES[name]["deps"] if dependency.endswith(".py")}
    assert listed == imported_files(module)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_named_after_its_module(name: str) -> None:
    assert f"python -m stages.{name.replace('-', '_')} " in STAGES[name]["cmd"]


@pytest.mark.parametrize("name", ALL_STAGES)
def test_a_stage_describes_itself(name: str) -> None:
    assert ALL_STAGES[name]["desc"]


def test_every_parameter_belongs_to_a_stage() -> None:
    listed = {key for stage in STAGES.values() for key in stage.get("params", [])}
    prepare = {key for key in leaf_keys(PARAMS) if key.startswith("prepare.")}
    assert listed == leaf_keys(PARAMS) - prepare | {"prepare"}  # as a whole: what params.yaml lacks has its default


def test_no_parameter_reaches_a_shell() -> None:
    assert not [name for name, stage in ALL_STAGES.items() if "$" in stage["cmd"]]

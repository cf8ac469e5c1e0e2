"""What importing a module of this project runs."""

import ast
from pathlib import Path

from tests.project import ROOT


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


def is_only_a_docstring(file: str) -> bool:
    """Whether a module does nothing, as most packages' `__init__.py`."""
    return all(isinstance(node, ast.Expr) for node in ast.parse((ROOT / file).read_text()).body)

"""The benchmarks run and say what was measured on; how fast anything is, no test asks."""

import json
import subprocess
import sys
from typing import Any

import pytest

from benchmarks.measure import Spread, Table, ratio, take_turns
from tests.project import ROOT


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """What two groups at their smallest write and print."""
    output = tmp_path_factory.mktemp("benchmarks") / "result.json"
    groups = ["torch_epochs", "preparation"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--scale", "tiny", "--output", str(output), "--only", *groups],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(output.read_text()), done.stdout


def test_the_result_names_the_machine_the_versions_and_the_command(result: tuple[dict[str, Any], str]) -> None:
    content, _ = result
    assert content["machine"]["cpu"]
    assert content["machine"]["cores"] >= 1
    assert content["machine"]["memory_gib"] >= 1
    assert {"python", "torch", "tensorflow", "keras", "numpy", "pyarrow", "dvc"} <= set(content["versions"])
    assert content["date"].endswith("+00:00")
    assert content["command"].startswith("python -m benchmarks --scale tiny")


def test_the_printed_tables_are_those_of_the_result_and_fit_a_terminal(result: tuple[dict[str, Any], str]) -> None:
    content, printed = result
    assert list(content["tables"]) == ["torch_epochs", "preparation"]
    for table in [table for group in content["tables"].values() for table in group]:
        assert str(Table.of(table)) in printed
        assert Table.of(table).as_json() == table
    assert max(map(len, printed.partition("\n")[2].splitlines())) <= 80


def test_all_measurements_are_positive(result: tuple[dict[str, Any], str]) -> None:
    content, _ = result
    cells = [
        cell
        for group in content["tables"].values()
        for table in group
        for row in table["rows"]
        for cell in row.values()
    ]
    spreads = [cell for cell in cells if isinstance(cell, dict)]
    assert len(spreads) >= 10
    assert all(0 < spread["low"] <= spread["median"] <= spread["high"] for spread in spreads)


def test_contenders_take_turns_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []
    seconds = take_turns({"one": lambda: calls.append("one"), "two": lambda: calls.append("two")}, rounds=2)
    assert calls == ["one", "two"] * 3
    assert [len(of_one) for of_one in seconds.values()] == [2, 2]


def test_a_ratio_is_taken_round_by_round() -> None:
    assert ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == Spread(2.0, 1.0, 3.0)

"""The benchmarks run as their README says and keep what they measure; how fast anything is, no test asks."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.measure import Spread, Table, ratio, take_turns
from benchmarks.peers import Fit
from benchmarks.processes import ROOT
from benchmarks.scale import SCALES
from stages.ratings.table import Ratings, write_ratings


def run_benchmarks(output: Path, *options: str) -> tuple[int, str, dict[str, Any]]:
    """The status, what is printed, and the file that is written, with as little to measure as possible."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options, "--scale", "tiny", "--output", str(output)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=400,
    )
    return done.returncode, done.stdout, json.loads(output.read_text())


@pytest.mark.slow
def test_the_quick_command_of_the_readme_measures_every_group_peers_or_not(tmp_path: Path) -> None:
    readme = (ROOT / "benchmarks" / "README.md").read_text()
    command = re.search(r"^python -m benchmarks (--quick\b[^#\n]*)", readme, re.MULTILINE)
    assert command
    status, printed, result = run_benchmarks(tmp_path / "result.json", *shlex.split(command[1]))
    assert (status, result["failed"]) == (0, [])
    assert list(result["tables"]) == ["torch_epochs", "keras_epochs", "growth", "preparation", "peers"]

    assert result["machine"]["cpu"]
    assert result["machine"]["cores"] >= 1
    assert result["machine"]["memory_gib"] >= 1
    assert {"python", "torch", "tensorflow", "keras", "numpy", "pyarrow", "dvc"} <= set(result["versions"])
    assert result["date"].endswith("+00:00")
    assert result["command"].startswith("python -m benchmarks --quick")

    tables = [table for group in result["tables"].values() for table in group]
    assert all(table["title"] in printed for table in tables)
    assert max(map(len, printed.splitlines())) <= 80
    cells = [cell for table in tables for row in table["rows"] for cell in row.values()]
    spreads = [cell for cell in cells if isinstance(cell, dict)]
    assert len(spreads) >= 20
    assert all(0 < spread["low"] <= spread["median"] <= spread["high"] for spread in spreads)


@pytest.mark.slow
def test_a_group_that_fails_says_so_and_the_others_are_kept(tmp_path: Path) -> None:
    options = ["--only", "peers", "preparation", "--peers-python", str(tmp_path / "no-python")]
    status, printed, result = run_benchmarks(tmp_path / "result.json", *options)
    assert status == 1
    assert "peers failed: [Errno 2] No such file or directory" in printed
    assert result["failed"] == ["peers"]
    assert result["tables"]["preparation"][0]["rows"]


def test_a_peer_that_is_missing_or_breaks_is_named_and_the_others_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ratings = Ratings(np.array([0, 1], np.int32), np.array([0, 0], np.int32), np.array([1, 5], np.float32))
    for name in ("train", "validation", "test"):
        write_ratings(ratings, tmp_path / f"{name}.parquet")

    def mean(training: Ratings) -> Fit:
        return lambda: lambda rows: np.full(len(rows), training.mean)

    def missing(_: Ratings) -> Fit:
        raise ModuleNotFoundError("No module named 'cornac'")

    def breaks(_: Ratings) -> Fit:
        raise ValueError("numpy.dtype size changed")

    monkeypatch.setattr(peers, "PEERS", {"missing": missing, "mean": mean, "breaks": breaks})
    (table,) = peers.measure(SCALES["tiny"], tmp_path)
    assert [(row[0], *row[2:]) for row in table.rows] == [("mean", 4.0, 4.0)]
    assert "missing (No module named 'cornac'); breaks (numpy.dtype size changed)" in table.note


def test_a_table_without_rows_shows_its_note() -> None:
    assert str(Table("Peers", ["name", "seconds"], [], "None is installed.")).splitlines() == [
        "Peers",
        "name  seconds",
        "None is installed.",
    ]


def test_a_table_keeps_words_to_the_left_and_numbers_to_the_right() -> None:
    table = Table("Times", ["name", "s"], [["one", Spread(1.0, 0.5, 2.25)], ["eleven", Spread(30.0, 25.0, 1234.0)]])
    assert str(table).splitlines() == [
        "Times",
        "name                  s",
        "one     1.00 [0.50-2.2]",
        "eleven    30 [25-1,234]",
    ]


def test_contenders_take_turns_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []
    seconds = take_turns({"one": lambda: calls.append("one"), "two": lambda: calls.append("two")}, rounds=2)
    assert calls == ["one", "two"] * 3
    assert [len(of_one) for of_one in seconds.values()] == [2, 2]


def test_a_ratio_is_taken_round_by_round() -> None:
    assert ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == Spread(2.0, 1.0, 3.0)

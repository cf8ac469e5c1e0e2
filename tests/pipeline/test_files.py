"""Outputs appear whole or not at all."""

import os
from pathlib import Path

import pytest

from stages.program.errors import StageError
from stages.program.files import replacing, write_text


@pytest.mark.parametrize("name", [".", "/dev/null"])
def test_what_is_no_file_is_not_replaced(name: str, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="is a folder or a device"):
        write_text(tmp_path / name, "text")
    assert not (tmp_path / name).is_file()


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    output = tmp_path / "output.json"
    write_text(output, "before")

    def fail_half_way() -> None:
        with replacing(output) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert [path.name for path in tmp_path.iterdir()] == ["output.json"]
    assert output.read_text() == "before"


def test_a_killed_runs_leftovers_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".tmp-1-output.json").write_text("half")

    write_text(tmp_path / "output.json", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["output.json"]


def test_an_output_whose_name_ends_alike_is_not_disturbed(tmp_path: Path) -> None:
    with replacing(tmp_path / "long-output.json") as temporary:
        temporary.write_text("long")
        write_text(tmp_path / "output.json", "short")

    assert (tmp_path / "long-output.json").read_text() == "long"
    assert temporary.name.startswith(f".tmp-{os.getpid()}-")

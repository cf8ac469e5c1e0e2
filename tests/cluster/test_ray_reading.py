"""Tables on Ray are what they are here: the same rows, the same split, or the same message."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.engines.cluster import OnRay
from stages.engines.here import HERE, Engine
from stages.prepare_ratings import prepare
from stages.program.errors import StageError
from stages.program.params import Params
from stages.ratings.source import read_source
from stages.ratings.table import write_parts, write_ratings
from stages.split import assign_parts, read_pieces
from tests.project import ROOT
from tests.ratings.ratings_files import prepare_settings, rows
from tests.samples import simulate

HEADER = b"user_id,book_id,rating\n"


@pytest.fixture(scope="module")
def there(ray: Any, on_ray: Params) -> Engine:
    """The workers of a cluster."""
    return OnRay(ray, on_ray.ray.workers)


def write_files(folder: Path, *parts: bytes) -> Path:
    for number, part in enumerate(parts):
        (folder / f"part-{number}.csv").write_bytes(HEADER + part)
    return folder


def test_the_sample_in_parts(there: Engine, tmp_path: Path) -> None:
    header, *lines = (ROOT / "data" / "sample.csv").read_bytes().splitlines(keepends=True)
    for number in range(9):
        (tmp_path / f"{number}.csv").write_bytes(b"".join([header, *lines[number * 11_000 : (number + 1) * 11_000]]))
    settings = prepare_settings(tmp_path, on_duplicate="mean", min_ratings_per_user=3)

    one, other = (prepare(read_source(settings, engine), settings, engine) for engine in (HERE, there))

    assert one.stars.total() > 90_000
    assert [step.rows for step in one.steps] == sorted({step.rows for step in one.steps}, reverse=True)
    for name in ("user_ids", "book_ids", "steps", "stars", "left_out"):
        assert getattr(one, name) == getattr(other, name)
    write_parts(one.parts, tmp_path / "one")
    write_parts(map(there.get, other.parts), tmp_path / "other")
    assert len(other.parts) == 16
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_the_same_rows_are_drawn(
    params: Params, there: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.ratings.table.GROUP", 300)
    write_ratings(simulate(users=300, books=2000, rows=5000), tmp_path / "ratings.parquet")
    one, other = (read_pieces(tmp_path / "ratings.parquet", engine) for engine in (HERE, there))
    assert (len(one.pieces), len(other.pieces)) == (1, 16)

    (part, kept), (again, kept_again) = assign_parts(one, params.split), assign_parts(other, params.split, there)
    assert kept == kept_again > 0
    np.testing.assert_array_equal(part, again)


READ: dict[str, list[bytes]] = {
    "numbers": [b"1,2,3\n", b"5000000000,2,3\n4,4,4\n", b"0,0,5\n"],
    "names in the second file": [b"1,2,3\n", b"ann,2,3\n1,x,4\n", b"2,ann,5\n"],
    "names in the last file": [b" 7,2,3\n007,3,3\n", b"7,2,3\n", b"ann,2,3\n"],
    "as Excel writes them": [b'"=""0123""",2,3\n', b"0123,3,3\n", b'"=""0123""",4,1\n'],
    "negative numbers among names": [b"-1,2,3\n", b"1.5,2,3\n", b"x,2,3\n"],
    "a file without rows": [b"1,2,3\n", b"", b"2,3,4\n"],
}


@pytest.mark.parametrize("parts", READ.values(), ids=READ)
def test_reads(parts: list[bytes], there: Engine, tmp_path: Path) -> None:
    settings = prepare_settings(write_files(tmp_path, *parts))
    one, other = read_source(settings), read_source(settings, there)
    assert rows(one) == rows(replace(other, files=[*map(there.get, other.files)]))
    assert one.user_ids == other.user_ids
    assert one.left_out == other.left_out


REFUSED: dict[str, tuple[list[bytes], str]] = {
    "a fault in each of many files": ([b"1,2,3\n1,2,9\n"] * 7, "part-1.csv: column 'rating': 1 value off the scale"),
    "several kinds": ([b"1,2,3\n", b"1,,9\n", b"1,2\n,1,x\n"], "part-2.csv: 1 line with fewer than 3 fields (line 2)"),
    "negative among numbers": ([b"1,2,3\n", b"-1,2,3\n"], "part-1.csv: column 'user_id': 1 value negative"),
    "cut off": ([b"1,2,3\n", b"1,2,3\n1,2", b"1,2,3\n"], "part-1.csv: 1 line cut off at the end of the file (line 3)"),
    "duplicates": ([b"1,2,3\n", b"2,2,3\n1,2,4\n"], "(user 1, book 2)"),
}


@pytest.mark.parametrize(("parts", "where"), REFUSED.values(), ids=REFUSED)
def test_refuses(parts: list[bytes], where: str, there: Engine, tmp_path: Path) -> None:
    settings = prepare_settings(write_files(tmp_path, *parts), on_duplicate="error")
    assert_refuses_alike(settings, there, where)


def test_refuses_a_file_that_is_of_another_kind_or_has_other_columns(there: Engine, tmp_path: Path) -> None:
    write_files(tmp_path, b"1,2,9\n", b"1,2,3\n")
    (tmp_path / "part-2.csv").write_bytes(b"user,book_id,rating\n1,2,8\n")
    assert_refuses_alike(prepare_settings(tmp_path), there, "has no column 'user_id'")

    pq.write_table(pa.table({"user_id": [1], "book_id": [2], "rating": [3.0]}), tmp_path / "part-1.parquet")
    (tmp_path / "part-1.parquet").write_bytes((tmp_path / "part-1.parquet").read_bytes()[:-9])
    assert_refuses_alike(prepare_settings(tmp_path), there, "part-1.parquet is cut off or damaged")


def assert_refuses_alike(settings: Any, there: Engine, where: str) -> None:
    said = []
    for engine in (HERE, there):
        with pytest.raises(StageError) as caught:
            prepare(read_source(settings, engine), settings, engine)
        said.append(str(caught.value))
    assert where in said[0]
    assert said[0] == said[1]

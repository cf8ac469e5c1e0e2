"""prepare-ratings: duplicates, minimum counts and numbers against a plain oracle, and the stage as a process."""

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from stages.engines.here import HERE, Engine
from stages.prepare_ratings import Prepared, find_oddities, prepare
from stages.program.errors import StageError
from stages.program.params import Prepare
from stages.ratings.checks import MAX_GAPS, Source, number_codes
from stages.ratings.parts import order_pairs
from stages.ratings.table import SCHEMA, Ratings, concatenate, write_parts
from tests.project import ROOT
from tests.ratings.ratings_files import Row, prepare_settings
from tests.samples import quick

RULES = ("last", "first", "mean")


def make_settings(on_duplicate: str = "last", per_user: int = 1, per_book: int = 1) -> Prepare:
    counts = {"min_ratings_per_user": per_user, "min_ratings_per_book": per_book}
    return prepare_settings("ratings.csv", on_duplicate=on_duplicate, **counts)


@dataclass
class Kept:
    """What an engine keeps elsewhere."""

    value: Any


class InParts:
    """An engine that keeps a table in more parts than some tables here have users."""

    part_count = 3
    share = staticmethod(Kept)

    def starmap(
        self, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]], returns: int = 1
    ) -> Iterator[Any]:
        for each in arguments:
            value = function(*(argument.value if isinstance(argument, Kept) else argument for argument in each))
            assert returns == 1 or len(value) == returns
            yield Kept(value) if returns == 1 else [*map(Kept, value)]

    def get(self, kept: Any) -> Any:
        return kept.value


def make_source(rows: list[Row], file_rows: int = 100, engine: Engine = HERE) -> Source:
    """Rows of a file, or of several files with so many rows each and of one without any."""
    all_users, all_books = (np.unique(ids) for ids in list(zip(*rows, strict=True))[:2])
    files: list[list[Row]] = [rows[start : start + file_rows] for start in range(0, len(rows), file_rows)]
    parts, places_of_users, places_of_books = [], [], []
    for file in [*files, []] if len(files) > 1 else files:
        users, books, stars = zip(*file, strict=True) if file else ((), (), ())
        (user_places, user_numbers), (book_places, book_numbers) = (
            np.unique(np.searchsorted(ids, of_file), return_inverse=True)
            for ids, of_file in ((all_users, users), (all_books, books))
        )
        parts.append(Ratings(user_numbers.astype(np.int32), book_numbers.astype(np.int32), np.array(stars, np.float32)))
        places_of_users.append(user_places.astype(np.int32))
        places_of_books.append(book_places.astype(np.int32))
    kept = [*engine.starmap(lambda part: part, zip(parts, strict=True))]
    ids = pa.array(all_users), pa.array(all_books)
    return Source(kept, places_of_users, places_of_books, *ids, len(rows), {})


def named(prepared: Prepared, engine: Engine = HERE) -> list[Row]:
    """The prepared rows by their original ids."""
    users, books = prepared.user_ids.to_pylist(), prepared.book_ids.to_pylist()
    ratings = concatenate([*map(engine.get, prepared.parts)])
    return [(users[u], books[b], s) for u, b, s in zip(ratings.users, ratings.books, ratings.stars, strict=True)]


# --- The oracle: the same in plain Python, one row at a time ---


def settle(rows: list[Row], rule: str) -> dict[tuple[Any, Any], float]:
    stars_of: dict[tuple[Any, Any], list[float]] = {}
    for user, book, stars in rows:
        stars_of.setdefault((user, book), []).append(stars)
    return {
        pair: {"first": stars[0], "last": stars[-1], "mean": float(np.float32(sum(stars) / len(stars)))}[rule]
        for pair, stars in stars_of.items()
    }


def peel(table: dict[tuple[Any, Any], float], per_user: int, per_book: int, chance: random.Random) -> None:
    """Take away one row that must go after the other, in any order, until none must."""
    while True:
        users, books = Counter(user for user, _ in table), Counter(book for _, book in table)
        doomed = [pair for pair in table if users[pair[0]] < per_user or books[pair[1]] < per_book]
        if not doomed:
            return
        del table[chance.choice(doomed)]


small_ids = st.integers(0, 6) | st.just(2**62)
few_ids = st.sampled_from(["ann", "Bob", "c,d", "ü", "10", "9"])
stars = st.sampled_from([1.0, 2.5, 4.0, 5.0])
tables = st.lists(st.tuples(small_ids, small_ids, stars), min_size=1, max_size=40) | st.lists(
    st.tuples(small_ids, few_ids, stars), min_size=1, max_size=40
)


@quick
@given(
    rows=tables,
    rule=st.sampled_from(RULES),
    per_user=st.integers(1, 4),
    per_book=st.integers(1, 4),
    seed=st.integers(),
    engine=st.sampled_from([HERE, InParts()]),
    file_rows=st.integers(1, 50),
)
def test_prepares_as_the_oracle_does(
    rows: list[Row], rule: str, per_user: int, per_book: int, seed: int, engine: Engine, file_rows: int
) -> None:
    expected = settle(rows, rule)
    peel(expected, per_user, per_book, random.Random(seed))  # noqa: S311, no secret
    if not expected:
        with pytest.raises(StageError, match="no rating is left"):
            prepare(make_source(rows, file_rows, engine), make_settings(rule, per_user, per_book), engine)
        return

    prepared = prepare(make_source(rows, file_rows, engine), make_settings(rule, per_user, per_book), engine)

    assert named(prepared, engine) == sorted((*pair, stars) for pair, stars in expected.items())
    ratings = concatenate([*map(engine.get, prepared.parts)])
    for numbers, ids, least in (
        (ratings.users, prepared.user_ids, per_user),
        (ratings.books, prepared.book_ids, per_book),
    ):
        counts = np.bincount(numbers)
        assert len(counts) == len(ids)  # numbered from 0 without gaps
        assert counts.min() >= least
        assert ids.to_pylist() == sorted(ids.to_pylist())
    assert [step.rows for step in prepared.steps] == [len(rows), len(settle(rows, rule)), len(expected)]


@quick
@given(rows=tables, engine=st.sampled_from([HERE, InParts()]))
def test_duplicates_can_be_an_error(rows: list[Row], engine: Engine) -> None:
    counts = Counter(row[:2] for row in rows)
    repeats = len(rows) - len(counts)
    if not repeats:
        prepare(make_source(rows, engine=engine), make_settings("error"), engine)
        return
    with pytest.raises(StageError) as caught:
        prepare(make_source(rows, engine=engine), make_settings("error"), engine)
    assert str(caught.value).startswith(f"{repeats:,} rows rate a book that their user has rated before")
    user, book = min(pair for pair, count in counts.items() if count > 1)
    assert f"(user {user}, book {book}" in str(caught.value)


def test_a_table_of_nothing_but_duplicates_becomes_one_row() -> None:
    rows = [(7, 8, 1.0), (7, 8, 5.0), (7, 8, 2.0)]
    for rule, stars in (("last", 2.0), ("first", 1.0), ("mean", np.float32(8 / 3))):
        assert named(prepare(make_source(rows), make_settings(rule))) == [(7, 8, stars)]


def test_minimum_counts_hold_for_both_sides_at_once() -> None:
    # Each step of a staircase stands on the next: taking the first away brings all of it down.
    stairs = [(step, step + side, 3.0) for step in range(50) for side in (0, 1)]
    block = [(user, book, 4.0) for user in (100, 101) for book in (100, 101)]
    assert named(prepare(make_source(stairs + block), make_settings("last", 2, 2))) == block


def test_the_largest_minimum_leaves_nothing() -> None:
    with pytest.raises(
        StageError, match=r"prepare\.min_ratings_per_user 2147483647 and prepare\.min_ratings_per_book 1"
    ):
        prepare(make_source([(1, 2, 3.0)]), make_settings("last", 2**31 - 1, 1))


@quick
@given(ids=st.lists(st.integers(0, 9) | st.integers(0, 2**63 - 1), min_size=1))
@example([MAX_GAPS * 3 - 1, 2, 2])  # with a table of all
@example([MAX_GAPS * 3, 2, 2])  # without
def test_numbers_codes(ids: list[int]) -> None:
    numbers, distinct = number_codes(np.array(ids))
    assert numbers.dtype == np.int32
    assert sorted(distinct.tolist()) == sorted(set(ids))
    assert distinct[numbers].tolist() == ids


numbers = st.integers(0, 3) | st.integers(0, 2**31 - 1)


@quick
@given(rows=st.lists(st.tuples(numbers, numbers), min_size=1))
def test_orders_pairs_as_lexsort_does(rows: list[tuple[int, int]]) -> None:
    users, books = np.array(rows, np.int32).T
    np.testing.assert_array_equal(order_pairs(users, books), np.lexsort((books, users)))


ODD: dict[str, tuple[list[Row], list[str]]] = {
    "nothing": ([(1, 1, 1.0), (2, 2, 2.0)], []),
    "one user": ([(1, 1, 1.0), (1, 2, 2.0)], ["all ratings are one user's"]),
    "one book": ([(1, 1, 1.0), (2, 1, 2.0)], ["all ratings are of one book"]),
    "equal ratings": ([(1, 1, 3.0), (2, 2, 3.0)], ["all ratings are equal: there is nothing to learn"]),
    "names": (
        [("12o5", 1, 1.0), ("99", 2, 2.0)],
        ["1 of 2 user ids are no plain numbers ('12o5'): all are taken for names"],
    ),
    "leading zeros": (
        [(1, "0140449132", 1.0), (2, "99", 2.0)],
        ["1 of 2 book ids are no plain numbers ('0140449132'): all are taken for names"],
    ),
    "floats beside whole numbers": (
        [("7", 1, 1.0), ("7.0", 2, 2.0)],
        ["1 of 2 user ids are no plain numbers ('7.0'): all are taken for names, '7' and '7.0' for two"],
    ),
    "0 for not rated": (
        [(user, book, float(max(user - 4, 0) + (user > 4))) for user in range(9) for book in (1, 2)],
        [
            "56% of the ratings are 0, and few are next to it: if it means 'not rated', "
            "set prepare.not_rated: [0] and prepare.rating_scale"
        ],
    ),
}


@pytest.mark.parametrize(("rows", "warnings"), ODD.values(), ids=ODD)
def test_accepts_with_a_warning(rows: list[Row], warnings: list[str]) -> None:
    settings = make_settings().model_copy(update={"rating_scale": [0, 5]})
    assert find_oddities(prepare(make_source(rows), settings)) == warnings


@pytest.mark.parametrize(
    ("counts", "odd"),
    [
        ([54, 1, 3, 10, 17, 15], True),  # a dip: UCSD's interactions
        ([62, 0, 0, 5, 3, 2], True),  # a gap
        ([50, 0, 0, 25, 0, 25], True),
        ([60, 0, 0, 0, 0, 40], True),
        ([60, 40], False),  # likes
        ([40, 30, 20, 10], False),
        ([2, 6, 25, 36, 30], False),
        ([29, 5, 7, 15, 44], False),
    ],
)
def test_warns_of_a_lowest_rating_that_stands_apart(counts: list[int], odd: bool) -> None:
    stars = [float(star) for star, count in enumerate(counts) for _ in range(count)]
    settings = make_settings().model_copy(update={"rating_scale": [0, 5]})
    prepared = prepare(make_source([(row, row % 2, star) for row, star in enumerate(stars)]), settings)
    assert any("not rated" in oddity for oddity in find_oddities(prepared)) is odd


def test_parts_are_written_as_one_table(tmp_path: Path) -> None:
    users = np.repeat(np.arange(25_000, dtype=np.int32), 100)  # more rows than stand together in two groups
    table = Ratings(users, users[::-1].copy(), (1 + users % 5).astype(np.float32))

    bounds = [0, 10, 10, 1_000_000, 2_200_000, len(table)]
    write_parts((table[start:end] for start, end in pairwise(bounds)), tmp_path / "parts.parquet")
    columns = pa.table([table.users, table.books, table.stars], schema=SCHEMA)
    pq.write_table(columns, tmp_path / "whole.parquet", compression="zstd")

    assert (tmp_path / "parts.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


# --- The stage as a process ---

OUTPUTS = ("ratings.parquet", "users.parquet", "books.parquet")


def run_stage(folder: Path, ratings: str, locale: str = "C.UTF-8", **changes: Any) -> subprocess.CompletedProcess[str]:
    """Run the stage in a folder of its own, with the project's parameters but for some of `prepare`."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["prepare"] |= {"ratings": ratings, **changes}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    outputs = [argument for name in OUTPUTS for argument in (f"--{name.partition('.')[0]}", f"out/{name}")]
    command = [sys.executable, "-m", "stages.prepare_ratings", "--params", "params.yaml", *outputs]
    variables = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "", "LC_ALL": locale}
    if locale == "C":
        variables["PYTHONIOENCODING"] = "ascii"
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=60)


def test_the_process_writes_three_tables_and_says_what_went_in_and_out(tmp_path: Path) -> None:
    rows = "user_id,book_id,rating\nann,7,3\nbob,7,4\nann,9,5\nann,7,2\nann,8,0\n,7,4\nbob,9,0\n"
    (tmp_path / "ratings.csv").write_text(rows)
    done = run_stage(tmp_path, "ratings.csv", not_rated=[0], missing_ids="leave_out")
    assert done.returncode == 0, done.stderr
    assert [" ".join(line.split()) for line in done.stdout.splitlines()] == [
        "ratings.csv rows users books",
        "read 7 2 2",
        "left out: not rated 2",
        "left out: no user or book 1",
        "one rating per user and book 3 2 2",
        "enough ratings each 3 2 2",
        "left out 4 0 0",
        "ratings from 2 to 5, mean 3.6667",
        "warning: 2 of 2 user ids are no plain numbers ('ann', 'bob'): all are taken for names",
    ]
    ratings, users, books = (pq.read_table(tmp_path / "out" / name).to_pydict() for name in OUTPUTS)
    assert ratings == {"user": [0, 0, 1], "book": [0, 1, 0], "rating": [2, 5, 4]}
    assert users == {"user_id": ["ann", "bob"]}
    assert books == {"book_id": [7, 9]}


REFUSED = {
    "missing": (None, "ratings.csv: No such file or directory (see prepare.ratings in params.yaml)"),
    "wrong values": (b"user_id,book_id,rating\n1,2,9\n", "column 'rating': 1 value off the scale 1 to 5"),
    "names in colour": (
        b"user_id,book_id,rating\n\x1b[31mred,2,3\n",
        r"with control characters: '\x1b[31mred' (line 2)",
    ),
    "gzip cut off": (b"\x1f\x8b\x08\0\0\0\0\0\0\x03", "ratings.csv is cut off or damaged"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_the_process_refuses_in_a_few_words_and_writes_nothing(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "ratings.csv").write_bytes(content)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / OUTPUTS[0]).write_text("earlier")
    done = run_stage(tmp_path, "ratings.csv", locale="C")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ratings.csv")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) <= 5
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["earlier"]

"""Ratings files, right and wrong: what is read, what is refused, and in which words."""

import csv
import decimal
import gzip
import io
import math
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.program.errors import StageError
from stages.ratings import files
from tests.ratings.ratings_files import COMPRESSORS, Row, parquet, read, refusal, write
from tests.samples import quick

HEADER = b"user_id,book_id,rating\n"
GOOD = HEADER + b"".join(b"%d,%d,%d\n" % (row % 7, row % 11, row % 5 + 1) for row in range(40))

# --- CSV that is read ---

READ: dict[str, tuple[bytes, list[Row]]] = {
    "plain": (HEADER + b"1,2,3\n4,5,4.5\n", [(1, 2, 3), (4, 5, 4.5)]),
    "other columns, in another order, and no line end at the end": (
        "título,rating,x,book_id,user_id,x\nÑandú;,3,,2,0,".encode(), [(0, 2, 3)]
    ),
    "quoted fields": (b'"user_id","book_id","rating","title"\n"1","2","3","a, ""b"""\n', [(1, 2, 3)]),
    "quote inside a field": (b'user_id,book_id,rating,size\n1,2,3,5" disk\n', [(1, 2, 3)]),
    "Windows line ends": (b"user_id,book_id,rating\r\n1,2,3\r\n\r\n4,5,1\r\n", [(1, 2, 3), (4, 5, 1)]),
    "old Macintosh line ends": (b"user_id,book_id,rating\r1,2,3\r4,5,1\r", [(1, 2, 3), (4, 5, 1)]),
    "blank lines": (b"\n\n" + HEADER + b"\n1,2,3\n\n\n4,5,1\n\n", [(1, 2, 3), (4, 5, 1)]),
    "byte order mark": (b"\xef\xbb\xbf" + HEADER + b"1,2,3\n", [(1, 2, 3)]),
    "blanks around": (HEADER + b" 1 ,\t2, 3\n", [(1, 2, 3)]),
    "leading zeros": (HEADER + b"7,2,3\n007,2,3\n", [("7", 2, 3), ("007", 2, 3)]),
    "whole numbers with a point": (HEADER + b"7.0,2,3\n8.,2,3\n", [("7.0", 2, 3), ("8.", 2, 3)]),
    "hexadecimal": (HEADER + b"0x10,2,3\n1e7,2,3\n", [("0x10", 2, 3), ("1e7", 2, 3)]),
    "the largest number": (HEADER + b"9223372036854775807,1,3\n", [(2**63 - 1, 1, 3)]),
    "past 64 bits": (HEADER + b"1,1,3\n9223372036854775808,1,3\n", [("1", 1, 3), ("9223372036854775808", 1, 3)]),
    "text ids": (HEADER + b"anna,2,3\nbj\xc3\xb6rn,4,5\n", [("anna", 2, 3), ("björn", 4, 5)]),
    "text among numbers": (HEADER + b"1,2,3\n-1.5,2,3\nx,4,5\n", [("1", 2, 3), ("-1.5", 2, 3), ("x", 4, 5)]),
    "powers of ten": (HEADER + b"1,2,5e0\n", [(1, 2, 5)]),
    "line ends in quotes": (b'user_id,book_id,rating,t\n1,2,3,"a\n\nb"\n4,5,1,c\n', [(1, 2, 3), (4, 5, 1)]),
    "line ends in a header": (b'user_id,book_id,rating,"t\nu"\n1,2,3,a\n', [(1, 2, 3)]),
    "decimal commas in quotes": (HEADER + b'1,2,"4,5"\n', [(1, 2, 4.5)]),
    "a very long name": (HEADER + b"x" * 100_000 + b",2,3\n", [("x" * 100_000, 2, 3)]),
    "a quote in the last line": (b'user_id,book_id,rating,size\n1,2,3,7\n1,4,3,5" disk\n', [(1, 2, 3), (1, 4, 3)]),
    "gzip after gzip": (gzip.compress(HEADER + b"1,2,3\n") + gzip.compress(b"4,5,1\n"), [(1, 2, 3), (4, 5, 1)]),
    "a NUL byte in another column": (b"user_id,book_id,rating,t\n1,2,3,a\0b\n", [(1, 2, 3)]),
}  # fmt: skip


@pytest.mark.parametrize(("content", "rows"), READ.values(), ids=READ)
def test_reads(content: bytes, rows: list[Row], tmp_path: Path) -> None:
    assert read(write(tmp_path, content)) == rows


def test_reads_the_columns_that_the_parameters_name(tmp_path: Path) -> None:
    columns = {"user": "Käufer", "book": "a,b", "rating": '"★"'}
    path = write(tmp_path, 'x,"a,b",Käufer,"""★"""\n9,2,1,3\n'.encode())
    assert read(path, columns=columns) == [(1, 2, 3)]


# --- CSV that is refused ---

REFUSED: dict[str, tuple[bytes, list[str]]] = {
    "empty": (b"", ["is empty"]),
    "empty but compressed": (gzip.compress(b""), ["is empty"]),
    "header only": (HEADER, ["has columns and no ratings"]),
    "column missing": (
        b"user_id,rating\n1,2\n", ["no column 'book_id'", "prepare.columns.book", "known: 'user_id', 'rating'"]
    ),
    "column misnamed": (
        b"User ID,book_id,rating\n1,2,3\n",
        ["'user_id'", 'did you mean {"user": "User ID", "book": "book_id", "rating": "rating"}?'],
    ),
    "column doubled": (
        b"user_id,book_id,rating,rating\n1,2,3,4\n", ["several columns 'rating' (prepare.columns.rating)"]
    ),
    "header with blanks": (b"user_id, book_id, rating\n1, 2, 3\n", ['"book": " book_id", "rating": " rating"']),
    "not UTF-8, names": (HEADER + b"1,2,3\nbj\xf6rn,2,3\n", ["1 line not in UTF-8 (line 3)"]),
    "not UTF-8, another column": (b"user_id,book_id,rating,t\n1,2,3,\xf6\n", ["1 line not in UTF-8 (line 2)"]),
    "not UTF-8, the header": (b"user_id,book_id,rating,\xf6\n1,2,3,4\n", ["1 line not in UTF-8 (line 1)", "latin-1"]),
    "NUL byte in an id": (HEADER + b"1,2,3\nx\0,2,3\n", ["1 value with control characters: 'x\\x00' (line 3)"]),
    "NUL bytes alone": (b"\0" * 5000, ["NUL bytes"]),
    "a control character": (HEADER + b"ann\x07a,2,3\n", ["'user_id'", "1 value with control characters", "line 2"]),
    "an archive cut off": (b"PK\x03\x04\x14\0\0\0", ["cut off or damaged"]),
    "cut-off last line": (HEADER + b"1,2,3\n4,5", ["1 line cut off at the end of the file (line 3)"]),
    "last line cut off after a comma": (HEADER + b"1,2,3\n4,5,", ["'rating'", "1 value empty or NaN: '' (line 3)"]),
    "too few fields": (HEADER + b"1,2,3\n4,5\n6\n1,2,3\n", ["2 lines with fewer than 3 fields (lines 3, 4)"]),
    "too many fields": (HEADER + b"1,2,3\n1,2,4,5\n1,2,3\n", ["1 line with more than 3 fields (line 3)"]),
    "blanks in a line": (HEADER + b"1,2,3\n   \n1,2,3\n", ["fewer than 3 fields (line 3)"]),
    "id empty": (HEADER + b"1,2,3\n,2,3\n1,2,3\n", ["'user_id'", "1 value missing: '' (line 3)"]),
    "id missing": (
        HEADER + b"1,2,3\nNaN,2,3\n#N/A,2,3\n", ["'user_id'", "2 values missing: 'NaN', '#N/A' (lines 3, 4)"]
    ),
    "id negative": (HEADER + b"1,2,3\n1,-2,3\n", ["'book_id'", "1 value negative or fractional: '-2' (line 3)"]),
    "id fractional": (HEADER + b"1.5,2,3\n2,2,3\n", ["'user_id'", "1 value negative or fractional: '1.5' (line 2)"]),
    "id in powers of ten": (HEADER + b"1.2E+11,2,3\n", ["'user_id'", "1 value in powers of ten: '1.2E+11' (line 2)"]),
    "id in powers of ten among names": (
        HEADER + b"x,2,3\n9.78014E+12,2,3\n", ["in powers of ten: '9.78014E+12' (line 3)"]
    ),
    "id missing among names": (
        HEADER + b"x,2,3\nnan,2,3\n\\N,2,3\n", ["2 values missing: 'nan', '\\N' (lines 3, 4)"]
    ),
    "id fractional or negative beside a missing one, from Excel": (
        HEADER + b'1,"=""""",3\n2,-5,3\n3,"=""1.5""",4\n',
        ["1 value missing", "2 values negative or fractional: '-5', '1.5' (lines 3, 4)"],
    ),
    "id empty from Excel": (HEADER + b'"=""""",2,3\n', ["1 value missing: '=\"\"' (line 2)"]),
    "rating text": (HEADER + b"1,2,3\n1,3,good\n", ["'rating'", "1 value not a number: 'good' (line 3)"]),
    "rating empty": (HEADER + b"1,2,\n1,3,4\n", ["'rating'", "1 value empty or NaN: '' (line 2)"]),
    "rating NaN": (HEADER + b"1,2,nan\n1,3,NaN\n", ["'rating'", "2 values empty or NaN: 'nan', 'NaN' (lines 2, 3)"]),
    "rating infinite": (
        HEADER + b"1,2,inf\n1,3,-Infinity\n",
        ["'rating'", "2 values off the scale 1 to 5: 'inf', '-Infinity' (lines 2, 3)"],
    ),
    "rating off the scale": (
        HEADER + b"".join(b"1,%d,%d\n" % (book, book) for book in range(9)),
        ["'rating'", "4 values off the scale 1 to 5: '0', '6', '7', '8' (lines 2, 8, 9, …)"],
    ),
    "quote left open": (
        b'user_id,book_id,rating,t\n1,2,3,"a\n4,5,1,b\n', ["1 line with a quote that isn't closed", "line 2"]
    ),
    "two quotes left open, rows between them": (
        b'user_id,book_id,rating,t\n1,2,3,"a\n4,5,1,b\n6,7,2,"c"\n',
        ["1 line with text behind a closing quote", "line 2"],
    ),
    "a line of 10 MB": (HEADER + b"1,2,3\n1,2," + b"4" * 10_000_000 + b"\n1,2,3\n", ["'rating'", "'4444", "(line 3)"]),
    "a header of 10 MB": (b"x" * 10_000_000, ["no column 'user_id'", "known: 'xxxx"]),
    "no line end in 20 MB": (HEADER + b"x" * 20_000_000, ["line 2 is longer than"]),
    "a quote left open before many rows": (HEADER + b'1,2,"3\n' + b"1,2,3\n" * 30_000, ["isn't closed", "line 2"]),
    "a very long field in quotes": (
        HEADER + b'1,2,"' + b"x" * (csv.field_size_limit() + 1) + b'"\n1,2,"3\n\n"\n',
        ["more than 131,072 characters (line"],
    ),
    "a long number that is none": (HEADER + b"1" * 100_000 + b"x,2," + b"0" * 30_000 + b"x\n", ["not a number: '000"]),
}  # fmt: skip


@pytest.mark.parametrize(("content", "fragments"), REFUSED.values(), ids=REFUSED)
def test_refuses(content: bytes, fragments: list[str], tmp_path: Path) -> None:
    message = refusal(write(tmp_path, content))
    for fragment in fragments:
        assert fragment in message


def test_a_message_names_all_that_is_wrong(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, HEADER + b"1,,3\n-4,5,9\n1,2,3\n1.5,2,x\n"))
    assert [line.split(": ", 1)[1] for line in message.splitlines()] == [
        "column 'user_id': 2 values negative or fractional: '-4', '1.5' (lines 3, 5)",
        "column 'book_id': 1 value missing: '' (line 2); prepare.missing_ids: leave_out would leave such rows out",
        "column 'rating': 1 value off the scale 1 to 5: '9' (line 3); prepare.rating_scale sets it, "
        "prepare.not_rated takes a 0 that means 'not rated'",
        "column 'rating': 1 value not a number: 'x' (line 5); prepare.rating_words and prepare.not_rated take words",
    ]


@pytest.mark.parametrize("bad", [b",2,3,", b"-1,2,3,", b"1,2,9,", b"1,2"])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("chunk", [40, 1 << 22])
def test_line_numbers_are_the_editor_s(
    bad: bytes, line_end: bytes, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After blank lines and within quotes, whatever ends a line, however the file falls into chunks."""
    monkeypatch.setattr(files, "CHUNK", chunk)
    lines = [
        b"\xef\xbb\xbfuser_id,book_id,rating,text",
        b"",
        b'1,2,3,"one',
        b"",
        b'two ""2"", three"',
        bad,
        b"",
        bad,
        b"1,2,4,",
    ]
    assert "lines 6, 8" in refusal(write(tmp_path, line_end.join(lines)))


def test_thousands_of_wrong_rows_are_counted_and_the_first_few_named(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + b"1,2,3\n" * 20_000 + b"1,,3\n" * 12_345)
    assert "12,345 values missing: '' (lines 20,002, 20,003, 20,004, …)" in refusal(path)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    assert "No such file or directory (see prepare.ratings" in refusal(tmp_path / "no.csv")
    assert "Not a directory" in refusal(write(tmp_path, GOOD) / "no.csv")
    assert "too long" in refusal(tmp_path / ("x" * 300))


def test_refuses_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is a device or a pipe" in refusal(tmp_path / "pipe")
    assert "is a device or a pipe" in refusal(Path("/dev/zero"))


def test_refuses_a_file_that_it_may_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, GOOD)

    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", deny)  # root may read anything
    assert f"{path}: Permission denied" in refusal(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_refuses_a_folder_that_it_may_not_read(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    tmp_path.chmod(0o300)
    said = refusal(tmp_path)
    tmp_path.chmod(0o700)
    assert f"{tmp_path}: Permission denied (see prepare.ratings" in said


PARQUET = parquet(
    {
        "user_id": [0, 1] * 20,
        "book_id": [str(row % 11) for row in range(40)],
        "rating": [row % 5 + 1.0 for row in range(40)],
    }
)
WHOLE = {name: COMPRESSORS[name](GOOD) for name in ("gzip", "bz2", "zstd", "lz4")} | {"Parquet": PARQUET}


@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE)
def test_refuses_a_file_cut_off_anywhere(content: bytes, tmp_path: Path) -> None:
    for length in range(4, len(content)):
        message = refusal(write(tmp_path, content[:length]))
        assert "cut off or damaged" in message or "is empty" in message


# --- Parquet ---

IDS: dict[str, tuple[pa.Array, list[Any]]] = {
    **{str(kind): (pa.array([0, 1, 2], kind), [0, 1, 2]) for kind in (pa.int8(), pa.uint16(), pa.int32(), pa.uint64())},
    "past 32 bits": (pa.array([0, 1, 2**62]), [0, 1, 2**62]),
    "past 64 bits": (pa.array([0, 1, 2**64 - 1], pa.uint64()), ["0", "1", str(2**64 - 1)]),
    "floats": (pa.array([0.0, 1.0, 2e15]), [0, 1, 2 * 10**15]),
    "decimals": (pa.array([decimal.Decimal("7.00")] * 3), [7, 7, 7]),
    "text": (pa.array(["a,b", '"', "ü"]), ["a,b", '"', "ü"]),
    "large text": (pa.array(["a", "b", "c"], pa.large_string()), ["a", "b", "c"]),
    "text views": (pa.array(["a", "b", "c"], pa.string_view()), ["a", "b", "c"]),
    "bytes": (pa.array([b"a", b"b", b"c"]), ["a", "b", "c"]),
    "numbers as text": (pa.array(["7", " 8", "9"]), [7, 8, 9]),
    "dictionary of text": (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
    "dictionary of numbers": (pa.array([5, 6, 5]).dictionary_encode(), [5, 6, 5]),
}


@pytest.mark.parametrize(("ids", "users"), IDS.values(), ids=IDS)
def test_reads_ids_of_any_type_from_parquet(ids: pa.Array, users: list[Any], tmp_path: Path) -> None:
    columns = {"rating": [3, 4, 5], "extra": [[1], None, []], "user_id": ids, "book_id": [1, 2, 3]}
    assert read(write(tmp_path, parquet(columns))) == list(zip(users, [1, 2, 3], [3, 4, 5], strict=True))


STARS = [
    *(pa.array([3, 4, 5], kind) for kind in (pa.uint8(), pa.float16(), pa.float32())),
    pa.array([decimal.Decimal(star) for star in (3, 4, 5)]),
    pa.array(["3", "4.0", " 5e0"]),
    pa.array([3.0, 4.0, 5.0]).dictionary_encode(),
]


@pytest.mark.parametrize("stars", STARS, ids=lambda stars: str(stars.type))
def test_reads_ratings_of_any_type_from_parquet(stars: pa.Array, tmp_path: Path) -> None:
    path = write(tmp_path, parquet({"user_id": [1, 2, 3], "book_id": [1, 2, 3], "rating": stars}))
    assert [row[2] for row in read(path)] == [3, 4, 5]


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
def test_reads_parquet_of_any_compression_and_many_row_groups(codec: str, tmp_path: Path) -> None:
    path = tmp_path / "ratings"
    table = pa.table({"book_id": range(100), "rating": [3.5] * 100, "user_id": [str(row % 7) for row in range(100)]})
    pq.write_table(table, path, compression=codec, row_group_size=9)
    assert read(path) == [(row % 7, row, 3.5) for row in range(100)]


def test_a_column_s_name_in_parquet_is_no_path(tmp_path: Path) -> None:
    path = write(tmp_path, parquet({"a": [{"b": 9}], "a.b": [1], "book_id": [2], "rating": [3]}))
    assert read(path, columns={"user": "a.b", "book": "book_id", "rating": "rating"}) == [(1, 2, 3)]


NO_UTF_8 = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")])
PARQUET_REFUSED: dict[str, tuple[str, Any, str]] = {
    "no rows": ("user_id", pa.array([], pa.int64()), "no ratings"),
    "null id": ("user_id", [1, None], "column 'user_id': 1 value missing: '' (row 2)"),
    "nulls alone": ("user_id", pa.nulls(2), "2 values missing: '' (rows 1, 2)"),
    "NaN id": ("user_id", [1e15, math.nan], "1 value missing: 'nan' (row 2)"),
    "infinite id": ("user_id", [1, math.inf], "negative or fractional: 'inf' (row 2)"),
    "negative id": ("user_id", [1, -1], "negative or fractional: '-1' (row 2)"),
    "fractional id": ("user_id", [1, 2.5], "negative or fractional: '2.5' (row 2)"),
    "float id without all its digits": ("user_id", [1, 2.0**53], "in powers of ten: '9.007199e+15' (row 2)"),
    "short float ids": ("user_id", pa.array([3, 2**24], pa.float32()), "in powers of ten: '1.677722e+07' (row 2)"),
    "lists": ("user_id", [[1]], "column 'user_id' holds list<"),
    "structures": ("user_id", [{"a": 1}], "column 'user_id' holds struct<"),
    "bytes that are no text": ("user_id", [b"\xff"], "column 'user_id' holds binary, not numbers or text"),
    "text that is not UTF-8": ("user_id", NO_UTF_8, "cut off or damaged"),
    "control characters": ("user_id", ["a\nb"], "with control characters: 'a\\nb'"),
    "null rating": ("rating", pa.array([None], pa.float64()), "1 value empty or NaN: '' (row 1)"),
    "NaN rating": ("rating", [math.nan], "1 value empty or NaN: 'nan' (row 1)"),
    "infinite rating": ("rating", [math.inf], "1 value off the scale 1 to 5: 'inf' (row 1)"),
    "rating off the scale": ("rating", [6], "1 value off the scale 1 to 5: '6' (row 1)"),
    "rating past a float": ("rating", [2**63 - 1], "off the scale"),
    "truth values": ("rating", [True], "column 'rating': 1 value not a number: 'true' (row 1)"),
}


@pytest.mark.parametrize(("name", "values", "fragment"), PARQUET_REFUSED.values(), ids=PARQUET_REFUSED)
def test_refuses_parquet(name: str, values: Any, fragment: str, tmp_path: Path) -> None:
    others = {other: [3] * len(values) for other in {"user_id", "book_id", "rating"} - {name}}
    assert fragment in refusal(write(tmp_path, parquet(others | {name: values})))


def test_refuses_parquet_with_a_column_twice(tmp_path: Path) -> None:
    path = tmp_path / "ratings"
    pq.write_table(pa.table([[1], [1], [3], [3]], names=["user_id", "book_id", "rating", "rating"]), path)
    assert "several columns 'rating'" in refusal(path)


# --- Anything at all ---


def read_or_refuse(path: Path) -> list[Row] | None:
    """The rows, checked as the promise is, or None for a refusal; nothing else may happen."""
    try:
        rows = read(path)
    except StageError:
        return None
    assert rows
    for user, book, stars in rows:
        assert 1 <= stars <= 5
        for identity in (user, book):
            assert identity.strip() if isinstance(identity, str) else 0 <= identity < 2**63
    return rows


@quick
@given(content=st.binary(max_size=300))
def test_random_bytes_are_refused(content: bytes, tmp_path: Path) -> None:
    assert read_or_refuse(write(tmp_path, content)) is None


def rows_of(content: bytes) -> list[list[str]]:
    """What Python's own reader makes of a file."""
    text = io.StringIO(content.decode("utf-8-sig"), newline="")
    return [fields for fields in csv.reader(text) if fields][1:]


def same_id(field: str, identity: Any) -> bool:
    if isinstance(identity, str):
        return field == identity
    return bool((int(field, 16) if "x" in field.lower() else decimal.Decimal(field.strip())) == identity)


def assert_read_as_by_python_or_refused(path: Path) -> None:
    if rows := read_or_refuse(path):
        for (user, book, stars), fields in zip(rows, rows_of(path.read_bytes()), strict=True):
            assert same_id(fields[0], user)
            assert same_id(fields[1], book)
            assert stars == np.float32(fields[2])


@quick
@given(content=st.lists(st.sampled_from([*b'0123456789,,,\n\n\r""; \t.-+eEnaxX#\0\xff\xc3\xb6'])).map(bytes))
def test_random_lines_are_read_or_refused(content: bytes, tmp_path: Path) -> None:
    assert_read_as_by_python_or_refused(write(tmp_path, HEADER + content))


@pytest.mark.parametrize("chunk", [*(pytest.param(few, marks=pytest.mark.slow) for few in (7, 30)), 1 << 22])
def test_random_quotes_and_line_ends_are_read_as_python_reads_them(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a file falls into chunks, and whether pyarrow or Python reads each."""
    monkeypatch.setattr(files, "CHUNK", chunk)
    chance = random.Random(chunk)  # noqa: S311, no secret
    sound = ["1", '"2"', "x", '"a\nb"', '"\n\n"', '"\r\n"', '"c,""d"', '5"', ""]
    read = 0
    for attempt in range(400):
        fields = chance.choices(sound if attempt % 2 else [*sound, '"e', 'f"', '"g"h'], k=9)
        ends = chance.choices(["\n", "\n\n", "\r\n"], k=9)
        rows = [f"7,{field},{chance.randint(1, 5)},9{end}" for field, end in zip(fields, ends, strict=True)]
        path = write(tmp_path, b"user_id,text,rating,book_id\n" + "".join(rows).encode())
        if rows_read := read_or_refuse(path):
            read += 1
            assert rows_read == [(7, 9, float(row[2])) for row in rows_of(path.read_bytes())]
        assert rows_read or attempt % 2 == 0
    assert read > 100


@quick
@given(
    rows=st.lists(
        st.tuples(*[st.sampled_from(["1", "2", " 7", "x", '"1"', '"a,b"', "0x1F", "1.0", '5"', "\u00a07"])] * 2),
        min_size=1,
    ),
    line_end=st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
)
def test_unusual_fields_are_read_as_python_reads_them(
    rows: list[tuple[str, str]], line_end: str, tmp_path: Path
) -> None:
    content = line_end.join(["user_id,book_id,rating", *(f"{user},{book},{1 + len(user)}" for user, book in rows)])
    assert_read_as_by_python_or_refused(write(tmp_path, content.encode()))


def mutate(content: bytes, seed: int) -> bytes:
    """A file that something has happened to: bytes changed, put in or lost, a stretch repeated or cut."""
    chance = random.Random(seed)  # noqa: S311, no secret
    damaged = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5])):
        at, length = chance.randrange(len(damaged)), chance.choice([1, 1, 2, 8, 64])
        change = chance.randrange(5)
        if change == 0:
            damaged[at] ^= 1 << chance.randrange(8)
        elif change == 1:
            damaged[at : at + length] = chance.randbytes(length)
        elif change == 2:
            damaged[at:at] = chance.choice([b'"', b",", b"\n", b"\r", b"\0", b"\xff", b"-", b"9" * 20])
        elif change == 3:
            damaged[at:at] = damaged[at : at + length]
        else:
            del damaged[at : at + length]
        damaged = damaged or bytearray(b"\n")
    return bytes(damaged)


def test_damaged_csv_is_read_as_python_reads_it_or_refused(tmp_path: Path) -> None:
    for seed in range(500):
        assert_read_as_by_python_or_refused(write(tmp_path, HEADER + mutate(GOOD.removeprefix(HEADER), seed)))


JSON_LINES = [b'{"user_id": %d, "book_id": "%d", "rating": %d}\n' % (row % 7, row, row % 5 + 1) for row in range(40)]
SOUND = WHOLE | {
    "JSON lines": b"".join(JSON_LINES),
    "a JSON array": b"[" + b",".join(JSON_LINES) + b"]",
}


@pytest.mark.parametrize("content", SOUND.values(), ids=SOUND)
def test_damaged_files_are_read_or_refused(content: bytes, tmp_path: Path) -> None:
    for seed in range(300):
        read_or_refuse(write(tmp_path, content[:1] + mutate(content[1:], seed)))


names = st.text(st.characters(exclude_categories=["C"])).map(lambda name: f"~{name}")
ids = st.lists(st.integers(0, 2**63 - 1), min_size=1) | st.lists(names, min_size=1)


@quick
@given(
    columns=st.tuples(ids, ids, st.lists(st.floats(1, 5, width=32), min_size=1)),
    order=st.permutations(range(4)),
    quoted=st.booleans(),
)
def test_what_any_writer_of_csv_writes_is_read(
    columns: tuple[list[Any], ...], order: list[int], quoted: bool, tmp_path: Path
) -> None:
    rows = list(zip(*columns, strict=False))
    table = [("user_id", "book_id", "rating", "title"), *((*row, "a,b") for row in rows)]
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL, lineterminator="\n")
    writer.writerows([row[place] for place in order] for row in table)
    assert read(write(tmp_path, text.getvalue())) == rows

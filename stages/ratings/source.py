"""A ratings file from elsewhere: read and checked, or refused in one message.

A file of nothing but numbers, as nearly all are, is read straight into numbers. Only when that fails is it read again
as text, to accept ids that are names or to say which rows are wrong; and only when its structure is broken is it read
line by line, to say where.
"""

import codecs
import csv
import io
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.program.errors import StageError, shorten, suggest
from stages.program.params import Columns

LONGEST_LINE = csv.field_size_limit()
"""In characters. No ratings line is near it; a file without line ends is far beyond."""

BLOCK = 1 << 17
"""Bytes counted at a time: few enough for a processor's cache, which makes it three times as fast."""

EXAMPLES = 3
"""How many wrong rows a message names."""

MOST_PROBLEMS = 5
"""How many kinds of fault a message names, a line each."""

MISSING = {*pyarrow.csv.ConvertOptions().null_values, "None"}
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
WHOLE_NUMBER = re.compile(r"([+-]?)(\d+)(\.0*)?", re.ASCII)
HEXADECIMAL = re.compile(r"0x[0-9a-f]{1,16}", re.ASCII | re.IGNORECASE)
INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")

COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}
PARQUET = b"PAR1"

Where: TypeAlias = Callable[[NDArray[np.intp]], str]
"""Names the first few of some rows (ascending, from 0) as people find them: 'lines 3, 17, 201, …'."""


@dataclass(frozen=True)
class Texts:
    """A column of text: each different text once, and for each row which of them it holds."""

    distinct: list[str]
    index: NDArray[np.int32]
    """(n,)"""


Column: TypeAlias = NDArray[Any] | Texts
"""(n,): whole numbers for ids and float32 for ratings, where all of the column are; else text."""

Ids: TypeAlias = NDArray[np.integer[Any]] | Texts
"""(n,): numbers from 0 or, where any id of the column is a name, texts as they stand in the file."""


@dataclass(frozen=True)
class Source:
    """A checked ratings file: n rows in the file's order."""

    user_ids: Ids
    book_ids: Ids
    stars: NDArray[np.float32]
    """(n,), finite and on the scale."""
    where: Where


def read_source(path: Path, columns: Columns, rating_scale: list[float]) -> Source:
    """Read a CSV or Parquet file, plain or compressed, and check every row.

    Raises:
        StageError: what is wrong with the file: which column, how many rows, the first few line numbers.
    """
    try:
        magic = _first_bytes(path)
        if magic == PARQUET:
            table = _read_parquet(path, columns)
        else:
            compression = next((name for start, name in COMPRESSIONS.items() if magic.startswith(start)), None)
            table = _read_csv(TextFile(path, compression), columns)
    except OSError as error:
        raise StageError(f"{path}: {error.strerror}" if error.strerror else _damaged(path, error)) from error

    check = _Check(path, table.where)
    source = Source(
        user_ids=check.ids(columns.user, table.users),
        book_ids=check.ids(columns.book, table.books),
        stars=check.ratings(columns.rating, table.ratings, rating_scale),
        where=table.where,
    )
    check.raise_problems()
    return source


@dataclass(frozen=True)
class _Table:
    """The three columns as they were read, numbers or text, at least one row."""

    users: Column
    books: Column
    ratings: Column
    where: Where


def _first_bytes(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise StageError(f"{path} doesn't exist; prepare.ratings in params.yaml names it") from error
    if not stat.S_ISREG(mode):
        kind = "folder" if stat.S_ISDIR(mode) else "device or a pipe"
        raise StageError(f"{path} is a {kind}; prepare.ratings in params.yaml must name a CSV or Parquet file")
    with path.open("rb") as file:
        first = file.read(4)
    if not first:
        raise StageError(f"{path} is empty")
    return first


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} is cut off or damaged: {shorten(' '.join(str(error).split()), 200)}"


def _find_columns(path: Path, header: list[str], columns: Columns) -> None:
    for role in ("user", "book", "rating"):
        name = getattr(columns, role)
        count = header.count(name)
        if count > 1:
            raise StageError(f"{path} has {count} columns named {name!r}; prepare.columns.{role} must name one")
        if count == 0:
            raise StageError(
                f"{path} has no column {name!r} (prepare.columns.{role} in params.yaml); {suggest(name, header)}"
            )


def _count(unit: str, count: int) -> str:
    return f"{count:,} {unit}{'s' if count > 1 else ''}"


def _enumerate(unit: str, numbers: list[int]) -> str:
    named = ", ".join(f"{number:,}" for number in numbers[:EXAMPLES])
    return f"{unit}{'s' if len(numbers) > 1 else ''} {named}{', …' if len(numbers) > EXAMPLES else ''}"


# --- Parquet ---


def _read_parquet(path: Path, columns: Columns) -> _Table:
    names = [columns.user, columns.book, columns.rating]
    try:
        with pa.OSFile(str(path)) as stream:
            file = pq.ParquetFile(stream, page_checksum_verification=True)
            _find_columns(path, file.schema_arrow.names, columns)
            table = file.read(names)
        table.validate(full=True)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise StageError(_damaged(path, error)) from error
    if table.num_rows == 0:
        raise StageError(f"{path} has columns and no ratings")
    types = [pa.int64(), pa.int64(), pa.float32()]
    users, books, ratings = (_plain(path, name, table[name], target) for name, target in zip(names, types, strict=True))
    return _Table(users, books, ratings, lambda rows: _enumerate("row", (rows[: EXAMPLES + 1] + 1).tolist()))


def _plain(path: Path, name: str, column: pa.ChunkedArray, target: pa.DataType) -> Column:
    """Numbers of the target's type where all can be, else text."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    try:
        column = column.cast(kind if number else pa.string())
        if number and column.null_count == 0:
            try:
                numbers: NDArray[Any] = column.cast(target).to_numpy()
                return numbers
            except pa.ArrowInvalid:  # not whole, or past 64 bits: which rows, the text will show
                pass
        encoded = column.combine_chunks().dictionary_encode("encode")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise StageError(f"{path}: column {name!r} holds {shorten(str(kind))}, not numbers or text") from error
    return Texts([_as_text(value) for value in encoded.dictionary.to_pylist()], encoded.indices.to_numpy())


def _as_text(value: float | Decimal | str | None) -> str:
    """As a CSV file would have it; never in powers of ten where the number is whole."""
    if isinstance(value, Decimal) or (isinstance(value, float) and value.is_integer()):
        return f"{value:f}"
    return "" if value is None else str(value)


# --- CSV ---


@dataclass(frozen=True)
class TextFile:
    """A text file, plain or compressed."""

    path: Path
    compression: str | None

    def open(self) -> pa.NativeFile:
        """The decompressed bytes."""
        return pa.input_stream(str(self.path), compression=self.compression)

    def lines(self) -> Iterator[tuple[int, str]]:
        """Each line that isn't blank, with its number from 1, cut where it is far too long.

        Line ends come as Unix has them, bytes that aren't UTF-8 as surrogates.
        """
        with self.open() as stream:
            reader = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape")
            number = 1
            while line := reader.readline(LONGEST_LINE + 1):
                if line != "\n":
                    yield number, line
                while line and not line.endswith("\n"):
                    line = reader.readline(LONGEST_LINE + 1)
                number += 1

    def count_lines(self) -> tuple[int, bool]:
        """Count the lines that aren't blank, fast; and say whether all is text in UTF-8 with its quotes in pairs."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        lines, quotes, ended = 0, 0, True
        with self.open() as stream:
            while block := stream.read(BLOCK):
                try:
                    decoder.decode(block)
                except UnicodeDecodeError:
                    return 0, False
                if b"\0" in block:
                    return 0, False
                quotes += block.count(b'"')
                characters = np.frombuffer(block, np.uint8)
                ends = (characters == ord("\n")) | (characters == ord("\r"))
                lines += int(np.count_nonzero(ends[:-1] > ends[1:])) + int(ended and not ends[0])
                ended = ends[-1]
        whole_characters = not decoder.getstate()[0]
        return lines, whole_characters and quotes % 2 == 0

    def line_numbers(self, rows: NDArray[np.intp]) -> list[int]:
        """The line numbers of data rows counted from 0 (ascending): blank lines are no rows, the header isn't one."""
        wanted = iter((rows + 1).tolist())
        found: list[int] = []
        target = next(wanted, None)
        for position, (number, _) in enumerate(self.lines()):
            if target is None:
                break
            if position == target:
                found.append(number)
                target = next(wanted, None)
        return found

    def where(self, rows: NDArray[np.intp]) -> str:
        """Name the first few of some rows by their lines."""
        return _enumerate("line", self.line_numbers(rows[: EXAMPLES + 1]))


def _read_csv(text: TextFile, columns: Columns) -> _Table:
    header = _read_header(text)
    _find_columns(text.path, header, columns)
    lines, sound = text.count_lines()
    if lines == 1:
        raise StageError(f"{text.path} has a header and no ratings")
    table = _parse_csv(text, [columns.user, columns.book, columns.rating])
    if table is None or table.num_rows + 1 != lines:  # a quote left open can take rows for its text
        raise StageError(_find_broken_lines(text, len(header)) or f"{text.path} isn't readable as CSV")
    if not sound and (faults := _find_broken_lines(text, len(header))):
        raise StageError(faults)
    users, books, ratings = (
        _texts(column) if pa.types.is_dictionary(column.type) else column.to_numpy() for column in table.columns
    )
    return _Table(users, books, ratings, text.where)


def _read_header(text: TextFile) -> list[str]:
    _, line = next(text.lines(), (0, ""))
    if not line:
        raise StageError(f"{text.path} is empty")
    if fault := _text_fault(line):
        raise StageError(f"{text.path} is neither CSV in UTF-8 nor Parquet: its first line is {fault}")
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if separator in line and "," not in line:
            raise StageError(f"{text.path} has {name} between its columns; write it with commas")
    return next(csv.reader([line]))


def _parse_csv(text: TextFile, names: list[str]) -> pa.Table | None:
    """The named columns as the smallest numbers that hold them, else as text; None where a line isn't a row."""
    text_type = pa.dictionary(pa.int32(), pa.string())
    for id_type, rating_type in ((pa.uint32(), pa.float32()), (pa.int64(), pa.float32()), (text_type, text_type)):
        types = dict(zip(names, [id_type, id_type, rating_type], strict=True))
        options = pyarrow.csv.ConvertOptions(column_types=types, include_columns=names)
        try:
            with text.open() as stream:
                table = pyarrow.csv.read_csv(stream, convert_options=options)
        except (pa.ArrowInvalid, pa.ArrowKeyError):
            continue
        if not any(column.null_count for column in table.columns):
            return table
    return None


def _texts(column: pa.ChunkedArray) -> Texts:
    encoded = column.combine_chunks()
    return Texts(encoded.dictionary.to_pylist(), encoded.indices.to_numpy())


def _find_broken_lines(text: TextFile, width: int) -> str:
    """Say which lines aren't a CSV row of `width` fields, each kind of fault on a line of its own."""
    faults: dict[str, list[int]] = {}
    for number, line in text.lines():
        if fault := _text_fault(line) or _row_fault(line, width):
            faults.setdefault(fault, []).append(number)
    return "\n".join(
        f"{text.path}: {_count('line', len(numbers))} {fault}: {_enumerate('line', numbers[: EXAMPLES + 1])}"
        for fault, numbers in faults.items()
    )


def _text_fault(line: str) -> str | None:
    if len(line) > LONGEST_LINE:
        return f"longer than {LONGEST_LINE:,} characters"
    if any("\udc80" <= character <= "\udcff" for character in line):
        return "not in UTF-8"
    return "with NUL bytes" if "\0" in line else None


def _row_fault(line: str, width: int) -> str | None:
    fields, *more = csv.reader([line, "\n"])
    if not more:  # the quoted text took the next line in
        return "with a quote that isn't closed on the same line"
    if len(fields) < width:
        return f"with fewer than {width} fields" if line.endswith("\n") else "cut off at the end of the file"
    return f"with more than {width} fields" if len(fields) > width else None


# --- Values ---


class _Check:
    """Checks columns and collects what is wrong, so that one message can say all of it."""

    def __init__(self, path: Path, where: Where) -> None:
        self.path = path
        self.where = where
        self.problems: list[str] = []

    def ids(self, name: str, column: Column) -> Ids:
        """Whole numbers from 0, or names."""
        if not isinstance(column, Texts):
            self._refuse(name, "negative", column, column < 0)
            return column
        numbers = [_parse_id(text) for text in column.distinct]
        if None in numbers:
            self._refuse_texts(name, column, [_name_fault(text) for text in column.distinct])
            return column
        faults = [number if isinstance(number, str) else None for number in numbers]
        self._refuse_texts(name, column, faults)
        return column if any(faults) else np.array(numbers, np.int64)[column.index]

    def ratings(self, name: str, column: Column, scale: list[float]) -> NDArray[np.float32]:
        """Finite numbers on the scale."""
        lowest, highest = np.array(scale, np.float32)
        if isinstance(column, Texts):
            numbers = [_parse_rating(text) for text in column.distinct]
            self._refuse_texts(name, column, ["not a number" if number is None else None for number in numbers])
            stars = np.array([lowest if number is None else number for number in numbers], np.float32)[column.index]
        else:
            stars = column
        infinite = np.isinf(stars)
        self._refuse(name, "empty or NaN", column, np.isnan(stars))
        self._refuse(name, "infinite", column, infinite)
        off = ((stars < lowest) | (stars > highest)) & ~infinite
        self._refuse(name, f"off the scale {lowest:g} to {highest:g} (prepare.rating_scale)", column, off)
        return stars

    def _refuse_texts(self, name: str, column: Texts, faults: list[str | None]) -> None:
        for fault in sorted({fault for fault in faults if fault}):
            self._refuse(name, fault, column, np.array([found == fault for found in faults])[column.index])

    def _refuse(self, name: str, fault: str, column: Column, wrong: NDArray[np.bool_]) -> None:
        rows = np.flatnonzero(wrong)
        if len(rows):
            values = ", ".join(shorten(_show(column, row)) for row in rows[:EXAMPLES])
            count = _count("value", len(rows))
            self.problems.append(f"{self.path}: column {name!r}: {count} {fault}: {values} ({self.where(rows)})")

    def raise_problems(self) -> None:
        if self.problems:
            raise StageError("\n".join(self.problems[:MOST_PROBLEMS]))


def _show(column: Column, row: int) -> str:
    return repr(column.distinct[column.index[row]]) if isinstance(column, Texts) else str(column[row])


def _parse_id(text: str) -> int | str | None:
    """A number, or what is wrong with it, or None for a name."""
    text = text.strip()
    if text in MISSING:
        return "empty"
    if HEXADECIMAL.fullmatch(text):  # as pyarrow reads it
        sign, digits = "", str(int(text, 16))
    elif whole := WHOLE_NUMBER.fullmatch(text):
        sign, digits = whole[1], whole[2].lstrip("0") or "0"
    else:
        return "not a whole number" if NUMBER.fullmatch(text) or INFINITE.fullmatch(text) else None
    if sign == "-" and digits != "0":
        return "negative"
    return "past 64 bits" if len(digits) > 19 or int(digits) >= 2**63 else int(digits)


def _name_fault(text: str) -> str | None:
    if not text.strip():
        return "empty"
    return "with control characters" if CONTROL_CHARACTER.search(text) else None


def _parse_rating(text: str) -> float | None:
    text = text.strip()
    if text in MISSING:
        return np.nan
    return float(text) if NUMBER.fullmatch(text) or INFINITE.fullmatch(text) else None

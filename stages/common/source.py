"""A ratings file from elsewhere: read and checked, or refused in one message.

A file of nothing but numbers, as nearly all are, is read straight into numbers. Only when that fails is it read again
as text, to accept ids that are names or to say which rows are wrong; and only when its structure is broken is it read
a third time, line by line, to say where.
"""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.common.params import Columns, suggest
from stages.common.program import StageError

LONGEST_LINE = 1 << 20
"""In bytes. No ratings line is near it; a file without line ends is far beyond."""

EXAMPLES = 3
"""How many wrong rows a message names."""

MISSING = r"(?i)^\s*(nan|null|none|na|n/a)?\s*$"
WHOLE_NUMBER = r"^\s*\+?[0-9]+\s*$"
NEGATIVE_NUMBER = r"^\s*-[0-9]+\s*$"
ANY_NUMBER = r"(?i)^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?\s*$"
CONTROL_CHARACTER = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"

COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}
PARQUET = b"PAR1"


@dataclass(frozen=True)
class Source:
    """A checked ratings file: n rows in the file's order."""

    user_ids: pa.ChunkedArray
    """(n,), int64 or, where ids are names, string."""
    book_ids: pa.ChunkedArray
    """(n,), likewise."""
    stars: NDArray[np.float64]
    """(n,), finite and on the scale."""
    where: Callable[[NDArray[np.intp]], str]
    """Names the first few of the given rows as people find them: 'lines 3, 17, 201, …'."""


def read_source(path: Path, columns: Columns, rating_scale: list[float]) -> Source:
    """Read a CSV or Parquet file, plain or compressed, and check every row.

    Raises:
        StageError: what is wrong with the file: which column, how many rows, the first few line numbers.
    """
    magic = _first_bytes(path)
    if magic.startswith(PARQUET):
        table = _read_parquet(path, columns)

        def where(rows: NDArray[np.intp]) -> str:
            return _enumerate("row", (rows[: EXAMPLES + 1] + 1).tolist())
    else:
        compression = next((name for start, name in COMPRESSIONS.items() if magic.startswith(start)), None)
        text = TextFile(path, compression)
        table = _read_csv(text, columns)

        def where(rows: NDArray[np.intp]) -> str:
            return _enumerate("line", text.line_numbers(rows[: EXAMPLES + 1]))

    if table.num_rows == 0:
        raise StageError(f"{path} has a header and no ratings")
    check = _Check(path, where)
    source = Source(
        user_ids=check.ids(columns.user, table["user"]),
        book_ids=check.ids(columns.book, table["book"]),
        stars=check.ratings(columns.rating, table["rating"], rating_scale),
        where=where,
    )
    check.raise_problems()
    return source


def _first_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise StageError(f"{path} is a folder; prepare.ratings must name a CSV or Parquet file")
    try:
        with path.open("rb") as file:
            first = file.read(4)
    except FileNotFoundError as error:
        raise StageError(f"{path} doesn't exist; prepare.ratings in params.yaml names it") from error
    if not first:
        raise StageError(f"{path} is empty")
    return first


def _enumerate(unit: str, numbers: list[int]) -> str:
    named = ", ".join(f"{number:,}" for number in numbers[:EXAMPLES])
    return f"{unit}{'s' if len(numbers) > 1 else ''} {named}{', …' if len(numbers) > EXAMPLES else ''}"


# --- Parquet ---


def _read_parquet(path: Path, columns: Columns) -> pa.Table:
    try:
        file = pq.ParquetFile(path)
        _find_columns(path, file.schema_arrow.names, columns)
        table = file.read([columns.user, columns.book, columns.rating])
    except (pa.ArrowInvalid, OSError) as error:
        raise StageError(f"{path} is a Parquet file that is cut off or damaged: {error}") from error
    table = table.select([columns.user, columns.book, columns.rating]).rename_columns(["user", "book", "rating"])
    return pa.table({name: _plain(path, name, table[name]) for name in table.column_names})


def _plain(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers as they are where they can be checked as such, everything else as text."""
    kind = column.type
    target = pa.float64() if name == "rating" else pa.int64()
    exact = pa.types.is_integer(kind) or (name == "rating" and pa.types.is_floating(kind))
    if exact and column.null_count == 0:
        try:
            return column.cast(target)
        except pa.ArrowInvalid:  # an unsigned id past 63 bits
            pass
    try:
        return column.cast(pa.string()).fill_null("")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise StageError(f"{path}: column {name!r} holds {kind}, not numbers or text") from error


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
        """Each line that isn't blank, with its number from 1; bytes that aren't UTF-8 come as surrogates."""
        with self.open() as stream:
            reader = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape")
            for number, line in enumerate(reader, start=1):
                if line.strip():
                    yield number, line

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


def _read_csv(text: TextFile, columns: Columns) -> pa.Table:
    header = _read_header(text)
    names = [columns.user, columns.book, columns.rating]
    _find_columns(text.path, header, columns)
    numbers = dict(zip(names, [pa.int64(), pa.int64(), pa.float64()], strict=True))
    try:
        table = _parse_csv(text, numbers)
        if not any(column.null_count for column in table.columns):
            return table.rename_columns(["user", "book", "rating"])
    except pa.ArrowInvalid:
        pass
    except OSError as error:
        raise _cut_off(text, error) from error
    try:
        table = _parse_csv(text, dict.fromkeys(names, pa.string()))
    except pa.ArrowInvalid as error:
        raise StageError(
            _find_broken_lines(text, len(header)) or f"{text.path} isn't readable as CSV: {error}"
        ) from error
    return table.rename_columns(["user", "book", "rating"])


def _parse_csv(text: TextFile, types: dict[str, pa.DataType]) -> pa.Table:
    with text.open() as stream:
        return pyarrow.csv.read_csv(
            stream,
            read_options=pyarrow.csv.ReadOptions(block_size=LONGEST_LINE),
            convert_options=pyarrow.csv.ConvertOptions(column_types=types, include_columns=list(types)),
        )


def _read_header(text: TextFile) -> list[str]:
    try:
        line = next((line for _, line in text.lines()), "")
    except OSError as error:
        raise _cut_off(text, error) from error
    if not line:
        raise StageError(f"{text.path} is empty")
    if len(line) > LONGEST_LINE or not _is_text(line):
        raise StageError(f"{text.path} is neither a CSV file in UTF-8 nor Parquet (looked at its first line)")
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if separator in line and "," not in line:
            raise StageError(f"{text.path} has {name} between its columns; write it with commas")
    return next(csv.reader([line.rstrip("\r\n")]), [])


def _is_text(line: str) -> bool:
    return all(character.isprintable() or character in "\t\r\n" for character in line)


def _cut_off(text: TextFile, error: OSError) -> StageError:
    what = f"a {text.compression} file that is cut off or damaged" if text.compression else "not readable"
    return StageError(f"{text.path} is {what}: {error}")


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


def _find_broken_lines(text: TextFile, width: int) -> str | None:
    """Say which lines aren't a CSV row of `width` fields, each kind of fault on a line of its own."""
    faults: dict[str, list[int]] = {}
    for number, line in text.lines():
        if fault := _fault(line, width):
            faults.setdefault(fault, []).append(number)
    return "\n".join(
        f"{text.path}: {len(numbers):,} {'lines' if len(numbers) > 1 else 'line'} {fault}: "
        + _enumerate("line", numbers[: EXAMPLES + 1])
        for fault, numbers in faults.items()
    )


def _fault(line: str, width: int) -> str | None:
    if len(line) > LONGEST_LINE:
        return f"longer than {LONGEST_LINE:,} characters"
    if any("\udc80" <= character <= "\udcff" for character in line):
        return "not in UTF-8"
    if "\0" in line:
        return "with NUL bytes"
    if line.count('"') % 2:
        return "with a quote left open"
    fields = len(next(csv.reader([line])))
    if fields < width:
        return f"with fewer than {width} fields" if line.endswith(("\n", "\r")) else "cut off at the end of the file"
    return f"with more than {width} fields" if fields > width else None


# --- Values ---


class _Check:
    """Checks columns and collects what is wrong, so that one message can say all of it."""

    def __init__(self, path: Path, where: Callable[[NDArray[np.intp]], str]) -> None:
        self.path = path
        self.where = where
        self.problems: list[str] = []

    def ids(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """Whole numbers from 0 as int64, or names as strings."""
        if pa.types.is_integer(column.type):
            self._refuse(name, "negative", column, pc.less(column, 0))
            return column
        missing = _matches(column, MISSING)
        self._refuse(name, "with control characters", column, _matches(column, CONTROL_CHARACTER))
        names = pc.invert(pc.or_(missing, _matches(column, ANY_NUMBER)))
        if pc.any(names).as_py():
            self._refuse(name, "empty", column, _matches(column, r"^\s*$"))
            return column
        whole = _matches(column, WHOLE_NUMBER)
        negative = _matches(column, NEGATIVE_NUMBER)
        self._refuse(name, "empty", column, missing)
        self._refuse(name, "negative", column, negative)
        self._refuse(name, "not a whole number", column, pc.invert(pc.or_(pc.or_(whole, negative), missing)))
        digits = pc.utf8_ltrim(pc.utf8_trim_whitespace(column), "+0")
        too_long = pc.greater(pc.utf8_length(digits), 19)
        past = pc.and_(pc.equal(pc.utf8_length(digits), 19), pc.greater(digits, str(2**63 - 1)))
        self._refuse(name, "past 64 bits", column, pc.and_(whole, pc.or_(too_long, past)))
        return column if self.problems else pc.utf8_trim_whitespace(column).cast(pa.int64())

    def ratings(self, name: str, column: pa.ChunkedArray, scale: list[float]) -> NDArray[np.float64]:
        """Finite numbers on the scale, as float64."""
        if not pa.types.is_floating(column.type):
            missing = _matches(column, MISSING)
            number = _matches(column, ANY_NUMBER)
            infinite = _matches(column, r"(?i)^\s*[+-]?inf(inity)?\s*$")
            self._refuse(name, "empty or NaN", column, missing)
            self._refuse(name, "infinite", column, infinite)
            self._refuse(name, "not a number", column, pc.invert(pc.or_(pc.or_(missing, infinite), number)))
            column = pc.if_else(number, pc.utf8_trim_whitespace(column), str(scale[0])).cast(pa.float64())
        stars: NDArray[np.float64] = column.to_numpy()
        self._refuse(name, "empty or NaN", column, np.isnan(stars))
        lowest, highest = scale
        off = (stars < lowest) | (stars > highest)
        self._refuse(name, f"off the scale {lowest:g} to {highest:g} (prepare.rating_scale)", column, off)
        return stars

    def _refuse(
        self, name: str, fault: str, column: pa.ChunkedArray, wrong: pa.ChunkedArray | NDArray[np.bool_]
    ) -> None:
        rows = np.flatnonzero(wrong)
        if len(rows):
            values = ", ".join(_shorten(column[int(row)].as_py()) for row in rows[:EXAMPLES])
            count = f"{len(rows):,} {'values' if len(rows) > 1 else 'value'}"
            self.problems.append(f"{self.path}: column {name!r}: {count} {fault}: {values} ({self.where(rows)})")

    def raise_problems(self) -> None:
        if self.problems:
            raise StageError("\n".join(self.problems))


def _matches(column: pa.ChunkedArray, pattern: str) -> pa.ChunkedArray:
    return pc.match_substring_regex(column, pattern)


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:36]} …'"

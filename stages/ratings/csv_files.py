"""Ratings as CSV and its relatives: lines of fields between which stands a comma, or something else.

Where each line is a row, as nearly everywhere, pyarrow reads it. Where line breaks stand within quotes, or a quote is
left open, Python's own reader takes row by row: slower, but it knows the strict grammar and each row's line.
"""

import collections
import contextlib
import csv
import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from stages.program.errors import StageError
from stages.program.params import Prepare
from stages.ratings.checks import Block, Numbers
from stages.ratings.files import Chunk, read_chunks

HEAD = 1 << 16  # bytes by which the separator and the columns are found
SAMPLE = 20  # rows, likewise
SEPARATORS = (",", "\t", ";", "|", "::", " ")
DOUBLE_COLON = "\x1f"  # stands for `::`, which is longer than the one character that readers of CSV take


class CsvFile:
    """A text file of separated fields."""

    def __init__(self, path: Path, settings: Prepare) -> None:
        self._chunks = read_chunks(path, settings.encoding)
        self._first = next(self._chunks)
        head = self._first.data[:HEAD].decode("utf-8", "replace")
        self.separator = _find_separator(head, settings)
        self._delimiter = self.separator.replace("::", DOUBLE_COLON)
        row = next(_read_head(head, self.separator), None)
        if row is None:
            raise StageError(f"{path}: its first line is no row: it is very long, or has a quote that isn't closed")
        self._width, self._header = len(row), settings.header
        self.names = row if settings.header else [str(number + 1) for number in range(len(row))]

    def blocks(self, places: list[int]) -> Iterator[Block]:
        """The columns at some places, from 0."""
        for chunk in itertools.chain([self._first], self._chunks):
            yield self._read_fast(chunk, places) or self._read_carefully(chunk, places)

    def _data(self, chunk: Chunk) -> bytes:
        return chunk.data.replace(b"::", DOUBLE_COLON.encode()) if self.separator == "::" else chunk.data

    def _read_fast(self, chunk: Chunk, places: list[int]) -> Block | None:
        """None where lines and rows differ."""
        data, wrong = self._data(chunk), {}

        def skip(row: pyarrow.csv.InvalidRow) -> str:
            wrong[row.number - 1] = self._width_fault(row.actual_columns)
            return "skip"

        wanted = [str(place) for place in places]
        types = dict.fromkeys(wanted, pa.string())
        names = [str(place) for place in range(self._width)]
        try:
            table = pyarrow.csv.read_csv(
                pa.BufferReader(data),
                pyarrow.csv.ReadOptions(block_size=len(data) + 1, column_names=names, use_threads=False),
                pyarrow.csv.ParseOptions(delimiter=self._delimiter, invalid_row_handler=skip),
                pyarrow.csv.ConvertOptions(column_types=types, include_columns=wanted, strings_can_be_null=False),
            )
        except pa.ArrowInvalid:
            return None
        count = len(table) + len(wrong)
        if not chunk.has_lines(count) or (b'"' in data and _ends_in_quotes(data)):
            return None
        if count - 1 in wrong and not data.endswith((b"\n", b"\r")):
            wrong[count - 1] = "cut off at the end of the file"
        header = int(self._header and chunk.first == 1)
        lines = chunk.lines() if wrong else np.array([])
        broken = chunk.undecodable | {int(lines[row]): fault for row, fault in wrong.items()}
        columns = [column.combine_chunks() for column in table.slice(header).columns]
        return self._block(columns, lambda: np.delete(chunk.lines(), list(wrong))[header:], broken)

    def _read_carefully(self, chunk: Chunk, places: list[int]) -> Block:
        """Row by row; into the next chunk, where a row goes on there."""
        broken = {**chunk.undecodable}
        rows: dict[int, list[str]] = {}
        lines = collections.deque(self._data(chunk).splitlines(keepends=True))

        def feed() -> Iterator[str]:
            while True:
                while lines:
                    yield lines.popleft().decode()
                more = next(self._chunks, None)
                if more is None:
                    return
                broken.update(more.undecodable)
                lines.extend(self._data(more).splitlines(keepends=True))

        reader = csv.reader(feed(), delimiter=self._delimiter, strict=True)
        while lines:
            number = chunk.first + reader.line_num
            try:
                row = next(reader)
            except csv.Error as error:
                one_line = chunk.first + reader.line_num == number + 1
                long = one_line and "limit" in str(error)
                broken[number] = "with a very long field" if long else "with a quote that isn't closed"
                continue
            if len(row) == self._width:
                rows[number] = row
            elif row:
                broken[number] = self._width_fault(len(row))
        if self._header and chunk.first == 1:
            rows.pop(next(iter(rows), 0), None)
        columns = [pa.array([row[place] for row in rows.values()], pa.string()) for place in places]
        return self._block(columns, lambda: np.array(list(rows), np.int64), broken)

    def _block(self, columns: list[pa.Array], lines: Callable[[], Numbers], broken: dict[int, str]) -> Block:
        return Block(columns, lines, broken, decimal_commas=self.separator != ",")

    def _width_fault(self, fields: int) -> str:
        return f"with {'fewer' if fields < self._width else 'more'} than {self._width} fields"


def _ends_in_quotes(data: bytes) -> bool:
    """Whether the last line has a quote without its pair."""
    return bool(data[data.rstrip(b"\r\n").rfind(b"\n") + 1 :].count(b'"') % 2)


def _read_head(head: str, separator: str) -> Iterator[list[str]]:
    """The rows at a file's beginning, as far as they can be read, without blank ones."""
    text = io.StringIO(head.replace("::", DOUBLE_COLON) if separator == "::" else head, newline="")
    with contextlib.suppress(csv.Error):
        yield from filter(None, csv.reader(text, delimiter=separator.replace("::", DOUBLE_COLON)))


def _find_separator(head: str, settings: Prepare) -> str:
    """The one that is set; else one with which the named columns are there, or which gives the most columns."""
    if settings.separator != "auto":
        return settings.separator.replace(r"\t", "\t")
    names = {name for _, name in settings.columns if isinstance(name, str)}
    widths = {}
    for separator in SEPARATORS:
        rows = list(itertools.islice(_read_head(head, separator), SAMPLE))
        if rows and names and names <= set(rows[0]):
            return separator
        widths[separator] = min(map(len, rows), default=0)
    blanks = widths.pop(" ")
    likely = max(widths, key=widths.__getitem__)
    return " " if widths[likely] == 1 < blanks else likely

"""Ratings as CSV and its relatives: lines of fields between which stands a comma, or something else.

Where each line is a row, as nearly everywhere, pyarrow reads it. From where line breaks stand within quotes, or a quote
is left open, Python's own reader takes row by row: slower, but it knows the strict grammar and each row's line.
"""

import contextlib
import csv
import io
import itertools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.csv

from stages.program.params import Prepare
from stages.program.process import StageError
from stages.ratings.checks import Block
from stages.ratings.files import Chunk, RatingsFile, read_chunks

ROWS = 1 << 16
"""What Python's reader reads at a time."""
SAMPLE = 20
"""Rows by which a separator is found."""
LONGEST_FIELD = csv.field_size_limit()
"""In characters."""

SEPARATORS = {
    ",": "commas",
    "\t": "tabs",
    ";": "semicolons",
    "|": "vertical bars",
    "::": "double colons",
    " ": "blanks",
}
DOUBLE_COLON = "\x1f"
"""Stands for `::`, which is longer than the one character that readers of CSV take."""


class CsvFile:
    """A text file of separated fields."""

    def __init__(self, file: RatingsFile, settings: Prepare) -> None:
        self._file = file
        self._settings = settings
        head = file.head.decode(settings.encoding, "replace").removeprefix("\ufeff")
        self._separator = _find_separator(head, settings)
        first_row = next(_read_head(head, self._separator), None)
        if not first_row:
            raise StageError(f"{file.path}: its first line is no row: it is very long, or a quote in it isn't closed")
        self._width = len(first_row)
        self.first_row = first_row
        self.names = first_row if settings.header else [str(number + 1) for number in range(len(first_row))]
        self.separated = f"{SEPARATORS[self._separator]} between them"

    def blocks(self, places: list[int]) -> Iterator[Block]:
        """The rows' columns at some places, from 0."""
        chunks = read_chunks(self._file, self._settings.encoding)
        for chunk in chunks:
            block = self._read_fast(chunk, places)
            if block is None:
                yield from self._read_carefully(itertools.chain([chunk], chunks), chunk.first, places)
                return
            yield block

    def _data(self, chunk: Chunk) -> bytes:
        return chunk.data.replace(b"::", DOUBLE_COLON.encode()) if self._separator == "::" else chunk.data

    def _read_fast(self, chunk: Chunk, places: list[int]) -> Block | None:
        """None where lines and rows differ."""
        data, wrong = self._data(chunk), {}

        def skip(row: pyarrow.csv.InvalidRow) -> str:
            wrong[row.number - 1] = self._width_fault(row.actual_columns)
            return "skip"

        names = [str(place) for place in range(self._width)]
        wanted = [str(place) for place in places]
        types = dict.fromkeys(wanted, pa.string())
        try:
            table = pyarrow.csv.read_csv(
                pa.BufferReader(data),
                pyarrow.csv.ReadOptions(block_size=len(data) + 1, column_names=names, use_threads=False),
                pyarrow.csv.ParseOptions(delimiter=_character(self._separator), invalid_row_handler=skip),
                pyarrow.csv.ConvertOptions(column_types=types, include_columns=wanted, strings_can_be_null=False),
            )
        except pa.ArrowInvalid:
            return None
        count = chunk.count_lines()
        last_line = data[data.rstrip(b"\r\n").rfind(b"\n") + 1 :]
        if len(table) + len(wrong) != count or last_line.count(b'"') % 2:
            return None
        if count - 1 in wrong and not data.endswith((b"\n", b"\r")):
            wrong[count - 1] = "cut off at the end of the file"
        header = int(self._settings.header and chunk.first == 1)
        lines = chunk.lines() if wrong else None
        broken = chunk.undecodable | ({} if lines is None else {int(lines[row]): fault for row, fault in wrong.items()})
        return Block(
            [column.combine_chunks() for column in table.slice(header).columns],
            lambda: np.delete(chunk.lines(), list(wrong))[header:],
            broken,
            decimal_commas=self._separator != ",",
        )

    def _read_carefully(self, chunks: Iterator[Chunk], first: int, places: list[int]) -> Iterator[Block]:
        broken: dict[int, str] = {}

        def read_lines() -> Iterator[str]:
            for chunk in chunks:
                broken.update(chunk.undecodable)
                yield from (line.decode() for line in self._data(chunk).splitlines(keepends=True))

        def read_rows() -> Iterator[tuple[int, list[str]]]:
            reader = csv.reader(read_lines(), delimiter=_character(self._separator), strict=True)
            while True:
                number = first + reader.line_num
                try:
                    row = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    long = f"with a field longer than {LONGEST_FIELD:,} characters"
                    broken[number] = long if "limit" in str(error) else "with a quote that isn't closed"
                    continue
                if len(row) == self._width:
                    yield number, row
                elif row:
                    broken[number] = self._width_fault(len(row))

        rows = read_rows()
        if self._settings.header and first == 1:
            next(rows, None)
        while chunk := list(itertools.islice(rows, ROWS)):
            lines = np.array([number for number, _ in chunk])
            columns = [pa.array([row[place] for _, row in chunk], pa.string()) for place in places]
            yield Block(columns, lambda lines=lines: lines, {**broken}, decimal_commas=self._separator != ",")
            broken.clear()
        yield Block([pa.array([], pa.string()) for _ in places], lambda: np.array([], np.int64), broken)

    def _width_fault(self, fields: int) -> str:
        return f"with {'fewer' if fields < self._width else 'more'} than {self._width} fields"


def _character(separator: str) -> str:
    return DOUBLE_COLON if separator == "::" else separator


def _read_head(head: str, separator: str) -> Iterator[list[str]]:
    """The rows at a file's beginning, as far as they can be read, without blank ones."""
    text = io.StringIO(head.replace("::", DOUBLE_COLON) if separator == "::" else head, newline="")
    with contextlib.suppress(csv.Error):
        yield from filter(None, csv.reader(text, delimiter=_character(separator)))


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

"""Ratings as CSV and its relatives: lines of fields between which stands a comma, or something else.

A file of one row a line, as nearly all are, is read by pyarrow. Where line breaks stand within quotes, or a quote is left
open, Python's own reader goes through it row by row: slower, but it knows the strict grammar and each row's line.
"""

import array
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
from stages.ratings.checks import EXAMPLES, Block, enumerate_rows
from stages.ratings.files import DOUBLE_COLON, RatingsFile, Utf8, number_lines

BYTES = 1 << 22
"""What pyarrow reads at a time; a line of CSV is shorter."""

ROWS = 1 << 16
"""What Python's reader reads at a time."""

SAMPLE = 20
"""Rows by which a separator is found."""

CUT_OFF = "cut off at the end of the file"
OPEN_QUOTE = "with a quote that isn't closed"
LONGEST_FIELD = csv.field_size_limit()
LONGEST_LINE = 1 << 24
"""In characters. No ratings line is near it; a file without line ends is far beyond."""
TOO_LONG = f"with a field longer than {LONGEST_FIELD:,} characters"

SEPARATORS = {
    ",": "commas",
    "\t": "tabs",
    ";": "semicolons",
    "|": "vertical bars",
    "::": "double colons",
    " ": "blanks",
}


class LineBreaksError(Exception):
    """Rows and lines differ: only a reader that goes through the file row by row can read it, or say what is wrong."""


class CsvFile:
    """A file of separated fields. Its rows are counted from 0, the header among them."""

    unit = "line"

    def __init__(self, file: RatingsFile, settings: Prepare, encoding: str, careful: bool) -> None:
        self._file = file
        self._encoding = encoding
        self._careful = careful
        self._header = settings.header
        self.path = file.path
        head = file.head.decode(encoding, "replace").removeprefix("\ufeff")
        self._separator = _find_separator(head, settings)
        self.decimal_commas = self._separator != ","
        self.first_row = next(_head_rows(head, self._separator), [])
        if not self.first_row:
            raise StageError(f"{file.path}: its first line is longer than {LONGEST_FIELD:,} characters")
        self.names = self.first_row if settings.header else [str(n + 1) for n in range(len(self.first_row))]
        self.separated = f"{SEPARATORS[self._separator]} between them"
        self.broken: list[tuple[int, str]] = []
        """The rows that don't have as many fields as the first one, or a quote left open: where, and what it is."""
        self._lines = array.array("q")
        """Where the careful reader found each row."""

    def blocks(self, user: int | None, book: int, rating: int) -> Iterator[Block]:
        """The rows, by the columns' positions from 0.

        Raises:
            LineBreaksError: the file must be read carefully.
        """
        read = self._read_carefully if self._careful else self._read_fast
        places = [place for place in (user, book, rating) if place is not None]
        for first, (*users, books, ratings) in read(places):
            yield Block(first, users[0] if users else None, books, ratings)

    def _text(self) -> Utf8:
        return Utf8(self._file, self._encoding, self._separator == "::")

    def _read_fast(self, places: list[int]) -> Iterator[tuple[int, list[pa.Array]]]:
        width = len(self.first_row)

        def skip(row: pyarrow.csv.InvalidRow) -> str:
            self.broken.append((row.number - 1, _width_fault(row.actual_columns, width)))
            return "skip"

        names = [str(place) for place in range(width)]
        wanted = [str(place) for place in places]
        text, first = self._text(), 0
        try:
            batches = pyarrow.csv.open_csv(
                io.BufferedReader(text),
                pyarrow.csv.ReadOptions(block_size=BYTES, column_names=names),
                pyarrow.csv.ParseOptions(delimiter=_character(self._separator), invalid_row_handler=skip),
                pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(wanted, pa.string()), include_columns=wanted, strings_can_be_null=False
                ),
            )
            for batch in batches:
                header = int(self._header and first == 0)
                yield first + header, batch.slice(header).columns
                first += len(batch)
        except pa.ArrowInvalid as error:
            raise LineBreaksError from error
        if text.lines != first + len(self.broken) or text.odd_quotes:
            raise LineBreaksError
        if not text.ended and self.broken and self.broken[-1][0] == text.lines - 1:
            self.broken[-1] = (text.lines - 1, CUT_OFF)

    def _read_carefully(self, places: list[int]) -> Iterator[tuple[int, list[pa.Array]]]:
        width = len(self.first_row)
        text = self._text()
        stream = io.TextIOWrapper(io.BufferedReader(text), "utf-8", newline="")
        lines = iter(lambda: stream.readline(LONGEST_LINE), "")
        reader = csv.reader(lines, delimiter=_character(self._separator), strict=True)
        rows: list[list[str]] = []
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                self.broken.append((line, TOO_LONG if "limit" in str(error) else OPEN_QUOTE))
                continue
            if len(row) == width:
                self._lines.append(line)
                rows.append(row)
            elif row:
                self.broken.append((line, _width_fault(len(row), width)))
            if len(rows) == ROWS:
                yield self._block(rows, places)
                rows = []
        if rows:
            yield self._block(rows, places)

    def _block(self, rows: list[list[str]], places: list[int]) -> tuple[int, list[pa.Array]]:
        first = len(self._lines) - len(rows)
        header = int(self._header and first == 0)
        return first + header, [pa.array([row[place] for row in rows[header:]], pa.string()) for place in places]

    def places(self, rows: list[int]) -> list[int]:
        """The rows' lines."""
        if self._careful:
            return [self._lines[row] for row in rows]
        broken = np.array([row for row, _ in self.broken], np.int64)
        skipped = np.searchsorted(broken - np.arange(len(broken)), rows, side="right")
        return list(number_lines(self._file, self._encoding, (np.array(rows) + skipped).tolist()))

    def structure_problems(self) -> list[str]:
        """A line for each kind of broken row."""
        faults: dict[str, list[int]] = {}
        for place, fault in self.broken:
            faults.setdefault(fault, []).append(place)
        problems = []
        for fault, found in faults.items():
            few = found[: EXAMPLES + 1]
            lines = few if self._careful else list(number_lines(self._file, self._encoding, few))
            count = f"{len(found):,} line{'s' if len(found) > 1 else ''}"
            problems.append(f"{count} {fault}: {enumerate_rows('line', lines)}")
        return problems


def _width_fault(fields: int, width: int) -> str:
    return f"with {'fewer' if fields < width else 'more'} than {width} fields"


def _character(separator: str) -> str:
    return DOUBLE_COLON if separator == "::" else separator


def _head_rows(head: str, separator: str) -> Iterator[list[str]]:
    """The rows at a file's beginning, blank ones left out, as far as they can be read."""
    text = head.replace("::", DOUBLE_COLON) if separator == "::" else head
    with contextlib.suppress(csv.Error):
        yield from filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=_character(separator)))


def _find_separator(head: str, settings: Prepare) -> str:
    """The one that the parameters name; or with which the named columns are there; or which gives the most columns."""
    if settings.separator != "auto":
        return settings.separator.replace("\\t", "\t")
    names = {
        name
        for name in (settings.columns.user, settings.columns.book, settings.columns.rating)
        if isinstance(name, str)
    }
    widths = {}
    for separator in SEPARATORS:
        rows = list(itertools.islice(_head_rows(head, separator), SAMPLE))
        if rows and names and names <= set(rows[0]):
            return separator
        widths[separator] = min(map(len, rows), default=0)
    likely = max(list(SEPARATORS)[:-1], key=widths.__getitem__)
    return likely if widths[likely] > 1 else " "

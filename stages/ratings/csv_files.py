"""Ratings as CSV and its relatives: lines of fields between which stands a comma, or something else.

Where each line is a row, as nearly everywhere, pyarrow reads it. Elsewhere Python's own reader takes row by row:
slower, but it knows the strict grammar and each row's line.
"""

import csv
import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from stages.program.errors import StageError
from stages.program.params import Prepare
from stages.ratings.checks import NUMBER, Block
from stages.ratings.files import Chunk, read_chunks

HEAD = 1 << 16  # bytes by which the separator and the columns are found
SAMPLE = 20  # rows, likewise
SEPARATORS = ("\t", "::", ";", "|", ",", " ")  # the comma late: it may be a decimal one
DOUBLE_COLON = "\x1f"  # stands for `::`, which is longer than the one character that readers of CSV take
EXCELS_LINE = re.compile(rb'"?sep=', re.IGNORECASE)
SWALLOWING = "with a quote that goes on over lines that look like rows; within quotes, a quote is written twice"
UNCLOSED = f"with a quote that isn't closed, or a field of more than {csv.field_size_limit():,} characters"


class CsvFile:
    """A text file of separated fields."""

    unit = "line"

    def __init__(self, path: Path, settings: Prepare) -> None:
        chunks = read_chunks(path, settings.encoding)
        first = next(chunks, None)
        if first is None:
            raise StageError(f"{path} is empty")
        if EXCELS_LINE.match(first.data):
            first = first._replace(data=first.data.partition(b"\n")[2], first=2)
        head = first.data[:HEAD].decode("utf-8", "replace")
        self.separator = _find_separator(head, settings)
        self._delimiter = self.separator.replace("::", DOUBLE_COLON)
        self._chunks: Iterator[Chunk] = itertools.chain([first], chunks)
        if self.separator == "::":
            self._chunks = map(_replace_colons, self._chunks)
        row = next(_read_head(head, self.separator), [])
        self._width, self._header, self._words = len(row), settings.header, _words(settings)
        self.names = row if settings.header else [str(number + 1) for number in range(len(row))]

    def blocks(self, names: list[str]) -> Iterator[Block]:
        """Some columns, as text."""
        places, header = [self.names.index(name) for name in names], self._header
        for chunk in self._chunks:
            columns, numbers, broken = self._read_fast(chunk, places) or self._read_carefully(chunk, places)
            yield Block([column[header:] for column in columns], numbers[header:], broken)
            header = False

    def _read_fast(self, chunk: Chunk, places: list[int]) -> Block | None:
        """None where lines and rows differ, or a row has too few or too many fields."""
        data, lines = chunk.data, chunk.lines()
        wanted = [str(place) for place in places]
        types = dict.fromkeys(wanted, pa.string())
        names = [str(place) for place in range(self._width)]
        try:
            table = pyarrow.csv.read_csv(
                pa.BufferReader(data),
                pyarrow.csv.ReadOptions(block_size=len(data) + 1, column_names=names, use_threads=False),
                pyarrow.csv.ParseOptions(delimiter=self._delimiter),
                pyarrow.csv.ConvertOptions(column_types=types, include_columns=wanted, strings_can_be_null=False),
            )
        except pa.ArrowInvalid:
            return None
        if len(table) != len(lines) or (b'"' in data and data.rstrip(b"\n").rpartition(b"\n")[2].count(b'"') % 2):
            return None
        return Block([column.combine_chunks() for column in table.columns], lines, chunk.undecodable)

    def _read_carefully(self, chunk: Chunk, places: list[int]) -> Block:
        """Row by row; into the next chunk, where a row goes on there."""
        rows: dict[int, list[str]] = {}
        broken: dict[int, str] = {}
        lines: list[bytes] = []

        def feed() -> Iterator[str]:
            for part in itertools.chain([chunk], self._chunks):
                broken.update(part.undecodable)
                lines.extend(part.data.splitlines(keepends=True))
                yield from map(bytes.decode, lines[reader.line_num :])

        reader = csv.reader(feed(), delimiter=self._delimiter, strict=True)
        while reader.line_num < len(lines) or not lines:
            begin = reader.line_num
            number = chunk.first + begin
            try:
                row = next(reader)
            except csv.Error:
                broken[number] = UNCLOSED
                continue
            if self._are_rows(lines[begin + 1 : reader.line_num], places[-1:]):
                broken[number] = SWALLOWING
            elif len(row) == self._width:
                rows[number] = [row[place] for place in places]
            elif len(row) > self._width:
                broken[number] = f"with more than {self._width} fields"
            elif row:
                whole = reader.line_num < len(lines) or lines[-1].endswith(b"\n")
                broken[number] = f"with fewer than {self._width} fields" if whole else "cut off at the end of the file"
        return Block.of(rows, len(places), broken)

    def _are_rows(self, lines: list[bytes], rating: list[int]) -> bool:
        """Whether each of a row's further lines, but blank ones, would be a row by itself, with a rating."""
        rows = [next(csv.reader([line.decode()], delimiter=self._delimiter)) for line in lines if line.strip()]
        return bool(rows) and all(
            len(row) == self._width and all(_is_rating(row[place], self._words) for place in rating) for row in rows
        )


def _replace_colons(chunk: Chunk) -> Chunk:
    return chunk._replace(data=chunk.data.replace(b"::", DOUBLE_COLON.encode()))


def _read_head(head: str, separator: str) -> Iterator[list[str]]:
    """The rows at a file's beginning, without blank ones."""
    delimiter = separator.replace("::", DOUBLE_COLON)
    return filter(None, csv.reader(io.StringIO(head.replace(separator, delimiter)), delimiter=delimiter))


def _words(settings: Prepare) -> set[str]:
    """What may stand for a rating, or for none, but numbers."""
    return {*settings.rating_words, *map(str, settings.not_rated)}


def _is_rating(text: str, words: set[str]) -> bool:
    """Whether a field looks like a rating, or says that there is none."""
    return text.strip() in words or bool(NUMBER.fullmatch(text.strip().replace(",", ".")))


def _find_separator(head: str, settings: Prepare) -> str:
    """The one that is set; else one with which the named columns are there, or which gives the most columns.

    Where columns are counted, rather one with a rating in its place, and with none of the others in the first of them.
    """
    if settings.separator != "auto":
        return settings.separator.replace(r"\t", "\t")
    names = {name for _, name in settings.columns if isinstance(name, str)}
    places = [place - 1 for _, place in settings.columns if isinstance(place, int)]
    words = _words(settings)

    def fit(separator: str) -> tuple[bool, bool, bool, float]:
        rows = list(itertools.islice(_read_head(head, separator), SAMPLE))
        width = min(map(len, rows), default=0)
        is_named = bool(rows and names and names <= {*rows[0]})
        is_rated = max(places, default=width) < width and all(_is_rating(row[places[-1]], words) for row in rows)
        is_whole = is_rated and not any(other in row[places[0]] for row in rows for other in SEPARATORS[:-1])
        return is_named, is_rated, is_whole, min(width, 1.5) if separator == " " else width

    return max(SEPARATORS, key=fit)

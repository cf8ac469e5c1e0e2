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
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from stages.program.params import Prepare
from stages.ratings.checks import NUMBER, Block, Numbers
from stages.ratings.files import Chunk, read_chunks

HEAD = 1 << 16  # characters by which the separator and the columns are found
SAMPLE = 20  # rows, likewise
SEPARATORS = ("\t", "::", ";", "|", ",", " ")  # the comma late: it may be a decimal one
DOUBLE_COLON = "\x1f"  # stands for `::`, which is longer than the one character that readers of CSV take
QUOTING: dict[bool, Any] = {True: csv.QUOTE_MINIMAL, False: csv.QUOTE_NONE}
CLOSED = re.compile(r'"[^"]*"')
FIELD = r'("(?:[^"]|"")*"(?!"))?([^,]*),'
"""A field with a comma behind it: what is within quotes, if it begins with one, and the rest."""
ESCAPES = re.compile(r'\\+(?=")')
ADVICE = (
    '; within quotes, a quote is written twice; prepare.quotes: backslash where it is written \\", false where quotes '
    "are but text"
)
SWALLOWING = f"with a quote that goes on over lines that look like rows{ADVICE}"
MISPLACED = f"with text behind a closing quote{ADVICE}"
UNCLOSED = f"with a quote that isn't closed, or a field of more than {csv.field_size_limit():,} characters{ADVICE}"


class CsvFile:
    """A text file of separated fields."""

    unit = "line"

    def __init__(self, path: Path, settings: Prepare) -> None:
        chunks = read_chunks(path, settings.encoding)
        first = next(chunks)
        if re.match(r'"?sep=', first.text, re.IGNORECASE):  # Excel's own line
            first = first._replace(text=first.text.partition("\n")[2], first=2)
        head = first.text[:HEAD]
        self.separator = _find_separator(head, settings)
        self._delimiter = self.separator.replace("::", DOUBLE_COLON)
        parts = itertools.chain([first], chunks)
        self._chunks = (part._replace(text=_in_one_form(part.text, self.separator, settings)) for part in parts)
        row = next(_read_head(head, self.separator, settings), [])
        self._width, self._header, self._words = len(row), settings.header, words_of(settings)
        self._quotes = bool(settings.quotes)
        self._fields = re.compile(FIELD.replace(",", re.escape(self._delimiter)))
        self.names = row if settings.header else [str(number + 1) for number in range(len(row))]

    def blocks(self, names: list[str]) -> Iterator[Block]:
        """Some columns, as text."""
        places, header = [self.names.index(name) for name in names], self._header
        for chunk in self._chunks:
            columns, numbers, broken = self._read_fast(chunk, places) or self._read_carefully(chunk, places)
            yield Block([column[header:] for column in columns], numbers[header:], broken)
            header = False

    def _read_fast(self, chunk: Chunk, places: list[int]) -> Block | None:
        """None where lines and rows differ, a row has too few or too many fields, or readers of CSV would differ."""
        data = chunk.text.encode()
        characters = np.frombuffer(b"\n" + data + b"\n", np.uint8)
        ends = np.flatnonzero(characters == ord("\n"))
        lines = chunk.first + np.flatnonzero(np.diff(ends) > 1)  # but blank ones
        names = [str(place) for place in range(self._width)]
        wanted = [names[place] for place in places]
        try:
            table = pyarrow.csv.read_csv(
                pa.BufferReader(data),
                pyarrow.csv.ReadOptions(block_size=len(data) + 1, column_names=names, use_threads=False),
                pyarrow.csv.ParseOptions(delimiter=self._delimiter, quote_char='"' if self._quotes else False),
                pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(wanted, pa.string()), include_columns=wanted),
            )
        except pa.ArrowInvalid:
            return None
        if len(table) != len(lines):
            return None
        for line in _find_odd_lines(characters, ends, self._delimiter) if self._quotes else ():
            if self._read_around(data[ends[line] : ends[line + 1] - 1].decode(), places) is None:
                return None
        return Block([column.combine_chunks() for column in table.columns], lines, chunk.undecodable)

    def _read_carefully(self, chunk: Chunk, places: list[int]) -> Block:
        """Row by row; into the next chunk, where a row goes on there."""
        rows: dict[int, list[str]] = {}
        broken: dict[int, str] = {}
        lines: list[str] = []

        def feed() -> Iterator[str]:
            for part in itertools.chain([chunk], self._chunks):
                broken.update(part.undecodable)
                lines.extend(io.StringIO(part.text))
                yield from lines[reader.line_num :]

        reader = csv.reader(feed(), delimiter=self._delimiter, quoting=QUOTING[self._quotes], strict=True)
        while reader.line_num < len(lines) or not lines:
            begin = reader.line_num
            number = chunk.first + begin
            try:
                row = next(reader)
            except csv.Error as error:
                if "expected after" not in str(error):
                    broken[number] = UNCLOSED
                elif values := self._read_around(lines[begin], places):
                    rows[number] = values
                else:
                    broken[number] = MISPLACED
                continue
            if places and self._has_swallowed(row, lines[begin : reader.line_num], places[-1]):
                broken[number] = SWALLOWING
            elif len(row) == self._width:
                rows[number] = [row[place] for place in places]
            elif row:
                is_cut = len(row) < self._width and reader.line_num == len(lines) and not lines[-1].endswith("\n")
                found = f"with {'more' if len(row) > self._width else 'fewer'} than {self._width} fields"
                broken.setdefault(number, "cut off at the end of the file" if is_cut else found)
        return Block.of(rows, len(places), broken)

    def _read_around(self, line: str, places: list[int]) -> list[str] | None:
        """A line's values; none where a quote isn't closed, or text behind a closing one is in a named column."""
        fields = self._fields.findall(line.rstrip("\n") + self._delimiter)
        is_closed = all(quoted or not rest.startswith('"') for quoted, rest in fields)
        if not is_closed or len(fields) != self._width or any(all(map(str.strip, fields[place])) for place in places):
            return None
        return [fields[place][0][1:-1].replace('""', '"') + fields[place][1] for place in places]

    def _has_swallowed(self, row: list[str], lines: list[str], rating: int) -> bool:
        """Whether a row of several lines looks like several rows, of which the first ends and the last has a rating.

        A field of several lines behind the rating says nothing of how the first line ends.
        """
        if len(lines) == 1:
            return False
        first, *further = (self._split(line) for line in lines if line.strip())
        opened = next((place for place, field in enumerate(row) if "\n" in field), 0)
        ends = len(first) >= self._width and is_rating(first[rating - self._width], self._words)
        are_rows = bool(further) and all(len(fields) == self._width for fields in further)
        return are_rows and (ends or opened > rating) and is_rating(further[-1][rating], self._words)

    def _split(self, line: str) -> list[str]:
        """A line's fields: with quotes that are but text, or that close."""
        closed = CLOSED.sub(lambda quoted: quoted[0].replace(self._delimiter, ""), line)
        as_text, quoted = (text.replace('"', "").split(self._delimiter) for text in (line, closed))
        return as_text if len(as_text) == self._width else quoted


def _in_one_form(text: str, separator: str, settings: Prepare) -> str:
    """With one character for `::`, and quotes within quotes written twice."""
    if settings.quotes == "backslash":
        text = ESCAPES.sub(lambda run: run[0][: len(run[0]) // 2] + '"' * (len(run[0]) % 2), text)
    return text.replace("::", DOUBLE_COLON) if separator == "::" else text


def _find_odd_lines(characters: NDArray[np.uint8], ends: Numbers, delimiter: str) -> Numbers:
    """The lines, from 0, whose quotes don't open and close fields in turn: there readers of CSV may differ."""
    quotes = np.flatnonzero(characters == ord('"'))
    first = np.searchsorted(quotes, ends)  # of each line
    counts = np.diff(first)
    may_be_outside = np.zeros(256, np.bool_)
    may_be_outside[[*b'"\n', ord(delimiter)]] = True
    outside = characters[quotes[::2] - 1], characters[quotes[1::2] + 1]
    if not (counts % 2).any() and all(may_be_outside[beside].all() for beside in outside):
        return np.array([], int)  # as nearly everywhere
    lines = np.repeat(np.arange(len(counts)), counts)
    is_opening = (np.arange(len(quotes)) - first[lines]) % 2 == 0
    is_odd = ~may_be_outside[characters[np.where(is_opening, quotes - 1, quotes + 1)]]
    return np.union1d(lines[is_odd], np.flatnonzero(counts % 2))


def _read_head(head: str, separator: str, settings: Prepare) -> Iterator[list[str]]:
    """The rows at a file's beginning, without blank ones."""
    delimiter = separator.replace("::", DOUBLE_COLON)
    lines = io.StringIO(_in_one_form(head, separator, settings))
    return filter(None, csv.reader(lines, delimiter=delimiter, quoting=QUOTING[bool(settings.quotes)]))


def words_of(settings: Prepare) -> set[str]:
    """What may stand for a rating, or for none, but numbers."""
    return {*settings.rating_words, *map(str, settings.not_rated)}


def is_rating(text: str, words: set[str]) -> bool:
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
    words = words_of(settings)

    def fit(separator: str) -> tuple[bool, bool, bool, float]:
        rows = list(itertools.islice(_read_head(head, separator, settings), SAMPLE))
        width = min(map(len, rows), default=0)
        is_named = bool(rows and names and names <= {*rows[0]})
        is_rated = max(places, default=width) < width and all(is_rating(row[places[-1]], words) for row in rows)
        is_whole = is_rated and not any(other in row[places[0]] for row in rows for other in SEPARATORS[:-1])
        return is_named, is_rated, is_whole, min(width, 1.5) if separator == " " else width

    return max(SEPARATORS, key=fit)

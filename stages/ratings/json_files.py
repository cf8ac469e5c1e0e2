"""Ratings as JSON: an object a line, or one array of objects.

Lines are read by pyarrow, as long as each is one object whose ids and ratings are of one type; else, and in an array,
Python's own reader takes object after object.
"""

import array
import io
import itertools
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.json

from stages.program.process import StageError
from stages.ratings.checks import EXAMPLES, Block, enumerate_rows
from stages.ratings.csv_files import BYTES, ROWS, LineBreaksError
from stages.ratings.files import RatingsFile, Utf8, number_lines

SAMPLE = 100
"""Objects by which the names and types are known."""

ADVICE = "each line should be one object, as pandas' to_json(orient='records', lines=True) writes it"


class JsonFile:
    """A file of JSON objects, counted from 0."""

    decimal_commas = True

    def __init__(self, file: RatingsFile, encoding: str, careful: bool) -> None:
        self._file = file
        self._encoding = encoding
        self.path = file.path
        head = file.head.decode(encoding, "replace").lstrip("\ufeff \t\r\n")
        self._array = self._load() if head.startswith("[") else None
        self._careful = careful or self._array is not None
        self.unit = "line" if self._array is None else "object"
        self._example: dict[str, Any] = {}
        for _, item in itertools.islice(self._objects(), SAMPLE):
            if isinstance(item, dict):
                self._example = item | {name: value for name, value in self._example.items() if value is not None}
        if not self._example:
            raise StageError(f"{file.path} looks like JSON, and no {self.unit} at its beginning is an object; {ADVICE}")
        self.names = list(self._example)
        self._broken: list[int] = []
        self._places = array.array("q")
        """Where the careful reader found each row."""

    def _load(self) -> list[Any]:
        with io.TextIOWrapper(io.BufferedReader(Utf8(self._file, self._encoding)), "utf-8") as text:
            try:
                items: list[Any] = json.load(text, parse_float=Decimal)
            except (ValueError, RecursionError) as error:
                raise StageError(f"{self.path} begins as a JSON array and isn't one: {error}") from error
        return items

    def _objects(self) -> Iterator[tuple[int, Any]]:
        """Each object's place, and the object; None where there is no JSON."""
        if self._array is not None:
            yield from enumerate(self._array)
            return
        with io.TextIOWrapper(io.BufferedReader(Utf8(self._file, self._encoding)), "utf-8") as text:
            for place, line in enumerate(line for line in text if line != "\n"):
                try:
                    yield place, json.loads(line, parse_float=Decimal)
                except (ValueError, RecursionError):
                    yield place, None

    def blocks(self, user: int | None, book: int, rating: int) -> Iterator[Block]:
        """The rows, by the places of the columns among the names.

        Raises:
            LineBreaksError: the file must be read carefully.
        """
        names = [None if place is None else self.names[place] for place in (user, book, rating)]
        return self._read_carefully(names) if self._careful else self._read_fast(names)

    def _read_fast(self, names: list[str | None]) -> Iterator[Block]:
        fields = []
        for name, number in zip(names, (pa.int64(), pa.int64(), pa.float64()), strict=True):
            if name is not None:
                is_number = isinstance(self._example[name], int | Decimal)
                fields.append((name, number if is_number else pa.string()))
        options = pyarrow.json.ParseOptions(explicit_schema=pa.schema(fields), unexpected_field_behavior="ignore")
        text, first = Utf8(self._file, self._encoding), 0
        try:
            stream = io.BufferedReader(text)
            for batch in pyarrow.json.open_json(stream, pyarrow.json.ReadOptions(block_size=BYTES), options):
                yield Block(first, *(None if name is None else batch.column(name) for name in names))
                first += len(batch)
        except pa.ArrowInvalid as error:
            raise LineBreaksError from error
        if text.lines != first:
            raise LineBreaksError

    def _read_carefully(self, names: list[str | None]) -> Iterator[Block]:
        objects = self._objects()
        while chunk := list(itertools.islice(objects, ROWS)):
            first, rows = len(self._places), []
            for place, item in chunk:
                values = [item.get(name) for name in names] if isinstance(item, dict) else [()]
                if any(isinstance(value, dict | list | tuple) for value in values):
                    self._broken.append(place)
                else:
                    self._places.append(place)
                    rows.append(values)
            columns = zip(*rows, strict=True) if rows else [(), (), ()]
            arrays = [pa.array(map(_as_text, column), pa.string()) for column in columns]
            yield Block(first, *(None if name is None else column for name, column in zip(names, arrays, strict=True)))

    def places(self, rows: list[int]) -> list[int]:
        """The rows' lines, or the numbers of the objects in their array."""
        return self._number([self._places[row] for row in rows] if self._careful else rows)

    def _number(self, places: list[int]) -> list[int]:
        if self._array is not None:
            return [place + 1 for place in places]
        return list(number_lines(self._file, self._encoding, places))

    def structure_problems(self) -> list[str]:
        """A line, where there are rows that aren't objects of plain values."""
        if not self._broken:
            return []
        count = f"{len(self._broken):,} {self.unit}{'s' if len(self._broken) > 1 else ''}"
        found = enumerate_rows(self.unit, self._number(self._broken[: EXAMPLES + 1]))
        return [f"{count} without a JSON object of plain values: {found}; {ADVICE}"]


def _as_text(value: Any) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return None if value is None else str(value)

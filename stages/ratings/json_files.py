"""Ratings as JSON: an object a line, or one array of objects.

pyarrow reads lines, as long as each holds one object with ids and ratings of one type; Python's reader takes the others.
"""

import itertools
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json

from stages.program.params import Prepare
from stages.program.process import StageError
from stages.ratings.checks import Block
from stages.ratings.files import Chunk, RatingsFile, read_chunks

SAMPLE = 100
"""Objects by which the names and the types are known."""

ADVICE = "each line should be an object, as pandas' to_json(orient='records', lines=True) writes it"


class JsonFile:
    """A file of JSON objects."""

    def __init__(self, file: RatingsFile, settings: Prepare) -> None:
        self._chunks = read_chunks(file, settings.encoding)
        self._first = next(self._chunks)
        self._array = self._first.data.lstrip().startswith(b"[")
        if self._array:
            whole = b"".join(chunk.data for chunk in itertools.chain([self._first], self._chunks))
            parsed = _parse(whole)
            self._items: list[Any] = parsed if isinstance(parsed, list) else []
        else:
            self._items = [_parse(line) for line in self._first.data.splitlines()[:SAMPLE]]
        objects = [item for item in self._items[:SAMPLE] if isinstance(item, dict)]
        if not objects:
            raise StageError(f"{file.path} looks like JSON and isn't read as such; {ADVICE}")
        self._example = {name: value for item in objects for name, value in item.items() if value is not None}
        self.names = list({name: None for item in objects for name in item})

    def blocks(self, places: list[int]) -> Iterator[Block]:
        """The rows' columns at some places among the names."""
        names = [self.names[place] for place in places]
        if self._array:
            yield _collect(self._items, np.arange(1, len(self._items) + 1), names)._replace(unit="object")
            return
        for chunk in itertools.chain([self._first], self._chunks):
            block = self._read_fast(chunk, names)
            if block is None:
                items = [_parse(line) for line in chunk.data.splitlines() if line]
                block = _collect(items, chunk.lines(), names)
            yield block._replace(broken=block.broken | chunk.undecodable)

    def _read_fast(self, chunk: Chunk, names: list[str]) -> Block | None:
        """None where a line isn't an object of the expected types."""
        numbers = dict.fromkeys(names[:-1], pa.int64()) | {names[-1]: pa.float64()}
        is_number = {name: isinstance(self._example.get(name), int | Decimal) for name in names}
        schema = pa.schema([(name, numbers[name] if is_number[name] else pa.string()) for name in names])
        try:
            table = pyarrow.json.read_json(
                pa.BufferReader(chunk.data),
                pyarrow.json.ReadOptions(block_size=len(chunk.data) + 1, use_threads=False),
                pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
            )
        except pa.ArrowInvalid:
            return None
        if len(table) != chunk.count_lines():
            return None
        return Block([table[name].combine_chunks() for name in names], chunk.lines, {})


def _parse(text: bytes) -> Any:
    """None for what isn't JSON; numbers keep their digits."""
    try:
        return json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None


def _collect(items: list[Any], numbers: np.ndarray, names: list[str]) -> Block:
    rows, wrong = [], {}
    for place, item in enumerate(items):
        values = [item.get(name) for name in names] if isinstance(item, dict) else [{}]
        if any(isinstance(value, dict | list) for value in values):
            wrong[place] = f"without an object of plain values ({ADVICE})"
        else:
            rows.append([value if value is None else str(value) for value in values])
    columns = [pa.array([row[place] for row in rows], pa.string()) for place in range(len(names))]
    broken = {int(numbers[place]): fault for place, fault in wrong.items()}
    return Block(columns, lambda: np.delete(numbers, list(wrong)), broken)

"""Ratings as JSON: an object a line, or one array of objects.

pyarrow reads the lines, as long as each is an object with ids and ratings of one type; Python's reader the others.
"""

import itertools
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json

from stages.program.errors import StageError
from stages.program.params import Prepare
from stages.ratings.checks import Block, Numbers
from stages.ratings.files import Chunk, read_chunks

SAMPLE = 100  # objects by which the names and the types are known
ADVICE = "as to_json(orient='records', lines=True) of pandas writes it"


class JsonFile:
    """A file of JSON objects."""

    def __init__(self, path: Path, settings: Prepare) -> None:
        self._chunks = read_chunks(path, settings.encoding)
        self._first = next(self._chunks)
        self._is_array = self._first.data.lstrip().startswith(b"[")
        if self._is_array:
            whole = b"".join([self._first.data, *(chunk.data for chunk in self._chunks)])
            self._array: list[Any] = _parse(whole) or []
        some = self._array[:SAMPLE] if self._is_array else map(_parse, self._first.data.splitlines()[:SAMPLE])
        objects = [item for item in some if isinstance(item, dict)]
        if not objects:
            raise StageError(f"{path} looks like JSON, and isn't an object a line, {ADVICE}, nor an array of objects")
        self._example = {name: value for item in objects for name, value in item.items() if value is not None}
        self.names = list({name: None for item in objects for name in item})

    def blocks(self, places: list[int]) -> Iterator[Block]:
        """The columns at some places among the names."""
        names = [self.names[place] for place in places]
        if self._is_array:
            yield _collect(self._array, np.arange(1, len(self._array) + 1), names)._replace(unit="object")
            return
        for chunk in itertools.chain([self._first], self._chunks):
            block = self._read_fast(chunk, names)
            if block is None:
                items = [_parse(line) for line in chunk.data.splitlines() if line]
                block = _collect(items, chunk.lines(), names)
            yield block._replace(broken=block.broken | chunk.undecodable)

    def _read_fast(self, chunk: Chunk, names: list[str]) -> Block | None:
        """None where a line isn't an object of the expected types."""
        types = dict.fromkeys(names, pa.int64()) | {names[-1]: pa.float64()}
        numbers = {name for name in names if isinstance(self._example.get(name), int | Decimal)}
        schema = pa.schema([(name, types[name] if name in numbers else pa.string()) for name in names])
        try:
            table = pyarrow.json.read_json(
                pa.BufferReader(chunk.data),
                pyarrow.json.ReadOptions(block_size=len(chunk.data) + 1, use_threads=False),
                pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
            )
        except pa.ArrowInvalid:
            return None
        if not chunk.has_lines(len(table)):
            return None
        return Block([table[name].combine_chunks() for name in names], chunk.lines, {})


def _parse(text: bytes) -> Any:
    """None for what isn't JSON; numbers keep their digits."""
    try:
        return json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None


def _collect(items: list[Any], numbers: Numbers, names: list[str]) -> Block:
    rows: list[list[Any]] = [[item.get(name) for name in names] if isinstance(item, dict) else [{}] for item in items]
    plain = np.array([not any(isinstance(value, dict | list) for value in row) for row in rows], np.bool_)
    texts = [[value if value is None else str(value) for value in rows[row]] for row in np.flatnonzero(plain)]
    columns = [pa.array([row[place] for row in texts], pa.string()) for place in range(len(names))]
    broken = dict.fromkeys(numbers[~plain].tolist(), f"without an object of plain values; write it {ADVICE}")
    return Block(columns, lambda: numbers[plain], broken)

"""Ratings as JSON: an object a line, or one array of objects."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.program.errors import StageError
from stages.program.params import Prepare
from stages.ratings.checks import Block, as_text
from stages.ratings.files import open_file, read_chunks

ADVICE = "as to_json(orient='records', lines=True) of pandas writes it"
DECODER = json.JSONDecoder(  # numbers as text, in powers of ten as they stand: they may be longer ones, cut short
    parse_float=lambda number: number if "e" in number.casefold() else as_text(float(number)),
    parse_int=str,
    parse_constant=str,
)


class JsonLines:
    """A file of JSON objects, one a line."""

    unit = "line"
    separator = ""

    def __init__(self, path: Path, settings: Prepare) -> None:
        self._parts = self._read(path, settings.encoding)
        first = next(self._parts)
        objects = [item for item in first[0].values() if isinstance(item, dict)]
        if not objects:
            raise StageError(f"{path} looks like JSON, and isn't an object a line, {ADVICE}, nor an array of objects")
        self._parts = itertools.chain([first], self._parts)
        self.names = list(dict.fromkeys(itertools.chain.from_iterable(objects)))

    def _read(self, path: Path, encoding: str) -> Iterator[tuple[dict[int, Any], dict[int, str]]]:
        """What stands in each line, by its number; and what is wrong with lines."""
        for chunk in read_chunks(path, encoding):
            lines = enumerate(chunk.text.split("\n"), chunk.first)
            yield {number: _parse(line) for number, line in lines if line}, chunk.undecodable

    def blocks(self, names: list[str]) -> Iterator[Block]:
        """The values of some names, as text."""
        for items, undecodable in self._parts:
            rows, broken = {}, {**undecodable}
            for number, item in items.items():
                values = [item.get(name) for name in names] if isinstance(item, dict) else None
                if values is None or any(isinstance(value, list | dict) for value in values):
                    broken[number] = f"without an object of plain values; write it {ADVICE}"
                else:
                    rows[number] = [as_text(value) for value in values]
            yield Block.of(rows, len(names), broken)


class JsonArray(JsonLines):
    """A file that is one array of JSON objects."""

    unit = "object"

    def _read(self, path: Path, encoding: str) -> Iterator[tuple[dict[int, Any], dict[int, str]]]:
        with open_file(path) as stream:
            text = stream.read().decode(encoding).removeprefix("\ufeff")
        yield dict(enumerate(_parse(text) or [], 1)), {}


def _parse(text: str) -> Any:
    """None for what isn't JSON."""
    try:
        return DECODER.decode(text)
    except ValueError:
        return None

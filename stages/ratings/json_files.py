"""Ratings as JSON: an object a line, or one array of objects."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import from_json

from stages.program.errors import StageError
from stages.program.params import Prepare
from stages.ratings.checks import Block, Numbers, as_text
from stages.ratings.files import open_file, read_chunks

POWER_OF_TEN = re.compile(rb":\s*-?\d+(\.\d+)?[eE]\+?\d+\s*[,}]")  # as a value: it may be a number cut short
ADVICE = "as to_json(orient='records', lines=True) of pandas writes it"


class JsonLines:
    """A file of JSON objects, one a line."""

    unit = "line"
    separator = ""

    def __init__(self, path: Path, settings: Prepare) -> None:
        self._parts = self._read(path, settings.encoding)
        first = next(self._parts, None)
        if first is None or not (objects := [item for item in first[0] if isinstance(item, dict)]):
            raise StageError(f"{path} looks like JSON, and isn't an object a line, {ADVICE}, nor an array of objects")
        self._parts = itertools.chain([first], self._parts)
        self.names = list(dict.fromkeys(itertools.chain.from_iterable(objects)))

    def _read(self, path: Path, encoding: str) -> Iterator[tuple[list[Any], Numbers, dict[int, str]]]:
        for chunk in read_chunks(path, encoding):
            exactly = _has_powers(chunk.data)
            items = [_parse(line, exactly) for line in chunk.data.split(b"\n") if line]
            yield items, chunk.lines(), chunk.undecodable

    def blocks(self, names: list[str]) -> Iterator[Block]:
        """The values of some names, as text."""
        for items, numbers, undecodable in self._parts:
            rows, broken = {}, {**undecodable}
            for number, item in zip(numbers.tolist(), items, strict=True):
                try:
                    rows[number] = [as_text(item.get(name)) for name in names]
                except (AttributeError, TypeError):  # no object, or a value that is none of the plain ones
                    broken[number] = f"without an object of plain values; write it {ADVICE}"
            yield Block.of(rows, len(names), broken)


class JsonArray(JsonLines):
    """A file that is one array of JSON objects."""

    unit = "object"

    def _read(self, path: Path, encoding: str) -> Iterator[tuple[list[Any], Numbers, dict[int, str]]]:
        with open_file(path) as stream:
            text = stream.read().decode(encoding).removeprefix("\ufeff").encode()
        items = _parse(text, _has_powers(text)) or []
        yield items, np.arange(1, len(items) + 1), {}


def _parse(text: bytes, exactly: bool) -> Any:
    """None for what isn't JSON; `exactly` keeps numbers in powers of ten as they stand."""
    try:
        return json.loads(text, parse_float=_keep_powers) if exactly else from_json(text)
    except ValueError:
        return None


def _keep_powers(number: str) -> float | str:
    return number if "e" in number.casefold() else float(number)


def _has_powers(text: bytes) -> bool:
    return POWER_OF_TEN.search(text) is not None

"""Books' titles, from a file of any origin: CSV, or JSON lines, plain or compressed; found by the ids that it has."""

import csv
import io
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from stages.program.errors import StageError, shorten, suggest
from stages.program.params import TitleColumns

COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}
TITLES, AUTHORS = ("title", "original_title", "name"), ("authors", "author", "author_name")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a terminal would obey them
IDS = ("id", "isbn", "isbn13", "asin")


@dataclass(frozen=True)
class Title:
    """What people call a book."""

    title: str
    authors: str = ""

    def __str__(self) -> str:
        return f"{self.title} — {self.authors}" if self.authors else self.title


def read_titles(path: Path, book_ids: list[str], columns: TitleColumns | None = None) -> dict[int, Title]:
    """The titles of the books, by their numbers: their ids are looked for in the column that has most of them.

    (goodbooks-10k's `books.csv` has them in `id`, and Goodreads's own, which are others, in `book_id`.)

    Args:
        path: the file.
        book_ids: the original ids by number, as text.
        columns: what the columns are called, where they can't be found.

    Raises:
        StageError: the file can't be read, lacks a column, or has none of these books.
    """
    numbers = {book_id: number for number, book_id in enumerate(book_ids)}
    found: dict[str, dict[int, Title]] = {}
    names: list[str] = []
    for row in _read_rows(path):
        if not names:
            names = [*row]
            id_columns, title_column, author_column = _find_columns(path, names, columns)
        for id_column in id_columns:
            number = numbers.get(_as_id(row.get(id_column)))
            title = _as_text(row.get(title_column))
            if number is not None and title:
                found.setdefault(id_column, {})[number] = Title(title, _as_text(row.get(author_column or "")))
    if not found:
        raise StageError(
            f"{path} has a title for none of the {len(book_ids):,} books; looked for ids like {book_ids[0]!r} "
            f"in {', '.join(id_columns)}"
            if names
            else f"{path} holds no books"
        )
    return max(found.values(), key=len)


def _find_columns(path: Path, names: list[str], columns: TitleColumns | None) -> tuple[list[str], str, str | None]:
    """Where ids may be, titles are, and authors, if anywhere."""
    if columns:
        for name in (columns.book, columns.title, *([columns.author] if columns.author else [])):
            if name not in names:
                raise StageError(
                    f"{path} has no column {name!r} (recommend.columns in params.yaml); {suggest(name, names)}"
                )
        return [columns.book], columns.title, columns.author
    plain = {name: name.strip().lower().replace(" ", "_") for name in names}
    ids = [name for name in names if plain[name] in IDS or plain[name].endswith("_id")]
    title = next((name for wanted in TITLES for name in names if plain[name] == wanted), None)
    author = next((name for wanted in AUTHORS for name in names if plain[name] == wanted), None)
    if not ids or not title:
        raise StageError(
            f"{path} has no column with {'titles' if ids else 'ids'} that can be told by its name (there are: "
            f"{', '.join(map(shorten, names[:20]))}); recommend.columns in params.yaml can name it"
        )
    return ids, title, author


def _read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Each row by the names of its columns."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        compression = next((name for start, name in COMPRESSIONS.items() if magic.startswith(start)), None)
        with pa.input_stream(str(path), compression=compression) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
            first = next(text, "")
            lines = itertools.chain([first], text)
            rows = map(json.loads, lines) if first.startswith("{") else csv.DictReader(lines)
            for row in rows:
                if not isinstance(row, dict):
                    raise ValueError(f"{shorten(str(row))} is no book")
                yield row
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise StageError(f"{path} isn't readable as CSV or JSON lines in UTF-8: {shorten(str(error), 200)}") from error
    except OSError as error:
        raise StageError(f"{path}: {error.strerror or 'is damaged'}") from error


def _as_id(value: Any) -> str:
    """As text, without what spreadsheets, pandas and Goodreads (`="0439023483"`) put around it."""
    return str(value).strip().removeprefix("=").strip('"').removesuffix(".0")


def _as_text(value: Any) -> str:
    """Names of several authors side by side; nothing for what isn't text (UCSD's lines have the authors' ids only)."""
    values = value if isinstance(value, list) else [value]
    return ", ".join(" ".join(CONTROL.sub(" ", text).split()) for text in values if isinstance(text, str))

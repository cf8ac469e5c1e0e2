"""Files that people bring, CSV or JSON lines, plain or compressed: the books' titles, and rows of any kind."""

import csv
import io
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from stages.program.errors import StageError, list_names, shorten
from stages.program.params import TitleColumns
from stages.ratings.files import open_file

IDS = ("id", "book_id", "goodreads_book_id", "best_book_id", "work_id", "isbn", "isbn13", "asin", "parent_asin")
TITLES, AUTHORS = ("title", "original_title", "name"), ("authors", "author", "author_name")
Titles: TypeAlias = dict[int, tuple[str, str]]
"""Title and authors by the book's number."""
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a terminal would obey them


def read_titles(path: Path, book_ids: Sequence[str], columns: TitleColumns | None) -> Titles:
    """The titles and authors of the books, by their numbers; says how many books the file lacks.

    Of several columns of ids the one with most of the books counts: goodbooks-10k's `books.csv` has the ratings' in
    `id`, and Goodreads's own, which are others, in `book_id`.

    Args:
        path: the file.
        book_ids: the original ids by number, as text.
        columns: what the columns are called, where they can't be found.

    Raises:
        StageError: the file can't be read, lacks a column, or has none of these books.
    """
    rows = read_rows(path)
    first = next(rows, {})
    wanted = [IDS, TITLES, AUTHORS]
    if columns:
        wanted = [(columns.book,), (columns.title,), (columns.author,) if columns.author else AUTHORS]
    of_ids, of_titles, of_authors = (find_columns(first, names) for names in wanted)
    for names, found in zip(wanted, (of_ids, of_titles, of_authors), strict=True):
        if not found and names is not AUTHORS:
            raise StageError(
                f"{path} has no column {' or '.join(names)}, but {list_names([*first]) or 'none'}; "
                "recommend.columns in params.yaml names them"
            )
    numbers = {book_id: number for number, book_id in enumerate(book_ids)}
    titles: dict[str, Titles] = {column: {} for column in of_ids}
    for row in itertools.chain([first], rows):
        title, authors = (_as_text([row.get(column) for column in found[:1]]) for found in (of_titles, of_authors))
        for column in of_ids if title else ():
            if (number := numbers.get(_as_id(row.get(column)))) is not None:
                titles[column][number] = title, authors
    most = max(titles.values(), key=len)
    if not most:
        raise StageError(f"{path} has none of the {len(book_ids):,} books, with ids like {shorten(book_ids[0])!r}")
    if len(most) < len(book_ids):
        note(f"{path} has titles for {len(most):,} of the {len(book_ids):,} books; the others go by their ids")
    return most


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Each row by the names of its columns, which a CSV's first line has.

    Raises:
        StageError: the file is damaged, or is no CSV or JSON lines in UTF-8.
    """
    try:
        with open_file(path) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
            first = next(text, "")
            lines = itertools.chain([first], text)
            for row in map(json.loads, lines) if first.startswith("{") else csv.DictReader(lines, restkey=""):
                if not isinstance(row, dict):
                    raise ValueError(f"{shorten(str(row))} is no object")
                yield row
    except Exception as error:  # of csv, of json, of every compression
        if isinstance(error, StageError) or (isinstance(error, OSError) and error.filename):
            raise
        raise StageError(f"{path} isn't readable as CSV or JSON lines in UTF-8: {shorten(str(error), 200)}") from error


def find_columns(names: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Those of the wanted columns that there are, in the order of wanting, as they are spelt here."""
    spelt = {_plain(name): name for name in names}
    return [spelt[_plain(name)] for name in wanted if _plain(name) in spelt]


def note(text: str) -> None:
    """Say something beside the answer."""
    print(f"note: {text}", file=sys.stderr)


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_")


def _as_id(value: Any) -> str:
    """As text, without what spreadsheets, pandas and Goodreads (`="0439023483"`) put around it."""
    return str(value).strip().removeprefix("=").strip('"').removesuffix(".0")


def _as_text(values: list[Any]) -> str:
    """One line, several authors side by side; nothing for what isn't text, as the ids of authors in UCSD's lines."""
    flat = itertools.chain.from_iterable(value if isinstance(value, list) else [value] for value in values)
    return ", ".join(" ".join(CONTROL.sub(" ", text).split()) for text in flat if isinstance(text, str))

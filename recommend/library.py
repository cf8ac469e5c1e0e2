"""What a project knows of its readers and books: original ids, titles, and who gave what how many stars."""

import bisect
import difflib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recommend.files import Titles, find_columns, note, read_rows, read_titles
from stages.program.errors import StageError, list_names, shorten
from stages.program.params import TitleColumns
from stages.ratings.table import Ratings, read_ratings, read_table

OFFERED = 5
"""How many books of a like title a message names."""

BOOK, TITLE, STARS = ("book", "book_id", "id"), ("title",), ("stars", "rating", "my_rating")
"""How a new reader's file may call its columns."""


Row: TypeAlias = dict[str, Any]


class Reader(NamedTuple):
    """A reader and their ratings: of which books (n,), how many stars (n,); and their number, if they have one."""

    name: str
    books: NDArray[np.integer]
    stars: NDArray[np.floating]
    user: int | None = None


@dataclass(frozen=True)
class Library:
    """The tables of a project."""

    user_ids: pa.Array
    """By the reader's number, as in the ratings file: int64 or string, ascending."""
    book_ids: pa.Array
    """By the book's number, likewise."""
    ratings: Ratings
    """All of them, sorted by user."""
    train: Ratings
    validation: Ratings
    titles: Titles

    @cached_property
    def counts(self) -> NDArray[np.intp]:
        """How many ratings stand behind a prediction for each book (books,)."""
        return np.bincount(self.train.books)

    @cached_property
    def _by_title(self) -> dict[str, list[int]]:
        """The books of each title, in small letters, with and without its series."""
        found: dict[str, list[int]] = {}
        for book, (title, _) in self.titles.items():
            for name in {title.casefold(), _without_series(title)}:
                found.setdefault(name, []).append(book)
        return found

    def describe(self, book: int) -> Row:
        """A book's id, and where titles are known its title and authors, None if this one's aren't."""
        title, authors = self.titles.get(book, (None, None))
        known = {"title": title, "authors": authors} if self.titles else {}
        return {"book": self.book_ids[book].as_py(), **known}

    def name(self, book: int) -> str:
        """A book's title and authors, or its id."""
        return name_book(self.describe(book))

    def reader(self, user: int) -> Reader:
        """A reader by the number."""
        start, end = np.searchsorted(self.ratings.users, np.array([user, user + 1], np.int32))
        rated = self.ratings[start:end]
        return Reader(f"reader {self.user_ids[user]}", rated.books, rated.stars, user)

    def find_user(self, wanted: str) -> int:
        """A reader's number, from the original id.

        Raises:
            StageError: there is no such reader; with the nearest ids.
        """
        users, near = _find_id(self.user_ids, wanted)
        if not users:
            raise StageError(f"no reader {shorten(wanted)!r} in these ratings; the nearest ids: {near}")
        return users[0]

    def books_called(self, wanted: str) -> list[int]:
        """The numbers of the books with this original id, or with this title, with or without its series."""
        title = wanted.strip().casefold()
        titled = self._by_title.get(title) or self._by_title.get(_without_series(title)) or []
        return _find_id(self.book_ids, wanted)[0] or titled

    def find_book(self, wanted: str) -> int:
        """A book's number, from the original id or from the title.

        Raises:
            StageError: there is no such book, or more than one; with the nearest.
        """
        called, title, titles = self.books_called(wanted), wanted.strip().casefold(), self._by_title
        if len(called) == 1:
            return called[0]
        if not titles:
            _, near = _find_id(self.book_ids, wanted)
            raise StageError(f"no book {shorten(wanted)!r}; the nearest ids: {near}; for titles give --titles FILE")
        alike = [name for name in titles if title in name] or difflib.get_close_matches(title, titles)
        books = called or dict.fromkeys(book for name in alike for book in titles[name])
        offer = "; ".join(f"{self.book_ids[book]} {self.name(book)}" for book in [*books][:OFFERED])
        raise StageError(
            f"{len(called) or 'no'} books are called {shorten(wanted)!r}; "
            + (f"name one by its id: {offer}" if offer else "no title is spelt alike")
        )


def read_library(project: Path, titles: Path | None = None, columns: TitleColumns | None = None) -> Library:
    """The tables that `prepare-ratings` and `split` wrote, with the books' titles from a file, if there is one.

    Raises:
        StageError: a file is missing or damaged, or the tables aren't of one run.
    """
    ratings, train, validation = (
        read_ratings(project / "data" / f"{name}.parquet") for name in ("ratings", "train", "validation")
    )
    user_ids, book_ids = (
        read_table(project / "data" / f"{kind}s.parquet").column(0).combine_chunks() for kind in ("user", "book")
    )
    sizes = {(part.user_count, part.book_count) for part in (ratings, train)} | {(len(user_ids), len(book_ids))}
    if len(sizes) > 1 or validation.user_count > len(user_ids) or validation.book_count > len(book_ids):
        raise StageError(f"the tables in {project / 'data'} are not of one run; run: dvc repro")
    found = read_titles(titles, book_ids.cast(pa.string()).to_pylist(), columns) if titles else {}
    return Library(user_ids, book_ids, ratings, train, validation, found)


def read_reader(path: Path, library: Library, scale: list[float]) -> Reader:
    """A reader who isn't among the ratings, from a file of books and stars; says which books aren't either.

    Of several ratings of a book the last counts. Where the file has titles and the project too, books go by them: the
    ids may be others (in a Goodreads export they are Goodreads's), the titles aren't.

    Raises:
        StageError: the file can't be read, has a rating off the scale, or none of a known book.
    """
    rows = [*read_rows(path)]
    names = [*rows[0]] if rows else []
    of_books = find_columns(names, (*TITLE, *BOOK) if library.titles else (*BOOK, *TITLE))
    of_stars = find_columns(names, STARS)
    if not of_books or not of_stars:
        raise StageError(
            f"{path} has columns {list_names(names)}; the first line should name book (or title) and stars"
        )
    unrated = ("0", "") if of_stars[0] == "My Rating" else ()  # as Goodreads writes it
    stars: dict[int, float] = {}
    unknown = []
    for number, row in enumerate(rows, 1):
        book, value = str(row.get(of_books[0])), str(row.get(of_stars[0]))
        if value in unrated:
            continue
        try:
            rating = float(value)
        except ValueError:
            rating = np.nan
        if not scale[0] <= rating <= scale[1]:
            raise StageError(f"{path}, row {number}: {shorten(value)!r} is no rating from {scale[0]:g} to {scale[1]:g}")
        called = library.books_called(book)
        if len(called) == 1:
            stars[called[0]] = rating
        else:
            unknown.append(book)
    if unknown:
        note(f"{path}: {len(unknown):,} of {len(rows):,} rows don't name one book of these: {list_names(unknown)}")
    if not stars:
        raise StageError(f"{path} rates no book of these ratings")
    return Reader(path.name, np.array([*stars]), np.array([*stars.values()]))


def name_book(row: Row) -> str:
    """The title and the authors, or the id, of what `Library.describe` says."""
    return " — ".join(filter(None, (row.get("title") or f"book {row['book']}", row.get("authors"))))


def _without_series(title: str) -> str:
    """A title in small letters without its series: dune for Dune (Dune Chronicles, #1)."""
    return title.casefold().partition(" (")[0]


def _find_id(ids: pa.Array, wanted: str) -> tuple[list[int], str]:
    """The number with this id, if there is one, and the ids beside which it stands or would: they ascend."""
    try:
        value = int(wanted) if pa.types.is_integer(ids.type) else wanted
        place = bisect.bisect_left(ids, value, key=lambda known: known.as_py())
    except ValueError:  # no number, where all ids are
        value, place = wanted, 0
    found = [place] if place < len(ids) and ids[place].as_py() == value else []
    return found, ", ".join(shorten(str(near)) for near in ids[max(place - 2, 0) : place + 2])

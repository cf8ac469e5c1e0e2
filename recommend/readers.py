"""Whom books are for: a reader among the ratings, or one with ratings of their own."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recommend.library import Library
from recommend.network import Floats, Network
from stages.program.errors import StageError, shorten

BOOK, TITLE = ("book", "book_id", "book id", "id"), ("title",)
STARS, GOODREADS_STARS = ("stars", "rating"), "my rating"


@dataclass(frozen=True)
class Reader:
    """A reader and their ratings: of which books (n,), how many stars (n,)."""

    name: str
    books: NDArray[np.integer]
    stars: Floats
    user: int | None = None
    """The number in the ratings table, if in it."""

    def vector(self, network: Network) -> Floats:
        """The learned vector (dim,), or one fitted to the ratings."""
        if self.user is not None:
            vector: Floats = network.user_vectors[self.user]
            return vector
        return network.fit_reader(self.books, self.stars)


def find_reader(library: Library, user_id: str) -> Reader:
    """A reader of the ratings file.

    Raises:
        StageError: there is none with this id.
    """
    user = library.find_user(user_id)
    rated = library.rated_by(user)
    return Reader(f"reader {user_id}", rated.books, rated.stars, user)


def read_reader(path: Path, library: Library, scale: list[float]) -> tuple[Reader, list[str]]:
    """A reader from a CSV of books and stars, with or without a header, and the books that aren't among the ratings.

    Of several ratings of a book the last counts. Where the file has titles and the project too, books go by them: the
    ids may be others (in a Goodreads export they are Goodreads's), the titles aren't.

    Raises:
        StageError: the file can't be read, has a rating off the scale, or none of a known book.
    """
    stars: dict[int, float] = {}
    unknown = []
    for line, book, value in _read_rows(path, bool(library.titles)):
        try:
            rating = float(value)
        except ValueError:
            rating = np.nan
        if not scale[0] <= rating <= scale[1]:
            raise StageError(f"{path}, line {line}: {shorten(value)!r} is no rating from {scale[0]:g} to {scale[1]:g}")
        try:
            stars[library.find_book(book)] = rating
        except StageError:
            unknown.append(book)
    if not stars:
        raise StageError(
            f"{path} rates no book of these ratings" + (f"; unknown: {shorten(unknown[0])!r}, …" if unknown else "")
        )
    return Reader(path.name, np.array([*stars]), np.array([*stars.values()])), unknown


def _read_rows(path: Path, by_title: bool) -> list[tuple[int, str, str]]:
    """The line, the book and the stars of each rating."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, row) for row in reader if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise StageError(f"{path} isn't readable as CSV in UTF-8: {error}") from error
    names = [name.strip().lower() for name in rows[0][1]] if rows else []
    book = next((names.index(name) for name in (TITLE + BOOK if by_title else BOOK + TITLE) if name in names), None)
    rating = next((names.index(name) for name in (*STARS, GOODREADS_STARS) if name in names), None)
    if book is None and rating is None:  # no header
        book, rating = 0, 1
    elif book is None or rating is None:
        raise StageError(f"{path} has columns {', '.join(map(shorten, names))}; it needs book (or title) and stars")
    else:
        rows = rows[1:]
    if short := [line for line, row in rows if len(row) <= max(book, rating)]:
        raise StageError(f"{path}, line {short[0]}: it should hold a book and its stars")
    # Goodreads writes 0 for a book without a rating.
    unrated = ("0", "") if GOODREADS_STARS in names else ()
    return [(line, row[book], row[rating]) for line, row in rows if row[rating] not in unrated]

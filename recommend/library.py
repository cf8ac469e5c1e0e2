"""What a project knows of its readers and books: original ids, titles, and who gave what how many stars."""

import bisect
import difflib
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recommend.titles import Title
from stages.program.errors import StageError, shorten
from stages.ratings.table import Ratings, read_ratings, read_table

NEAREST, OFFERED = 3, 5
"""How many near ids or titles a message looks for, and how many books it names."""


@dataclass(frozen=True)
class Library:
    """The tables of a project: users and books by number, with the ids that they have in the ratings file."""

    user_ids: pa.Array
    """(users,), int64 or string, ascending."""
    book_ids: pa.Array
    """(books,), likewise."""
    ratings: Ratings
    """All of them, sorted by user."""
    train: Ratings
    """Those that the models were trained on."""
    titles: dict[int, Title] = field(default_factory=dict)
    """By the book's number."""

    @cached_property
    def counts(self) -> NDArray[np.intp]:
        """How many ratings stand behind a prediction for each book (books,): those that the models were trained on."""
        return np.bincount(self.train.books)

    def rated_by(self, user: int) -> Ratings:
        """A reader's ratings."""
        start, end = np.searchsorted(self.ratings.users, [user, user + 1])
        return self.ratings[slice(int(start), int(end))]

    def name(self, book: int) -> str:
        """A book's title and authors, or its id."""
        return str(self.titles.get(book) or f"book {self.book_ids[book]}")

    def find_user(self, wanted: str) -> int:
        """A reader's number, from the original id.

        Raises:
            StageError: there is no such reader; with the nearest ids.
        """
        number = _find_id(self.user_ids, wanted)
        if number is None:
            near = ", ".join(_nearest_ids(self.user_ids, wanted))
            raise StageError(f"no reader {shorten(wanted)!r} in these ratings; the nearest ids: {near}")
        return number

    @cached_property
    def by_title(self) -> dict[str, list[int]]:
        """The books of each title, in small letters, with and without the series that stands in brackets behind it."""
        found: dict[str, list[int]] = {}
        for book, title in self.titles.items():
            whole = title.title.casefold()
            for name in {whole, whole.partition(" (")[0]}:
                found.setdefault(name, []).append(book)
        return found

    def find_book(self, wanted: str) -> int:
        """A book's number, from the original id or from the title: all of it, less the series, or a part.

        Raises:
            StageError: there is no such book, or more than one; with the nearest.
        """
        if (number := _find_id(self.book_ids, wanted)) is not None:
            return number
        sought = wanted.casefold().strip()
        words = re.compile(rf"\b{re.escape(sought)}\b")
        matches = self.by_title.get(sought) or [
            book for book, title in self.titles.items() if words.search(title.title.casefold())
        ]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise StageError(
                f"{len(matches)} books are called {shorten(wanted)!r}; name one by its id: {self._offer(matches)}"
            )
        if self.titles:
            near = difflib.get_close_matches(sought, self.by_title, NEAREST)
            offer = self._offer([book for title in near for book in self.by_title[title]])
            raise StageError(
                f"no book {shorten(wanted)!r}" + (f"; the nearest: {offer}" if near else "; nor one spelt alike")
            )
        raise StageError(
            f"no book {shorten(wanted)!r} in these ratings; the nearest ids: "
            f"{', '.join(_nearest_ids(self.book_ids, wanted))}; for titles give --titles FILE"
        )

    def _offer(self, books: list[int]) -> str:
        more = "; …" if len(books) > OFFERED else ""
        return "; ".join(f"{self.book_ids[book]} {self.name(book)}" for book in books[:OFFERED]) + more


def read_library(project: Path) -> Library:
    """The tables that `prepare-ratings` wrote.

    Raises:
        StageError: one is missing or damaged, or they aren't of one run.
    """
    ratings, train = (read_ratings(project / "data" / f"{name}.parquet") for name in ("ratings", "train"))
    user_ids, book_ids = (
        read_table(project / "data" / f"{kind}s.parquet").column(0).combine_chunks() for kind in ("user", "book")
    )
    counts = {(table.user_count, table.book_count) for table in (ratings, train)}
    if counts != {(len(user_ids), len(book_ids))}:
        raise StageError(f"the tables in {project / 'data'} are not of one run; run: dvc repro")
    return Library(user_ids, book_ids, ratings, train)


def _find_id(ids: pa.Array, wanted: str) -> int | None:
    """The number of an id: they ascend."""
    if pa.types.is_integer(ids.type):
        if not wanted.strip().isdecimal() or int(wanted) >= 2**63:
            return None
        value: int | str = int(wanted)
    else:
        value = wanted
    number = bisect.bisect_left(ids, value, key=lambda known: known.as_py())
    return number if number < len(ids) and ids[number].as_py() == value else None


def _nearest_ids(ids: pa.Array, wanted: str) -> list[str]:
    """The numbers nearest to a number; otherwise the ids that are spelt alike, or the first."""
    if pa.types.is_integer(ids.type) and wanted.strip().lstrip("-").isdecimal():
        distances = np.abs(ids.to_numpy().astype(np.float64) - float(wanted))
        return [str(ids[place]) for place in np.sort(np.argsort(distances, kind="stable")[:NEAREST])]
    texts = [str(value) for value in ids.to_pylist()]
    return difflib.get_close_matches(wanted, texts, NEAREST) or texts[:NEAREST]

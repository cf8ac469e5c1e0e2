"""The ratings table that the stages hand on: its schema, reading, writing, and a split as arrays."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.program.errors import StageError
from stages.program.files import replacing

SCHEMA = pa.schema(
    [pa.field("user", pa.int32(), False), pa.field("book", pa.int32(), False), pa.field("rating", pa.float32(), False)]
)

GROUP = 1 << 20
"""Rows of a Parquet file that stand together."""


@dataclass(frozen=True)
class Ratings:
    """Ratings as three arrays of shape (n,): who rated (int32), which book (int32), how many stars (float32).

    Users and books are numbered from 0 without gaps over the whole table.
    """

    users: NDArray[np.int32]
    books: NDArray[np.int32]
    stars: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.stars)

    def __getitem__(self, rows: NDArray[np.intp] | NDArray[np.bool_] | slice) -> "Ratings":
        return Ratings(self.users[rows], self.books[rows], self.stars[rows])

    @property
    def mean(self) -> float:
        """The mean rating, in stars, summed in float64."""
        return float(self.stars.mean(dtype=np.float64))

    @property
    def user_count(self) -> int:
        """The number of users: `split` leaves each of them in the training rows."""
        return int(self.users.max(initial=-1)) + 1

    @property
    def book_count(self) -> int:
        """The number of books: `split` leaves each of them in the training rows."""
        return int(self.books.max(initial=-1)) + 1


def count_groups(path: Path) -> int:
    """How many groups of rows the file has: `GROUP` rows each, and the last one the rest.

    Raises:
        StageError: the file is missing or damaged.
    """
    with _opened(path) as file:
        return int(file.num_row_groups)


def read_ratings(path: Path, groups: Iterable[int] | None = None) -> Ratings:
    """Read what `write_ratings` wrote, or only these groups of its rows.

    Raises:
        StageError: the file is missing, damaged or holds another table.
    """
    with _opened(path) as file:
        if not file.schema_arrow.equals(SCHEMA):
            raise StageError(f"{path} holds other columns than user, book, rating; run: dvc repro")
        chosen = [*(range(file.num_row_groups) if groups is None else groups)]
        columns: Any = [  # one by one: each is in memory twice for a moment; to_numpy would load pandas
            np.from_dlpack(file.read_row_groups(chosen, [name]).column(0).combine_chunks()) for name in SCHEMA.names
        ]
    return Ratings(*columns)


def concatenate(tables: Sequence[Ratings]) -> Ratings:
    """One table of all rows; the table itself where there is only one."""
    if len(tables) == 1:
        return tables[0]
    columns = zip(*((table.users, table.books, table.stars) for table in tables), strict=True)
    return Ratings(*map(np.concatenate, columns))


def write_ratings(ratings: Ratings, path: Path) -> None:
    """Write the table as Parquet; the same ratings give the same bytes."""
    write_parts([ratings], path)


def write_parts(parts: Iterable[Ratings], path: Path) -> None:
    """Write the rows of all parts, with one in memory at a time: the same bytes as if they were one table."""
    with replacing(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        rest = SCHEMA.empty_table()
        for part in parts:
            rest = pa.concat_tables([rest, pa.table([part.users, part.books, part.stars], schema=SCHEMA)])
            whole = len(rest) // GROUP * GROUP
            if whole:
                writer.write_table(rest[:whole], GROUP)
                rest = rest[whole:]
        if len(rest):
            writer.write_table(rest)


def write_table(table: pa.Table, path: Path) -> None:
    """Write any table as Parquet, whole or not at all."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_table(path: Path) -> pa.Table:
    """Read what `write_table` wrote.

    Raises:
        StageError: the file is missing or damaged.
    """
    with _opened(path) as file:
        return file.read()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            yield file
    except FileNotFoundError as error:
        raise StageError(f"{path} is missing; run: dvc repro") from error
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # the file may be whole
            raise
        raise StageError(f"{path} is damaged ({' '.join(str(error).split())}); run: dvc repro") from error

"""Which books to read: the highest predicted stars among those that a reader hasn't rated, and what is near a book."""

import itertools
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recommend.library import Library, Reader, Row, name_book
from recommend.network import Floats, Network
from stages.program.files import replacing

MIN_RATINGS = 10
"""How many ratings a book needs unless --min-ratings says so: chosen on validation rows (docs/recommending.md)."""

REASONS = 3
"""How many rated books `--why` names."""

FILES = (".csv", ".parquet", ".json")


class Books(NamedTuple):
    """Books, the best first: their numbers (n,), and the predicted stars or the distance of each (n,)."""

    numbers: NDArray[np.integer]
    scores: Floats


def recommend(network: Network, reader: Reader, left_out: NDArray[np.bool_], count: int) -> Books:
    """The books with the most predicted stars for a reader, less the rated ones and the ones left out (books,).

    The reader's vector is the learned one, or one fitted to the ratings; of books with equal stars the first counts.
    """
    new = reader.user is None
    stars = network.predict(
        network.fit_reader(reader.books, reader.stars) if new else network.user_vectors[reader.user]
    )
    stars[left_out] = stars[reader.books] = -np.inf
    place = max(len(stars) - count, 0)
    least = max(np.partition(stars, place)[place], np.finfo(stars.dtype).min)
    books = np.flatnonzero(stars >= least)
    best = books[np.argsort(-stars[books], kind="stable")][:count]
    return Books(best, stars[best])


def nearest(network: Network, book: int, among: NDArray[np.integer], count: int) -> Books:
    """The books whose learned vectors are nearest to a book's, itself left out; the scores are the distances.

    Of goodbooks-10k's books more neighbours are by the same author than with cosines; docs/recommending.md has figures.
    """
    others = among[among != book]
    distances = np.linalg.norm(network.book_vectors[others] - network.book_vectors[book], axis=1)
    best = np.argsort(distances, kind="stable")[:count]
    return Books(others[best], distances[best])


def list_books(
    library: Library, network: Network, readers: Sequence[Reader], left_out: NDArray[np.bool_], count: int, why: bool
) -> list[Row]:
    """The lists of some readers, made on as many threads as there are processors.

    What `as_rows` says, with `reader` before it, the original id (None for a new reader), and if asked for `near`
    behind it, the rated books that are nearest to each and their stars.
    """
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        lists = threads.map(lambda reader: recommend(network, reader, left_out, count), readers)
        rows: list[Row] = []
        for reader, books in zip(readers, lists, strict=True):
            user_id = None if reader.user is None else library.user_ids[reader.user].as_py()
            for book, row in zip(books.numbers.tolist(), as_rows(library, books, "stars"), strict=True):
                near = {"near": _explain(library, network, reader, book)} if why else {}
                rows.append({"reader": user_id, **row, **near})
    return rows


def as_rows(library: Library, books: Books, score: str) -> list[Row]:
    """For each book its rank, from 1, its id and title, its score, and how many ratings stand behind it."""
    return [
        {"rank": rank, **library.describe(book), score: value, "ratings": int(library.counts[book])}
        for rank, (book, value) in enumerate(zip(books.numbers.tolist(), books.scores.tolist(), strict=True), 1)
    ]


def _explain(library: Library, network: Network, reader: Reader, book: int) -> str:
    near = nearest(network, book, reader.books, REASONS).numbers
    stars = dict(zip(reader.books.tolist(), reader.stars.tolist(), strict=True))
    return "; ".join(f"{library.name(rated)} ({stars[rated]:g})" for rated in near.tolist())


def show(rows: Iterable[Row], score: str) -> str:
    """A list for the terminal: the score, how many ratings stand behind each book, what it is called."""
    lines = [f"{'':4} {score:>8} {'ratings':>8}  book"]
    for row in rows:
        lines.append(f"{row['rank']:>3}. {row[score]:8.2f} {row['ratings']:>8,}  {name_book(row)}")
        lines += [f"{'':24}near {row['near']}"] if "near" in row else []
    return "\n".join(lines)


def write_rows(path: Path, batches: Iterable[list[Row]], types: dict[str, pa.DataType]) -> None:
    """Write rows to a file, whole or not at all: its name's end says of which kind; `types` has each column's."""
    waiting = iter(batches)
    first = next(waiting)
    every = itertools.chain([first], waiting)
    schema = pa.schema([(name, types[name]) for name in (first[0] if first else types)])
    with replacing(path) as temporary:
        if path.suffix == ".json":
            lines = (json.dumps(row, ensure_ascii=False) for rows in every for row in rows)
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                file.write("[\n" + next(lines, ""))
                file.writelines(f",\n{line}" for line in lines)
                file.write("\n]\n")
            return
        writers: dict[str, Any] = {".csv": pyarrow.csv.CSVWriter, ".parquet": pq.ParquetWriter}
        with writers[path.suffix](temporary, schema) as writer:
            for rows in every:
                columns = {name: [row[name] for row in rows] for name in schema.names}
                writer.write_table(pa.table(columns, schema))  # ten times as fast as from_pylist


def column_types(library: Library, network: Network) -> dict[str, pa.DataType]:
    """The types of the columns of rows, in their order in a file."""
    number = pa.from_numpy_dtype(network.book_vectors.dtype)
    return {
        **{"reader": library.user_ids.type, "rank": pa.int64(), "book": library.book_ids.type},
        **{"title": pa.string(), "authors": pa.string(), "stars": number, "distance": number},
        **{"ratings": pa.int64(), "near": pa.string()},
    }

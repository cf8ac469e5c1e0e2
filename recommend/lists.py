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

from recommend.library import Library, Reader, name_book
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
) -> pa.Table:
    """The lists of some readers, made on as many threads as there are processors.

    What `tabulate` says, with `reader` before it, the original id (null for a new reader), and if asked for `near`
    behind it, the rated books that are nearest to each and their stars.
    """
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        lists = [*threads.map(lambda reader: recommend(network, reader, left_out, count), readers)]
    table = tabulate(library, lists, "stars")
    users = np.repeat([reader.user for reader in readers], [len(books.numbers) for books in lists])
    table = table.add_column(0, "reader", library.user_ids.take(pa.array(users, pa.int64())))
    if why:
        pairs = [(reader, book) for reader, books in zip(readers, lists, strict=True) for book in books.numbers]
        reasons = [_explain(library, network, reader, book) for reader, book in pairs]
        table = table.append_column("near", pa.array(reasons, pa.string()))
    return table


def tabulate(library: Library, lists: Sequence[Books], score: str) -> pa.Table:
    """The rows of `Library.books` for each list, with `rank` before them and the score before their `ratings`."""
    numbers, scores = (np.concatenate(part) for part in zip(*lists, strict=True))
    ranks = np.concatenate([np.arange(1, len(books.numbers) + 1) for books in lists])
    table = library.books.take(pa.array(numbers)).add_column(0, "rank", pa.array(ranks))
    return table.add_column(table.num_columns - 1, score, pa.array(scores))


def _explain(library: Library, network: Network, reader: Reader, book: int) -> str:
    near = nearest(network, book, reader.books, REASONS).numbers
    stars = dict(zip(reader.books.tolist(), reader.stars.tolist(), strict=True))
    return "; ".join(f"{library.name(rated)} ({stars[rated]:g})" for rated in near.tolist())


def show(table: pa.Table, score: str) -> str:
    """A list for the terminal: the score, how many ratings stand behind each book, what it is called."""
    lines = [f"{'':4} {score:>8} {'ratings':>8}  book"]
    for row in table.to_pylist():
        lines.append(f"{row['rank']:>3}. {row[score]:8.2f} {row['ratings']:>8,}  {name_book(row)}")
        lines += [f"{'':24}near {row['near']}"] if "near" in row else []
    return "\n".join(lines)


def write_tables(path: Path, tables: Iterable[pa.Table]) -> None:
    """Write tables one after the other to one file, whole or not at all: its name's end says which kind."""
    waiting = iter(tables)
    first = next(waiting)
    every = itertools.chain([first], waiting)
    with replacing(path) as temporary:
        if path.suffix == ".json":
            rows = (json.dumps(row, ensure_ascii=False) for table in every for row in table.to_pylist())
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                file.write("[\n" + next(rows, ""))
                file.writelines(f",\n{row}" for row in rows)
                file.write("\n]\n")
            return
        writers: dict[str, Any] = {".csv": pyarrow.csv.CSVWriter, ".parquet": pq.ParquetWriter}
        with writers[path.suffix](temporary, first.schema) as writer:
            for table in every:
                writer.write_table(table)

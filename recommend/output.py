"""Lists of books as tables: for the terminal and for files."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from recommend.library import Library
from recommend.lists import Books
from stages.program.files import replacing

FILES = (".csv", ".parquet", ".json")


def tabulate(library: Library, lists: Sequence[Books], score: str, readers: pa.Array | None = None) -> pa.Table:
    """A row for each book of each list: `reader` (where there are several), `rank`, `book`, titles, score, `ratings`.

    Args:
        library: what the books are called.
        lists: of each reader.
        score: what the lists' scores are.
        readers: the readers' original ids.
    """
    lengths = [len(books.numbers) for books in lists]
    numbers = np.concatenate([books.numbers for books in lists])
    columns: dict[str, Any] = {}
    if readers is not None:
        columns["reader"] = readers.take(pa.array(np.repeat(np.arange(len(lists)), lengths)))
    columns["rank"] = np.concatenate([np.arange(1, length + 1) for length in lengths])
    columns["book"] = library.book_ids.take(pa.array(numbers))
    if library.titles:
        titles = [library.titles.get(number) for number in numbers.tolist()]
        columns["title"] = pa.array([title and title.title for title in titles], pa.string())
        columns["authors"] = pa.array([title and title.authors for title in titles], pa.string())
    columns[score] = np.concatenate([books.scores for books in lists])
    columns["ratings"] = library.counts[numbers]
    return pa.table(columns)


def show(library: Library, books: Books, score: str, reasons: Sequence[str] = ()) -> str:
    """A list for the terminal: the score, how many ratings stand behind each book, what it is called."""
    lines = [f"{'':4} {score:>8} {'ratings':>8}  book"]
    for place, (number, value) in enumerate(zip(books.numbers.tolist(), books.scores.tolist(), strict=True)):
        lines.append(f"{place + 1:>3}. {value:8.2f} {library.counts[number]:>8,}  {library.name(number)}")
        if reasons:
            lines.append(f"{'':24}near {reasons[place]}")
    return "\n".join(lines)


def write_tables(path: Path, tables: Iterable[pa.Table]) -> None:
    """Write tables one after the other to one file, whole or not at all: its name's end says which kind."""
    writers: dict[str, Any] = {".csv": pyarrow.csv.CSVWriter, ".parquet": pq.ParquetWriter, ".json": _JsonWriter}
    waiting = iter(tables)
    first = next(waiting)
    with replacing(path) as temporary, writers[path.suffix](temporary, first.schema) as writer:
        writer.write_table(first)
        for table in waiting:
            writer.write_table(table)


class _JsonWriter:
    """A list of objects, one in each line."""

    def __init__(self, path: Path, _schema: pa.Schema) -> None:
        self.path, self.separator = path, "\n"

    def __enter__(self) -> "_JsonWriter":
        self.file = self.path.open("w", encoding="utf-8", newline="\n")
        self.file.write("[")
        return self

    def write_table(self, table: pa.Table) -> None:
        for row in table.to_pylist():
            self.file.write(self.separator + json.dumps(row, ensure_ascii=False))
            self.separator = ",\n"

    def __exit__(self, *_: object) -> None:
        self.file.write("\n]\n")
        self.file.close()

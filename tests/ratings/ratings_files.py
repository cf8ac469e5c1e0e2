"""What the tests of ratings files share: files to read, settings, and what was read, as plain rows, or refused."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.program.errors import StageError
from stages.program.params import Prepare
from stages.ratings.checks import Source
from stages.ratings.source import read_source

Row = tuple[Any, Any, float]
COLUMNS = {"user": "user_id", "book": "book_id", "rating": "rating"}
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda content: pa.Codec("zstd").compress(content, asbytes=True),
    "lz4": lambda content: pa.Codec("lz4").compress(content, asbytes=True),
}


def prepare_settings(ratings: Path | str, **changes: Any) -> Prepare:
    """The `prepare` section of params.yaml for a file, a folder or a pattern, with the defaults but for changes."""
    settings = {
        "ratings": str(ratings),
        "columns": COLUMNS,
        "rating_scale": [1, 5],
        "on_duplicate": "last",
        "min_ratings_per_user": 1,
        "min_ratings_per_book": 1,
    }
    return Prepare.model_validate(settings | changes)


def write(folder: Path, contents: str | bytes | Mapping[str, str | bytes]) -> Path:
    """Write one file and name it, or several by their names and name their folder."""
    files = contents if isinstance(contents, Mapping) else {"ratings.csv": contents}
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name if len(files) == 1 else folder


def rows(source: Source) -> list[Row]:
    """The rows as user, book, stars."""
    return [
        (source.user_ids[users[user]].as_py(), source.book_ids[books[book]].as_py(), stars)
        for ratings, users, books in zip(source.files, source.users, source.books, strict=True)
        for user, book, stars in zip(*(column.tolist() for column in astuple(ratings)), strict=True)
    ]


def read(ratings: Path, **changes: Any) -> list[Row]:
    return rows(read_source(prepare_settings(ratings, **changes)))


def refusal(ratings: Path, **changes: Any) -> str:
    """The message, which is short and names the file (or, for a pattern, one in the folder before its first star)."""
    with pytest.raises(StageError) as caught:
        read_source(prepare_settings(ratings, **changes))
    message = str(caught.value)
    assert str(ratings).partition("*")[0] in message
    assert len(message.splitlines()) <= 6
    assert len(message) < 2000
    return message


def parquet(columns: dict[str, Any]) -> bytes:
    """A table as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()

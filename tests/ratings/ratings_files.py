"""What the tests of ratings files share: settings, and what was read, as plain rows."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.program.params import Prepare
from stages.ratings.checks import Source

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


def rows(source: Source) -> list[Row]:
    """The rows as user, book, stars."""
    return [
        (source.user_ids[users[user]].as_py(), source.book_ids[books[book]].as_py(), stars)
        for ratings, users, books in zip(source.files, source.users, source.books, strict=True)
        for user, book, stars in zip(*(column.tolist() for column in astuple(ratings)), strict=True)
    ]


def parquet(columns: dict[str, Any]) -> bytes:
    """A table as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()

"""Ratings as Parquet."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.program.errors import StageError, shorten
from stages.program.params import Prepare
from stages.ratings.checks import Block
from stages.ratings.files import open_file


class ParquetFile:
    """A Parquet file."""

    unit = "row"
    separator = ""

    def __init__(self, path: Path, _: Prepare) -> None:
        stream = open_file(path)
        seekable = stream if isinstance(stream, pa.OSFile) else pa.BufferReader(stream.read())
        self._file = pq.ParquetFile(seekable, page_checksum_verification=True)
        self._path = path
        self.names: list[str] = self._file.schema_arrow.names

    def blocks(self, names: list[str]) -> Iterator[Block]:
        """Some columns, as numbers or text."""
        first = 1
        for batch in self._file.iter_batches(columns=names):
            batch.validate(full=True)
            columns = [self._plain(name, batch[name]) for name in names]
            yield Block(columns, np.arange(first, first + len(batch)), {})
            first += len(batch)

    def _plain(self, name: str, column: pa.Array) -> pa.Array:
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        try:
            return column.cast(kind if number else pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            message = f"{self._path}: column {name!r} holds {shorten(str(kind))}, not numbers or text"
            raise StageError(message) from error

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

    def __init__(self, path: Path, settings: Prepare) -> None:
        stream = open_file(path)
        seekable = stream if isinstance(stream, pa.OSFile) else pa.BufferReader(stream.read())
        self._file = pq.ParquetFile(seekable, page_checksum_verification=True)
        self._path = path
        self.names: list[str] = self._file.schema_arrow.names

    def blocks(self, places: list[int]) -> Iterator[Block]:
        """The columns at some places, as numbers or text."""
        names, first = [self.names[place] for place in places], 1
        for batch in self._file.iter_batches(columns=names):
            batch.validate(full=True)
            rows = np.arange(first, first + len(batch))
            yield Block([self._plain(batch, name) for name in names], rows.copy, {}, unit="row")
            first += len(batch)

    def _plain(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        column = batch.column(name)
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        try:
            return column.cast(kind if number else pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise StageError(
                f"{self._path}: column {name!r} holds {shorten(str(kind))}, not numbers or text"
            ) from error

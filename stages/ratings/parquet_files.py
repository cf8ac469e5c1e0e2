"""Ratings as Parquet."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from stages.program.params import shorten
from stages.program.process import StageError
from stages.ratings.checks import Block
from stages.ratings.files import RatingsFile


class ParquetFile:
    """A Parquet file, its rows counted from 0."""

    unit = "row"
    decimal_commas = True

    def __init__(self, file: RatingsFile) -> None:
        self.path = file.path
        stream = pa.OSFile(str(file.path)) if file.compression is None else pa.BufferReader(file.open().read())
        self._file = pq.ParquetFile(stream, page_checksum_verification=True)
        self.names: list[str] = self._file.schema_arrow.names

    def blocks(self, user: int | None, book: int, rating: int) -> Iterator[Block]:
        """The rows, by the columns' places."""
        places = (user, book, rating)
        names = [self.names[place] for place in places if place is not None]
        first = 0
        for batch in self._file.iter_batches(columns=names):
            batch.validate(full=True)
            yield Block(first, *(None if place is None else self._plain(batch, self.names[place]) for place in places))
            first += len(batch)

    def _plain(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        """A column as numbers or text."""
        column = batch.column(name)
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        try:
            return column.cast(kind if number else pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise StageError(f"{self.path}: column {name!r} holds {shorten(str(kind))}, not numbers or text") from error

    def places(self, rows: list[int]) -> list[int]:
        """The rows' numbers from 1."""
        return [row + 1 for row in rows]

    def structure_problems(self) -> list[str]:
        """None: what has no structure can't be opened."""
        return []

"""What is checked of every row, whatever kind of file it stands in; what is wrong is collected for one message."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from stages.program.params import Prepare, shorten

EXAMPLES = 3
"""How many wrong rows, and how many different values of theirs, a message names."""

MISSING = {*pyarrow.csv.ConvertOptions().null_values, "None", r"\N", "<NA>"}
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?", re.ASCII | re.IGNORECASE)
WHOLE_NUMBER = re.compile(r"[+-]?\d+(\.0*)?", re.ASCII)
PLAIN_NUMBER = re.compile(r"0|[1-9]\d{0,18}", re.ASCII)
POWER_OF_TEN = re.compile(r"[+-]?(\d+\.\d*e[+-]?|\d+e[+-])\d+", re.ASCII | re.IGNORECASE)
"""The point or the sign tells it from a hexadecimal number of digits and one e."""
EXCEL_TEXT = re.compile(r'="(.*)"', re.DOTALL)
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
EXACT_FLOATS = 2**53
"""From here on a float64 doesn't hold every whole number."""

ID_FAULTS = [
    "missing (prepare.missing_ids: leave_out leaves such rows out)",
    "in powers of ten: Excel or a float has cut their digits off",
    "with control characters",
]
"""In a column's codes they are -1, -2, -3."""
STRUCTURE = -1
"""The place, instead of a column's, of faults that are a whole row's."""


class Block(NamedTuple):
    """Rows as they stand in a file."""

    columns: list[pa.Array]
    """User (not where the whole file is one user's), book and rating: text or numbers; null is a missing value."""
    numbers: Callable[[], NDArray[np.integer[Any]]]
    """(n,) which line, row or object of the file each is, from 1."""
    broken: dict[int, str]
    """The numbers of what couldn't be read as rows, and what is wrong with each."""
    unit: str = "line"
    decimal_commas: bool = True


@dataclass(frozen=True)
class Texts:
    """A column of text: each different text once, and for each row which of them it holds."""

    distinct: list[str]
    index: NDArray[np.int32]
    """(n,)"""


Ids: TypeAlias = NDArray[np.integer[Any]] | Texts
"""(n,): whole numbers from 0 where all ids of the column are such, else texts as they stand in the files."""


@dataclass(frozen=True)
class Source:
    """The checked rows, n of them, in the order of the files."""

    user_ids: Ids
    book_ids: Ids
    stars: NDArray[np.float32]
    """(n,), finite and on the scale."""
    left_out: dict[str, int]
    """How many more rows the files have, by the reason for which they are left out."""
    where: Callable[[NDArray[np.intp]], str]
    """Names the first few of some rows (ascending, from 0) as people find them: 'lines 3, 17, 201, …'. Only where
    `on_duplicate` is `error`."""


@dataclass
class _Finding:
    """How many rows have one kind of fault, and the first few values and rows."""

    count: int = 0
    values: dict[str, None] = field(default_factory=dict)
    rows: list[tuple[Path, int]] = field(default_factory=list)


class Check:
    """Takes the files' rows block by block, keeps what is to be kept, and collects what is wrong."""

    def __init__(self, settings: Prepare, several: bool) -> None:
        self._settings = settings
        self._several = several
        self._scale = np.array(settings.rating_scale, np.float32)
        self._not_rated = {value.strip() if isinstance(value, str) else float(value) for value in settings.not_rated}
        self._ids = (_Ids(), _Ids())
        self._stars: list[NDArray[np.float32]] = []
        self._rows: list[tuple[Path, NDArray[np.integer[Any]]]] = []
        self._findings: dict[tuple[int, str], _Finding] = {}
        self._names: Sequence[str] = ()
        self._unit = ""
        self.left_out: Counter[str] = Counter()

    def add(self, path: Path, block: Block, names: Sequence[str]) -> None:
        """Check a block's rows; leave out what the settings say. `names` are the columns', for messages."""
        self._names, self._unit = names, block.unit
        for number, fault in block.broken.items():
            self._refuse(STRUCTURE, fault, path, [number], 1)
        columns = block.columns
        if len(columns) == 2:
            columns = [pa.repeat(path.name.partition(".")[0], len(columns[0])), *columns]
        table = pa.RecordBatch.from_arrays(columns, ["user", "book", "rating"])
        texts, index = _distinct(columns[2])
        ratings = [self._read_rating(text, block.decimal_commas) for text in texts]
        kept = np.array([rating is not None for rating in ratings], np.bool_)[index]
        table, index = _keep(kept, table, index)
        self.left_out["not rated"] += len(kept) - len(index)

        ids = [column.read(array) for column, array in zip(self._ids, table.columns, strict=False)]
        if self._settings.missing_ids == "leave_out":
            known = ~(_have(ids[0], 0) | _have(ids[1], 0))
            table, index, *ids = _keep(known, table, index, *ids)
            self.left_out["without a user or a book"] += len(known) - len(index)
            kept[kept] = known

        wrong = {(place, fault): _have(ids[place], code) for place in (0, 1) for code, fault in enumerate(ID_FAULTS)}
        for place, column in enumerate(self._ids):
            for fault, codes in column.odd_numbers.items():
                wrong[place, fault] = np.isin(ids[place], codes) if _is_coded(ids[place]) else np.array([], np.bool_)
        for fault in {rating for rating in ratings if isinstance(rating, str)}:
            wrong[2, fault] = np.array([rating == fault for rating in ratings])[index]
        for (place, fault), has_it in wrong.items():
            rows = np.flatnonzero(has_it)
            if len(rows):
                values = table[place].take(pa.array(rows)).unique().slice(0, EXAMPLES)
                found = block.numbers()[kept][rows[: EXAMPLES + 1]]
                self._refuse(place, fault, path, found, len(rows), map(_as_text, values.to_pylist()))

        for column, values in zip(self._ids, ids, strict=True):
            column.pieces.append(values)
        stars = [rating if isinstance(rating, float) else np.nan for rating in ratings]
        self._stars.append(np.array(stars, np.float32)[index])
        if self._settings.on_duplicate == "error":
            self._rows.append((path, block.numbers()[kept]))

    def _read_rating(self, text: str, decimal_commas: bool) -> float | str | None:
        """Stars, or what is wrong, or None for no rating."""
        text = text.strip()
        number = text.replace(",", ".") if decimal_commas else text
        stars = self._settings.rating_words.get(text, float(number) if NUMBER.fullmatch(number) else math.nan)
        if text in self._not_rated or stars in self._not_rated:
            return None
        if math.isnan(stars):
            return (
                "empty or NaN"
                if text in MISSING
                else "not a number (prepare.rating_words or not_rated may say what it is)"
            )
        if math.isinf(stars):
            return "infinite"
        if not self._scale[0] <= np.float32(stars) <= self._scale[1]:
            advice = ", or not_rated: [0]" if stars == 0 else ""
            return "off the scale {:g} to {:g} (prepare.rating_scale{})".format(*self._scale, advice)
        return float(stars)

    def _refuse(
        self, place: int, fault: str, path: Path, numbers: Iterable[int], count: int, values: Iterable[str] = ()
    ) -> None:
        finding = self._findings.setdefault((place, fault), _Finding())
        finding.count += count
        if len(finding.rows) <= EXAMPLES:
            finding.rows += [(path, int(number)) for number in numbers]
        finding.values |= dict.fromkeys(values)

    def finish(self) -> Source:
        """All rows that were kept."""
        users, books = (column.finish() for column in self._ids)
        stars = np.concatenate(self._stars) if self._stars else np.array([], np.float32)
        self._stars.clear()
        return Source(
            users, books, stars, {reason: count for reason, count in self.left_out.items() if count}, self._where
        )

    def problems(self) -> list[str]:
        """A line for each kind of fault."""
        lines = []
        for (place, fault), finding in sorted(self._findings.items(), key=lambda item: item[0]):
            rows, plural = self._name(finding.rows), "s" if finding.count > 1 else ""
            if place == STRUCTURE:
                lines.append(f"{finding.count:,} {self._unit}{plural} {fault}: {rows}")
            elif not (fault in self._ids[place % 2].odd_numbers and self._ids[place % 2].has_names):
                values = ", ".join(shorten(repr(value)) for value in list(finding.values)[:EXAMPLES])
                lines.append(f"column {self._names[place]}: {finding.count:,} value{plural} {fault}: {values} ({rows})")
        return lines

    def _where(self, rows: NDArray[np.intp]) -> str:
        ends = np.cumsum([len(numbers) for _, numbers in self._rows])
        found = []
        for row in rows[: EXAMPLES + 1].tolist():
            block = int(np.searchsorted(ends, row, side="right"))
            path, numbers = self._rows[block]
            found.append((path, int(numbers[row - ends[block]])))  # from the block's end
        return self._name(found)

    def _name(self, found: list[tuple[Path, int]]) -> str:
        """Rows as people find them; with their file, where there are several."""
        groups = []
        for path, rows in itertools.groupby(found[:EXAMPLES], key=lambda row: row[0]):
            numbers = [f"{number:,}" for _, number in rows]
            file = f"{path.name} " if self._several else ""
            groups.append(f"{file}{self._unit}{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}")
        return ", ".join(groups) + (", …" if len(found) > EXAMPLES else "")


class _Ids:
    """A column of ids: its rows in pieces, whole numbers where all of the piece are, else codes of its texts."""

    def __init__(self) -> None:
        self.pieces: list[NDArray[Any]] = []
        """int32 for codes, uint32 or int64 for the ids themselves."""
        self._texts: list[str] = []
        self._codes: dict[str, int] = {}
        self.has_names = False
        self.odd_numbers: dict[str, list[int]] = {}
        """Codes of negative and fractional numbers, by their fault: among names they are names."""

    def read(self, ids: pa.Array) -> NDArray[Any]:
        """The ids (n,) themselves or their codes; below 0 for what is wrong."""
        numbers = _plain_numbers(ids)
        if numbers is not None:
            return numbers
        texts, index = _distinct(ids)
        return np.array([self._code(text) for text in texts], np.int32)[index]

    def _code(self, text: str) -> int:
        code = self._codes.get(text)
        if code is None:
            wrapped = EXCEL_TEXT.fullmatch(text)
            name = wrapped[1] if wrapped else text
            fault = _id_fault(name)
            if fault is not None:
                code = -1 - fault
            elif wrapped:
                code = self._code(name)
            else:
                code = len(self._texts)
                self._texts.append(name)
                if not NUMBER.fullmatch(name.strip()):
                    self.has_names = True
                elif odd := _number_fault(name.strip()):
                    self.odd_numbers.setdefault(odd, []).append(code)
            self._codes[text] = code
        return code

    def finish(self) -> Ids:
        """The whole column."""
        if not any(map(_is_coded, self.pieces)):
            return self._join()
        used = np.zeros(len(self._texts) + len(ID_FAULTS), np.bool_)
        for piece in filter(_is_coded, self.pieces):
            used[piece] = True
        texts = [text.strip(" \t") if use else "0" for text, use in zip(self._texts, used, strict=False)]
        if all(PLAIN_NUMBER.fullmatch(text) and int(text) < 2**63 for text in texts):
            numbers = np.array([*map(int, texts), *[0] * len(ID_FAULTS)], np.int64)
            self.pieces = [numbers[piece] if _is_coded(piece) else piece for piece in self.pieces]
            return self._join()
        for place, piece in enumerate(self.pieces):
            if not _is_coded(piece):
                distinct, inverse = np.unique(piece, return_inverse=True)
                self.pieces[place] = np.array([self._code(str(number)) for number in distinct], np.int32)[inverse]
        index = self._join()
        used = np.append(np.zeros(len(self._texts), np.bool_), [False] * len(ID_FAULTS))
        used[index] = True
        codes = np.append(np.cumsum(used[: -len(ID_FAULTS)], dtype=np.int32) - 1, [-3, -2, -1])
        return Texts([text for text, use in zip(self._texts, used, strict=False) if use], codes.astype(np.int32)[index])

    def _join(self) -> NDArray[Any]:
        joined = np.concatenate(self.pieces) if self.pieces else np.array([], np.int64)
        self.pieces.clear()
        return joined


def _is_coded(piece: NDArray[Any]) -> bool:
    return piece.dtype == np.int32


def _keep(kept: NDArray[np.bool_], table: pa.RecordBatch, *arrays: NDArray[Any]) -> tuple[Any, ...]:
    if kept.all():
        return table, *arrays
    return table.filter(pa.array(kept)), *(array[kept] for array in arrays)


def _have(column: NDArray[Any], fault: int) -> NDArray[np.bool_]:
    """Which rows of a column, ids or codes, have a fault."""
    return column == -1 - fault if _is_coded(column) else np.zeros(len(column), np.bool_)


def _plain_numbers(ids: pa.Array) -> NDArray[Any] | None:
    """The ids as numbers, where all of them are plain: decimal, whole, from 0, and without leading zeros."""
    if ids.null_count or not len(ids):
        return None
    try:
        numbers = ids.cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    lowest, highest = (value.as_py() for value in pc.min_max(numbers).values())
    if pa.types.is_string(ids.type):
        # Only a number that is 0 or begins with 0 can be written in another way than this: 007, 0x7, -0.
        doubtful = lowest <= 0 or pc.any(pc.starts_with(ids, "0")).as_py()
        if doubtful and not numbers.cast(pa.string()).equals(ids):
            return None
    if lowest < 0 or (pa.types.is_floating(ids.type) and highest >= EXACT_FLOATS):
        return None
    return numbers.to_numpy().astype(np.uint32) if highest < 2**32 else numbers.to_numpy()


def _distinct(values: pa.Array) -> tuple[list[str], NDArray[np.int32]]:
    """Each different value as text, and for each row (n,) which of them it is."""
    encoded = values.dictionary_encode("encode")
    return [_as_text(value) for value in encoded.dictionary.to_pylist()], encoded.indices.to_numpy()


def _as_text(value: Any) -> str:
    """As a CSV file would have it: 4 for 4.0, and in powers of ten where a float can't hold all of a number's digits."""
    if isinstance(value, Decimal) or (isinstance(value, float) and value.is_integer() and abs(value) < EXACT_FLOATS):
        return f"{value:f}".rstrip("0").rstrip(".") if "." in f"{value:f}" else f"{value:f}"
    if isinstance(value, float) and abs(value) >= EXACT_FLOATS:
        return f"{value:e}"
    return "" if value is None else str(value)


def _id_fault(text: str) -> int | None:
    """Which of `ID_FAULTS` an id has."""
    stripped = text.strip()
    if not stripped or stripped in MISSING:
        return 0
    if POWER_OF_TEN.fullmatch(stripped):
        return 1
    return 2 if CONTROL_CHARACTER.search(text) else None


def _number_fault(text: str) -> str | None:
    if not WHOLE_NUMBER.fullmatch(text):
        return "not a whole number"
    return "negative" if text.startswith("-") and text.strip("-0.") else None

"""What is checked of every row, whatever kind of file it stands in; what is wrong is collected for one message."""

import itertools
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from stages.program.params import Prepare, shorten

EXAMPLES = 3
"""How many wrong rows, and how many different values of theirs, a message names."""

MISSING = {*pyarrow.csv.ConvertOptions().null_values, "None", r"\N", "<NA>"}
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
WHOLE_NUMBER = re.compile(r"[+-]?\d+(\.0*)?", re.ASCII)
PLAIN_NUMBER = re.compile(r"0|[1-9]\d{0,18}", re.ASCII)
INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
POWER_OF_TEN = re.compile(r"[+-]?(\d+\.\d*e[+-]?|\d+e[+-])\d+", re.ASCII | re.IGNORECASE)
"""The point or the sign tells it from a hexadecimal number of digits and one e."""
EXCEL_TEXT = re.compile(r'="(.*)"', re.DOTALL)
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
EXACT_FLOATS = 2**53
"""From here on a float64 doesn't hold every whole number."""

NOT_RATED = "not rated"
NO_ID = "without a user or a book"
ID_FAULTS = ["missing", "in powers of ten, which have lost digits", "with control characters"]
"""In a column's codes they are -1, -2, -3."""
ADVICE = {
    "missing": "prepare.missing_ids: leave_out would leave such rows out",
    "in powers of ten, which have lost digits": "the file needs to be as it was before Excel, or before its ids were floats",
    "not a number": "prepare.rating_words says what words mean, prepare.not_rated which values mean none",
    "empty or NaN": "prepare.not_rated: [''] would leave such rows out",
}


class Block(NamedTuple):
    """Rows as they stand in a file: arrays of text or of numbers, in which null is a missing value."""

    first: int
    """The place of the first one among the file's rows."""
    users: pa.Array | None
    """None where the whole file is one user's."""
    books: pa.Array
    ratings: pa.Array


class Opened(Protocol):
    """A file of some kind, and how its rows are named."""

    path: Path
    unit: str
    """What a row is called: line, row or object."""
    decimal_commas: bool

    def places(self, rows: list[int]) -> list[int]:
        """The rows (ascending, from 0) as people find them, from 1."""


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
    """Names the first few of some rows (ascending, from 0) as people find them: 'lines 3, 17, 201, …'."""


@dataclass
class _Finding:
    """One kind of fault in one column: how many rows have it; the first few different values, and rows."""

    count: int = 0
    values: dict[str, None] = field(default_factory=dict)
    rows: list[tuple[Opened, int]] = field(default_factory=list)


class Check:
    """Takes the files' rows block by block, keeps what is to be kept, and collects what is wrong."""

    def __init__(self, settings: Prepare) -> None:
        self._settings = settings
        self._scale = np.array(settings.rating_scale, np.float32)
        self._not_rated = {value.strip() if isinstance(value, str) else float(value) for value in settings.not_rated}
        self._ids = (_Ids(), _Ids())
        self._stars: list[NDArray[np.float32]] = []
        self._blocks: list[tuple[Opened, int, NDArray[np.uint8]]] = []
        """Of each block: its file, its first row, and a bit for each row that says whether it is kept."""
        self._ends: list[int] = []
        """How many rows are kept up to the end of each block."""
        self._findings: dict[tuple[int, str], _Finding] = {}
        self.left_out: Counter[str] = Counter()

    def add(self, file: Opened, block: Block) -> None:
        """Check a block's rows; leave out what the parameters say."""
        size = len(block.books)
        users = pa.repeat(file.path.name.partition(".")[0], size) if block.users is None else block.users
        columns = pa.RecordBatch.from_arrays([users, block.books, block.ratings], ["user", "book", "rating"])
        texts, index = _distinct(block.ratings)
        ratings = [self._read_rating(text, file.decimal_commas) for text in texts]
        kept = np.array([rating is not None for rating in ratings], np.bool_)[index]
        if not kept.all():
            columns, index = columns.filter(pa.array(kept)), index[kept]
        self.left_out[NOT_RATED] += size - len(index)

        ids = [column.read(array) for column, array in zip(self._ids, columns, strict=False)]
        if self._settings.missing_ids == "leave_out":
            whole = ~(_have(ids[0], 0) | _have(ids[1], 0))
            self.left_out[NO_ID] += len(whole) - int(whole.sum())
            columns, index, ids = columns.filter(pa.array(whole)), index[whole], [column[whole] for column in ids]
            kept[kept] = whole

        rows = block.first + np.flatnonzero(kept)
        for place, values in enumerate(ids):
            self._ids[place].pieces.append(values)
            for number, fault in enumerate(ID_FAULTS):
                self._refuse(place, fault, file, rows, _have(values, number), columns[place])
        for fault in sorted({rating for rating in ratings if isinstance(rating, str)}):
            self._refuse(2, fault, file, rows, np.array([rating == fault for rating in ratings])[index], columns[2])
        stars = [rating if isinstance(rating, float) else np.nan for rating in ratings]
        self._stars.append(np.array(stars, np.float32)[index])
        self._blocks.append((file, block.first, np.packbits(kept)))
        self._ends.append((self._ends[-1] if self._ends else 0) + len(rows))

    def _read_rating(self, text: str, decimal_commas: bool) -> float | str | None:
        """Stars, or what is wrong, or None for no rating."""
        text = text.strip()
        if text in self._not_rated:
            return None
        if text in self._settings.rating_words:
            stars = float(self._settings.rating_words[text])
        elif text in MISSING:
            return "empty or NaN"
        elif INFINITE.fullmatch(text):
            return "infinite"
        elif NUMBER.fullmatch(number := text.replace(",", ".") if decimal_commas else text):
            stars = float(number)
        else:
            return "not a number"
        if stars in self._not_rated:
            return None
        if not self._scale[0] <= np.float32(stars) <= self._scale[1]:
            return "off the scale {:g} to {:g} (prepare.rating_scale)".format(*self._scale)
        return stars

    def _refuse(
        self, place: int, fault: str, file: Opened, rows: NDArray[np.intp], wrong: NDArray[np.bool_], values: pa.Array
    ) -> None:
        if not wrong.any():
            return
        finding = self._findings.setdefault((place, fault), _Finding())
        wrong_rows = np.flatnonzero(wrong)
        finding.count += len(wrong_rows)
        finding.rows += [(file, row) for row in rows[wrong_rows[: EXAMPLES + 1]].tolist()]
        if len(finding.values) < EXAMPLES:
            finding.values |= dict.fromkeys(map(_as_text, values.take(pa.array(wrong_rows)).unique().to_pylist()))

    def finish(self) -> Source:
        """All rows that were kept."""
        ids = [column.finish() for column in self._ids]
        for place, column in enumerate(ids):
            if isinstance(column, Texts) and column.distinct:
                self._refuse_odd_numbers(place, column)
        stars = np.concatenate(self._stars) if self._stars else np.array([], np.float32)
        self._stars.clear()
        users, books = ids
        return Source(users, books, stars, {reason: count for reason, count in self.left_out.items() if count}, self._where)

    def _refuse_odd_numbers(self, place: int, ids: Texts) -> None:
        """Negative and fractional numbers are names among names, and mistakes among numbers."""
        texts = [text.strip() for text in ids.distinct]
        if not all(NUMBER.fullmatch(text) or INFINITE.fullmatch(text) for text in texts):
            return
        faults = [_number_fault(text) for text in texts] + [None] * len(ID_FAULTS)
        for fault in sorted({fault for fault in faults if fault}):
            rows = np.flatnonzero(np.array([found == fault for found in faults])[ids.index])
            finding = self._findings.setdefault((place, fault), _Finding())
            finding.count = len(rows)
            finding.values = dict.fromkeys(ids.distinct[code] for code in ids.index[rows[:1000]].tolist())
            finding.rows = self._locate(rows[: EXAMPLES + 1])

    def problems(self, labels: list[str]) -> list[str]:
        """A line for each kind of fault in each of the columns user, book and rating, named so."""
        lines = []
        for (place, fault), finding in sorted(self._findings.items(), key=lambda item: item[0]):
            values = ", ".join(shorten(repr(value)) for value in list(finding.values)[:EXAMPLES])
            count = f"{finding.count:,} value{'s' if finding.count > 1 else ''}"
            advice = self._advise(fault, finding)
            lines.append(f"column {labels[place]}: {count} {fault}: {values} ({self._name(finding.rows)}){advice}")
        return lines

    def _advise(self, fault: str, finding: _Finding) -> str:
        if fault.startswith("off the scale") and any(
            NUMBER.fullmatch(text) and not float(text) for text in finding.values
        ):
            return "; where 0 means not rated, prepare.not_rated: [0] leaves it out"
        return f"; {ADVICE[fault]}" if fault in ADVICE else ""

    def _where(self, rows: NDArray[np.intp]) -> str:
        return self._name(self._locate(rows[: EXAMPLES + 1]))

    def _locate(self, rows: NDArray[np.intp]) -> list[tuple[Opened, int]]:
        """The file of each kept row, and its place there."""
        found = []
        for row in rows.tolist():
            block = int(np.searchsorted(self._ends, row, side="right"))
            file, first, kept = self._blocks[block]
            before = self._ends[block - 1] if block else 0
            found.append((file, first + int(np.flatnonzero(np.unpackbits(kept))[row - before])))
        return found

    def _name(self, found: list[tuple[Opened, int]]) -> str:
        """Rows as people find them; with their file, where there are several."""
        several = len({id(file) for file, *_ in self._blocks}) > 1
        named = []
        for file, group in itertools.groupby(found[:EXAMPLES], key=lambda item: item[0]):
            name = f"{file.path.name}, " if several else ""
            named.append(name + enumerate_rows(file.unit, file.places([row for _, row in group])))
        return "; ".join(named) + (", …" if len(found) > EXAMPLES else "")


class _Ids:
    """A column of ids: its rows in pieces, whole numbers where all of the piece are, else codes of its texts."""

    def __init__(self) -> None:
        self.pieces: list[NDArray[Any]] = []
        """int32 for codes, uint32 or int64 for the ids themselves."""
        self._texts: list[str] = []
        self._codes: dict[str, int] = {}

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


def enumerate_rows(unit: str, numbers: list[int]) -> str:
    """'line 3' or 'lines 3, 17, 201, …'."""
    named = ", ".join(f"{number:,}" for number in numbers[:EXAMPLES])
    return f"{unit}{'s' if len(numbers) > 1 else ''} {named}{', …' if len(numbers) > EXAMPLES else ''}"


def _is_coded(piece: NDArray[Any]) -> bool:
    return piece.dtype == np.int32


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

"""What is checked of every row, whatever kind of file it stands in; what is wrong is collected for one message."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from stages.program.errors import shorten
from stages.program.params import Prepare

EXAMPLES = 3  # wrong rows, and different values of theirs, that a message names
EXACT_FLOATS = 2**53  # from here on a float64 doesn't hold every whole number

MISSING = {*pyarrow.csv.ConvertOptions().null_values, "None", r"\N", "<NA>"}
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?", re.ASCII | re.IGNORECASE)
WHOLE_NUMBER = re.compile(r"[+-]?\d+(\.0*)?", re.ASCII)
PLAIN_NUMBER = re.compile(r"0|[1-9]\d{0,18}", re.ASCII)
POWER_OF_TEN = re.compile(r"[+-]?(\d+\.\d*e[+-]?|\d+e[+-])\d+", re.ASCII | re.IGNORECASE)  # 12e3 may be hexadecimal
EXCEL_TEXT = re.compile(r'="(.*)"', re.DOTALL)
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")

ID_FAULTS = [
    "missing; prepare.missing_ids: leave_out would leave such rows out",
    "in powers of ten; Excel, or a float, has cut longer numbers so: take them from where they are whole",
    "with control characters",
]  # -1, -2, -3 in a column's codes; advice after the semicolon
NO_NUMBER = "not a number; prepare.rating_words and prepare.not_rated take words"
ROW = -1  # the place, instead of a column's, of faults that are a whole row's

Numbers: TypeAlias = NDArray[np.integer[Any]]


class Block(NamedTuple):
    """Rows as they stand in a file."""

    columns: list[pa.Array]
    """User (unless the file is one user's), book, rating: texts or numbers (n,), where null is a missing value."""
    numbers: Callable[[], Numbers]
    """(n,) which line, row or object of the file each is, from 1."""
    broken: dict[int, str]
    """The numbers of what isn't a row, and what is wrong with it."""
    unit: str = "line"
    decimal_commas: bool = True


@dataclass(frozen=True)
class Texts:
    """A column of text: each different text once, and for each row (n,) which of them it holds."""

    distinct: list[str]
    index: NDArray[np.int32]


Ids: TypeAlias = Numbers | Texts
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
    """Names the first of some rows (ascending, from 0) as 'lines 3, 17, 201, …'; where `on_duplicate` is `error`."""


@dataclass
class _Finding:
    """How many rows have one kind of fault, and the first few values and rows."""

    count: int = 0
    values: dict[str, None] = field(default_factory=dict)
    rows: list[tuple[str, int]] = field(default_factory=list)


class Check:
    """Takes the files' rows block by block, keeps what is to be kept, and collects what is wrong."""

    def __init__(self, settings: Prepare, several: bool) -> None:
        self._settings = settings
        self._several = several
        self._scale = np.array(settings.rating_scale, np.float32)
        self._not_rated = {value.strip() if isinstance(value, str) else float(value) for value in settings.not_rated}
        self._ids = (_Ids(), _Ids())
        self._stars: list[NDArray[np.float32]] = []
        self._rows: list[tuple[str, Numbers]] = []
        self._left_out: Counter[str] = Counter()
        self._findings: dict[tuple[int, str], _Finding] = {}
        self._labels: Sequence[str] = ()

    def add(self, path: Path, block: Block, labels: Sequence[str]) -> None:
        """Check a block's rows; leave out what the settings say. `labels` name the three columns in messages."""
        self._labels = labels
        unit = f"{path.name} {block.unit}" if self._several else block.unit
        for number, fault in block.broken.items():
            self._refuse(ROW, fault, 1, [(unit, number)])
        one_user = [pa.repeat(path.name.partition(".")[0], len(block.columns[0]))] if len(block.columns) == 2 else []
        table = pa.RecordBatch.from_arrays([*one_user, *block.columns], ["user", "book", "rating"])
        texts, index = _distinct(table["rating"])
        ratings = [self._read_rating(text, block.decimal_commas) for text in texts]
        kept = np.array([rating is not None for rating in ratings], np.bool_)[index]
        table, index = _keep(kept, table, index)
        self._left_out["not rated"] += len(kept) - len(index)

        ids = [column.read(array) for column, array in zip(self._ids, table.columns, strict=False)]
        if self._settings.missing_ids == "leave_out":
            known = ~(_is(ids[0], [-1]) | _is(ids[1], [-1]))
            table, index, *ids = _keep(known, table, index, *ids)
            self._left_out["without a user or a book"] += len(known) - len(index)
            kept[kept] = known

        wrong: dict[tuple[int, str], NDArray[np.bool_]] = {}
        for fault in {rating for rating in ratings if isinstance(rating, str)}:
            wrong[2, fault] = np.array([rating == fault for rating in ratings])[index]
        for place, column in enumerate(self._ids):
            wrong |= {(place, fault): _is(ids[place], [-1 - code]) for code, fault in enumerate(ID_FAULTS)}
            wrong |= {(place, fault): _is(ids[place], codes) for fault, codes in column.odd_numbers.items()}
            column.pieces.append(ids[place])
        for (place, fault), has_it in wrong.items():
            if has_it.any():
                rows = np.flatnonzero(has_it)
                values = table[place].take(pa.array(rows)).unique()[:EXAMPLES].to_pylist()
                numbers = block.numbers()[kept][rows[: EXAMPLES + 1]].tolist()
                self._refuse(place, fault, len(rows), [(unit, number) for number in numbers], map(_as_text, values))
        stars = np.array([rating if isinstance(rating, float) else np.nan for rating in ratings], np.float32)
        self._stars.append(stars[index])
        if self._settings.on_duplicate == "error":
            self._rows.append((unit, block.numbers()[kept]))

    def take(self, later: "Check") -> None:
        """Go on as if this check had taken the blocks, too, that a later one has taken of other files."""
        self._labels = later._labels
        for column, of_later in zip(self._ids, later._ids, strict=True):
            column.take(of_later)
        self._stars += later._stars
        self._rows += later._rows
        self._left_out += later._left_out
        for (place, fault), finding in later._findings.items():
            self._refuse(place, fault, finding.count, finding.rows, finding.values)

    def _read_rating(self, text: str, decimal_commas: bool) -> float | str | None:
        """Stars, or what is wrong, or None for no rating."""
        text = text.strip()
        number = text.replace(",", ".") if decimal_commas else text
        stars = self._settings.rating_words.get(text, float(number) if NUMBER.fullmatch(number) else math.nan)
        if text in self._not_rated or stars in self._not_rated:
            return None
        if math.isnan(stars):
            return "empty or NaN" if text in MISSING else NO_NUMBER
        if self._scale[0] <= np.float32(stars) <= self._scale[1]:
            return float(stars)
        off = f"off the scale {self._scale[0]:g} to {self._scale[1]:g} (prepare.rating_scale)"
        return "infinite" if math.isinf(stars) else off

    def _refuse(
        self, place: int, fault: str, count: int, rows: list[tuple[str, int]], values: Iterable[str] = ()
    ) -> None:
        finding = self._findings.setdefault((place, fault), _Finding())
        finding.count += count
        finding.values |= dict.fromkeys(values)
        if len(finding.rows) <= EXAMPLES:
            finding.rows += rows

    def finish(self) -> Source:
        """All rows that were kept."""
        users, books = (column.finish() for column in self._ids)
        stars = np.concatenate([np.array([], np.float32), *self._stars])
        self._stars.clear()
        left_out = {reason: count for reason, count in self._left_out.items() if count}
        return Source(users, books, stars, left_out, self._where)

    def problems(self) -> Iterator[str]:
        """What is wrong, a line for each kind of fault."""
        for (place, fault), finding in sorted(self._findings.items(), key=lambda item: item[0]):
            rows, plural = _name(finding.rows), "s" if finding.count > 1 else ""
            kind, then, advice = fault.partition("; ")
            if place == ROW:
                yield f"{finding.count:,} {finding.rows[0][0].split()[-1]}{plural} {kind}: {rows}{then}{advice}"
            elif place == 2 or not (self._ids[place].has_names and fault in self._ids[place].odd_numbers):
                values = ", ".join(shorten(repr(value)) for value in list(finding.values)[:EXAMPLES])
                if place == 2 and "0" in finding.values:
                    then, advice = "; ", "if 0 means not rated, set prepare.not_rated: [0]"
                of = f"column {self._labels[place]}: {finding.count:,} value{plural}"
                yield f"{of} {kind}: {values} ({rows}){then}{advice}"

    def _where(self, rows: NDArray[np.intp]) -> str:
        ends = np.cumsum([len(numbers) for _, numbers in self._rows])
        found = []
        for row in rows[: EXAMPLES + 1]:
            block = np.searchsorted(ends, row, side="right")
            unit, numbers = self._rows[block]
            found.append((unit, int(numbers[row - ends[block]])))  # counted from the block's end
        return _name(found)


def _name(rows: list[tuple[str, int]]) -> str:
    """Rows as people find them: 'line 3', 'lines 3, 17, 201, …', 'a.csv lines 3, 17, b.csv line 5'."""
    groups = []
    for unit, group in itertools.groupby(rows[:EXAMPLES], key=lambda row: row[0]):
        numbers = [f"{number:,}" for _, number in group]
        groups.append(f"{unit}{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}")
    return ", ".join(groups) + (", …" if len(rows) > EXAMPLES else "")


class _Ids:
    """A column of ids in pieces: whole numbers (uint32, int64) where all of one are, else codes (int32) of texts."""

    def __init__(self) -> None:
        self.pieces: list[NDArray[Any]] = []
        self.has_names = False
        self.odd_numbers: dict[str, list[int]] = {}
        """The codes of negative and fractional numbers, by their fault; where there are names, they are names too."""
        self._texts: list[str] = []
        self._codes: dict[str, int] = {}

    def read(self, ids: pa.Array) -> NDArray[Any]:
        """The ids (n,) themselves or their codes, below 0 for what is wrong."""
        numbers = _plain_numbers(ids)
        if numbers is not None:
            return numbers
        texts, index = _distinct(ids)
        return np.array([self._code(text) for text in texts], np.int32)[index]

    def take(self, later: "_Ids") -> None:
        """The column goes on with the pieces of another, whose codes are its own."""
        codes = np.array([*map(self._code, later._texts), *range(-len(ID_FAULTS), 0)], np.int32)
        self.pieces += [codes[piece] if _is_coded(piece) else piece for piece in later.pieces]

    def _code(self, text: str) -> int:
        if text not in self._codes:
            wrapped = EXCEL_TEXT.fullmatch(text)
            self._codes[text] = self._code(wrapped[1]) if wrapped else self._new_code(text)
        return self._codes[text]

    def _new_code(self, text: str) -> int:
        stripped = text.strip()
        faults = (
            not stripped or stripped in MISSING,
            POWER_OF_TEN.fullmatch(stripped),
            CONTROL_CHARACTER.search(stripped),
        )
        if any(faults):
            return -1 - [bool(fault) for fault in faults].index(True)
        self._texts.append(text)
        code = len(self._texts) - 1
        if not NUMBER.fullmatch(stripped):
            self.has_names = True
        elif not WHOLE_NUMBER.fullmatch(stripped):
            self.odd_numbers.setdefault("not a whole number", []).append(code)
        elif stripped.startswith("-") and stripped.strip("-0."):
            self.odd_numbers.setdefault("negative", []).append(code)
        return code

    def finish(self) -> Ids:
        """The whole column: numbers where all of it is, else texts."""
        pieces, self.pieces = self.pieces, []  # to free their memory
        used = np.zeros(len(self._texts) + len(ID_FAULTS), np.bool_)  # faults count from the end
        for piece in filter(_is_coded, pieces):
            used[piece] = True
        plain = [text.strip(" \t") if use else "0" for text, use in zip(self._texts, used, strict=False)]
        if all(PLAIN_NUMBER.fullmatch(text) and int(text) < 2**63 for text in plain):
            numbers = np.array([*map(int, plain), *[0] * len(ID_FAULTS)], np.int64)
            return np.concatenate([numbers[piece] if _is_coded(piece) else piece for piece in pieces] or [numbers[:0]])
        for place, piece in enumerate(pieces):
            if not _is_coded(piece):
                distinct, index = np.unique(piece, return_inverse=True)
                pieces[place] = np.array([self._code(str(number)) for number in distinct], np.int32)[index]
        index = np.concatenate(pieces)
        used = np.bincount(index[index >= 0], minlength=len(self._texts)) > 0
        codes = np.append(np.cumsum(used) - 1, [-3, -2, -1]).astype(np.int32)
        return Texts([text for text, use in zip(self._texts, used, strict=True) if use], codes[index])


def _is_coded(piece: NDArray[Any]) -> bool:
    return piece.dtype == np.int32


def _is(ids: NDArray[Any], codes: list[int]) -> NDArray[np.bool_]:
    """Which ids (n,) have one of these codes."""
    return np.isin(ids, codes) if _is_coded(ids) else np.zeros(len(ids), np.bool_)


def _keep(kept: NDArray[np.bool_], table: pa.RecordBatch, *arrays: NDArray[Any]) -> tuple[Any, ...]:
    return (table, *arrays) if kept.all() else (table.filter(pa.array(kept)), *(array[kept] for array in arrays))


def _plain_numbers(ids: pa.Array) -> NDArray[Any] | None:
    """The ids as numbers, where all of them are plain: decimal, whole, from 0, and without leading zeros."""
    try:
        numbers = ids.cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    if ids.null_count or not len(ids):
        return None
    lowest, highest = (value.as_py() for value in pc.min_max(numbers).values())
    if pa.types.is_string(ids.type) and (lowest <= 0 or pc.any(pc.starts_with(ids, "0")).as_py()):
        # Only a number that is 0 or begins with 0 can be written in another way than this: 007, 0x7, -0.
        lowest = lowest if numbers.cast(pa.string()).equals(ids) else -1
    if lowest < 0 or (pa.types.is_floating(ids.type) and highest >= EXACT_FLOATS):
        return None
    return np.asarray(numbers, np.uint32 if highest < 2**32 else np.int64)


def _distinct(values: pa.Array) -> tuple[list[str], NDArray[np.int32]]:
    """Each different value as text, and for each row (n,) which of them it is."""
    encoded = values.dictionary_encode("encode")
    return [_as_text(value) for value in encoded.dictionary.to_pylist()], encoded.indices.to_numpy()


def _as_text(value: Any) -> str:
    """As a CSV file has it: 4 for 4.0, and powers of ten where a float doesn't hold all of a number's digits."""
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}" if abs(value) < EXACT_FLOATS else f"{value:e}"
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return f"{value:.0f}"
    return "" if value is None else str(value)

"""What is checked of every row, whatever kind of file it stands in; what is wrong is collected for one message."""

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
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
from stages.ratings.table import Ratings

EXAMPLES, MAX_VALUES = 3, 8  # wrong rows, and different values of theirs, that a message names
MAX_GAPS = 4  # ids up to this times the rows are numbered through a table of all: faster than hashing, and smaller
EXACT = {"halffloat": 2**11, "float": 2**24, "double": 2**53}  # from here on it doesn't hold every whole number

MISSING = {text.casefold() for text in (*pyarrow.csv.ConvertOptions().null_values, "None", r"\N", "<NA>")}
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?", re.ASCII | re.IGNORECASE)
WHOLE_NUMBER = re.compile(r"\+?\d+(\.0*)?", re.ASCII)
PLAIN_NUMBER = re.compile(r"0|[1-9]\d{0,18}", re.ASCII)
POWER_OF_TEN = re.compile(r"[+-]?(\d*[.,]\d*e[+-]?|\d+e[+-])\d+", re.ASCII | re.IGNORECASE)  # 12e3 may be hexadecimal
EXCEL_TEXT = re.compile(r'="(.*)"', re.DOTALL)
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")

# What may be wrong with a value; after the semicolon, what to do.
MISSING_ID = "missing; prepare.missing_ids: leave_out would leave such rows out"
CUT_ID = "in powers of ten; Excel, or a float, has cut longer numbers so: take them from where they are whole"
ODD_NUMBER = "negative or fractional"
UNPRINTABLE = "with control characters"
NOT_RATED = "not rated"
NO_NUMBER = "not a number; prepare.rating_words and prepare.not_rated take words"
NO_RATING = "empty or NaN; prepare.not_rated takes such values too"
OFF_SCALE = (
    "off the scale {:g} to {:g}; prepare.rating_scale sets it, prepare.not_rated takes a 0 that means 'not rated'"
)

ROW = ("user", "book", "rating", "number")

Numbers: TypeAlias = NDArray[np.integer[Any]]
Finding: TypeAlias = tuple[int, list[int], list[str]]
"""Of a block's rows that have one fault: how many, the first few numbers, and the first few different values."""


class Block(NamedTuple):
    """Rows as they stand in a file."""

    columns: list[pa.Array]
    """User (unless the file is one user's), book, rating: texts or numbers (n,), where null is a missing value."""
    numbers: Numbers
    """(n,) which line, row or object of the file each is, from 1."""
    broken: dict[int, str]
    """The numbers of what isn't a row, and what is wrong with it."""

    @classmethod
    def of(cls, rows: dict[int, list[str]], width: int, broken: dict[int, str]) -> "Block":
        """Of rows of text, by their numbers."""
        columns = [pa.array([row[place] for row in rows.values()], pa.string()) for place in range(width)]
        return cls(columns, np.array([*rows], np.int64), broken)


@dataclass(frozen=True)
class Source:
    """The checked rows of all files.

    The ids are in ascending order: whole numbers from 0 where all of the column are such, else texts as in the files.
    """

    files: list[Any]
    """Each file's rows, as an engine keeps them: `Ratings` whose users and books have numbers of the file's own."""
    users: list[NDArray[np.int32]]
    """For each file (m,): where its own user number i stands in `user_ids`."""
    books: list[NDArray[np.int32]]
    """Likewise."""
    user_ids: pa.Array
    book_ids: pa.Array
    rows: int
    """How many there are in all."""
    left_out: dict[str, int]
    """How many more rows the files have, by the reason for which they are left out."""


class _Column:
    """The texts of a column by their codes, and the codes of those that are wrong, by what is wrong with them."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.faults: defaultdict[str, list[int]] = defaultdict(list)

    def add(self, code: int, text: str, fault: str) -> None:
        """Take a new text."""
        self.texts[code] = text
        if fault:
            self.faults[fault].append(code)


class _Ids(_Column):
    """A column of ids: plain numbers stand for themselves, codes below 0 for all other texts."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[Numbers] = []
        self._codes: dict[str, int] = {}

    def encode(self, column: pa.Array) -> Numbers:
        """Each row's number or code (n,), uint32 or int64."""
        numbers = _plain_numbers(column)
        if numbers is not None:
            return numbers
        texts, index = _distinct(column)
        return np.array([self._code(text) for text in texts], np.int64)[index]

    def _code(self, text: str) -> int:
        if text not in self._codes:
            value, fault = _read_id(text)
            if value != text and fault in ("", ODD_NUMBER):
                self._codes[text] = self._code(value)
            elif is_plain(text):
                self._codes[text] = int(text)
            else:
                self._codes[text] = -1 - len(self.texts)
                self.add(self._codes[text], text, fault)
        return self._codes[text]

    def number(self) -> NDArray[np.int32]:
        """Number the rows' ids from 0 (n,); from then on `pieces` holds the different ids, by that number."""
        codes = np.concatenate([np.array([], np.uint32), *self.pieces])
        self.pieces.clear()  # to free their memory
        numbers, distinct = number_codes(codes)
        self.pieces.append(distinct)
        return numbers

    def merge(self, later: "_Ids") -> None:
        """Add the pieces of another column, whose codes are its own."""
        codes = np.array([self._code(text) for text in later.texts.values()], np.int64)  # of -1, -2, … there
        for piece in later.pieces:
            coded = piece < 0
            self.pieces.append(np.where(coded, codes[np.where(coded, -1 - piece, 0)], piece) if coded.any() else piece)

    def has_names(self) -> bool:
        """Whether any id is no number."""
        wrong = {*itertools.chain(*self.faults.values())}
        return any(code not in wrong and not NUMBER.fullmatch(text.strip()) for code, text in self.texts.items())

    def finish(self) -> tuple[list[NDArray[np.int32]], pa.Array]:
        """All ids in ascending order: numbers where all are plain, but for blanks around them; else texts.

        Before them, for each piece, where its ids are among them.
        """
        numbers, codes = number_codes(np.concatenate(self.pieces))
        ids = pa.array(codes)
        if codes.min(initial=0) < 0:
            texts = [self.texts.get(code, str(code)) for code in codes.tolist()]
            plain = [text.strip(" \t") for text in texts]
            ids = pa.array([*map(int, plain)] if all(map(is_plain, plain)) else texts)
        if pa.types.is_integer(ids.type):
            ids, places = np.unique(ids, return_inverse=True)  # where blanks are around it, a number may be there twice
        else:
            ascending = pc.sort_indices(ids)
            ids, places = ids.take(ascending), np.argsort(ascending)
        ends = np.cumsum([len(piece) for piece in self.pieces])
        return np.split(places.astype(np.int32)[numbers], ends[:-1]), pa.array(ids)


class Check:
    """Takes the files' rows block by block, keeps what is to be kept, and collects what is wrong."""

    def __init__(self, settings: Prepare) -> None:
        self._settings = settings
        self._lowest, self._highest = np.array(settings.rating_scale, np.float32)
        self._not_rated = {*settings.not_rated}
        self._ids = (_Ids(), _Ids())
        self._stars = [np.array([], np.float32)]
        self._rows = 0
        self._left_out: Counter[str] = Counter()
        self._labels: list[str] = []
        self._findings: defaultdict[tuple[Path, str, str, str], list[Finding]] = defaultdict(list)

    def add(self, block: Block, path: Path, unit: str, labels: list[str]) -> None:
        """Check a block's rows; leave out what the settings say.

        Args:
            block: the rows.
            path: the file, for messages.
            unit: what the rows' numbers count: lines, rows or objects.
            labels: what messages call the three columns.
        """
        self._labels = labels
        self.refuse(block.broken, path, unit)
        users, books, ratings = *self._ids, _Column()
        texts, index = _distinct(block.columns[2])
        stars = np.empty(len(texts), np.float32)
        with np.errstate(over="ignore"):  # beyond float32 is off the scale
            for code, text in enumerate(texts):
                stars[code], fault = self._read_rating(text)
                ratings.add(code, text, fault)
        rows = pa.RecordBatch.from_arrays([*block.columns[:2], index, block.numbers], ROW)
        rows = self._leave_out(rows, "not rated", "rating", ratings.faults[NOT_RATED])

        columns = [users.encode(rows["user"]), books.encode(rows["book"]), rows["rating"], rows["number"]]
        rows = pa.RecordBatch.from_arrays(columns, ROW)
        if self._settings.missing_ids == "leave_out":
            rows = self._leave_out(rows, "no user or book", "user", users.faults[MISSING_ID])
            rows = self._leave_out(rows, "no user or book", "book", books.faults[MISSING_ID])

        for label, column, codes in zip(labels, (users, books, ratings), map(np.asarray, rows), strict=False):
            for fault, wrong_codes in column.faults.items():
                wrong = np.flatnonzero(np.isin(codes, wrong_codes))
                if len(wrong):
                    numbers = rows["number"].take(pa.array(wrong[: EXAMPLES + 1])).to_pylist()
                    values = [column.texts[code] for code in dict.fromkeys(codes[wrong].tolist())]
                    self._findings[path, unit, label, fault].append((len(wrong), numbers, values[:MAX_VALUES]))
        users.pieces.append(rows["user"].to_numpy())
        books.pieces.append(rows["book"].to_numpy())
        self._stars.append(stars[rows["rating"].to_numpy()])

    def refuse(self, broken: dict[int, str], path: Path, unit: str) -> None:
        """Note what isn't a row: its number, and what is wrong."""
        for number, fault in broken.items():
            self._findings[path, unit, "", fault].append((1, [number], []))

    def pop_ratings(self) -> Ratings:
        """Give the rows away that were kept, numbered from 0; what they have in common remains here."""
        users, books = (column.number() for column in self._ids)
        ratings = Ratings(users, books, np.concatenate(self._stars))
        self._stars.clear()
        self._rows += len(ratings)
        return ratings

    def merge(self, later: "Check") -> None:
        """Be as if the blocks of a later check, whose rows were popped, had been added to this one."""
        self._labels = later._labels or self._labels
        for column, of_later in zip(self._ids, later._ids, strict=True):
            column.merge(of_later)
        self._rows += later._rows
        self._left_out += later._left_out
        self._findings |= later._findings

    def _leave_out(self, rows: pa.RecordBatch, reason: str, column: str, codes: list[int]) -> pa.RecordBatch:
        out = np.isin(rows[column], codes)
        self._left_out[reason] += int(out.sum())
        return rows.filter(pa.array(~out)) if out.any() else rows

    def _read_rating(self, text: str) -> tuple[float, str]:
        """Stars, and what is wrong."""
        text = text.strip()
        number = text.replace(",", ".")
        stars = self._settings.rating_words.get(text, float(number) if NUMBER.fullmatch(number) else math.nan)
        if text in self._not_rated or stars in self._not_rated:
            return math.nan, NOT_RATED
        if math.isnan(stars):
            return stars, NO_RATING if _is_missing(text) else NO_NUMBER
        on_scale = self._lowest <= np.float32(stars) <= self._highest
        return stars, "" if on_scale else OFF_SCALE.format(self._lowest, self._highest)

    def problems(self) -> Iterator[str]:
        """What is wrong, a line for each file and kind of fault."""
        with_names = [label for label, ids in zip(self._labels, self._ids, strict=False) if ids.has_names()]
        for (path, unit, label, fault), findings in self._findings.items():
            if fault == ODD_NUMBER and label in with_names:
                continue  # among names they are names
            count = sum(count for count, _, _ in findings)
            rows = [f"{number:,}" for _, numbers, _ in findings for number in numbers]
            values = [repr(value) for value in dict.fromkeys(value for *_, values in findings for value in values)]
            kind, semicolon, advice = fault.partition("; ")
            subject = f"{label}: {count:,} value" if label else f"{count:,} {unit}"
            examples = ": " + ", ".join(map(shorten, values[:MAX_VALUES])) if label else ""
            where = f"{unit}{'s' * (len(rows) > 1)} {', '.join(rows[:EXAMPLES])}{', …' * (len(rows) > EXAMPLES)}"
            yield f"{path}: {subject}{'s' * (count > 1)} {kind}{examples} ({where}){semicolon}{advice}"

    def finish(self, files: list[Any]) -> Source:
        """All that was kept, where nothing is wrong, with the rows that were taken out of each file's check."""
        (users, user_ids), (books, book_ids) = (column.finish() for column in self._ids)
        return Source(files, users, books, user_ids, book_ids, self._rows, dict(+self._left_out))


def number_codes(codes: Numbers) -> tuple[NDArray[np.int32], Numbers]:
    """Number the different codes from 0: the number of each row (n,), and the codes by number."""
    if codes.min(initial=0) < 0 or codes.max(initial=0) >= MAX_GAPS * len(codes):
        encoded = pa.array(codes).dictionary_encode()
        return encoded.indices.to_numpy(), encoded.dictionary.to_numpy()
    in_use = np.zeros(int(codes.max(initial=0)) + 1, np.bool_)
    in_use[codes] = True
    return (np.cumsum(in_use, dtype=np.int32) - 1)[codes], np.flatnonzero(in_use)


def _distinct(column: pa.Array) -> tuple[list[str], NDArray[np.int32]]:
    """Each different value as text, and for each row (n,) which of them it is."""
    encoded = column.dictionary_encode("encode")
    exact = EXACT.get(str(column.type), 0)
    return [as_text(value, exact) for value in encoded.dictionary.to_pylist()], encoded.indices.to_numpy()


def is_plain(text: str) -> bool:
    """Whether an id is a whole number, from 0, without leading zeros."""
    return bool(PLAIN_NUMBER.fullmatch(text)) and int(text) < 2**63


def _read_id(text: str) -> tuple[str, str]:
    """The id without Excel's wrapping, and what is wrong."""
    wrapped = EXCEL_TEXT.fullmatch(text.strip())
    text = wrapped[1] if wrapped else text
    stripped = text.strip()
    if _is_missing(text):
        return text, MISSING_ID
    if POWER_OF_TEN.fullmatch(stripped):
        return text, CUT_ID
    if CONTROL_CHARACTER.search(stripped):
        return text, UNPRINTABLE
    return text, ODD_NUMBER if NUMBER.fullmatch(stripped) and not WHOLE_NUMBER.fullmatch(stripped) else ""


def _is_missing(text: str) -> bool:
    return text.strip().casefold() in MISSING


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
    if lowest < 0 or highest >= EXACT.get(str(ids.type), 2**63):
        return None
    return np.asarray(numbers, np.uint32 if highest < 2**32 else np.int64)


def as_text(value: Any, exact: int = EXACT["double"]) -> str:
    """As a CSV file has it: 4 for 4.0, and powers of ten from where a float doesn't hold all of a number's digits.

    Raises:
        TypeError: it is no plain value.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}" if abs(value) < exact else f"{value:e}"
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return f"{value:.0f}"
    if isinstance(value, dict | list):
        raise TypeError
    return "" if value is None else str(value)

"""What is checked of every row, whatever kind of file it stands in; what is wrong is collected for one message."""

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
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

MISSING = [text.lower() for text in (*pyarrow.csv.ConvertOptions().null_values, "None", r"\N", "<NA>")]
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?", re.ASCII | re.IGNORECASE)
WHOLE_NUMBER = r"\+?\d+(\.0*)?"
POWER_OF_TEN = r"[+-]?(\d*[.,]\d*e[+-]?|\d+e[+-])\d+"  # 12e3 may be hexadecimal
WITH_CONTROL_CHARACTER = r"(?s).*[\x00-\x1f\x7f].*"

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

ROLES = ("user", "book", "rating")

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


class Check:
    """Takes a file's rows block by block, keeps what is to be kept, and collects what is wrong."""

    def __init__(self, settings: Prepare, where: str, unit: str, labels: list[str], problems: list[str]) -> None:
        """Messages name the file so, what the rows' numbers count, and the columns, of which these are the problems."""
        self._settings = settings
        self.where, self.unit, self.problems = where, unit, problems
        self.labels = dict(zip(ROLES, labels, strict=False))
        self._lowest, self._highest = np.array(settings.rating_scale, np.float32)
        self._not_rated = {*settings.not_rated}
        self._stars = [np.array([], np.float32)]
        self.ids: dict[str, list[pa.Array]] = {role: [pa.array([], pa.uint32())] for role in ROLES[:2]}
        self.named: set[str] = set()
        self.rows = 0
        self.left_out: Counter[str] = Counter()
        self.findings: defaultdict[tuple[str, str], list[Finding]] = defaultdict(list)

    def add(self, block: Block) -> None:
        """Check a block's rows; leave out what the settings say."""
        self.refuse(block.broken)
        users, books, ratings = block.columns
        columns = [users, books, *self._read_ratings(ratings), pa.array(block.numbers)]
        rows = pa.RecordBatch.from_arrays(columns, ["user", "book", "rating", "rating fault", "stars", "number"])
        rows = self._leave_out(rows, "rating", NOT_RATED, "not rated")
        for role in ROLES[:2]:
            ids, faults, has_names = _read_ids(rows[role])
            rows = rows.set_column(rows.schema.names.index(role), role, ids).append_column(f"{role} fault", faults)
            if has_names:
                self.named.add(role)
        if self._settings.missing_ids == "leave_out":
            for role in ROLES[:2]:
                rows = self._leave_out(rows, role, MISSING_ID, "no user or book")

        for role in ROLES:
            faults = rows[f"{role} fault"]
            for fault in faults.unique().drop_null().to_pylist():
                wrong = rows.filter(pc.equal(faults, fault))
                numbers, values = wrong["number"][: EXAMPLES + 1], wrong[role].unique()[:MAX_VALUES]
                found = (len(wrong), numbers.to_pylist(), values.to_pylist())
                self.findings[role, fault].append(found)
        for role, pieces in self.ids.items():
            pieces.append(rows[role].dictionary_encode() if pa.types.is_string(rows[role].type) else rows[role])
        self._stars.append(rows["stars"].to_numpy())

    def refuse(self, broken: dict[int, str]) -> None:
        """Note what isn't a row: its number, and what is wrong."""
        for number, fault in sorted(broken.items()):
            self.findings["", fault].append((1, [number], []))

    def pop_ratings(self) -> Ratings:
        """Give the rows away that were kept, numbered from 0; what they have in common remains here."""
        (users, user_ids), (books, book_ids) = map(number_ids, self.ids.values())
        self.ids = {"user": [user_ids], "book": [book_ids]}
        ratings = Ratings(users, books, np.concatenate(self._stars))
        self._stars.clear()
        self.rows += len(ratings)
        return ratings

    def _leave_out(self, rows: pa.RecordBatch, role: str, fault: str, reason: str) -> pa.RecordBatch:
        kept = pc.fill_null(pc.not_equal(rows[f"{role} fault"], fault), True)
        self.left_out[reason] += kept.false_count
        return rows.filter(kept) if kept.false_count else rows

    def _read_ratings(self, column: pa.Array) -> tuple[pa.Array, pa.Array, pa.Array]:
        """The ratings as texts, what is wrong with each, and their stars."""
        texts, index = _distinct(column)
        with np.errstate(over="ignore"):  # beyond float32 is off the scale
            read = [self._read_rating(text.strip()) for text in texts.to_pylist()]
            stars = np.array([stars for stars, _ in read], np.float32)
        faults = pa.array([fault for _, fault in read], pa.string())
        return texts.take(index), faults.take(index), pa.array(stars).take(index)

    def _read_rating(self, text: str) -> tuple[float, str | None]:
        number = text.replace(",", ".")
        stars = self._settings.rating_words.get(text, float(number) if NUMBER.fullmatch(number) else math.nan)
        if text in self._not_rated or stars in self._not_rated:
            return math.nan, NOT_RATED
        if math.isnan(stars):
            return stars, NO_RATING if text.lower() in MISSING else NO_NUMBER
        on_scale = self._lowest <= np.float32(stars) <= self._highest
        return stars, None if on_scale else OFF_SCALE.format(self._lowest, self._highest)


def list_problems(checks: list[Check]) -> Iterator[str]:
    """What is wrong, a line for each file and kind of fault."""
    named = {role for check in checks for role in check.named}
    for check in checks:
        for (role, fault), findings in check.findings.items():
            if fault == ODD_NUMBER and role in named:
                continue  # among names they are names
            counts, numbers, values = zip(*findings, strict=True)
            count = sum(counts)
            rows = [f"{number:,}" for number in itertools.chain(*numbers)]
            distinct = dict.fromkeys(map(str, itertools.chain(*values)))
            examples = [shorten(repr(value).replace(r"\\", "\\")) for value in distinct]
            kind, semicolon, advice = fault.partition("; ")
            wrong = f"{count:,} {_plural('value' if role else check.unit, count)} {kind}"
            if role:
                wrong = f"{check.labels[role]}: {wrong}: {', '.join(examples[:MAX_VALUES])}"
            more = ", …" if len(rows) > EXAMPLES else ""
            where = f"{_plural(check.unit, len(rows))} {', '.join(rows[:EXAMPLES])}{more}"
            yield f"{check.where}: {wrong} ({where}){semicolon}{advice}"


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def join(checks: list[Check], files: list[Any]) -> Source:
    """All that was kept, where nothing is wrong, with the rows that were taken out of each file's check."""
    (users, user_ids), (books, book_ids) = (_order_ids([check.ids[role][0] for check in checks]) for role in ROLES[:2])
    left_out = sum((check.left_out for check in checks), Counter())
    return Source(files, users, books, user_ids, book_ids, sum(check.rows for check in checks), dict(left_out))


def number_ids(pieces: list[pa.Array]) -> tuple[NDArray[np.int32], pa.Array]:
    """Number the different ids from 0: the number of each row (n,), and the ids by number: texts where any is one."""
    if all(pa.types.is_integer(piece.type) for piece in pieces):
        codes = np.concatenate(pieces)
        pieces.clear()
        pa.default_memory_pool().release_unused()  # the rest takes its place
        numbers, distinct = number_codes(codes)
        return numbers, pa.array(distinct, pa.int64())
    texts = [piece.cast(pa.string()) if pa.types.is_integer(piece.type) else piece for piece in pieces]
    joined = pa.chunked_array([piece.dictionary_encode() for piece in texts]).unify_dictionaries().combine_chunks()
    return joined.indices.to_numpy(), joined.dictionary


def _order_ids(pieces: list[pa.Array]) -> tuple[list[NDArray[np.int32]], pa.Array]:
    """All ids in ascending order: numbers where all are plain, but for blanks around them; else texts.

    Before them, for each piece, where its ids are among them.
    """
    ends = np.cumsum([len(piece) for piece in pieces])
    numbers, ids = number_ids(pieces)
    if pa.types.is_string(ids.type):
        plain = _plain_numbers(pc.utf8_trim(ids, " \t"))
        ids = ids if plain is None else plain.cast(pa.int64())
    distinct, places = np.unique(ids, return_inverse=True)  # where blanks are around it, a number may be there twice
    return np.split(places.astype(np.int32)[numbers], ends[:-1]), pa.array(distinct, ids.type)


def number_codes(codes: Numbers) -> tuple[NDArray[np.int32], Numbers]:
    """Number the different codes from 0: the number of each row (n,), and the codes by number."""
    if codes.max(initial=0) >= MAX_GAPS * len(codes):
        encoded = pa.array(codes).dictionary_encode()
        return encoded.indices.to_numpy(), encoded.dictionary.to_numpy()
    in_use = np.zeros(int(codes.max()) + 1, np.bool_)
    in_use[codes] = True
    return (np.cumsum(in_use, dtype=np.int32) - 1)[codes], np.flatnonzero(in_use)


def _distinct(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Each different value as text, and for each row (n,) which of them it is."""
    encoded = column.dictionary_encode("encode")
    values, exact = encoded.dictionary, EXACT.get(str(column.type), 0)
    if pa.types.is_string(values.type):
        return values.fill_null(""), encoded.indices
    return pa.array([as_text(value, exact) for value in values.to_pylist()], pa.string()), encoded.indices


def _read_ids(column: pa.Array) -> tuple[pa.Array, pa.Array, bool]:
    """The ids, as numbers where all are plain, else as texts without Excel's wrapping; each one's fault; any names?"""
    numbers = _plain_numbers(column)
    if numbers is not None:
        return numbers, pa.nulls(len(column), pa.string()), False
    texts, index = _distinct(column)
    ids = pc.replace_substring_regex(texts, r'(?s)^\s*="(.*)"\s*$', r"\1")
    bare = pc.utf8_trim_whitespace(ids)
    is_missing = pc.is_in(pc.utf8_lower(bare), pa.array(MISSING))
    is_cut, has_controls, is_number, is_whole = (
        pc.match_substring_regex(bare, f"^({pattern})$", ignore_case=True)
        for pattern in (POWER_OF_TEN, WITH_CONTROL_CHARACTER, NUMBER.pattern, WHOLE_NUMBER)
    )
    cases = pc.make_struct(is_missing, is_cut, has_controls, pc.and_not(is_number, is_whole))
    faults = pc.case_when(cases, MISSING_ID, CUT_ID, UNPRINTABLE, ODD_NUMBER)
    has_names = pc.any(pc.and_not(faults.is_null(), is_number)).as_py()
    return pc.if_else(is_missing, texts, ids).take(index), faults.take(index), bool(has_names)


def _plain_numbers(ids: pa.Array) -> pa.Array | None:
    """The ids as numbers, where all of them are plain: decimal, whole, from 0, and without leading zeros."""
    try:
        numbers = ids.cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    lowest, highest = (value.as_py() or 0 for value in pc.min_max(numbers).values())
    if ids.null_count or lowest < 0 or highest >= EXACT.get(str(ids.type), 2**63):
        return None
    has_zeros = pa.types.is_string(ids.type) and (lowest == 0 or pc.any(pc.starts_with(ids, "0")).as_py())
    if has_zeros and not numbers.cast(pa.string()).equals(ids):  # 007, 0x7, -0: other numbers have but one form
        return None
    return numbers.cast(pa.uint32() if highest < 2**32 else pa.int64())


def as_text(value: Any, exact: int = EXACT["double"]) -> str:
    """As a CSV file has it: 4 for 4.0, and powers of ten from where a float doesn't hold all of a number's digits."""
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}" if abs(value) < exact else f"{value:e}"
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return f"{value:.0f}"
    return "" if value is None else str(value)

"""Measurements taken in turns, and the tables that they make."""

import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, TypeAlias

WIDTH = 80
"""Columns of a terminal."""


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one thing: the median, the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Of at least one measurement."""
        listed = list(values)
        return cls(median(listed), min(listed), max(listed))

    def __str__(self) -> str:
        return f"{shorten(self.median)} [{shorten(self.low)}-{shorten(self.high)}]"


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """How many times one is the other, round by round: what slowed the machine in a round has slowed both."""
    return Spread.of(one / other for one, other in zip(numerators, denominators, strict=True))


def take_turns(
    contenders: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """The seconds of each contender in each round; all take their turn in each. A first round warms up, uncounted.

    The clock is the processor's unless told otherwise: other people's work on the machine hardly moves it.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            start = clock()
            contender()
            if number:
                seconds[name].append(clock() - start)
    return seconds


Cell: TypeAlias = str | int | float | Spread | None


@dataclass(frozen=True)
class Table:
    """Measurements, a row for each case; the headings name the units."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Each row with its headings."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in asdict(self)["rows"]]
        return {"title": self.title, "rows": rows, "note": self.note}

    def __str__(self) -> str:
        """The table as text, numbers to the right."""
        cells = [self.columns, *([_show(cell) for cell in row] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        numeric = [not any(isinstance(row[column], str) for row in self.rows) for column in range(len(self.columns))]
        lines = [
            "  ".join(
                f"{cell:>{width}}" if right else f"{cell:<{width}}"
                for cell, width, right in zip(line, widths, numeric, strict=True)
            ).rstrip()
            for line in cells
        ]
        return "\n".join([self.title, *lines, *textwrap.wrap(self.note, WIDTH)])


def shorten(number: float) -> str:
    """A number to about two digits that count."""
    return f"{number:,.0f}" if abs(number) >= 20 else f"{number:.1f}" if abs(number) >= 2 else f"{number:.2f}"


def _show(cell: Cell) -> str:
    match cell:
        case None:
            return "-"
        case float():
            return f"{cell:.4f}"
        case int():
            return f"{cell:,}"
        case _:
            return str(cell)

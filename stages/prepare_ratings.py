"""prepare-ratings: from a ratings file of any origin to one checked table with users and books numbered from 0."""

from collections import Counter
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from stages.engines.cluster import engine_of
from stages.engines.here import HERE, Engine
from stages.program.errors import StageError, shorten
from stages.program.params import Params, Prepare
from stages.program.process import run_stage
from stages.ratings.checks import Source
from stages.ratings.parts import EXAMPLES, Repeats, count_books, divide, drop_rare, renumber, settle, summarise
from stages.ratings.source import read_source
from stages.ratings.table import write_parts, write_table

UNRATED_SHARE = 0.3
"""The scale's lowest rating is looked at where it has a larger share than this: it may stand for 'not rated'."""


@dataclass(frozen=True)
class Step:
    """What a step of the preparation left: for the report."""

    name: str
    rows: int
    users: int
    books: int


@dataclass(frozen=True)
class Prepared:
    """The table, sorted by user and book, and the original id of each user and book by its number."""

    parts: list[Any]
    """`Ratings`, as an engine keeps them: those of the first users, then those of the next."""
    user_ids: pa.Array
    book_ids: pa.Array
    stars: Counter[float]
    """How many ratings there are of each height."""
    left_out: dict[str, int]
    """Rows that were left out while reading, by the reason."""
    steps: list[Step]
    lowest: float
    """The lowest rating on the scale."""


def prepare(source: Source, settings: Prepare, engine: Engine = HERE) -> Prepared:
    """Settle duplicates, apply the minimum counts, and number users and books from 0 in the order of their ids.

    Args:
        source: the rows, which that engine keeps, and which are taken out of it.
        settings: how.
        engine: where it is done.

    Raises:
        StageError: duplicates where `on_duplicate` is `error`, or minimum counts that leave nothing.
    """
    user_ids, book_ids = source.user_ids, source.book_ids
    files = f" from {len(source.files):,} files" if len(source.files) > 1 else ""
    steps = [Step(f"read{files}", source.rows + sum(source.left_out.values()), len(user_ids), len(book_ids))]

    parts, again = settle_duplicates(source, settings.on_duplicate, engine)
    steps.append(Step("one rating per user and book", source.rows - again, len(user_ids), len(book_ids)))

    drop_until_enough(parts, len(book_ids), settings, engine)
    kept_users, kept_books = np.zeros(len(user_ids), np.bool_), np.zeros(len(book_ids), np.bool_)
    stars: Counter[float] = Counter()
    for summary in map(engine.get, engine.starmap(summarise, zip(parts))):
        kept_users[summary.users] = True
        kept_books[summary.books] = True
        stars += summary.stars
    if not stars:
        raise StageError(
            f"no rating is left of {source.rows:,}: prepare.min_ratings_per_user "
            f"{settings.min_ratings_per_user} and prepare.min_ratings_per_book {settings.min_ratings_per_book} "
            "are more than this file has"
        )
    numbers = [engine.share(np.cumsum(kept, dtype=np.int32) - 1) for kept in (kept_users, kept_books)]
    steps.append(Step("enough ratings each", stars.total(), int(kept_users.sum()), int(kept_books.sum())))
    return Prepared(
        parts=[*engine.starmap(renumber, ((part, *numbers) for part in parts))],
        user_ids=user_ids.filter(pa.array(kept_users)),
        book_ids=book_ids.filter(pa.array(kept_books)),
        stars=stars,
        left_out=source.left_out,
        steps=steps,
        lowest=settings.rating_scale[0],
    )


def settle_duplicates(source: Source, on_duplicate: str, engine: Engine) -> tuple[list[Any], int]:
    """Divide the rows into parts, each with all rows of some users, and settle each; how many rated a book again.

    Raises:
        StageError: there are such rows, and `on_duplicate` is `error`.
    """
    bounds = len(source.user_ids) * np.arange(1, engine.part_count) // engine.part_count
    arguments = zip(source.files, source.users, source.books, repeat(bounds), strict=False)
    pieces_of_parts = zip(*engine.starmap(divide, arguments, engine.part_count), strict=True)
    source.files.clear()  # to free their memory
    settled = engine.starmap(settle, ((on_duplicate, *pieces) for pieces in pieces_of_parts), 2)
    parts, kept_repeats = zip(*settled, strict=True)
    repeats: list[Repeats] = [*map(engine.get, kept_repeats)]
    rows = sum(part.rows for part in repeats)
    if on_duplicate == "error" and rows:
        pairs = [pair for part in repeats for pair in part.pairs][:EXAMPLES]
        examples = "; ".join(f"user {source.user_ids[user]}, book {source.book_ids[book]}" for user, book in pairs)
        raise StageError(
            f"{rows:,} rows rate a book that their user has rated before ({shorten(examples, 200)}), "
            "and prepare.on_duplicate is error; last, first or mean would settle them"
        )
    return [*parts], rows


def drop_until_enough(parts: list[Any], book_count: int, settings: Prepare, engine: Engine) -> None:
    """Leave the most rows whose users and books all have their minimum count among these very rows."""
    while True:
        counts = sum(map(engine.get, engine.starmap(count_books, ((part, book_count) for part in parts))))
        enough = engine.share(counts >= settings.min_ratings_per_book)
        minimum = settings.min_ratings_per_user
        left = [*engine.starmap(drop_rare, ((part, minimum, enough) for part in parts), 2)]
        dropped = [engine.get(count) for _, count in left]
        if not any(dropped):
            return
        parts[:] = [rows if count else part for part, (rows, _), count in zip(parts, left, dropped, strict=True)]


def report(path: str, prepared: Prepared) -> str:
    """What came in, what went out, and why any left."""
    title = path if len(path) <= 30 else f"{path}\n{'':<30}"
    first, *further = prepared.steps
    last = further[-1]
    lines = [
        f"{title:<30}{'rows':>14}{'users':>14}{'books':>14}",
        _row(first.name, first.rows, first.users, first.books),
        *(_row(f"  left out: {reason}", count) for reason, count in prepared.left_out.items()),
        *(_row(step.name, step.rows, step.users, step.books) for step in further),
        _row("left out", first.rows - last.rows, first.users - last.users, first.books - last.books),
    ]
    mean = sum(star * count for star, count in prepared.stars.items()) / prepared.stars.total()
    lines.append(f"  ratings from {min(prepared.stars):g} to {max(prepared.stars):g}, mean {mean:.4f}")
    lines += [f"warning: {warning}" for warning in find_oddities(prepared)]
    return "\n".join(lines)


def _row(label: str, *counts: int) -> str:
    return f"  {label:<28}" + "".join(f"{count:>14,}" for count in counts)


def find_oddities(prepared: Prepared) -> list[str]:
    """What is valid and still can't be meant."""
    oddities = []
    if len(prepared.user_ids) == 1:
        oddities.append("all ratings are one user's")
    if len(prepared.book_ids) == 1:
        oddities.append("all ratings are of one book")
    if len(prepared.stars) == 1:
        oddities.append("all ratings are equal: there is nothing to learn")
    lowest = float(np.float32(prepared.lowest))
    if looks_unrated(prepared.stars, lowest):
        oddities.append(
            f"{prepared.stars[lowest] / prepared.stars.total():.0%} of the ratings are {prepared.lowest:g}, and few "
            f"are next to it: if it means 'not rated', set prepare.not_rated: [{prepared.lowest:g}] and "
            "prepare.rating_scale"
        )
    for ids, kind in ((prepared.user_ids, "user"), (prepared.book_ids, "book")):
        if pa.types.is_string(ids.type):
            oddities.append(_tell_of_names(ids.to_pylist(), kind))
    return oddities


def _tell_of_names(ids: list[str], kind: str) -> str:
    """What makes all ids names, and whether one is there twice: pandas writes 7 as 7.0 where another row has no id."""
    known = set(ids)
    names = [name for name in ids if not _is_plain(name)]
    twice = [name[:-2] for name in names if name.endswith(".0") and name[:-2] in known]
    examples = ", ".join(shorten(repr(name)) for name in names[:3])
    told = f"{len(names):,} of {len(ids):,} {kind} ids are no plain numbers ({examples}): all are taken for names"
    return told + (f", '{twice[0]}' and '{twice[0]}.0' for two" if twice else "")


def _is_plain(name: str) -> bool:
    """Whether it could be a number: whole, from 0, without leading zeros."""
    return len(name) < 20 and name.isdecimal() and str(int(name)) == name and int(name) < 2**63


def looks_unrated(counts: Counter[float], lowest: float) -> bool:
    """Whether the scale's lowest rating stands apart: it has a large share, and a gap or a dip is above it."""
    rest = sorted(counts.keys() - {lowest})
    if counts[lowest] < UNRATED_SHARE * counts.total() or not rest:
        return False
    gap = rest[0] - lowest >= 1.5 * min(np.diff(rest), default=1)
    return bool(gap) or counts[rest[0]] < max((counts[star] for star in rest[1:]), default=0)


def main(params: Params, ratings: Path, users: Path, books: Path) -> None:
    """Run the stage: read, check, number, write; `users` and `books` keep the original ids by number."""
    settings = params.prepare

    with engine_of(params) as engine:
        prepared = prepare(read_source(settings, engine), settings, engine)
        write_parts(map(engine.get, prepared.parts), ratings)
    write_table(pa.table({"user_id": prepared.user_ids}), users)
    write_table(pa.table({"book_id": prepared.book_ids}), books)
    print(report(settings.ratings, prepared))


if __name__ == "__main__":
    run_stage(main)

"""Ratings files from elsewhere: read and checked, or refused in one message that says all they need."""

import itertools
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from stages.program.errors import StageError, list_names, shorten
from stages.program.params import Prepare
from stages.ratings.checks import NUMBER, Check, Source
from stages.ratings.csv_files import CsvFile
from stages.ratings.files import find_files, recognise
from stages.ratings.json_files import JsonFile
from stages.ratings.parquet_files import ParquetFile

Map: TypeAlias = Callable[[Callable[[Path], Any], Iterable[Path]], Iterable[Any]]
AnyFile: TypeAlias = CsvFile | JsonFile | ParquetFile
ROLES = ("user", "book", "rating")
KINDS: dict[str, type[AnyFile]] = {"csv": CsvFile, "json": JsonFile, "parquet": ParquetFile}

MOST_PROBLEMS = 5
"""How many kinds of fault a message names, a line each."""
MOST_BLOCKS = 4
"""How much of a file is looked at for other faults once its columns are wrong."""

DAMAGE = (
    *(OSError, EOFError, NotImplementedError, UnicodeError, pa.ArrowException),
    *(zlib.error, lzma.LZMAError, zipfile.BadZipFile),
)
"""What readers raise at a file that is missing, cut off or damaged."""

KNOWN_NAMES = {
    "user": ["userid", "user", "readerid", "reader", "reviewerid", "memberid", "customerid"],
    "book": ["bookid", "book", "isbn", "itemid", "item", "parentasin", "asin", "productid", "title", "name", "id"],
    "rating": ["rating", "bookrating", "myrating", "stars", "starrating", "score", "reviewscore", "overall"],
}
"""What collections call these columns, the likeliest first."""


def read_source(settings: Prepare, each: Map = map) -> Source:
    """Read the files that the settings name, and check every row.

    Args:
        settings: what to read, and how.
        each: calls a function with each file, `map` or a faster one: the results must come in the files' order.

    Raises:
        StageError: what is wrong: which file, which column, how many rows, the first few lines.
    """
    try:
        paths = find_files(settings)
    except OSError as error:
        raise StageError(_explain(Path(settings.ratings), error)) from error
    several = len(paths) > 1
    check, problem = Check(settings, several), ""
    for of_file, problem in each(partial(_read_file, settings, several), paths):
        check.take(of_file)
        if problem:
            break
    problems = [problem] if problem else []
    problems += [f"{settings.ratings}: {fault}" for fault in check.problems()]
    if problems:
        raise StageError("\n".join(problems[:MOST_PROBLEMS]))
    source = check.finish()
    if not len(source.stars):
        reasons = "".join(f"; left out: {count:,} {reason}" for reason, count in source.left_out.items())
        raise StageError(f"{settings.ratings} has columns and no ratings{reasons}")
    return source


def _read_file(settings: Prepare, several: bool, path: Path) -> tuple[Check, str]:
    """The rows of one file, checked; and what is wrong with its columns' names."""
    check = Check(settings, several)
    try:
        file = KINDS[recognise(path, settings.encoding)](path, settings)
        places, problem = _find_columns(path, file, settings)
        labels = ["" if place is None else repr(file.names[place]) for place in places.values()]
        if len(places) == len(ROLES):
            blocks = file.blocks([place for place in places.values() if place is not None])
            for block in itertools.islice(blocks, MOST_BLOCKS if problem else None):
                check.add(path, block, labels)
    except DAMAGE as error:
        raise StageError(_explain(path, error)) from error
    return check, problem


def _explain(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{path} doesn't exist; prepare.ratings in params.yaml names it"
    if isinstance(error, OSError) and error.strerror:
        return f"{path}: {error.strerror}"
    damage = "isn't in prepare.encoding" if isinstance(error, UnicodeError) else "is cut off or damaged"
    return f"{path} {damage}: {shorten(' '.join(str(error).split()), 200)}"


def _find_columns(path: Path, file: AnyFile, settings: Prepare) -> tuple[dict[str, int | None], str]:
    """The places of the columns, guessed where there is no such name; and what is wrong with the names."""
    places: dict[str, int | None] = {}
    wrong = []
    letters = [_letters(known) for known in file.names]
    for role, name in settings.columns:
        if name is None:
            places[role] = None
        elif file.names.count(str(name)) == 1:
            places[role] = file.names.index(str(name))
        elif str(name) in file.names:
            return {}, f"{path} has several columns {name!r} (prepare.columns.{role}); known: {list_names(file.names)}"
        else:
            wrong.append(f"no column {name!r} (prepare.columns.{role})")
            likely = [known for known in (_letters(str(name)), *KNOWN_NAMES[role]) if known in letters]
            if likely and letters.index(likely[0]) not in places.values():
                places[role] = letters.index(likely[0])
    return places, f"{path} has {', '.join(wrong)}; {_advise(file, settings, places)}" if wrong else ""


def _letters(name: str) -> str:
    """A column's name without its capitals, its signs, and RecBole's type."""
    return re.sub(r"\W|_", "", name.partition(":")[0].casefold())


def _advise(file: AnyFile, settings: Prepare, places: dict[str, int | None]) -> str:
    known = list_names(file.names) + (f" (separated by {file.separator!r})" if isinstance(file, CsvFile) else "")
    if isinstance(file, CsvFile) and settings.header and any(NUMBER.fullmatch(name) for name in file.names):
        example = "{user: 1, book: 2, rating: 3}"
        return f"no header? then prepare.header: false, and places as columns: {example}; the first line: {known}"
    if len(places) < 2 or not settings.header:
        return f"known: {known}"
    columns = {role: None if place is None else file.names[place] for role, place in places.items()}
    user = "" if "user" in columns else "; user: null where each file is one user's"
    return f"did you mean {json.dumps(columns, ensure_ascii=False)}? known: {known}{user}"

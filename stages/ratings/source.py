"""Ratings files from elsewhere: read and checked, or refused in one message that says all they need."""

import itertools
import json
import lzma
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from stages.engines.here import HERE, Engine
from stages.program.errors import StageError, list_names, shorten
from stages.program.params import Prepare
from stages.ratings.checks import Check, Source, join, list_problems
from stages.ratings.csv_files import CsvFile, is_rating, words_of
from stages.ratings.files import NOT_UTF_8, UNDECODABLE, find_files, reader_of, recognise
from stages.ratings.json_files import JsonArray, JsonLines
from stages.ratings.parquet_files import ParquetFile
from stages.ratings.table import Ratings

AnyFile: TypeAlias = CsvFile | JsonLines | ParquetFile
KINDS: dict[str, type[AnyFile]] = {"CSV": CsvFile, "JSON": JsonLines, "JSON array": JsonArray, "Parquet": ParquetFile}

MAX_PROBLEMS = 5  # kinds of fault that a message names, a line each
MAX_BLOCKS = 4  # of a file that are looked at for other faults once its columns are wrong
DAMAGE = (  # what readers raise at a file that is missing, cut off or damaged
    OSError, EOFError, RuntimeError, UnicodeError, pa.ArrowException, zlib.error, lzma.LZMAError, zipfile.BadZipFile,
)  # fmt: skip
KNOWN_NAMES = {  # what collections call these columns, the likeliest first
    "user": ["userid", "user", "uid", "readerid", "reader", "reviewerid", "memberid", "customerid", "id"],
    "book": [
        "bookid", "book", "isbn", "itemid", "item", "movieid", "parentasin", "asin", "productid", "id", "title", "name",
    ],
    "rating": ["rating", "bookrating", "myrating", "stars", "starrating", "score", "reviewscore", "overall"],
}  # fmt: skip


def read_source(settings: Prepare, engine: Engine = HERE) -> Source:
    """Read the files that the settings name, and check every row.

    Args:
        settings: what to read, and how.
        engine: where files are read and checked, one by one, and where their rows stay.

    Raises:
        StageError: what is wrong: which file, which column, how many rows, the first few lines.
    """
    try:
        paths = find_files(settings)
    except OSError as error:
        raise StageError(_explain(Path(error.filename or settings.ratings), error)) from error
    checks: list[Check] = []
    files: list[Any] = []
    for check, rows in engine.starmap(_read, [(settings, path) for path in paths], returns=2):
        checks.append(engine.get(check))
        files.append(rows)
        if checks[-1].problems:
            break
    problems = [*checks[-1].problems, *list_problems(checks)]
    if checks[-1].problems and len(paths) > 1:
        problems[0] += f" (one of {len(paths)} files; prepare.files chooses among a folder's)"
    if problems:
        if len(problems) > MAX_PROBLEMS:
            problems[MAX_PROBLEMS:] = [f"and {len(problems) - MAX_PROBLEMS} more"]
        raise StageError("\n".join(problems))
    source = join(checks, files)
    if not source.rows:
        reasons = "".join(f"; left out: {count:,} {reason}" for reason, count in source.left_out.items())
        raise StageError(f"{settings.ratings} has columns and no ratings{reasons}")
    return source


def _read(settings: Prepare, path: Path) -> tuple[Check, Ratings]:
    """What is wrong with a file and with its columns (then a few blocks of the likeliest are checked); and its rows."""
    try:
        kind, encoding = recognise(path, settings.encoding)
        file = KINDS[kind](path, settings.model_copy(update={"encoding": encoding}))
        columns, problem = _find_columns(file, settings)
        problems = [f"{path} has {problem}"] if problem else []
        if encoding != settings.encoding:
            problems.insert(0, f"{path} is text in {encoding.upper()}; set prepare.encoding: {encoding}")
        names = [name for name in columns.values() if name and file.names.count(name) == 1]
        reader = reader_of(path) if columns["user"] is None else None
        labels = ["the file's name"] if reader else []
        labels += [f"column {name!r}" for name in names]
        check = Check(settings, str(path), file.unit, labels, problems)
        are_found = len(labels) == len(columns)
        blocks = file.blocks(names if are_found else [])
        for block in itertools.islice(blocks, MAX_BLOCKS if problems else None):
            if are_found:
                users = [pa.repeat(reader, len(block.numbers))] if reader else []
                check.add(block._replace(columns=users + block.columns))
            else:  # the encoding can be seen without the columns
                check.refuse({number: fault for number, fault in block.broken.items() if fault.startswith(UNDECODABLE)})
    except DAMAGE as error:
        raise StageError(_explain(path, error)) from error
    return check, check.pop_ratings()


def _explain(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{path}: {error.strerror} (see prepare.ratings in params.yaml)"
    if isinstance(error, UnicodeDecodeError) and error.encoding == "utf-8":
        return f"{path} is {NOT_UTF_8}"
    damage = "isn't in prepare.encoding" if isinstance(error, UnicodeError) else "is cut off or damaged"
    return f"{path} {damage}: {shorten(' '.join(str(error).split()), 200)}"


def _find_columns(file: AnyFile, settings: Prepare) -> tuple[dict[str, str | None], str]:
    """The names of the columns, the likeliest where there is none of that name; and what is wrong with them."""
    named = {str(name) for _, name in settings.columns}
    similar = {_letters(name): name for name in reversed(file.names) if name not in named}
    found: dict[str, str | None] = {}
    wrong = []
    for role, column in settings.columns:
        name, count = None if column is None else str(column), file.names.count(str(column))
        if name is not None and count != 1:
            wrong.append(f"{'several columns' if count else 'no column'} {column!r} (prepare.columns.{role})")
            likely = (similar.get(letters) for letters in (_letters(name), *KNOWN_NAMES[role]))
            name = next((name for name in likely if name and name not in found.values()), None)
        found[role] = name
    if not wrong:
        return found, ""
    is_separated = file.separator and (len(file.names) > 1 or settings.separator != "auto")
    separated = f" (separated by {file.separator!r})" if is_separated else ""
    advice = f"known: {list_names(file.names)}{separated}"
    if file.separator and settings.header and any(name and is_rating(name, words_of(settings)) for name in file.names):
        places = "by their places, {user: 1, book: 2, rating: 3} where they stand so"
        advice = f"no header? then prepare.header: false and prepare.columns {places}; {advice}"
    elif settings.header and found["book"] and found["rating"] and found != dict(settings.columns):
        null = "" if found["user"] else " (user: null where each file is one user's)"
        advice = f"did you mean {json.dumps(found, ensure_ascii=False)}{null}? {advice}"
    return found, f"{', '.join(wrong)}; {advice}"


def _letters(name: str) -> str:
    """A column's name without its capitals, its signs, and RecBole's type."""
    return re.sub(r"\W|_", "", name.partition(":")[0].casefold())

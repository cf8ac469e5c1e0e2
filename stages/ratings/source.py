"""Ratings files from elsewhere: read and checked, or refused in one message that says all they need."""

import itertools
import json
import lzma
import re
import zipfile
import zlib
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa

from stages.program.params import Prepare, find_near, list_names, shorten
from stages.program.process import StageError
from stages.ratings.checks import NUMBER, Check, Source
from stages.ratings.csv_files import CsvFile, LineBreaksError
from stages.ratings.files import NotInEncodingError, find_files, find_undecodable, recognise
from stages.ratings.json_files import JsonFile
from stages.ratings.parquet_files import ParquetFile

AnyFile: TypeAlias = CsvFile | JsonFile | ParquetFile

MOST_PROBLEMS = 5
"""How many kinds of fault a message names, a line each."""

MOST_BLOCKS = 16
"""Of a file that is refused already, as many are looked at for what else is wrong: a million rows of three numbers."""

DAMAGE = (
    *(OSError, EOFError, NotImplementedError, pa.ArrowException, UnicodeDecodeError),
    *(zlib.error, lzma.LZMAError, zipfile.BadZipFile),
)
"""What readers raise at a file that is cut off or damaged."""

KNOWN_NAMES = {
    "user": ["userid", "user", "readerid", "reader", "reviewerid", "memberid", "member", "customerid"],
    "book": ["bookid", "book", "isbn", "itemid", "item", "parentasin", "asin", "productid", "title", "name", "id"],
    "rating": ["rating", "bookrating", "myrating", "stars", "starrating", "score", "reviewscore", "overall"],
}
"""What collections call these columns, in small letters alone, the likeliest first."""


def read_source(settings: Prepare) -> Source:
    """Read the file or files that the parameters name, and check every row.

    Raises:
        StageError: what is wrong: which file, which column, how many rows, the first few lines.
    """
    paths = find_files(settings.ratings, settings.files)
    problems: list[str] = []
    encoding, careful = settings.encoding, False
    while True:
        try:
            return _read(paths, settings, encoding, careful, problems)
        except LineBreaksError:
            careful = True
        except NotInEncodingError as error:  # Latin-1 reads anything: enough to see what else is wrong
            problems = [find_undecodable(error.file, encoding)]
            encoding = "latin-1"


def _read(paths: list[Path], settings: Prepare, encoding: str, careful: bool, problems: list[str]) -> Source:
    check, problems, labels = Check(settings), [*problems], ["", "", ""]
    for path in paths:
        try:
            file = _open(path, settings, encoding, careful)
            places, unknown = _find_columns(file, settings)
            problems += unknown
            if places is None:
                continue
            labels = ["of the files' names" if place is None else repr(file.names[place]) for place in places]
            for block in itertools.islice(file.blocks(*places), MOST_BLOCKS if problems else None):
                check.add(file, block)
            problems += [f"{path}: {problem}" for problem in file.structure_problems()]
        except DAMAGE as error:
            reason = getattr(error, "strerror", None)
            damage = f"is cut off or damaged: {shorten(' '.join(str(error).split()), 200)}"
            raise StageError(f"{path}: {reason}" if reason else f"{path} {damage}") from error
    source = check.finish()
    problems += [f"{settings.ratings}: {problem}" for problem in check.problems(labels)]
    if problems:
        raise StageError("\n".join(problems[:MOST_PROBLEMS]))
    if not len(source.stars):
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in source.left_out.items())
        raise StageError(f"{settings.ratings} has columns and no ratings{f': {left_out}' if left_out else ''}")
    return source


def _open(path: Path, settings: Prepare, encoding: str, careful: bool) -> AnyFile:
    file = recognise(path, encoding)
    if file.kind == "parquet":
        return ParquetFile(file)
    return JsonFile(file, encoding, careful) if file.kind == "json" else CsvFile(file, settings, encoding, careful)


def _find_columns(file: AnyFile, settings: Prepare) -> tuple[tuple[int | None, int, int] | None, list[str]]:
    """The places of the columns user, book and rating, guessed where the names are wrong; and what is wrong with them."""
    places: dict[str, int | None] = {}
    missing, problems = [], []
    for role, name in settings.columns:
        count = file.names.count(str(name))
        if name is None or count == 1:
            places[role] = None if name is None else file.names.index(str(name))
        elif count:
            problems.append(f"{file.path} has {count} columns named {name!r}; prepare.columns.{role} must name one")
        else:
            missing.append(f"no column {name!r} (prepare.columns.{role})")
            guess = _guess(role, str(name), file.names)
            if guess is not None:
                places[role] = guess
    if missing:
        problems.append(f"{file.path} has {', '.join(missing)}; {_advise(file, settings, places)}")
    if len(places) < 3 or len({*places.values()}) < 3:
        return None, problems
    return (places["user"], places["book"], places["rating"]), problems  # type: ignore[return-value]


def _guess(role: str, name: str, names: list[str]) -> int | None:
    """The place of the column that may be meant."""
    plain = [re.sub(r"[^a-z0-9]", "", known.partition(":")[0].casefold()) for known in names]
    likely = next((known for known in KNOWN_NAMES[role] if known in plain), None)
    if likely is not None:
        return plain.index(likely)
    near = find_near(name, names)
    return None if near is None else names.index(near)


def _advise(file: AnyFile, settings: Prepare, places: dict[str, int | None]) -> str:
    if isinstance(file, CsvFile):
        if settings.header and any(NUMBER.fullmatch(name) for name in file.names):
            example = "columns: {user: 1, book: 2, rating: 3}"
            return f"no header? its first line is {list_names(file.names)}: then prepare.header: false, and places, as {example}"
        found = f"known ({file.separated}): {list_names(file.names)}"
    else:
        found = f"known: {list_names(file.names)}"
    if not places:
        return found
    fitting = ", ".join(
        f"{role}: {_yaml(None if place is None else file.names[place])}" for role, place in places.items()
    )
    return f"did you mean {{{fitting}}}? {found}"


def _yaml(name: str | None) -> str:
    plain = name is None or re.fullmatch(r"\w[\w /.-]*", name)
    return ("null" if name is None else name) if plain else json.dumps(name, ensure_ascii=False)

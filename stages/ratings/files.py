"""Ratings files as they lie on the disk: which there are, of what kind each is, and the lines of text."""

import codecs
import glob
import io
import json
import lzma
import re
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from stages.program.errors import StageError, shorten
from stages.program.params import Prepare

CHUNK = 1 << 21  # characters of text that are read at a time
LONGEST_LINE = 1 << 24  # characters: no ratings line is near it, and a file without line ends far beyond

COMPRESSIONS = {
    rb"\x1f\x8b": "gzip", rb"BZh[1-9]": "bz2", rb"\x28\xb5\x2f\xfd": "zstd", rb"\x04\x22\x4d\x18": "lz4",
    rb"\xfd7zXZ\0": "xz", rb"PK(\x03\x04|\x05\x06)": "zip",
}  # fmt: skip
TEXT_KINDS = {
    rb"(?i)\s*<(!|\?xml|html|head|body)": "a page in HTML or XML (which asked to log in?)",
    rb"%PDF": "a PDF",
    rb"version https://git-lfs": "a pointer of Git LFS (git lfs pull brings the file itself)",
}
BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f]")
BINARY_KINDS = {
    rb"ARROW1|FEA1|\xff{4}": "an Arrow or Feather file", rb"PARE": "an encrypted Parquet file", rb"ORC": "an ORC file",
    rb"\xd0\xcf\x11\xe0": "an Excel workbook (.xls)", rb"\x89HDF": "an HDF5 file", rb"SQLite": "an SQLite database",
    rb"\x80[\x04\x05]\x95": "a Python pickle", rb"\x93NUMPY": "a NumPy file", rb"Obj\x01": "an Avro file",
    rb"7z\xbc\xaf|Rar!": "a 7z or rar archive", rb".{257}ustar": "a tar archive", rb"\x89PNG": "a picture",
    **dict.fromkeys((*COMPRESSIONS, rb"\x5d\0\0"), "compressed in another way, or twice, as an archive"),
}  # fmt: skip
ENDINGS = r"(?<=.)(\.(csv|tsv|txt|dat|data|inter|json|jsonl|ndjson|parquet|gz|bz2|xz|zst|zstd|lz4|zip))+$"
UNDECODED = re.compile("[\udc80-\udcff]")  # as Python's surrogateescape leaves it
UNDECODABLE = "not in "
NOT_UTF_8 = f"{UNDECODABLE}UTF-8; prepare.encoding: latin-1 would read it, or cp1252 where it comes from Windows"
UNPACK = "; unpack it, and name the file with the ratings"
ADVICE = "; prepare-ratings takes CSV, JSON and Parquet: save it as one of these"


class Chunk(NamedTuple):
    """Whole lines of a text file."""

    text: str
    """Whatever the file's line ends, LF here."""
    first: int
    """The first line's number, from 1."""
    undecodable: dict[int, str]
    """The numbers of lines that aren't in the file's encoding, and what to say of them."""


def find_files(settings: Prepare) -> list[Path]:
    """The file that is named, or those of a folder or a pattern by their names; no hidden ones, no Spark's `_SUCCESS`.

    Raises:
        StageError: there is none.
        OSError: a folder can't be read.
    """
    path = Path(settings.ratings)
    if path.is_dir():
        listed = [file for file in path.iterdir() if fnmatch(file.name, settings.files)]
    elif glob.has_magic(settings.ratings) and not path.exists():
        listed = [Path(name) for name in glob.glob(settings.ratings, recursive=True)]  # noqa: PTH207, Path's takes no absolute pattern
    elif path.exists() and not path.is_file():
        raise StageError(f"{path} is a device or a pipe; prepare.ratings must name a file, a folder or a pattern")
    else:
        return [path]
    files = [file for file in sorted(listed) if file.name[0] not in "._" and not file.is_dir() and file.stat().st_size]
    if not files:
        raise StageError(f"{path} has no files with ratings (prepare.ratings and prepare.files in params.yaml)")
    if settings.columns.user is None:
        by_reader: dict[str, Path] = {}
        for file in files:
            other = by_reader.setdefault(reader_of(file), file)
            if other != file:
                raise StageError(
                    f"{other} and {file} are both named after {reader_of(file)!r}: each reader has one file"
                )
    return files


def reader_of(path: Path) -> str:
    """Whose file it is: its name without the endings that say what kind it is."""
    return re.sub(ENDINGS, "", path.name, flags=re.IGNORECASE)


def recognise(path: Path, encoding: str) -> tuple[str, str]:
    """See by its first bytes whether a file is CSV, JSON lines, a JSON array or Parquet; and its encoding, if marked.

    Raises:
        StageError: it is empty, or of another kind; the message names it.
    """
    with open_file(path) as stream:
        head: bytes = stream.read(1 << 12)
    magics = TEXT_KINDS | (BINARY_KINDS if BINARY.search(head) else {})
    kind = next((kind for magic, kind in magics.items() if re.match(magic, head, re.DOTALL)), None)
    if kind:
        raise StageError(f"{path} is {kind}{UNPACK if kind.endswith('archive') else ADVICE}")
    if head.startswith(b"PAR1") and (BINARY.search(head) or b"\n" not in head):
        return "Parquet", encoding
    marked = json.detect_encoding(head)
    is_set = "\n".encode(encoding) != b"\n"  # to one with several bytes a character
    if not is_set and marked in ("utf-16", "utf-32"):
        encoding = marked
    elif not is_set and head.count(b"\0") > len(head) // 8:
        wide = "utf-16-be" if head[::2].count(0) > head[1::2].count(0) else "utf-16-le"
        raise StageError(f"{path} holds NUL bytes; if it is text in UTF-16, set prepare.encoding: {wide}")
    text = head.decode(encoding, "ignore").lstrip("\ufeff \t\r\n")
    if not text:
        raise StageError(f"{path} is empty")
    kind = "JSON" if text.startswith("{") else "JSON array" if re.match(r"\[\s*[\[{\]]", text) else "CSV"
    return kind, encoding


def open_file(path: Path) -> Any:
    """A file's bytes, decompressed.

    Raises:
        StageError: it is an archive that doesn't hold just one file.
    """
    with path.open("rb") as file:
        first = file.read(6)
    compression = next((name for magic, name in COMPRESSIONS.items() if re.match(magic, first)), None)
    if compression == "xz":
        return lzma.open(path)
    if compression != "zip":
        return pa.input_stream(str(path), compression=compression)
    archive = zipfile.ZipFile(path)
    members = [
        member
        for member in archive.infolist()
        if not member.is_dir() and not Path(member.filename).name.startswith(".")
    ]
    if any(member.filename in ("[Content_Types].xml", "mimetype") for member in members):
        raise StageError(f"{path} is an Excel workbook (.xlsx), or another office file{ADVICE}")
    if len(members) != 1:
        names = ", ".join(shorten(repr(member.filename)) for member in members[:10])
        found = f"a zip archive of {len(members)} files ({names})"
        raise StageError(f"{path} is {found}{UNPACK}")
    return archive.open(members[0])


def read_chunks(path: Path, encoding: str) -> Iterator[Chunk]:
    """A file's text, some whole lines at a time.

    Raises:
        StageError: a line is far too long.
        UnicodeDecodeError: the text isn't in its encoding, and in which line can't be said.
    """
    fault = NOT_UTF_8 if codecs.lookup(encoding).name == "utf-8" else f"{UNDECODABLE}{encoding}; see prepare.encoding"
    number = 1
    with io.TextIOWrapper(open_file(path), encoding, "surrogateescape") as stream:
        while text := stream.read(CHUNK) + (end := stream.readline(LONGEST_LINE)):
            first = number
            characters = np.frombuffer(text.encode(errors="replace"), np.uint8)
            number += int(np.count_nonzero(characters == ord("\n")))  # faster than str.count
            if len(end) == LONGEST_LINE:
                raise StageError(f"{path}: line {number:,} is longer than {LONGEST_LINE:,} characters")
            undecodable = {}
            if not text.isascii() and UNDECODED.search(text):
                lines = enumerate(text.split("\n"), first)
                undecodable = {at: fault for at, line in lines if UNDECODED.search(line)}
                text = UNDECODED.sub("\ufffd", text)
            yield Chunk(text.removeprefix("\ufeff") if first == 1 else text, first, undecodable)

"""Ratings files as they lie on the disk: which there are, of what kind each is, and the lines of text."""

import codecs
import glob
import lzma
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.program.errors import StageError, shorten
from stages.program.params import Prepare

CHUNK = 1 << 21  # bytes of text that are read at a time
LONGEST_LINE = 1 << 24  # bytes: no ratings line is near it, and a file without line ends far beyond

COMPRESSIONS = {
    **{b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"},
    **{b"\xfd7zXZ\0": "xz", b"PK\x03\x04": "zip", b"PK\x05\x06": "zip"},
}
OTHER_KINDS = {
    **{b"ARROW1": "an Arrow or Feather file", b"FEA1": "a Feather file", b"PARE": "an encrypted Parquet file"},
    **{b"\xd0\xcf\x11\xe0": "an Excel workbook (.xls)", b"\x89HDF": "an HDF5 file", b"SQLite": "an SQLite database"},
    **{b"\x80\x04\x95": "a Python pickle", b"7z\xbc\xaf": "a 7z archive", b"Rar!": "a rar archive"},
    **{b"<": "a page in HTML or XML (which asked to log in?)"},
}
ADVICE = "; take the ratings out of it, as CSV, JSON lines or Parquet"
ASCII_LIKE = {"utf-8", "utf8", "ascii", "latin-1", "cp1252"}  # in which ASCII needs no second look


class Chunk(NamedTuple):
    """Whole lines of a text file."""

    data: bytes  # in UTF-8
    first: int  # the first line's number, from 1
    ends: int  # how many line ends there are: CR, LF and CRLF count one
    undecodable: dict[int, str]  # the numbers of lines that had to be read as Latin-1, and what to say of them

    def lines(self) -> NDArray[np.intp]:
        """The number of each line that isn't blank."""
        characters = np.frombuffer(self.data, np.uint8)
        lf, cr = characters == ord("\n"), characters == ord("\r")
        ends = np.flatnonzero(lf | (cr & ~np.append(lf[1:], False)))
        starts = np.flatnonzero(~(lf | cr) & np.append(True, (lf | cr)[:-1]))
        return self.first + np.searchsorted(ends, starts)

    def has_lines(self, count: int) -> bool:
        """Whether so many lines aren't blank."""
        return count == self.ends + (not self.data.endswith((b"\n", b"\r"))) or count == len(self.lines())


def find_files(settings: Prepare) -> list[Path]:
    """The file that is named, or those of a folder or a pattern by their names; no hidden ones, no Spark's `_SUCCESS`.

    Raises:
        StageError: there is none.
    """
    path = Path(settings.ratings)
    if path.is_dir():
        listed = list(path.glob(settings.files))
    elif glob.has_magic(settings.ratings) and not path.exists():
        listed = [Path(name) for name in glob.glob(settings.ratings)]  # noqa: PTH207, Path's takes no absolute pattern
    elif path.exists() and not path.is_file():
        raise StageError(f"{path} is a device or a pipe; prepare.ratings must name a file, a folder or a pattern")
    else:
        return [path]
    files = [file for file in sorted(listed) if file.is_file() and file.name[0] not in "._" and file.stat().st_size]
    if not files:
        raise StageError(f"{path} has no files with ratings (prepare.ratings and prepare.files in params.yaml)")
    return files


def recognise(path: Path, encoding: str) -> str:
    """See by its first bytes whether a file is csv, json or parquet.

    Raises:
        StageError: it is empty, or of another kind; the message names it.
    """
    with open_file(path) as stream:
        head: bytes = stream.read(1 << 12)
    other = next((kind for magic, kind in OTHER_KINDS.items() if head.startswith(magic)), None)
    if other or head[257:262] == b"ustar":
        raise StageError(f"{path} is {other or 'a tar archive'}{ADVICE}")
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.count(b"\0") > len(head) // 8 and not encoding.lower().startswith(("utf-16", "utf-32", "utf16", "utf32")):
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise StageError(f"{path} is text in UTF-16; set prepare.encoding: utf-16")
        raise StageError(f"{path} is neither CSV, JSON nor Parquet: it holds NUL bytes (or is it in utf-16-le?)")
    text = head.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")
    if not text:
        raise StageError(f"{path} is empty")
    return "json" if text.startswith((b"{", b"[")) else "csv"


def open_file(path: Path) -> Any:
    """A file's bytes, decompressed."""
    with path.open("rb") as file:
        first = file.read(6)
    compression = next((name for magic, name in COMPRESSIONS.items() if first.startswith(magic)), None)
    if compression == "xz":
        return lzma.open(path)
    if compression != "zip":
        return pa.input_stream(str(path), compression=compression)
    archive = zipfile.ZipFile(path)
    members = [member for member in archive.infolist() if not member.is_dir() and "__MACOSX" not in member.filename]
    names = [member.filename for member in members]
    if "[Content_Types].xml" in names:
        raise StageError(f"{path} is an Excel workbook (.xlsx), or another office file{ADVICE}")
    if len(names) != 1 or members[0].flag_bits & 1:
        locked = "with a password" if len(names) == 1 else f"of {len(names)} files"
        listed = ", ".join(shorten(repr(name)) for name in names[:10])
        raise StageError(f"{path} is a zip archive {locked} ({listed}); unpack it, and name the file with the ratings")
    return archive.open(names[0])


def read_chunks(path: Path, encoding: str) -> Iterator[Chunk]:
    """A file's text, some whole lines at a time.

    Raises:
        StageError: a line is far too long.
        UnicodeDecodeError: the text isn't in its encoding, and that isn't one whose lines can be told apart.
    """
    rest, first = b"", 1
    with open_file(path) as file:
        stream = file
        if "\n".encode(encoding) != b"\n":
            stream, encoding = pa.transcoding_input_stream(pa.PythonFile(file), encoding, "utf-8"), "utf-8"
        while block := stream.read(CHUNK) or rest:
            data = rest + block if block is not rest else rest
            cut = data.rfind(b"\n") + 1 or data.rfind(b"\r", 0, -1) + 1 if block is not rest else len(data)
            data, rest = data[:cut], data[cut:]
            if data:
                text, undecodable = _decode(data, encoding, first)
                ends = data.count(b"\n") + (data.count(b"\r") - data.count(b"\r\n") if b"\r" in data else 0)
                yield Chunk(text.removeprefix(codecs.BOM_UTF8) if first == 1 else text, first, ends, undecodable)
                first += ends
            if len(rest) > LONGEST_LINE:
                raise StageError(f"{path}: line {first:,} is longer than {LONGEST_LINE:,} bytes: is it a ratings file?")


def _decode(data: bytes, encoding: str, first: int) -> tuple[bytes, dict[int, str]]:
    if encoding.lower() in ASCII_LIKE and data.isascii():
        return data, {}
    try:
        return data.decode(encoding).encode(), {}
    except UnicodeError:
        wrong: dict[int, str] = {}
        for number, line in enumerate(data.splitlines(), first):
            try:
                line.decode(encoding).encode()
            except UnicodeError:  # where Windows has quotes and dashes, Latin-1 has control characters
                likely = "cp1252" if any(0x80 <= byte < 0xA0 for byte in line) else "latin-1"
                wrong[number] = f"not in {encoding.upper()}; prepare.encoding: {likely} would read it"
        return data.decode("latin-1").encode(), wrong

"""Ratings files as they lie on the disk: which there are, of what kind each is, and the lines of those that are text."""

import codecs
import glob
import lzma
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.program.params import Prepare, shorten
from stages.program.process import StageError

CHUNK = 1 << 22
"""Bytes of text that are read at a time."""
LONGEST_LINE = 1 << 24
"""In bytes. No ratings line is near it; a file without line ends is far beyond."""
HEAD = 1 << 16
"""Bytes at a file's beginning by which its form is known."""

COMPRESSIONS = {
    **{b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"},
    **{b"\xfd7zXZ\0": "xz", b"PK\x03\x04": "zip", b"PK\x05\x06": "zip"},
}
SAVE, UNPACK = "save it as CSV or Parquet", "unpack it, and name the ratings file in it"
UNREADABLE = [
    (0, b"ARROW1", "an Arrow or Feather file", SAVE),
    (0, b"FEA1", "a Feather file", SAVE),
    (0, b"PARE", "an encrypted Parquet file", SAVE),
    (0, b"\xd0\xcf\x11\xe0", "an Excel workbook (.xls)", SAVE),
    (0, b"\x89HDF", "an HDF5 file", SAVE),
    (0, b"SQLite format 3", "an SQLite database", SAVE),
    (0, b"\x80\x04\x95", "a Python pickle", SAVE),
    (0, b"7z\xbc\xaf", "a 7z archive", UNPACK),
    (0, b"Rar!", "a rar archive", UNPACK),
    (257, b"ustar", "a tar archive", UNPACK),
    (0, b"<", "HTML or XML", "perhaps a page that asked to log in was saved in the file's place"),
]
"""Where a kind of file has which bytes, what it is called, and what to do."""
UTF_16 = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
C1_CONTROL = re.compile(rb"[\x80-\x9f]")
"""Windows has quotes and dashes there, Latin-1 control characters that nobody uses."""


@dataclass(frozen=True)
class RatingsFile:
    """One file: where it lies, how it is compressed, and how it begins."""

    path: Path
    compression: str | None
    head: bytes
    """Decompressed."""

    def open(self) -> Any:
        """The decompressed bytes, to read."""
        return _open(self.path, self.compression)


@dataclass(frozen=True)
class Chunk:
    """Whole lines of a text file, in UTF-8."""

    data: bytes
    first: int
    """The first line's number, from 1."""
    undecodable: dict[int, str]
    """The numbers of lines that aren't in the file's encoding (read as Latin-1), and what to say of them."""

    def lines(self) -> NDArray[np.intp]:
        """The number of each line that isn't blank. CR, LF and CRLF end a line."""
        characters = np.frombuffer(self.data, np.uint8)
        lf, cr = characters == ord("\n"), characters == ord("\r")
        last = np.flatnonzero(lf | (cr & ~np.append(lf[1:], False)))
        return self.first + np.searchsorted(last, _line_starts(lf | cr))

    def count_lines(self) -> int:
        """How many lines aren't blank."""
        characters = np.frombuffer(self.data, np.uint8)
        return len(_line_starts((characters == ord("\n")) | (characters == ord("\r"))))


def _line_starts(ends: NDArray[np.bool_]) -> NDArray[np.intp]:
    return np.flatnonzero(~ends & np.append(True, ends[:-1]))


def find_files(settings: Prepare) -> list[Path]:
    """The file of this name, or those of a folder or a pattern in the order of their names.

    Empty files, hidden ones and those that begin with `_`, such as Spark's `_SUCCESS`, are passed over.

    Raises:
        StageError: there is none.
    """
    path = Path(settings.ratings)
    if path.is_dir():
        listed = list(path.glob(settings.files))
    elif glob.has_magic(settings.ratings) and not path.exists():
        listed = [Path(name) for name in glob.glob(settings.ratings)]  # noqa: PTH207, Path's takes no absolute pattern
    elif path.is_file():
        return [path]
    else:
        path.stat()
        raise StageError(f"{path} is a device or a pipe; prepare.ratings must name a file, a folder or a pattern")
    files = sorted(found for found in listed if found.is_file() and found.name[0] not in "._")
    if not any(file.stat().st_size for file in files):
        raise StageError(f"{path} names no file with ratings (prepare.ratings and prepare.files in params.yaml)")
    return [file for file in files if file.stat().st_size]


def recognise(path: Path, encoding: str) -> tuple[str, RatingsFile]:
    """See by its first bytes what a file is: parquet, json or csv.

    Raises:
        StageError: it is empty, or of another kind; the message names it.
    """
    with path.open("rb") as file:
        first = file.read(8)
    compression = next((name for magic, name in COMPRESSIONS.items() if first.startswith(magic)), None)
    with _open(path, compression) as stream:
        head: bytes = stream.read(HEAD)
    if not head.strip(b"\r\n"):
        raise StageError(f"{path} is empty")
    for at, magic, kind, advice in UNREADABLE:
        if head.startswith(magic, at):
            raise StageError(f"{path} is {kind}; {advice}")
    if head.startswith(b"PAR1"):
        return "parquet", RatingsFile(path, compression, head)
    if b"\0" in head and not encoding.lower().startswith(("utf-16", "utf-32", "utf_16", "utf_32", "utf16", "utf32")):
        wide = next((name for mark, name in UTF_16.items() if head.startswith(mark)), None)
        if wide:
            raise StageError(f"{path} is text in {wide.upper()}; set prepare.encoding: {wide}")
        raise StageError(f"{path} is neither CSV, JSON nor Parquet: it holds NUL bytes (or is it in utf-16-le?)")
    text = head.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")
    return "json" if text.startswith((b"{", b"[")) else "csv", RatingsFile(path, compression, head)


def _open(path: Path, compression: str | None) -> Any:
    if compression == "xz":
        return lzma.open(path)
    if compression == "zip":
        return _open_only_member(zipfile.ZipFile(path), path)
    return pa.input_stream(str(path), compression=compression)


def _open_only_member(archive: zipfile.ZipFile, path: Path) -> Any:
    members = [member for member in archive.infolist() if not member.is_dir() and "__MACOSX" not in member.filename]
    names = [member.filename for member in members]
    if "[Content_Types].xml" in names:
        raise StageError(f"{path} is an Excel workbook (.xlsx) or another office file; {SAVE}")
    if len(names) != 1:
        listed = ", ".join(shorten(repr(name)) for name in names[:10])
        raise StageError(f"{path} is a zip archive of {len(names)} files: {listed}; {UNPACK}")
    if members[0].flag_bits & 1:
        raise StageError(f"{path} is a zip archive with a password; {UNPACK}")
    return archive.open(names[0])


def read_chunks(file: RatingsFile, encoding: str) -> Iterator[Chunk]:
    """The file's text, in stretches of whole lines.

    Raises:
        StageError: a line is far too long.
        UnicodeDecodeError: the text isn't in its encoding, and that isn't one whose lines can be told apart.
    """
    rest, first = b"", 1
    with file.open() as stream:
        if "\n".encode(encoding) != b"\n":
            stream, encoding = pa.transcoding_input_stream(pa.PythonFile(stream), encoding, "utf-8"), "utf-8"
        while True:
            block = stream.read(CHUNK)
            data = rest + block
            cut = (data.rfind(b"\n") + 1 or data.rfind(b"\r", 0, -1) + 1) if block else len(data)
            data, rest = data[:cut], data[cut:]
            if data:
                text, undecodable = _decode(data, encoding, first)
                yield Chunk(text.removeprefix(codecs.BOM_UTF8) if first == 1 else text, first, undecodable)
                first += data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")
            if len(rest) > LONGEST_LINE:
                raise StageError(f"{file.path}: line {first:,} is longer than {LONGEST_LINE:,} bytes")
            if not block:
                return


def _decode(data: bytes, encoding: str, first: int) -> tuple[bytes, dict[int, str]]:
    try:
        return data.decode(encoding).encode(), {}
    except UnicodeError:
        wrong: dict[int, str] = {}
        for number, line in enumerate(data.splitlines(), first):
            try:
                line.decode(encoding).encode()
            except UnicodeError:
                likely = "cp1252" if C1_CONTROL.search(line) else "latin-1"
                wrong[number] = f"not in {encoding.upper()} (prepare.encoding: {likely} would read it)"
        return data.decode("latin-1").encode(), wrong

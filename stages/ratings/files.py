"""Ratings files as they lie on the disk: which ones there are, what each is, and its text in UTF-8, line by line."""

import codecs
import glob
import io
import lzma
import re
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.program.params import shorten
from stages.program.process import StageError

BLOCK = 1 << 17
"""Bytes decoded and counted at a time: few enough for a processor's cache."""

HEAD = 1 << 20
"""Bytes at a file's beginning by which its form is known."""

LINE_ENDS = b"\r\n"
DOUBLE_COLON = "\x1f"
"""What stands for `::`, which is longer than the one character that readers of CSV take."""

COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xfd7zXZ\0": "xz",
    b"PK\x03\x04": "zip",
}

SAVE = "save it as CSV or Parquet"
UNREADABLE = {
    (0, b"ARROW1"): f"an Arrow or Feather file; {SAVE}",
    (0, b"FEA1"): f"a Feather file; {SAVE}",
    (0, b"\xd0\xcf\x11\xe0"): f"an Excel workbook (.xls); {SAVE}",
    (0, b"7z\xbc\xaf"): "a 7z archive; unpack it, and name the ratings file in it",
    (0, b"Rar!"): "a rar archive; unpack it, and name the ratings file in it",
    (257, b"ustar"): "a tar archive; unpack it, and name the ratings file in it",
    (0, b"\x89HDF"): f"an HDF5 file; {SAVE}",
    (0, b"SQLite format 3"): f"an SQLite database; {SAVE}",
    (0, b"PARE"): f"an encrypted Parquet file; {SAVE}, not encrypted",
    (0, b"ORC"): f"an ORC file; {SAVE}",
    (0, b"Obj\x01"): f"an Avro file; {SAVE}",
    (0, b"\x80\x04\x95"): f"a Python pickle; {SAVE}",
    (0, b"%PDF"): "a PDF",
    (0, b"<"): "HTML or XML: perhaps the page that asks to log in, instead of the file",
    (0, b"PK\x05\x06"): "an empty zip archive",
}
C1_CONTROL = re.compile(rb"[\x80-\x9f]")
"""Windows has quotes and dashes there, Latin-1 control characters that nobody uses."""

BYTE_ORDER_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class RatingsFile:
    """One file: where it lies, how it is packed, and what is in it."""

    path: Path
    compression: str | None
    kind: str
    """parquet, json or csv"""
    head: bytes
    """The first `HEAD` bytes, unpacked."""

    def open(self) -> Any:
        """The unpacked bytes, to read."""
        return _unpack(self.path, self.compression)


class NotInEncodingError(Exception):
    """The text isn't in the encoding that the parameters name."""

    def __init__(self, file: RatingsFile) -> None:
        super().__init__(file.path)
        self.file = file


def find_files(ratings: str, names: str) -> list[Path]:
    """The file of this name, the files of a folder that match `names`, or those that match a pattern; in order.

    Hidden files and those that begin with `_`, as Spark's `_SUCCESS`, are passed over.

    Raises:
        StageError: there is none, or something else than a file or a folder.
    """
    path = Path(ratings)
    if path.is_dir():
        listed = path.glob(names)
    elif glob.has_magic(ratings) and not path.exists():
        listed = map(Path, glob.glob(ratings))  # noqa: PTH207, Path.glob takes no absolute pattern
    else:
        mode = _mode(path)
        if not stat.S_ISREG(mode):
            raise StageError(
                f"{path} is a device or a pipe; prepare.ratings in params.yaml must name a file or a folder"
            )
        return [path]
    files = sorted(found for found in listed if found.is_file() and found.name[0] not in "._")
    if not files:
        where = f"the folder {path} holds no file {names}" if path.is_dir() else f"no file matches {ratings}"
        raise StageError(f"{where}; see prepare.ratings and prepare.files in params.yaml")
    return [file for file in files if file.stat().st_size] or files[:1]


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except FileNotFoundError as error:
        raise StageError(f"{path} doesn't exist; prepare.ratings in params.yaml names it") from error


def recognise(path: Path, encoding: str) -> RatingsFile:
    """See by its first bytes what a file is.

    Raises:
        StageError: it is empty, or of a kind that can't be read; the message names the kind.
    """
    with path.open("rb") as file:
        first = file.read(300)
    compression = next((name for start, name in COMPRESSIONS.items() if first.startswith(start)), None)
    with _unpack(path, compression) as stream:
        head: bytes = stream.read(HEAD)
    if not head.strip(b"\r\n"):
        raise StageError(f"{path} is empty")
    for (at, magic), kind in UNREADABLE.items():
        if head[at : at + len(magic)] == magic:
            raise StageError(f"{path} is {kind}")
    if head.startswith(b"PAR1"):
        return RatingsFile(path, compression, "parquet", head)
    wide = next((name for mark, name in BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)
    if b"\0" in head and not encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32")):
        advice = (
            f"is text in {wide.upper()}; set prepare.encoding: {wide}"
            if wide
            else (
                "is neither CSV, JSON nor Parquet: it holds NUL bytes (in UTF-16 it would need prepare.encoding: utf-16-le)"
            )
        )
        raise StageError(f"{path} {advice}")
    text = head.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
    return RatingsFile(path, compression, "json" if text[:1] in (b"{", b"[") else "csv", head)


def _unpack(path: Path, compression: str | None) -> Any:
    if compression == "xz":
        return lzma.open(path)
    if compression == "zip":
        return _only_member(path)
    return pa.input_stream(str(path), compression=compression)


def _only_member(path: Path) -> Any:
    archive = zipfile.ZipFile(path)
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if any(member.flag_bits & 1 for member in archive.infolist()):
        raise StageError(f"{path} is locked with a password; unpack it, and name the ratings file in it")
    if "[Content_Types].xml" in names:
        raise StageError(f"{path} is an Excel workbook (.xlsx) or another office file; {SAVE}")
    if len(names) != 1:
        listed = ", ".join(shorten(repr(name)) for name in names[:10])
        raise StageError(f"{path} holds {len(names)} files: {listed}; unpack it, and name the one with the ratings")
    return archive.open(names[0])


class Utf8(io.RawIOBase):
    """A file's text in UTF-8, whatever it is in, without its byte order mark; counts what passes through.

    Raises:
        NotInEncodingError: while reading, where the file can't be decoded.
    """

    def __init__(self, file: RatingsFile, encoding: str, double_colons: bool = False) -> None:
        self._file = file
        self._stream = file.open()
        self._ascii = codecs.lookup(encoding).name in {"utf-8", "ascii", "iso8859-1", "cp1252"}
        name = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
        self._decoder = codecs.getincrementaldecoder(name)()
        self._double_colons = double_colons
        self._held = b""
        self._ready = memoryview(b"")
        self.done = False
        """Whether the end has been read."""
        self.lines = 0
        """Lines so far that aren't blank."""
        self.ended = True
        """Whether the last byte so far is a line end."""
        self.odd_quotes = False

    def readable(self) -> bool:
        """True: it is only read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read at least one byte, but for the end."""
        while not self._ready and not self.done:
            self._ready = memoryview(self.next_block())
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def next_block(self) -> bytes:
        """The next stretch of UTF-8, counted; empty at the end, and where a character needs more bytes."""
        block: bytes = self._stream.read(BLOCK)
        self.done = not block
        if not (self._ascii and block.isascii() and not self._decoder.getstate()[0]) or self.done:
            try:
                block = self._decoder.decode(block, self.done).encode()
            except UnicodeError as error:
                raise NotInEncodingError(self._file) from error
        if self._double_colons:
            block = self._held + block
            whole = len(block) if self.done else len(block.rstrip(b":"))
            self._held = block[whole:]
            block = block[:whole].replace(b"::", DOUBLE_COLON.encode())
        if block:
            self.lines += len(line_starts(block, self.ended))
            self.ended = block[-1] in LINE_ENDS
            self.odd_quotes ^= bool(block.count(b'"') % 2)
        return block

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        super().close()


def line_starts(block: bytes, ended: bool) -> NDArray[np.intp]:
    """Where lines begin that aren't blank; `ended` says whether a line end stands before the block."""
    characters = np.frombuffer(block, np.uint8)
    ends = (characters == LINE_ENDS[0]) | (characters == LINE_ENDS[1])
    starts = np.flatnonzero(ends[:-1] > ends[1:]) + 1
    return np.append(0, starts) if ended and not ends[0] else starts


def number_lines(file: RatingsFile, encoding: str, places: list[int]) -> Iterator[int]:
    """The numbers, from 1, of the lines at some places (ascending, from 0) among those that aren't blank."""
    number, last = 1, b"\n"
    waiting = iter(places)
    place = next(waiting, None)
    with Utf8(file, encoding) as text:
        while place is not None and not text.done:
            seen, ended = text.lines, text.ended
            block = text.next_block()
            starts = line_starts(block, ended) if block else []
            while place is not None and place < seen + len(starts):
                yield number + _count_line_ends(block[: starts[place - seen]], last)
                place = next(waiting, None)
            number += _count_line_ends(block, last)
            last = block[-1:] or last


def _count_line_ends(block: bytes, last: bytes) -> int:
    """LF, CR and CRLF count as one each; `last` stands before the block."""
    ends = block.count(b"\n") + block.count(b"\r") - block.count(b"\r\n")
    return ends - (last == b"\r" and block.startswith(b"\n"))


def find_undecodable(file: RatingsFile, encoding: str) -> str:
    """Say which lines aren't in the encoding, and which other one may be theirs."""
    name = encoding.upper()
    if "\n".encode(encoding) != b"\n":
        return f"{file.path} is not in {name} (prepare.encoding)"
    wrong: list[int] = []
    number, rest, likely = 1, b"", "latin-1"
    with file.open() as stream:
        while block := stream.read(HEAD):
            lines = rest + block
            cut = lines.rfind(b"\n") + 1 if len(block) == HEAD else len(lines)
            lines, rest = lines[:cut], lines[cut:]
            if not _is_text(lines, encoding):
                for place, line in enumerate(lines.splitlines()):
                    if not _is_text(line, encoding):
                        wrong.append(number + place)
                        likely = "cp1252" if C1_CONTROL.search(line) else likely
            number += _count_line_ends(lines, b"")
    count = f"{len(wrong):,} line{'s' if len(wrong) > 1 else ''}"
    few = ", ".join(f"{line:,}" for line in wrong[:3])
    return (
        f"{file.path}: {count} not in {name}: line{'s' if len(wrong) > 1 else ''} {few}"
        f"{', …' if len(wrong) > 3 else ''}; prepare.encoding: {likely} may be what it is in"
    )


def _is_text(text: bytes, encoding: str) -> bool:
    try:
        text.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True

"""Ratings files as they lie on the disk: which there are, of what kind each is, and the lines of text."""

import codecs
import glob
import itertools
import lzma
import re
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
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
    **{
        rb"\x1f\x8b": "gzip",
        rb"BZh([1-9](1A|\x17r|.?$)|$)": "bz2",
        rb"\x28\xb5\x2f\xfd": "zstd",
        rb"\x04\x22\x4d\x18": "lz4",
    },
    **{rb"\xfd7zXZ\0": "xz", rb"PK\x03\x04": "zip", rb"PK\x05\x06": "zip"},
}
MARKS = {
    **{codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"},
    **{codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"},
}
BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f]")
ADVICE = "; take the ratings out of it, as CSV, JSON lines or Parquet"
BINARY_KINDS = {
    **{b"ARROW1": "an Arrow or Feather file", b"FEA1": "a Feather file", b"PARE": "an encrypted Parquet file"},
    **{b"\xd0\xcf\x11\xe0": "an Excel workbook (.xls)", b"\x89HDF": "an HDF5 file", b"SQLite": "an SQLite database"},
    **{b"\x80\x04\x95": "a Python pickle", b"\x80\x05\x95": "a Python pickle", b"\x93NUMPY": "a NumPy file"},
    **{b"ORC": "an ORC file", b"Obj\x01": "an Avro file", b"\x89PNG": "a picture"},
    **{b"7z\xbc\xaf": "a 7z archive", b"Rar!": "a rar archive"},
}
TEXT_KINDS = {
    rb"\s*<(!|\?xml|html|head|body)": "a page in HTML or XML (which asked to log in?)" + ADVICE,
    rb"%PDF": "a PDF" + ADVICE,
    rb"version https://git-lfs": "a pointer of Git LFS; git lfs pull brings the file itself",
}
JSON_ARRAY = re.compile(rb'\[\s*([\[{\]"\d-]|$)')
ENDINGS = {
    *(".csv", ".tsv", ".txt", ".dat", ".data", ".inter", ".json", ".jsonl", ".ndjson", ".parquet"),
    *(".gz", ".bz2", ".xz", ".zst", ".zstd", ".lz4", ".zip"),
}
NOT_UTF_8 = "not in UTF-8; prepare.encoding: latin-1 would read it, or cp1252 where it comes from Windows"


class Chunk(NamedTuple):
    """Whole lines of a text file."""

    data: bytes
    """In UTF-8; whatever the file's line ends, LF here."""
    first: int
    """The first line's number, from 1."""
    undecodable: dict[int, str]
    """The numbers of lines that aren't in UTF-8, and what to say of them."""

    def lines(self) -> NDArray[np.intp]:
        """The number of each line that isn't blank (n,)."""
        ends = np.flatnonzero(np.frombuffer(b"\n" + self.data, np.uint8) == ord("\n"))
        return self.first + np.flatnonzero(np.diff(ends, append=len(self.data) + 1) > 1)


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
        listed = [Path(name) for name in glob.glob(settings.ratings)]  # noqa: PTH207, Path's takes no absolute pattern
    elif path.exists() and not path.is_file():
        raise StageError(f"{path} is a device or a pipe; prepare.ratings must name a file, a folder or a pattern")
    else:
        return [path]
    files = [file for file in sorted(listed) if file.name[0] not in "._" and not file.is_dir() and file.stat().st_size]
    if not files:
        raise StageError(f"{path} has no files with ratings (prepare.ratings and prepare.files in params.yaml)")
    if settings.columns.user is None:
        by_reader = {reader_of(file): file for file in reversed(files)}
        for file in files:
            if (same := by_reader[reader_of(file)]) != file:
                raise StageError(
                    f"{same} and {file} are both named after {reader_of(file)!r}: with prepare.columns.user null, "
                    "each reader has one file"
                )
    return files


def reader_of(path: Path) -> str:
    """Whose file it is: its name without the endings that say what kind it is."""
    name = path.name
    while (ending := Path(name).suffix) and ending.casefold() in ENDINGS:
        name = name.removesuffix(ending)
    return name


def recognise(path: Path, encoding: str) -> tuple[str, str]:
    """See by its first bytes whether a file is CSV, JSON lines, a JSON array or Parquet, and its encoding if marked so.

    Raises:
        StageError: it is empty, or of another kind; the message names it.
    """
    with open_file(path) as stream:
        head: bytes = stream.read(1 << 12)
    kinds = [kind for magic, kind in TEXT_KINDS.items() if re.match(magic, head, re.IGNORECASE)]
    if BINARY.search(head):
        kinds += [kind + ADVICE for magic, kind in BINARY_KINDS.items() if head.startswith(magic)]
        kinds += [f"a tar archive{ADVICE}"] * (head[257:262] == b"ustar")
    if kinds:
        raise StageError(f"{path} is {kinds[0]}")
    if head.startswith(b"PAR1") and (BINARY.search(head) or b"\n" not in head):
        return "Parquet", encoding
    marked = next((name for mark, name in MARKS.items() if head.startswith(mark)), "")
    is_narrow = "\n".encode(encoding) == b"\n"
    if is_narrow and not marked and head.count(b"\0") > len(head) // 8:
        wide = "utf-16-be" if head[::2].count(0) > head[1::2].count(0) else "utf-16-le"
        advice = f"if it is text in UTF-16 without a mark, set prepare.encoding: {wide}"
        raise StageError(f"{path} holds NUL bytes; {advice}")
    text = head.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")
    if not text:
        raise StageError(f"{path} is empty")
    kind = "JSON array" if JSON_ARRAY.match(text) else "JSON" if text.startswith(b"{") else "CSV"
    return kind, marked if is_narrow and marked else encoding


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
    members = [member for member in archive.infolist() if not member.is_dir() and "__MACOSX" not in member.filename]
    if any(member.filename == "[Content_Types].xml" for member in members):
        raise StageError(f"{path} is an Excel workbook (.xlsx), or another office file{ADVICE}")
    if len(members) != 1:
        names = ", ".join(shorten(repr(member.filename)) for member in members[:10])
        found = f"a zip archive of {len(members)} files ({names})"
        raise StageError(f"{path} is {found}; unpack it, and name the file with the ratings")
    return archive.open(members[0])


def read_chunks(path: Path, encoding: str) -> Iterator[Chunk]:
    """A file's text, some whole lines at a time.

    Raises:
        StageError: a line is far too long.
        UnicodeDecodeError: the text isn't in its encoding, and that isn't UTF-8.
    """
    rest, first = b"", 1
    with open_file(path) as file:
        in_utf_8 = codecs.lookup(encoding).name == "utf-8"
        stream = file if in_utf_8 else pa.transcoding_input_stream(pa.PythonFile(file), encoding, "utf-8")
        for block in itertools.chain(iter(lambda: stream.read(CHUNK), b""), [b""]):  # the last one is what is left
            data = rest + block
            cut = max(data.rfind(b"\n"), data.rfind(b"\r", 0, -1)) + 1 if block else len(data)
            data, rest = data[:cut], data[cut:]
            if b"\r" in data:
                data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            undecodable = {}
            try:
                data.decode()
            except UnicodeDecodeError:
                lines = data.decode(errors="replace").split("\n")
                undecodable = {number: NOT_UTF_8 for number, line in enumerate(lines, first) if "\ufffd" in line}
                data = "\n".join(lines).encode()
            if data:
                yield Chunk(data.removeprefix(codecs.BOM_UTF8) if first == 1 else data, first, undecodable)
                first += data.count(b"\n")
            if len(rest) > LONGEST_LINE:
                raise StageError(f"{path}: line {first:,} is longer than {LONGEST_LINE:,} bytes: is it a ratings file?")

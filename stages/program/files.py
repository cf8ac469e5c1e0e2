"""Outputs appear whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from stages.program.errors import StageError
from stages.program.process import temporary_files


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`: renamed over `path` when the block succeeds, removed when it fails.

    The rename is atomic because both names are in one folder. A killed run leaves its temporary file behind: the next
    run that writes `path` removes it, so that a process that outlived its pipeline can't put its result there later.

    Raises:
        StageError: `path` can't be written, for example because the disk is full.
    """
    if path.exists() and not path.is_file():
        raise StageError(f"{path} is a folder or a device, not a file that can be written anew")
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")  # keeps the suffix: Keras goes by it
    temporary_files.add(temporary)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for abandoned in path.parent.glob(f".tmp-*-{path.name}"):
            if abandoned.name.split("-", 2)[2] == path.name:  # not that of an output whose name ends alike
                abandoned.unlink(missing_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise StageError(f"{path} can't be written: {reason}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        temporary_files.discard(temporary)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8 with Unix line ends, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)

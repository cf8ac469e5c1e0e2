"""Outputs appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`: renamed over `path` when the block succeeds, removed when it fails.

    The rename is atomic because both names are in one folder. A killed run leaves its temporary file behind: the next
    run that writes `path` removes it, so that a process that outlived its pipeline can't put its result there later.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in path.parent.glob(f".tmp-*-{path.name}"):
        abandoned.unlink(missing_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")  # keeps the suffix: Keras goes by it
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8 with Unix line ends, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")

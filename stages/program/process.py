"""How a stage's process runs: errors as messages for people, signals as an orderly end."""

import contextlib
import functools
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

STARTERS_POLL = 0.2
"""How often to look whether what started this process is still there, in seconds."""

temporary_files: set[Path] = set()
"""What a signal's end removes first; `files.replacing` names its own here."""


class StageError(Exception):
    """What is wrong, where, and what to do about it: shown to the user as it is, without a traceback."""


def run_stage(main: Callable[[], None]) -> NoReturn:
    """Run a stage's `main` and end the process: status 0, 1 for what the user can mend, 128 + signal when stopped."""
    stop_on_signals()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # In a log, too, a line shows when it is written; a file's name is no reason to fail after all is done.
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        main()
    except StageError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        _fail("out of memory; a smaller train.batch_size or model would need less")
    sys.exit(0)


def _is_out_of_memory(error: Exception) -> bool:
    """NumPy, PyTorch and TensorFlow each have a way of their own to say it."""
    return (
        isinstance(error, MemoryError)
        or "can't allocate memory" in str(error)
        or type(error).__name__ in {"OutOfMemoryError", "ResourceExhaustedError"}
    )


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def stop_on_signals() -> None:
    """End this process in order on Ctrl-C and SIGTERM, and when DVC, which has started it, ends."""
    for stopping in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(stopping) is not signal.SIG_IGN:
            signal.signal(stopping, _stop)
    if "DVC_STAGE" in os.environ:
        end_with_starters()


def _stop(received: int, frame: FrameType | None) -> NoReturn:
    """End here and now: an exception might be caught on its way up, or wait for a framework's worker threads."""
    for path in [*temporary_files]:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    message = f"\nstopped by {signal.Signals(received).name}; nothing half-written is left\n"
    with contextlib.suppress(OSError):
        os.write(2, message.encode())  # print may be what the signal has interrupted
    os._exit(128 + received)


@functools.cache  # asked for when a package loads and when its stage runs: one thread is enough
def end_with_starters() -> None:
    """Send this process SIGTERM when its parent ends, or on Linux DVC behind that: it would write behind DVC's back."""
    if os.name != "posix":
        return
    starters = _find_starters()
    try:
        # DVC starts its stages in its own process group: a starter elsewhere is who adopts orphans.
        adopted = os.getpgid(starters[-1]) != os.getpgrp()
    except ProcessLookupError:
        adopted = True
    if adopted:
        os.kill(os.getpid(), signal.SIGTERM)

    def watch() -> None:
        while _lead_here(starters):
            time.sleep(STARTERS_POLL)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _find_starters() -> list[int]:
    """The processes that led to this one, from its parent up to DVC: some shells wait for the command that they run."""
    pids = [os.getppid()]
    with contextlib.suppress(OSError):  # it has just ended, or this system has no /proc
        while b"\0DVC_STAGE=" in b"\0" + Path(f"/proc/{pids[-1]}/environ").read_bytes():
            pids.append(_parent_of(pids[-1]))
    return pids


def _lead_here(starters: list[int]) -> bool:
    """Whether each of the processes is still the parent of the one before it."""
    try:
        return [os.getppid(), *map(_parent_of, starters[:-1])] == starters
    except OSError:  # one has just ended, or too many files are open: the next look will tell
        return True


def _parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

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
"""How often to look whether DVC is still there, in seconds."""

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
            signal.signal(stopping, _stop_on_signal)
    if "DVC_STAGE" in os.environ:
        end_with_starters()


def _stop_on_signal(received: int, frame: FrameType | None) -> NoReturn:
    _stop(f"by {signal.Signals(received).name}", 128 + received)


def _stop(why: str, status: int) -> NoReturn:
    """End here and now: an exception might be caught on its way up, or wait for a framework's worker threads."""
    for path in [*temporary_files]:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        # print may be what a signal has interrupted
        os.write(2, f"\nstopped {why}; nothing half-written is left\n".encode())
    os._exit(status)


@functools.cache
def end_with_starters() -> None:
    """End this process when one that led to it ends: it would run on and write behind DVC's back."""
    if os.name != "posix":
        return
    starters = _starters()
    # DVC starts its stages in its own process group: a starter elsewhere is who adopts orphans.
    adopted = os.getpgid(starters[-1]) != os.getpgrp()

    def watch() -> None:
        while not adopted and _starters() == starters:
            time.sleep(STARTERS_POLL)
        _stop("because what started it has ended", 1)

    threading.Thread(target=watch, daemon=True).start()


def _starters() -> list[int]:
    """The processes that led to this one, from its parent up to DVC: some shells wait for the command that they run."""
    pids = [os.getppid()]
    with contextlib.suppress(OSError):  # it has just ended, or this system has no /proc
        while b"\0DVC_STAGE=" in b"\0" + Path(f"/proc/{pids[-1]}/environ").read_bytes():
            pids.append(int(Path(f"/proc/{pids[-1]}/stat").read_text().rpartition(")")[2].split()[1]))
    return pids

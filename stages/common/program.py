"""How a stage's process runs: errors as messages for people, signals as an orderly end."""

import contextlib
import ctypes
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

PR_SET_PDEATHSIG = 1  # linux/prctl.h

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
    """End this process in order on Ctrl-C and SIGTERM, and when its parent dies."""
    for stopping in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(stopping) is not signal.SIG_IGN:
            signal.signal(stopping, _stop)
    end_with_parent()


def _stop(received: int, frame: FrameType | None) -> NoReturn:
    """End here and now: an exception might be caught on its way up, or wait for a framework's worker threads."""
    for path in [*temporary_files]:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    message = f"\nstopped by {signal.Signals(received).name}; nothing half-written is left\n"
    with contextlib.suppress(OSError):
        os.write(2, message.encode())  # print may be what the signal has interrupted
    os._exit(128 + received)


def end_with_parent() -> None:
    """Ask Linux to end this process when DVC, its parent, dies: a stage that runs on would write behind its back."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        # DVC starts its stages in its own process group: a parent elsewhere is who adopts orphans.
        if "DVC_STAGE" in os.environ and os.getpgid(os.getppid()) != os.getpgrp():
            os.kill(os.getpid(), signal.SIGTERM)

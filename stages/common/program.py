"""How a stage's process runs: errors as messages for people, signals as an orderly end."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

PR_SET_PDEATHSIG = 1  # linux/prctl.h


class StageError(Exception):
    """What is wrong, where, and what to do about it: shown to the user as it is, without a traceback."""


def run_stage(main: Callable[[], None]) -> NoReturn:
    """Run a stage's `main` and end the process: status 0, 1 for what the user can mend, 128 + signal when stopped."""
    _end_with_parent()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        main()
    except StageError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except MemoryError:
        _fail("out of memory")
    except KeyboardInterrupt as interruption:
        received = interruption.args[0] if interruption.args else signal.SIGINT
        print(f"\nstopped by {signal.Signals(received).name}; nothing half-written is left", file=sys.stderr)
        # No interpreter shutdown: a framework's worker threads can hold it up, and the user has asked for the end.
        sys.stderr.flush()
        os._exit(128 + received)
    sys.exit(0)


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def _interrupt(received: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(received)


def _end_with_parent() -> None:
    """Ask Linux to end this process when DVC, its parent, dies: a stage that runs on would write behind its back."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

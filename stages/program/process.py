"""How a stage's process runs: arguments, errors as messages for people, signals as an orderly end."""

import argparse
import contextlib
import functools
import inspect
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal, NoReturn, get_args, get_origin

from stages.program.errors import StageError

PARENT_POLL = 0.2
"""How often to look whether what started this process is still there, in seconds."""

temporary_files: set[Path] = set()
"""Files that are being written: a signal removes them."""
last_acts: list[Callable[[], None]] = []
"""What else a signal does, the latest first, such as to end other processes."""


def run_stage(main: Callable[..., None]) -> NoReturn:
    """Run a stage's `main` and end the process, as `run_program` says.

    Its arguments come from the command line, as `parse_arguments` says.
    """
    run_program(lambda: main(**parse_arguments(main)))


def run_program(main: Callable[[], None]) -> NoReturn:
    """Run `main` and end the process: status 0, 1 for what the user can mend, 128 + signal when stopped."""
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
        _fail("out of memory; fewer ratings would need less, and to train a smaller train.batch_size or model")
    sys.exit(0)


def parse_arguments(main: Callable[..., None]) -> dict[str, Any]:
    """The command line's arguments by name: each parameter of `main` is an option.

    `train_rows: Path` is `--train-rows`, which must be there as it has no default. A Literal's values are its choices.
    For a Section of settings the file that holds it is named, and is read.

    Raises:
        StageError: settings that aren't valid, or one path for two options: one's file would replace the other's.
    """
    from stages.program.params import Section, load_settings  # not before signals are handled: it takes a while

    parser = argparse.ArgumentParser(
        description=sys.modules[main.__module__].__doc__,
        epilog="dvc.yaml has the command with all options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parameters = inspect.signature(main).parameters
    options = {name: f"--{name.replace('_', '-')}" for name in parameters}
    for name, parameter in parameters.items():
        kind, choices = parameter.annotation, None
        if get_origin(kind) is Literal:
            kind, choices = str, get_args(kind)
        elif issubclass(kind, Section):
            kind = functools.partial(load_settings, kind=kind)
        required = parameter.default is parameter.empty
        parser.add_argument(options[name], type=kind, choices=choices, required=required, default=parameter.default)
    given = vars(parser.parse_args())
    takers: dict[Path, str] = {}
    for name, value in given.items():
        if isinstance(value, Path) and (other := takers.setdefault(value.resolve(), name)) != name:
            raise StageError(f"{options[other]} and {options[name]} are both {value}; each needs a path of its own")
    return given


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


def explain_missing_packages() -> None:
    """Let a package that isn't installed end this process with a sentence, wherever it is imported."""

    def explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, ModuleNotFoundError):
            print(f"error: {error.name} isn't installed; run: pip install -r requirements.txt", file=sys.stderr)
        else:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = explain


def stop_on_signals() -> None:
    """End this process in order on Ctrl-C and SIGTERM, and when DVC, which has started it, ends."""
    for stopping in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(stopping) is not signal.SIG_IGN:
            signal.signal(stopping, _stop)
    if "DVC_STAGE" in os.environ:
        end_with_parent()


def _stop(received: int, frame: FrameType | None) -> NoReturn:
    """End here and now: an exception might be caught on its way up, or wait for a framework's worker threads."""
    for path in [*temporary_files]:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    for act in reversed(last_acts):
        with contextlib.suppress(Exception):
            act()
    message = f"\nstopped by {signal.Signals(received).name}; nothing half-written is left\n"
    with contextlib.suppress(OSError):
        os.write(2, message.encode())  # print may be what the signal has interrupted
    os._exit(128 + received)


@functools.cache  # asked for when a package loads and when its stage runs: one thread is enough
def end_with_parent() -> None:
    """Send this process SIGTERM when its parent ends, which for a stage is DVC: it would write behind DVC's back."""
    if os.name != "posix":
        return
    parent = os.getppid()
    try:
        # DVC starts its stages in its own process group: a parent elsewhere is who adopts orphans.
        adopted = os.getpgid(parent) != os.getpgrp()
    except ProcessLookupError:
        adopted = True
    if adopted:
        os.kill(os.getpid(), signal.SIGTERM)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()

"""Processes that a test starts, and what Linux says of them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through Linux's /proc")


@dataclass(frozen=True)
class Running:
    """A command that a test has started, with the file that takes what it prints."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def descendants(self) -> list[int]:
        """The processes that it has started, and those that they have, outermost first."""
        found = [self.process.pid]
        for pid in found:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return found[1:]

    def wait_for(self, text: str, seconds: float = 120) -> None:
        """Wait until it has printed `text`."""
        self.wait_for_end_or(text, seconds)
        assert text in self.output, self.output

    def wait_for_end_or(self, text: str, seconds: float = 120) -> None:
        """Wait until it has printed `text` or has ended."""
        wait_until(lambda: text in self.output or self.process.poll() is not None, seconds)


def is_running(pid: int) -> bool:
    """Whether the process has not yet ended: one that nobody has asked for its status since is a zombie, 'Z'."""
    try:
        return _read_stat(pid)[0] != "Z"
    except OSError:
        return False


def handles_sigterm(pid: int) -> bool:
    """Whether the process has come so far as to have its own way of stopping."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(status.split("SigCgt:")[1].split()[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def processor_seconds(pid: int) -> float:
    """What a process has used so far: nothing, if it has ended."""
    try:
        user, system = _read_stat(pid)[11:13]
    except OSError:
        return 0
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _read_stat(pid: int) -> list[str]:
    """What Linux says of a process, from its state on: the fields after its name in /proc."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for something that must come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


Start: TypeAlias = Callable[..., Running]
"""The fixture `start`: the folder to run in, and the command."""

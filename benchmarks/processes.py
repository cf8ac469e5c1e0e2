"""Processes of their own: commands with their time and peak memory, and functions in a fresh interpreter."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Finished:
    """What a command took."""

    seconds: float
    cpu_seconds: float
    first_line_seconds: float
    """Until it had printed its first line, or to the end."""
    peak_megabytes: float


def run(command: list[str], cwd: Path = ROOT) -> Finished:
    """Run a command to its end. Its peak is at least what this process has: Linux counts from before the `exec`.

    Raises:
        CalledProcessError: it ended with another status than 0.
    """
    start = time.perf_counter()
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        first_line = time.perf_counter() - start
        process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            print(errors.read().decode(errors="replace"), file=sys.stderr)
            raise subprocess.CalledProcessError(process.returncode, command)
    return Finished(seconds, usage.ru_utime + usage.ru_stime, first_line, usage.ru_maxrss / 1024)


def in_a_process(
    function: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
) -> Result:
    """What the function returns in an interpreter that has done nothing before."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **named).result()


def peak_megabytes() -> float:
    """The most memory that this process has had, from its program's start on."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this system doesn't say how much memory a process had at most")

"""Processes of their own: commands with their time and peak memory, and functions in a fresh interpreter."""

import multiprocessing
import os
import subprocess
import sys
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

    cpu_seconds: float
    peak_megabytes: float


def run(command: list[str]) -> Finished:
    """Run a command to its end. Its peak is at least what this process has: Linux counts from before the `exec`.

    Raises:
        CalledProcessError: it ended with another status than 0; what it wrote to its standard error has been shown.
    """
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            print(errors.decode(errors="replace"), file=sys.stderr)
            raise subprocess.CalledProcessError(process.returncode, command)
    return Finished(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


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

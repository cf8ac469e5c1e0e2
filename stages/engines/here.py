"""Where a stage's functions are called: in this process, or on the workers of a cluster that an `Engine` stands for."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol


class Engine(Protocol):
    """Calls functions, and keeps what they return where it came to be until it is asked for.

    Attributes:
        part_count: in how many parts it keeps a table.
    """

    part_count: int

    def starmap(
        self, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]], returns: int = 1
    ) -> Iterator[Any]:
        """Call the function with each of the arguments, which may be kept values; keep what it returns, in that order.

        Where it returns several values, `returns` of them, each is kept by itself.
        """

    def get(self, kept: Any) -> Any:
        """A kept value; or what the function has raised is raised here."""

    def share(self, value: Any) -> Any:
        """Keep a value that many calls take."""


class Here:
    """This process."""

    part_count = 1

    def starmap(
        self, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]], returns: int = 1
    ) -> Iterator[Any]:
        """Call the function as what it returns is asked for."""
        return itertools.starmap(function, arguments)

    def get(self, kept: Any) -> Any:
        """The value itself."""
        return kept

    share = get


HERE = Here()

"""What is wrong, said to people."""

import difflib
from collections.abc import Iterable

NAMES_LISTED = 20
"""How many of the known names a message lists."""


class StageError(Exception):
    """What is wrong, where, and what to do about it: shown to the user as it is, without a traceback."""


def suggest(name: str, known: Iterable[str]) -> str:
    """'did you mean …?' where a known name is near, whatever their case, and the first names that there are."""
    by_letters = {known_name.casefold(): known_name for known_name in known}
    near = difflib.get_close_matches(name.casefold(), by_letters, n=1, cutoff=0.7)
    question = f"did you mean {by_letters[near[0]]!r}? " if near else ""
    return f"{question}known: {list_names(list(known))}"


def list_names(names: list[str]) -> str:
    """The first names that there are."""
    more = ", …" if len(names) > NAMES_LISTED else ""
    return f"{', '.join(shorten(repr(name)) for name in names[:NAMES_LISTED])}{more}"


def shorten(text: str, longest: int = 40) -> str:
    """The text's beginning where it is longer than a message can take."""
    return text if len(text) <= longest else f"{text[: longest - 2]} …"

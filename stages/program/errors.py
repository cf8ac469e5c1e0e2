"""What is wrong, said to people."""

import difflib
from collections.abc import Iterable

NAMES_LISTED = 20
"""How many of the known names a message lists."""


class StageError(Exception):
    """What is wrong, where, and what to do about it: shown to the user as it is, without a traceback."""


def suggest(name: str, known: Iterable[str]) -> str:
    """'did you mean …?' where a known name is near, and the first names that there are."""
    names = list(known)
    by_letters = {known_name.casefold(): known_name for known_name in names}
    near = difflib.get_close_matches(name.casefold(), by_letters, n=1)
    question = f"did you mean {by_letters[near[0]]!r}? " if near else ""
    more = ", …" if len(names) > NAMES_LISTED else ""
    return f"{question}known: {', '.join(shorten(repr(known_name)) for known_name in names[:NAMES_LISTED])}{more}"


def shorten(text: str, longest: int = 40) -> str:
    """The text's beginning where it is longer than a message can take."""
    return text if len(text) <= longest else f"{text[: longest - 2]} …"

"""Errors that the user can mend, and the advice in them."""

import difflib
from collections.abc import Iterable
from typing import Any

MOST_SHOWN = 80
"""Letters of a value in a message."""
MOST_PROBLEMS = 20
"""That are told at once."""


class UserError(Exception):
    """Something that only the user can mend; each argument is a message that says how."""

    def __str__(self) -> str:
        """Return all messages, one on a line."""
        return "\n".join(map(str, self.args))


class ConfigError(UserError, ValueError):
    """A configuration that cannot be used; every argument is a problem and says what to do."""


def shown(value: Any) -> str:
    """Return a value from outside as it can stand in a message: printable and short."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than some thousands of digits
        text = "a number of too many digits"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def first_of(problems: Iterable[str]) -> list[str]:
    """Return the first of many problems, each once, and whether there are more."""
    each = list(dict.fromkeys(problems))
    more = ["and more problems, which are told when these are mended"]
    return each if len(each) <= MOST_PROBLEMS else [*each[:MOST_PROBLEMS], *more]


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return advice that names the known names nearest to a misspelt one, or else all of them."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    nearest = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)
    if nearest:
        return f"did you mean {' or '.join(by_lower[match] for match in nearest)}?"
    return f"use one of: {', '.join(by_lower.values())}"

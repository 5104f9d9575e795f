"""Errors that the user can mend, and the advice in them."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something that only the user can mend; each argument is a message that says how."""

    def __str__(self) -> str:
        """Return all messages, one on a line."""
        return "\n".join(map(str, self.args))


class ConfigError(UserError, ValueError):
    """A configuration that cannot be used; every argument is a problem and says what to do."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return advice that names the known names nearest to a misspelt one, or else all of them."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    nearest = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)
    if nearest:
        return f"did you mean {' or '.join(by_lower[match] for match in nearest)}?"
    return f"use one of: {', '.join(by_lower.values())}"

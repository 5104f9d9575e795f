"""Errors that the user can mend, and the advice in them."""

import difflib
import errno
import os
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


class DiskError(UserError):
    """Something that cannot be written; the message says what, why, and the way out."""

    def __init__(self, problem: str, code: int) -> None:
        """Say what cannot be written, where and why; the code of `errno` says what mends it."""
        super().__init__(problem, code)

    def __str__(self) -> str:
        """Return the message."""
        return self.told()

    def told(self, elsewhere: str = "") -> str:
        """Return the message, with another way out: where else it could be written."""
        problem, code = self.args
        ways = " or ".join(filter(None, [_MENDED.get(code, "mend that"), elsewhere]))
        return f"{problem}; {ways}, and give the same command again: what is saved is kept"


FULL = (errno.ENOSPC, errno.EDQUOT)
"""Codes of `errno` for a disk, or a share of it, that is full."""
_MENDED = {
    **dict.fromkeys((*FULL, errno.EFBIG), "free some space there"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "permit writing there"),
}
_OF_A_DISK = (*_MENDED, errno.EIO)


def is_of_a_disk(error: OSError) -> bool:
    """Return whether an error is one that writing gives, to a disk or to who reads our output."""
    return error.errno in (*_OF_A_DISK, errno.EPIPE)


def code_named(text: str) -> int | None:
    """Return the code of `errno` that a library's own message names; None if it names none.

    Only of those that a disk gives.
    """
    return next((code for code in _OF_A_DISK if os.strerror(code) in text), None)


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


def in_units(size: int) -> str:
    """Return a size in the unit that fits it, with three digits or all that there are."""
    amount, units = float(size), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 999.5 and len(units) > 1:
        amount, units = amount / 1024.0, units[1:]
    decimals = 0 if units[0] == "bytes" or amount >= 99.95 else 1 if amount >= 9.995 else 2
    return f"{amount:.{decimals}f} {units[0]}"

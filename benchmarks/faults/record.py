"""What is noted of a fault."""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

EQUAL, REFUSED, ACCEPTED, UNEXPECTED = "ended equal", "refused", "accepted", "unexpected"
"""It ended as if nothing had been; it was refused with one clear message; it was good; or none."""


class Fault(NamedTuple):
    """A fault that was made, or several under one number, and what came of it.

    Attributes:
      what: was done.
      ends: how often it ended in which way.
      problems: what was unexpected.
      output: the end of what the program said, if something was unexpected.
    """

    what: str
    ends: Mapping[str, int]
    problems: Sequence[str] = ()
    output: str = ""


def judged(
    what: str, problems: Sequence[str], output: str, otherwise: str = EQUAL, made: int = 1
) -> Fault:
    """Return what is noted: that it was unexpected if there are problems, or else how it ended."""
    if not problems:
        return Fault(what, {otherwise: made})
    return Fault(what, {UNEXPECTED: made}, problems, output[-2000:])


def rng_of(seed: int, part: str, number: int) -> random.Random:
    """Return all chance of one fault, which depends on no other."""
    return random.Random(f"{seed}/{part}/{number}")

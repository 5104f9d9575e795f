"""What a process says of its end to whoever started it."""

from typing import Literal

Outcome = Literal["finished", "diverged", "interrupted"]
"""How training ends: with its last step, with every run non-finite, or saved before its end."""

OF_OUTCOME = {
    "finished": 0,
    "diverged": 1,
    "incomplete": 1,
    "busy": 69,
    "too large": 71,
    "cannot write": 73,
    "interrupted": 75,
}
"""Of training and of sweeps; 69, 71, 73 and 75 are EX_UNAVAILABLE (another process trains there),
EX_OSERR (the memory that is free does not hold it), EX_CANTCREAT (of one group: there is no room on
the disk, or the like) and EX_TEMPFAIL (the same command goes on)."""

BAD_INPUT = 2
KILLED_BY_CTRL_C = 130
BROKEN_PIPE = 141

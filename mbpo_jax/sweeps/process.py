"""The process that trains one group: how it is started, and what its end means.

It runs the same command wherever it is: on this machine, in a task of Ray or in a job of SLURM.
"""

import contextlib
import ctypes
import datetime
import errno
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from mbpo_jax.errors import FULL, ConfigError, DiskError, code_named
from mbpo_jax.exit_codes import KILLED_BY_CTRL_C, OF_OUTCOME
from mbpo_jax.files import disk_error, writing
from mbpo_jax.signals import HANDLED
from mbpo_jax.sweeps.store import OUTPUT, OVER, Unit
from mbpo_jax.training.interruption import Interruption

_LITTLE = 2**20
"""Bytes; with fewer left a process could not even say that the disk is full."""
_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux."""
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class NoRoom(ConfigError):
    """A unit that the memory which is free now does not hold; others may fit."""


class Work(NamedTuple):
    """What there is to train, and who is told of it.

    Attributes:
      sweep_dir: of the sweep.
      units: of the sweep.
      interruption: asks for an end.
      look: called again and again with the units that are being trained.
      announce: told what happens, in lines.
    """

    sweep_dir: Path
    units: Sequence[Unit]
    interruption: Interruption
    look: Callable[[Sequence[Unit]], None]
    announce: Callable[[str], None]

    @property
    def pending(self) -> list[Unit]:
        """Return the units that are not over."""
        return [unit for unit in self.units if unit.state not in OVER]


def command_of(sweep_dir: Path, name: str) -> list[str]:
    """Return the command that trains a group."""
    return [sys.executable, "-m", "mbpo_jax", "sweep", str(sweep_dir), "--group", name]


def start(sweep_dir: Path, unit: Unit, dies_with_us: bool = False) -> subprocess.Popen:
    """Start the process that trains a group; its output is appended to a file of the group.

    Args:
      sweep_dir: of the sweep.
      unit: the group.
      dies_with_us: have it killed when this process dies, so that another one can take over at
        once. Only on Linux.
    """
    with writing(unit.path / OUTPUT), open(unit.path / OUTPUT, "ab", buffering=0) as output:
        with contextlib.suppress(OSError):  # of a full disk the end will tell
            output.write(f"started at {_now()}\n".encode())
        # In a session of its own, so that Ctrl-C reaches it once, through us.
        return subprocess.Popen(
            command_of(sweep_dir, unit.name),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent if dies_with_us and _LIBC else None,
        )


def _die_with_parent() -> None:
    assert _LIBC is not None
    _LIBC.prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def told_end(unit: Unit, code: int) -> str:
    """Say how a process ended, and note it if it failed.

    Raises:
      NoRoom: there is too little memory.
      DiskError: the disk is full, or the like.
    """
    # Python itself ends with 1 after an error, so what the group says of itself decides.
    if code in (OF_OUTCOME["finished"], OF_OUTCOME["diverged"]) and unit.state in OVER:
        return f"{unit.name}: {unit.state}"
    if code == OF_OUTCOME["busy"]:
        return f"{unit.name}: another process trains it"
    # Python that is just starting cannot save, and has nothing to.
    if code in (OF_OUTCOME["interrupted"], KILLED_BY_CTRL_C) or -code in HANDLED:
        return f"{unit.name}: interrupted"
    if code == OF_OUTCOME["too large"]:
        raise NoRoom(
            f"{unit.name}: {last_line(unit.path / OUTPUT)}, or wait until what else runs there has "
            "ended; the same command goes on. New groups are made smaller by --runs-per-group"
        )
    if code == OF_OUTCOME["cannot write"]:
        said, _, _ = last_line(unit.path / OUTPUT).partition("; ")
        if (named := code_named(said)) is not None:
            raise DiskError(f"{unit.name}: {said}", named)
        if not said:  # there was no room even for that
            raise _no_room(unit)
        # Else something of its own is in the way, such as a file where a folder should be.
    return note_failure(
        unit, f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    )


def note_failure(unit: Unit, reason: str) -> str:
    """Note that what trained a unit ended without an end of the training, and say so.

    Raises:
      DiskError: the disk is full, which is no fault of the unit and is not noted.
    """
    line = last_line(unit.path / OUTPUT)
    if shutil.disk_usage(unit.path).free < _LITTLE or code_named(line) in FULL:
        raise _no_room(unit)
    unit.add_failure(
        time=_now(),
        reason=reason,
        last_line=line,
    )
    again = "given up" if unit.state == "failed" else "tried again"
    return f"{unit.name}: failed ({reason}) and is {again}; see {unit.path / OUTPUT}: {line}"


def _no_room(unit: Unit) -> DiskError:
    return disk_error(unit.path, errno.ENOSPC, what=f"{unit.name}: cannot write in {unit.path}")


def last_line(path: Path) -> str:
    """Return the last line that is not empty of a text file, cut to a readable length."""
    try:
        with open(path, "rb") as file:
            file.seek(max(file.seek(0, 2) - 4096, 0))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line), "")[:400]

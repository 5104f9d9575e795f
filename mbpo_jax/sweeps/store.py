"""The directory of a sweep: a run directory for each group, which are the truth about it."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mbpo_jax.config import Config
from mbpo_jax.errors import ConfigError
from mbpo_jax.files import write_json_atomic
from mbpo_jax.sweeps.manifest import group_name, make_groups, run_id
from mbpo_jax.training import run_directory
from mbpo_jax.training.group import Group

GROUPS = "groups"
SWEEP_FILE = "sweep.yaml"
"""The file that a sweep directory was made of last."""
FAILURES = "failures.json"
OUTPUT = "output.txt"
"""What the process that trains a group printed."""
MOST_FAILURES = 3
"""After as many a group is given up."""


OVER = ("finished", "diverged", "failed")
"""States of a unit with which nothing is done any more."""


class Unit(NamedTuple):
    """A group of runs and where it is trained.

    Attributes:
      path: its run directory.
      group: its runs.
    """

    path: Path
    group: Group

    @property
    def name(self) -> str:
        """Return the name by which the unit is asked for."""
        return self.path.name

    @property
    def failures(self) -> list[dict[str, Any]]:
        """Return when and how its processes failed."""
        try:
            return json.loads((self.path / FAILURES).read_text())
        except (OSError, ValueError):
            return []

    @property
    def state(self) -> str:
        """Return waiting, running, interrupted, finished, diverged or failed."""
        state = run_directory.read_state(self.path) or "waiting"
        over = state in ("finished", "diverged")
        return "failed" if not over and len(self.failures) >= MOST_FAILURES else state

    def add_failure(self, **facts: Any) -> None:
        """Note that a process failed."""
        write_json_atomic(self.path / FAILURES, [*self.failures, facts])

    def forgive(self) -> None:
        """Forget the failures, so that the unit is tried again."""
        (self.path / FAILURES).unlink(missing_ok=True)


def units_of(sweep_dir: Path) -> list[Unit]:
    """Return the units of a sweep directory.

    Raises:
      ConfigError: it holds no sweep, or a unit cannot be read.
    """
    if not (sweep_dir / GROUPS).is_dir():
        raise ConfigError(f"{sweep_dir} is no sweep directory: it has no folder {GROUPS!r}")
    paths = sorted(p for p in (sweep_dir / GROUPS).iterdir() if not p.name.startswith("."))
    return [Unit(path, run_directory.load_group(path)) for path in paths]


def find_unit(sweep_dir: Path, name: str) -> Unit:
    """Return one unit of a sweep directory.

    Raises:
      ConfigError: there is none of that name.
    """
    path = sweep_dir / GROUPS / name
    if path.parent != sweep_dir / GROUPS or name == ".." or not path.is_dir():
        raise ConfigError(f"{sweep_dir} has no group {name!r}; see {sweep_dir / GROUPS}")
    return Unit(path, run_directory.load_group(path))


class Plan(NamedTuple):
    """What a sweep file adds to a sweep directory.

    Attributes:
      known: units that are there.
      new: units that are not.
      dropped: runs of the known units that the file does not ask for any more.
    """

    known: list[Unit]
    new: list[Unit]
    dropped: int


def plan(
    sweep_dir: Path, runs: Sequence[Config], most_runs: Callable[[Group], int] | None = None
) -> Plan:
    """Compare the runs that are asked for with those that are there; nothing is written.

    Args:
      sweep_dir: of the sweep; it need not be there.
      runs: of the sweep file.
      most_runs: see `make_groups`.
    """
    known = units_of(sweep_dir) if (sweep_dir / GROUPS).is_dir() else []
    there = {run_id(run) for unit in known for run in unit.group.runs}
    missing = [run for run in runs if run_id(run) not in there]
    groups = make_groups(missing, *([most_runs] if most_runs else []))
    new = [Unit(sweep_dir / GROUPS / group_name(group), group) for group in groups]
    return Plan(known, new, len(there - {run_id(run) for run in runs}))


def create(units: Sequence[Unit]) -> None:
    """Make the directories of units, each as a whole or not at all.

    Raises:
      ConfigError: they cannot be written.
    """
    for unit in units:
        partial = None
        try:
            unit.path.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(dir=unit.path.parent, prefix="."))
            partial.chmod(0o755)
            run_directory.write_group(partial, unit.group)
            run_directory.write_status(partial, "waiting")
            os.rename(partial, unit.path)
        except OSError as error:
            if partial is not None:
                shutil.rmtree(partial, ignore_errors=True)
            if unit.path.is_dir():  # another driver was quicker
                continue
            raise ConfigError(
                f"cannot write to {unit.path.parent}: {error.strerror}; choose another --out"
            ) from error

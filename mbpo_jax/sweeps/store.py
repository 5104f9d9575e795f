"""The directory of a sweep: a run directory for each group, which are the truth about it."""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mbpo_jax.config import Config
from mbpo_jax.errors import ConfigError
from mbpo_jax.files import make_directory, replacing, write_json_atomic, writing
from mbpo_jax.sweeps.manifest import group_name, make_groups, run_id
from mbpo_jax.training import run_directory
from mbpo_jax.training.group import Group
from mbpo_jax.training.trackers import tracker
from mbpo_jax.yaml_files import read_yaml

GROUPS = "groups"
SWEEP_FILE = "sweep.yaml"
"""The file that a sweep directory was made of last."""
LOCK = ".lock"
"""Held while groups are added or jobs are queued."""
FAILURES = "failures.json"
OUTPUT = "output.txt"
"""What the process that trains a group printed."""
MOST_FAILURES = 3
"""After as many a group is given up."""


TRAINED = ("finished", "diverged")
"""States of a unit that was trained to its end; in the second all of its runs diverged."""
OVER = (*TRAINED, "failed")
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
            found = json.loads((self.path / FAILURES).read_text())
        except (OSError, ValueError):
            return []
        return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []

    @property
    def state(self) -> str:
        """Return waiting, running, interrupted, finished, diverged or failed."""
        state = run_directory.read_state(self.path) or "waiting"
        given_up = state not in TRAINED and len(self.failures) >= MOST_FAILURES
        return "failed" if given_up else state

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
        raise ConfigError(
            f"{sweep_dir} is no sweep directory: it has no folder {GROUPS!r}; `train` writes "
            "single runs, and what is compared is trained by `sweep`"
        )
    paths = (sweep_dir / GROUPS).iterdir()
    folders = sorted(p for p in paths if p.is_dir() and not p.name.startswith("."))
    return [Unit(path, run_directory.load_group(path)) for path in folders]


def beside(sweep_dir: Path) -> list[Path]:
    """Return the run directories of all sweeps in the same folder."""
    return sorted(sweep_dir.resolve().parent.glob(f"*/{GROUPS}/*/"))


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
      known: units that are there, and some of whose runs at least are asked for.
      new: units that are not.
      dropped: units that are there, and that nobody asks for any more.
      longer: those of the known ones that are to be trained to a later end.
    """

    known: list[Unit]
    new: list[Unit]
    dropped: list[Unit]
    longer: list[Unit]


def plan(
    sweep_dir: Path, runs: Sequence[Config], most_runs: Callable[[Group], int] | None = None
) -> Plan:
    """Compare the runs that are asked for with those that are there; nothing is written.

    Args:
      sweep_dir: of the sweep; it need not be there.
      runs: of the sweep file.
      most_runs: see `make_groups`.
    """
    units = units_of(sweep_dir) if (sweep_dir / GROUPS).is_dir() else []
    held_by = {unit.name: {run_id(run) for run in unit.group.runs} for unit in units}
    asked = {run_id(run): run for run in runs}
    missing = asked.keys() - set().union(*held_by.values())
    groups = make_groups(
        [run for name, run in asked.items() if name in missing], *([most_runs] if most_runs else [])
    )
    new = [Unit(sweep_dir / GROUPS / group_name(group), group) for group in groups]
    known, dropped, longer = [], [], []
    for unit in units:
        wanted = [asked[name] for name in held_by[unit.name] & asked.keys()]
        if not wanted:
            dropped.append(unit)
            continue
        longest = max(wanted, key=lambda run: run.total_env_steps)
        group = unit.group.lengthened(longest)
        if group != unit.group:
            unit = unit._replace(group=group)
            longer.append(unit)
        known.append(unit)
    return Plan(known, new, dropped, longer)


def content_of(sweep_dir: Path) -> dict[str, Any]:
    """Return what the file holds that a sweep directory was made of last; {} if it is not there.

    Raises:
      ConfigError: it cannot be read.
    """
    path = sweep_dir / SWEEP_FILE
    content = read_yaml(path) if path.exists() else {}
    if path.exists() and not content:
        raise ConfigError(f"{path} is empty; restore it from a copy, or give the file again")
    return content


def trackers_of(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Return who is told of the runs of a sweep: what its file says, or else what is usual.

    Raises:
      ConfigError: there is no such tracker.
    """
    log = content.get("log")
    return tracker.DEFAULT if log is None else tracker.chosen(log)


@contextlib.contextmanager
def held(sweep_dir: Path) -> Iterator[None]:
    """Keep other drivers from adding to a sweep meanwhile; wait for one that does.

    Raises:
      DiskError: the directory cannot be made or written to.
    """
    make_directory(sweep_dir)
    with writing(sweep_dir):
        lock = open(sweep_dir / LOCK, "a")  # noqa: SIM115 - held until the block ends
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def create(sweep_dir: Path, plan: Plan, source: str) -> bool:
    """Make the directories of a plan's new units, each as a whole or not at all.

    Args:
      sweep_dir: of the sweep.
      plan: made just before.
      source: text of the sweep file, which is kept beside them.

    Returns:
      Whether that was done: False if another driver has added units since the plan was made, which
      may hold some of the same runs.

    Raises:
      ConfigError: one that is to go on to a later end is being trained.
      DiskError: they cannot be written.
    """
    with held(sweep_dir):
        there = units_of(sweep_dir) if (sweep_dir / GROUPS).is_dir() else []
        if {u.name for u in there} != {u.name for u in (*plan.known, *plan.dropped)}:
            return False
        make_directory(sweep_dir / GROUPS)
        # All of them or none.
        for unit in plan.longer:
            if who := run_directory.holder(unit.path):
                raise ConfigError(
                    f"{unit.name} is asked to go on to another end while it is trained by "
                    f"{who}; give the same command when that is done"
                )
        for unit in plan.longer:
            with run_directory.opened(unit.path, unit.group):
                run_directory.lengthen(unit.path, unit.group)
        for unit in plan.new:
            _create(unit)
        with replacing(sweep_dir / SWEEP_FILE) as file:
            file.write(source.encode())
    return True


def _create(unit: Unit) -> None:
    with writing(unit.path):
        partial = Path(tempfile.mkdtemp(dir=unit.path.parent, prefix="."))
        try:
            partial.chmod(0o755)
            run_directory.write_group(partial, unit.group)
            run_directory.write_status(partial, "waiting")
            os.rename(partial, unit.path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

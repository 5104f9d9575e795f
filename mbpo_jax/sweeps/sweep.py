"""The driver of a sweep: finds out what is missing, has it trained, and says how it went."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mbpo_jax.config import Config
from mbpo_jax.errors import ConfigError
from mbpo_jax.files import to_plain
from mbpo_jax.presets import SWEEPS
from mbpo_jax.sweeps import local, manifest, results, store, worker
from mbpo_jax.sweeps.board import Board, print_closing, standing
from mbpo_jax.sweeps.process import Work
from mbpo_jax.training import pace
from mbpo_jax.training.interruption import Interruption
from mbpo_jax.training.trackers import tracker
from mbpo_jax.yaml_files import parse_yaml, read_text

MOST_OF_PLAN = 30
"""Lines about new groups, three each, that are printed unasked."""
MOST_KNOWN = 12
"""Lines about groups that are there."""

SweepOutcome = Literal["finished", "incomplete", "interrupted"]
"""Incomplete where some runs diverged, or some groups failed."""


def sweep(
    source: str | Path | Mapping[str, Any],
    out: Path | None = None,
    *,
    dry_run: bool = False,
    whole: bool = False,
    retry: bool = False,
    runs_per_group: int | None = None,
    fits_here: bool = True,
    train_all: Callable[[Work], None] = local.train_all,
) -> SweepOutcome:
    """Train what a sweep file asks for and is not trained yet, and say how that ended.

    Args:
      source: a sweep file, or the name of one that is shipped; its content; or a sweep directory,
        to go on with what is in it.
      out: the sweep directory; `sweeps/` and the file's name if None, `sweeps/sweep` if there is
        no file.
      dry_run: print what would be done, and do nothing.
      whole: print all of what would be done, however many groups there are.
      retry: try groups again that have been given up.
      runs_per_group: the most runs of a new group; as many as fit this machine's devices if None.
      fits_here: new groups have to fit this machine's devices.
      train_all: of `local`, or another module with such a function.

    Returns:
      "finished" if all runs are trained, "incomplete" if some diverged or failed, "interrupted"
      if some are left.

    Raises:
      ConfigError: the file is wrong, or a run does not fit a device.
      DiskError: the disk is full, or the like.
    """
    source = Path(source) if isinstance(source, str) else source
    if isinstance(source, Path) and source.is_dir():
        if out is not None:
            raise ConfigError(f"out: {source} is a sweep directory itself; leave --out out")
        sweep_dir, found = source, store.Plan(store.units_of(source), [], [], [])
        if runs_per_group is not None:
            raise ConfigError(
                f"runs_per_group: groups of {source} are there; it is for new ones, of a file"
            )
        _print_known(found, whole)
        if dry_run:
            return "finished"
        tracker.check(store.trackers_of(store.content_of(source)) if fits_here else ())
    else:
        name, runs, content, text = _asked_for(source)
        tracker.check(store.trackers_of(content) if fits_here and not dry_run else ())
        sweep_dir = out or Path("sweeps", name)
        while True:
            planned = worker.planned(sweep_dir, runs, runs_per_group, fits_here)
            found = planned.plan
            if dry_run or store.create(sweep_dir, found, text):
                break
        _print_plan(sweep_dir, planned, whole)
        if dry_run:
            return "finished"
    units = [*found.known, *found.new]
    if retry:
        for unit in units:
            unit.forgive()
    with Interruption() as interruption, Board(units) as board:
        train_all(Work(sweep_dir, units, interruption, board.look, board.print))
    names = {unit.name for unit in units}
    rows, _ = results.read_sweep_rows(sweep_dir)
    print_closing([row for row in rows if row["group"] in names])
    return _closing(sweep_dir, units)


class _Asked(NamedTuple):
    name: str
    runs: list[Config]
    content: Mapping[str, Any]
    text: str


def _asked_for(source: Path | Mapping[str, Any]) -> _Asked:
    """Return the name of a sweep, its runs, and its file."""
    if isinstance(source, Mapping):
        content = to_plain(source)
        text = json.dumps(content, indent=2, ensure_ascii=False)  # is YAML, too
        content = parse_yaml(text, "sweep")
        return _Asked("sweep", manifest.expand(content), content, text)
    if not source.exists():
        source = SWEEPS.get(str(source), source)
    text = read_text(source)
    content = parse_yaml(text, str(source))
    return _Asked(source.stem, manifest.expand(content, str(source)), content, text)


def _print_plan(sweep_dir: Path, planned: worker.Planned, whole: bool) -> None:
    found = planned.plan
    _print_known(found, whole)
    print(f"devices: {', '.join(planned.devices)}")
    units = [*found.known, *found.new]
    swept = manifest.varied_fields([run for unit in units for run in unit.group.runs])
    # Other sweeps are read only where something is to be told by them.
    paces, lines = pace.read_paces(store.beside(sweep_dir) if found.new else ()), []
    for unit, memory in zip([*found.longer, *found.new], planned.memory, strict=True):
        config = unit.group.config
        fields = swept[config.env.name, config.algorithm]
        kind = "to a later end" if unit in found.longer else "new"
        lines += [
            f"{kind}: {unit.name}: {worker.described(unit.group, fields)}",
            f"  {len(unit.group.runs)} runs of {config.total_env_steps:,} steps; {memory}",
        ]
        if unit not in found.longer:
            lines.append(f"  time: {pace.expected_time(unit.group, paces)}")
    _print_some(lines, 0 if whole else MOST_OF_PLAN)
    total = worker.runs_of(found.new)
    print(f"{total} new runs in {len(found.new)} groups; see {sweep_dir}")


def _print_known(found: store.Plan, whole: bool) -> None:
    lines = [
        f"there: {unit.name}: {len(unit.group.runs)} runs, {unit.state}"
        for unit in found.known
        if unit not in found.longer
    ]
    lines += [
        f"not asked for any more, and kept: {unit.name}: {unit.state}" for unit in found.dropped
    ]
    _print_some(lines, 0 if whole else MOST_KNOWN)


def _print_some(lines: Sequence[str], most: int) -> None:
    """Print lines, and how many more there are than the most; all of them if that is 0."""
    for line in lines[: most or None]:
        print(line)
    if most and len(lines) > most:
        print(f"  and {len(lines) - most} more lines, for which there is --dry-run --all")


def _closing(sweep_dir: Path, units: Sequence[store.Unit]) -> SweepOutcome:
    standings = [standing(unit) for unit in units]
    trained = worker.runs_of([u for u in units if u.state in store.TRAINED])
    diverged = sum(s.diverged for s in standings)
    failed = [unit.name for unit in units if unit.state == "failed"]
    print(f"{trained} of {worker.runs_of(units)} runs are trained; see {sweep_dir}")
    if trained:
        print(f"mbpo-jax report {sweep_dir} compares them in a page")
    if diverged:
        print(f"non-finite: {diverged} runs; they keep their last finite parameters")
    for name in failed:
        print(f"failed: {name}; see {sweep_dir / store.GROUPS / name / store.OUTPUT}")
    if failed:
        print("give the same command with --retry to try these again")
    if any(unit.state not in store.OVER for unit in units):
        print("the same command goes on with the rest")
        return "interrupted"
    return "incomplete" if failed or diverged else "finished"

"""The driver of a sweep: finds out what is missing, has it trained, and says how it went."""

import shutil
from collections.abc import Callable
from pathlib import Path

from mbpo_jax.errors import ConfigError
from mbpo_jax.presets import SWEEPS
from mbpo_jax.sweeps import local, manifest, store, worker
from mbpo_jax.sweeps.board import Board, standing
from mbpo_jax.training.driver import EXIT_DONE, EXIT_INTERRUPTED, Interruption

EXIT_INCOMPLETE = 1
"""Some runs diverged, or some groups failed."""


def sweep(
    source: Path,
    out: Path | None,
    dry_run: bool,
    retry: bool,
    train_all: Callable[..., None] = local.train_all,
) -> int:
    """Train what a sweep file asks for and is not trained yet, and return the exit code.

    Args:
      source: a sweep file, or the name of one that is shipped; or a sweep directory, to go on with
        what is in it.
      out: the sweep directory; `sweeps/` and the file's name if None.
      dry_run: print what would be done, and do nothing.
      retry: try groups again that have been given up.
      train_all: of `local`, or another module with such a function.

    Returns:
      0 if all runs are trained, 1 if some diverged or failed, 75 after an interruption.

    Raises:
      ConfigError: the file is wrong, a run does not fit a device, or nothing can be written.
    """
    if source.is_dir():
        if out is not None:
            raise ConfigError(f"out: {source} is a sweep directory itself; leave --out out")
        sweep_dir, found = source, store.Plan(store.units_of(source), [], 0)
        if dry_run:
            _print_known(found)
            return EXIT_DONE
    else:
        if not source.exists():
            source = SWEEPS.get(str(source), source)
        sweep_dir = out or Path("sweeps", source.stem)
        planned = worker.planned(sweep_dir, manifest.read_sweep(source))
        found = planned.plan
        _print_plan(sweep_dir, planned)
        if dry_run:
            return EXIT_DONE
        store.create(found.new)
        shutil.copyfile(source, sweep_dir / store.SWEEP_FILE)
    units = [*found.known, *found.new]
    if retry:
        for unit in units:
            unit.forgive()
    with Interruption() as interruption, Board(units) as board:
        train_all(sweep_dir, units, interruption, board.look, board.print)
        board.close()
    return _closing(sweep_dir, units)


def _print_plan(sweep_dir: Path, planned: worker.Planned) -> None:
    found = planned.plan
    _print_known(found)
    print(f"devices: {', '.join(planned.devices)}")
    for unit, memory in zip(found.new, planned.memory, strict=True):
        config = unit.group.config
        print(f"new: {unit.name}: {worker.varied(unit.group)}")
        print(f"  {len(unit.group.runs)} runs of {config.total_env_steps:,} steps; {memory}")
        print(f"  time: {expected_seconds(unit, found.known)}")
    total = worker.runs_of(found.new)
    print(f"{total} new runs in {len(found.new)} groups; see {sweep_dir}")


def _print_known(found: store.Plan) -> None:
    for unit in found.known:
        print(f"there: {unit.name}: {len(unit.group.runs)} runs, {unit.state}")
    if found.dropped:
        print(f"{found.dropped} runs that are there are not asked for any more; they are kept")


def expected_seconds(unit: store.Unit, known: list[store.Unit]) -> str:
    """Say how long a unit will take, by those of its algorithm and environment that are there."""
    config = unit.group.config
    for other in known:
        same = other.group.config
        if (same.algorithm, same.env.name) != (config.algorithm, config.env.name):
            continue
        if (speed := standing(other).speed) is not None:
            share = len(unit.group.runs) / len(other.group.runs)
            minutes = config.total_env_steps / speed * share / 60.0
            return f"about {minutes:,.0f} minutes, by {other.name}"
    return "not known before the first evaluation of its kind"


def _closing(sweep_dir: Path, units: list[store.Unit]) -> int:
    standings = [standing(unit) for unit in units]
    done = sum(
        len(u.group.runs) for u, s in zip(units, standings, strict=True) if s.state == "finished"
    )
    diverged = sum(s.diverged for s in standings)
    failed = [unit.name for unit in units if unit.state == "failed"]
    total = worker.runs_of(units)
    print(f"{done} of {total} runs are trained; see {sweep_dir}")
    if diverged:
        print(f"{diverged} runs became non-finite; they keep their last finite parameters")
    for name in failed:
        print(f"failed: {name}; see {sweep_dir / store.GROUPS / name / store.OUTPUT}")
    if failed:
        print("give the same command with --retry to try these again")
    if any(s.state in ("waiting", "running", "interrupted") for s in standings):
        print("the same command goes on with the rest")
        return EXIT_INTERRUPTED
    return EXIT_INCOMPLETE if failed or diverged else EXIT_DONE

"""How long runs will take, told by earlier ones that did the same work a step."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from mbpo_jax.config import ENDS, Config, read_settings
from mbpo_jax.errors import UserError
from mbpo_jax.files import read_rows
from mbpo_jax.training import logs, run_directory
from mbpo_jax.training.group import Group, data_paths, structure

UNKNOWN = "not known before the first evaluation; no run beside did the same work a step"


class Pace(NamedTuple):
    """How fast a group was trained.

    Attributes:
      work: what decides the work of a step.
      start: environment steps at the first evaluation by which everything was compiled.
      seconds_until: it, of all runs.
      seconds: of each further step of all runs.
      runs: how many there were.
      devices: on which, as JAX calls them.
      run_dir: where that was.
    """

    work: dict[str, Any]
    start: int
    seconds_until: float
    seconds: float
    runs: int
    devices: list[str]
    run_dir: Path


def read_paces(run_dirs: Iterable[Path]) -> list[Pace]:
    """Return how fast groups were trained, newest last, without those that cannot tell.

    Args:
      run_dirs: any of which may be unfit or unreadable.
    """
    paces = [pace for path in run_dirs if (pace := _read_pace(path))]
    return sorted(paces, key=lambda pace: _changed(pace.run_dir))


def expected_time(group: Group, paces: Iterable[Pace]) -> str:
    """Say how long a group will take, by the last one of the same work a step.

    Args:
      group: what is to be trained.
      paces: of others, newest last.
    """
    work = _work(group.config)
    alike = [pace for pace in paces if pace.work == work]
    if not alike:
        return UNKNOWN
    pace = alike[-1]
    # On a CPU runs share the cores; side by side on an accelerator, they take about as long as one.
    on_cpu = all(name.startswith("cpu") for name in pace.devices)
    share = len(group.runs) / pace.runs if on_cpu else 1.0
    more = group.config.total_env_steps - pace.start
    seconds = pace.seconds_until + more * pace.seconds * share  # compiled once, however many
    return f"about {_in_words(seconds)}, at the pace of {pace.run_dir}"


def _read_pace(run_dir: Path) -> Pace | None:
    try:
        known = run_directory.load_group(run_dir)
        seconds = {
            row["env_steps"]: row["wall_seconds"]
            for row in read_rows(run_dir / logs.EVALS)
            if row["env_steps"] > known.config.random_steps
        }
        if not seconds:
            return None
        first, last = min(seconds), max(seconds)
        a_step = seconds[first] / first
        if last > first:
            a_step = (seconds[last] - seconds[first]) / (last - first)
        return Pace(
            work=_work(known.config),
            start=first,
            seconds_until=seconds[first],
            seconds=a_step,
            runs=len(known.runs),
            devices=list(map(str, run_directory.read_environment(run_dir).get("devices", []))),
            run_dir=run_dir,
        )
    except (UserError, OSError, LookupError, TypeError):  # of another program, perhaps
        return None


def _work(config: Config) -> dict[str, Any]:
    """Return all that decides the work of a step: what is read, but for numbers and the end."""
    numbers = {path for path, kind in data_paths().items() if kind is float}
    shapes, read = dict(structure(config)), read_settings(config)
    return {
        path: shapes[path] if path in numbers else value
        for path, value in read.items()
        if path not in (*ENDS, "seed", "num_seeds", "replay_capacity", "checkpoint_every")
    }


def _changed(run_dir: Path) -> float:
    return (run_dir / logs.EVALS).stat().st_mtime


def _in_words(seconds: float) -> str:
    if seconds < 90.0:
        return f"{seconds:.0f} seconds"
    if seconds < 5400.0:
        return f"{seconds / 60.0:.0f} minutes"
    return f"{seconds / 3600.0:.1f} hours"

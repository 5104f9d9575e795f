"""What trackers are told of the runs of a group."""

from pathlib import Path
from typing import Any

from mbpo_jax.config import read_settings
from mbpo_jax.training.group import Group


def facts_of(group: Group, run_dir: Path) -> list[dict[str, Any]]:
    """Return of each run its `name`, `tags` and `config`; see `TrackedRun`.

    Args:
      group: the runs.
      run_dir: where they are trained.
    """
    base = run_dir.resolve().name
    facts = []
    for run, differences in zip(group.runs, group.differences(), strict=True):
        own = [f"{path}={value}" for path, value in differences.items()]
        name = base if len(group.runs) == 1 else "-".join([base, *own])
        config = read_settings(run)
        del config["num_seeds"]  # of all of them, and each is one
        facts.append({"name": name, "tags": [run.algorithm, run.env.name], "config": config})
    return facts

"""Waiting for processes of a sweep, and killing them."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mbpo_jax.files import read_rows
from mbpo_jax.sweeps import store

TINY = {
    "environments": ["pendulum"],
    "algorithms": ["sac"],
    "presets": ["debug"],
    "seeds": 3,
    "settings": {"env": {"episode_length": 20}, "total_env_steps": 200},
    "grid": {"sac.learning_rate": [1e-3]},
}
"""A sweep file of one group that trains for seconds."""
LONGER = {**TINY["settings"], "total_env_steps": 1000}


def written(path: Path, **changes) -> Path:
    path.write_text(json.dumps({**TINY, **changes}))  # which is YAML, too
    return path


def returns(sweep_dir: Path) -> dict[tuple, list[float]]:
    """Return the evaluations of every run, by its algorithm, seed and learning rate."""
    found = {}
    for unit in store.units_of(sweep_dir):
        rows = read_rows(unit.path / "evals.jsonl")
        for i, run in enumerate(unit.group.runs):
            own = [row["return_mean"] for row in rows if row["run"] == i]
            found[run.algorithm, run.seed, run.sac.learning_rate] = own
    return found


def wait_for(condition: Callable[[], Any], seconds: float = 300.0) -> Any:
    """Wait until a condition holds, and return what it gave."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise TimeoutError


def wait_for_training(sweep_dir: Path, steps: int) -> int:
    """Wait until a group has written so many steps, and return the process that trains it."""

    def process() -> int | None:
        for unit in store.units_of(sweep_dir) if (sweep_dir / store.GROUPS).is_dir() else []:
            path = unit.path / "metrics.jsonl"
            rows = read_rows(path) if path.exists() else []
            if steps <= max((row["env_steps"] for row in rows), default=0) < 1000:
                return json.loads((unit.path / ".lock").read_text())["process"]
        return None

    return wait_for(process)

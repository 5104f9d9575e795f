"""Waiting for processes of a sweep, and killing them."""

import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mbpo_jax.files import read_rows
from mbpo_jax.sweeps import manifest, store
from mbpo_jax.sweeps.process import Work
from mbpo_jax.training.interruption import Interruption

TINY = {
    "environments": ["pendulum"],
    "algorithms": ["sac"],
    "presets": ["debug"],
    "seeds": 3,
    "settings": {"env": {"episode_length": 20}, "total_env_steps": 200},
    "grid": {"sac.learning_rate": [1e-3]},
}
"""A sweep file of one group that trains for seconds."""
NOTHING = Work(Path(), [], Interruption(), print, print)
"""For what is refused before anything is looked at."""
LONGER = {**TINY["settings"], "total_env_steps": 800}
"""Settings with which it trains for long enough to be killed in between."""


def written(path: Path, **changes) -> Path:
    path.write_text(json.dumps({**TINY, **changes}))  # which is YAML, too
    return path


def laid_out(sweep_dir: Path, content: Mapping[str, Any] = TINY) -> list[store.Unit]:
    """Make the directory of a sweep without training anything, and return its units."""
    assert store.create(
        sweep_dir, store.plan(sweep_dir, manifest.expand(content)), json.dumps(content)
    )
    return store.units_of(sweep_dir)


def parent_of(process: int) -> int:
    """Return the process that started one."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"PPid:\s+(\d+)", status).group(1))


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


def wait_for_training(sweep_dir: Path, steps: int, but: str = "") -> tuple[int, str]:
    """Wait until a group, another than `but`, is at so many steps; return process and name."""

    def process() -> tuple[int, str] | None:
        for unit in store.units_of(sweep_dir) if (sweep_dir / store.GROUPS).is_dir() else []:
            if unit.name == but:
                continue
            path = unit.path / "metrics.jsonl"
            rows = read_rows(path) if path.exists() else []
            done = max((row["env_steps"] for row in rows), default=0)
            if steps <= done < LONGER["total_env_steps"]:
                return json.loads((unit.path / ".lock").read_text())["process"], unit.name
        return None

    return wait_for(process)

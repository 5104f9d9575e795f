"""What the host knows of its runs, and the rows it writes of them."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from mbpo_jax.files import Row
from mbpo_jax.training import logs
from mbpo_jax.types import Metrics


@dataclasses.dataclass
class HostState:
    """What the host carries from chunk to chunk; saved in every checkpoint.

    Attributes:
      env_steps: environment steps of each run.
      caught_up: calls of `Program.catch_up` that were made.
      gradient_steps: of a run, of its model and its agent, averaged over runs.
      solved: evaluations in a row in which every run reached `stop_at_return`.
      best: of each run, when it was evaluated best, and how: `env_steps` and `return_mean`.
      nonfinite: of each run, real transitions that were left out as they were not finite.
      wall_seconds: time spent on this run, in earlier processes too.
      evaluation: rows of the last evaluation.
      log: where the log stood.
    """

    env_steps: int
    caught_up: int = 0
    gradient_steps: float = 0.0
    solved: int = 0
    best: list[Row] = dataclasses.field(default_factory=list)
    nonfinite: list[int] = dataclasses.field(default_factory=list)
    wall_seconds: float = 0.0
    evaluation: list[Row] = dataclasses.field(default_factory=list)
    log: dict[str, int] = dataclasses.field(default_factory=lambda: dict(logs.BEGINNING))

    def diverged(self) -> list[int]:
        """Return the runs whose numbers became non-finite."""
        return [row["run"] for row in self.evaluation if row.get("diverged")]


def metric_rows(seeds: Sequence[int], env_steps: int, metrics: Metrics) -> list[Row]:
    """Return one row per run of metrics `[R, ...]`; of copies behind the runs there is none."""
    values = {name: np.asarray(value, np.float32) for name, value in metrics.items()}
    return [
        {"env_steps": env_steps, "run": run, "seed": seed}
        # The shortest digits that tell the float32 from its neighbours.
        | {name: float(str(value[run])) for name, value in values.items()}
        for run, seed in enumerate(seeds)
    ]


def evaluation_rows(
    seeds: Sequence[int],
    host: HostState,
    returns: jax.Array,
    lengths: jax.Array,
    healthy: jax.Array,
) -> list[Row]:
    """Return one row per run of an evaluation's returns and lengths, `[R, eval_episodes]`."""
    rows = []
    for run, seed in enumerate(seeds):
        row: Row = {
            "env_steps": host.env_steps,
            "run": run,
            "seed": seed,
            "return_mean": float(np.mean(returns[run])),
            "return_std": float(np.std(returns[run])),
            "length_mean": float(np.mean(lengths[run])),
            "wall_seconds": round(host.wall_seconds, 3),
        }
        if not healthy[run]:
            row["diverged"] = True
        rows.append(row)
    return rows

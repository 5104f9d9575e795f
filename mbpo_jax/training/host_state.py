"""What the host knows of its runs, and the rows it writes of them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mbpo_jax.console import seconds_of
from mbpo_jax.files import Row
from mbpo_jax.training import logs
from mbpo_jax.types import Metrics

SOLVED_EVALUATIONS = 2
"""Evaluations in a row in which every run has to reach `stop_at_return`."""


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
    log: dict[str, Any] = dataclasses.field(default_factory=lambda: dict(logs.BEGINNING))

    def diverged(self) -> list[int]:
        """Return the runs whose numbers became non-finite."""
        return [row["run"] for row in self.evaluation if row.get("diverged")]

    def was_solved(self) -> bool:
        """Return whether every run reached `stop_at_return` often enough."""
        return self.solved >= SOLVED_EVALUATIONS

    def keep_best(self) -> list[bool]:
        """Note the last evaluation where it is a run's best, and return of which runs it is."""
        names = ("env_steps", "return_mean")
        new: list[Row] = [{name: row[name] for name in names} for row in self.evaluation]
        pairs = list(zip(new, self.best or new, strict=True))
        # What is untrained may blow up, and then anything else is better.
        better = [
            not self.best
            or last["return_mean"] > old["return_mean"]
            or not np.isfinite(old["return_mean"])
            for last, old in pairs
        ]
        self.best = [last if yes else old for (last, old), yes in zip(pairs, better, strict=True)]
        return better


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


def closing_line(host: HostState, eval_episodes: int) -> str:
    """Say in one line what was reached, by so many episodes an evaluation."""
    means = np.array([row["return_mean"] for row in host.evaluation])
    spread = float(np.std(means)) if len(means) > 1 else host.evaluation[0]["return_std"]
    over = f"{len(means)} runs" if len(means) > 1 else f"{eval_episodes} episodes"
    verdict = "solved" if host.was_solved() else "done"
    return (
        f"{verdict}: return {np.mean(means):,.1f} ± {spread:,.1f} (std. dev. over {over}) at "
        f"{host.env_steps:,} environment steps, trained in {seconds_of(host.wall_seconds)}"
    )

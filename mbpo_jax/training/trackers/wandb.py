"""Weights & Biases. The only file that knows it."""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mbpo_jax.exit_codes import OF_OUTCOME
from mbpo_jax.training.trackers.tracker import Session, Tracker


def make_tracker(session: Session) -> Tracker:
    """Begin a run for each run, or go on with it; its own settings come from `WANDB_*` variables.

    A process of its own is taken for granted: all runs that wandb knows in it end with the tracker.
    """
    # Of a wandb in the process that started this one, which may end before us.
    os.environ.pop("WANDB_SERVICE", None)
    wandb: Any = importlib.import_module("wandb")

    runs = [
        wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "mbpo-jax",
            id=run.id,
            resume="allow",
            name=run.name,
            group=session.group,
            tags=[tag[:64] for tag in run.tags],  # the most that the server takes
            config=run.config,
            dir=str(session.directory),
            reinit="create_new",
            settings=wandb.Settings(
                console="off",
                # One of them is enough to watch the machine that they share.
                x_disable_stats=number > 0,
            ),
        )
        for number, run in enumerate(session.runs)
    ]

    def log(run: int, env_steps: int, values: Mapping[str, float]) -> None:
        runs[run].log(dict(values), step=env_steps)

    def show(env_steps: int, name: str, path: Path) -> None:
        runs[0].log({name: wandb.Image(str(path))}, step=env_steps)

    def close(outcome: str) -> None:
        for run in runs:
            if outcome == "interrupted":
                run.mark_preempting()
            run.finish(exit_code=OF_OUTCOME.get(outcome, 1))
        wandb.teardown()

    return Tracker(log, show, close)

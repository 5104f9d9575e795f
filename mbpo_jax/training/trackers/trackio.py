"""Trackio. The only file that knows it."""

import contextvars
import importlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mbpo_jax.training.trackers.tracker import Session, Tracker


def make_tracker(session: Session) -> Tracker:
    """Begin a run for each run, or go on with it; where they go is said by `TRACKIO_*` variables.

    Trackio tells its failures as warnings and goes on without the rows; here they are errors.
    """
    trackio: Any = importlib.import_module("trackio")

    failures: list[str] = []
    told = warnings.showwarning

    def overhear(message, category, filename, lineno, file=None, line=None):
        if Path(trackio.__file__).parent in Path(filename).parents:
            failures.append(str(message))
        told(message, category, filename, lineno, file, line)

    warnings.showwarning = overhear

    def begin(number: int) -> Any:
        run = session.runs[number]
        only_one = None if number == 0 else False  # watches the machine that they share
        return trackio.init(
            project=os.environ.get("TRACKIO_PROJECT") or "mbpo-jax",
            # Runs are resumed by their names, which therefore have to be of one run alone.
            name=f"{run.name}-{run.id}",
            resume="allow",
            group=session.group,
            config={**run.config, "tags": run.tags},
            embed=False,
            auto_log_cpu=only_one,
            auto_log_gpu=only_one,
        )

    # It ends the run of its context when another one begins there, so each has one of its own.
    runs = [contextvars.Context().run(begin, number) for number in range(len(session.runs))]

    def check() -> None:
        if failures:
            raise RuntimeError(failures[0])

    def log(run: int, env_steps: int, values: Mapping[str, float]) -> None:
        runs[run].log(dict(values), step=env_steps)
        check()

    def show(env_steps: int, name: str, path: Path) -> None:
        runs[0].log({name: trackio.Image(str(path))}, step=env_steps)
        check()

    def close(_: str) -> None:
        for run in runs:
            run.finish()
        check()

    return Tracker(log, show, close)

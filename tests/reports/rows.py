"""Rows of logs, and how the data of a figure is read back."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

STEPS = (250, 500, 750)


def evals(returns: Sequence[Sequence[float | None]], **extra: object) -> list[dict]:
    return [
        {
            "env_steps": step,
            "run": run,
            "seed": 10 + run,
            "return_mean": value,
            "return_std": 5.0,
            **extra,
        }
        for run, line in enumerate(returns)
        for step, value in zip(STEPS, line, strict=True)
    ]


def line_of(panel: Axes, label: str) -> Line2D:
    (line,) = [line for line in panel.lines if str(line.get_label()).startswith(label)]
    return line


def points(line: Line2D) -> np.ndarray:
    """Return the `[N, 2]` points of a line: environment steps and values."""
    return np.stack([np.asarray(line.get_xdata()), np.asarray(line.get_ydata())], axis=-1)

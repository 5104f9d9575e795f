"""The figure of `experiments.policy_search`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbpo_jax.files import Row
from mbpo_jax.reports.figures import (
    CURVE_STYLES,
    MARKERS,
    banded,
    draw_band,
    figure_style,
    legend_below,
    save_figure,
    step_axis,
)


def by_updates(rows: Sequence[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return updates `[N]` and a number by updates and seed `[N, seeds]`; NaN if not known."""
    updates = sorted({row["updates"] for row in rows})
    values = [[row[name] for row in rows if row["updates"] == n] for n in updates]
    return np.array(updates), np.array(values, float)


def draw(path: Path, rows: Sequence[Row], estimators: Sequence[str]) -> None:
    """Draw returns and relative variances against updates, with ranges over seeds."""
    with figure_style():
        figure = Figure(figsize=(11.0, 3.6), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        learned = {
            estimator: by_updates(
                [r for r in rows if r["part"] == estimator and r["kind"] == "return"], "return"
            )
            for estimator in estimators
        }
        whole = banded({name: float(y[-1].mean()) for name, (_, y) in learned.items()})
        for i, estimator in enumerate(estimators):
            own = [row for row in rows if row["part"] == estimator]
            color, line = CURVE_STYLES[i]
            style = {"color": color, "linestyle": line}
            x, y = learned[estimator]
            left.plot(x, y.mean(axis=1), label=estimator, **style)
            draw_band(left, x, y.min(axis=1), y.max(axis=1), color, estimator in whole)
            measured = [row for row in own if row["kind"] == "variance"]
            moments(middle, measured, "variance", i)
            moments(right, measured, "relative_variance", i)
        left.set(ylabel="Return of an episode", title="Learning")
        middle.set(title="Variance at the own policy", yscale="log")
        middle.set_ylabel("Variance of an estimate")
        right.set(title="The same, relative", yscale="log")
        right.set_ylabel("Variance / |gradient|², where told")
        for panel in (left, middle, right):
            step_axis(panel, "Updates")
        legend_below(figure, left)
    save_figure(path, figure)


def moments(panel: Axes, rows: Sequence[Row], name: str, place: int) -> None:
    """Draw medians and ranges over seeds of a number that was measured at a few moments."""
    x, y = by_updates(rows, name)
    known = ~np.all(np.isnan(y), axis=1)
    x, y = x[known], y[known]
    color, line = CURVE_STYLES[place]
    low, middle, high = np.nanquantile(y, (0.0, 0.5, 1.0), axis=1)
    panel.errorbar(
        x + 15.0 * (place - 2.5),  # side by side, so that bars do not hide each other
        middle,
        np.stack([middle - low, high - middle]),
        color=color,
        linestyle=line,
        marker=MARKERS[place % len(MARKERS)],
        markersize=4,
        capsize=2,
        elinewidth=0.8,
    )

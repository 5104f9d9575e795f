"""The figure of `experiments.policy_search`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbpo_jax.files import Row
from mbpo_jax.laboratory.report.figures import MARKERS
from mbpo_jax.reports.figures import CURVE_STYLES, figure_style, save_png


def by_updates(rows: Sequence[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return updates `[N]` and a number by updates and seed `[N, seeds]`; NaN if not known."""
    updates = sorted({row["updates"] for row in rows})
    values = [[row[name] for row in rows if row["updates"] == n] for n in updates]
    return np.array(updates), np.array(values, float)


def draw(path: Path, rows: Sequence[Row], estimators: Sequence[str]) -> None:
    """Draw returns and relative variances against updates, with ranges over seeds."""
    with figure_style():
        figure = Figure(figsize=(9.0, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        handles = []
        for i, estimator in enumerate(estimators):
            own = [row for row in rows if row["part"] == estimator]
            color, line = CURVE_STYLES[i]
            style = {"color": color, "linestyle": line}
            x, y = by_updates([row for row in own if row["kind"] == "return"], "return")
            handles += left.plot(x, y.mean(axis=1), label=estimator, **style)
            left.fill_between(x, y.min(axis=1), y.max(axis=1), color=color, alpha=0.12, linewidth=0)
            variances(right, [row for row in own if row["kind"] == "variance"], i)
        left.set(xlabel="Updates", ylabel="Return of an episode", title="Learning")
        right.set(
            xlabel="Updates",
            ylabel="Variance / squared norm of the gradient",
            title="Relative variance at the own policy",
            yscale="log",
        )
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    save_png(path, figure)


def variances(panel: Axes, rows: Sequence[Row], place: int) -> None:
    """Draw medians and ranges over seeds of an estimator's relative variance."""
    x, y = by_updates(rows, "relative_variance")
    color, line = CURVE_STYLES[place]
    low, middle, high = np.nanquantile(y, (0.0, 0.5, 1.0), axis=1)
    panel.errorbar(
        x + 6.0 * (place - 2.5),  # side by side, so that bars do not hide each other
        middle,
        np.stack([middle - low, high - middle]),
        color=color,
        linestyle=line,
        marker=MARKERS[place % len(MARKERS)],
        markersize=4,
        capsize=2,
        elinewidth=0.8,
    )

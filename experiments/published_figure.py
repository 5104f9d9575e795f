"""The figure of `experiments.published`: published points, and our runs as lines."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.published_data import LEARNERS, VARIANTS, by_learner, published_points
from mbpo_jax.files import Row
from mbpo_jax.reports import statistics
from mbpo_jax.reports.figures import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    THOUSANDS,
    VERMILLION,
    draw_band,
    figure_style,
    log_numbers,
)
from mbpo_jax.reports.plots import collect, format_steps

COLORS = dict(zip(LEARNERS, (BLUE, PURPLE, GREEN, SKY, ORANGE, VERMILLION), strict=True))
DRAWN = ("mbpo", "dhmbpo", "sac_5_critics")
"""Published points that are drawn where we have no runs, too."""
PUBLISHED: Mapping[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 5,
    "markerfacecolor": "white",
}

LineStyle = Literal["-", "--", ":", "-."]
STYLES: tuple[LineStyle, ...] = ("-", "--", ":", "-.")

Learners = Mapping[tuple[str, int], Sequence[Row]]
"""Rows by algorithm and updates per step."""


def published_figure(rows: Sequence[Row]) -> Figure:
    """Draw returns against environment steps, and ours against wall-clock, a column for each task.

    Published points have an error bar of one standard deviation to each side. Each of our runs is
    a thin line; their mean is a thick one, with a 95 % interval where there are enough of them.
    Runs end in the midst of the points, so names stand in one legend and not at the lines' ends.
    """
    tasks = by_learner(rows)
    with figure_style():
        figure = Figure(figsize=(0.5 + 4.1 * len(tasks), 5.6), layout="constrained")
        grid = figure.subplots(2, len(tasks), squeeze=False, sharey="col")
        for (above, below), (task, learners) in zip(grid.T, tasks.items(), strict=True):
            _draw_published(above, task, learners)
            _draw_ours(above, learners)
            _draw_ours(below, learners, clock=True)
            above.set_title(task)
            above.yaxis.set_major_formatter(THOUSANDS)
            format_steps(above, most_ticks=3)
            _format_hours(below)
        for panel in grid[:, 0]:
            panel.set_ylabel("Evaluation return")
        published = Line2D([], [], **PUBLISHED, color="0.3", label="published, ± std. dev.")
        single = Line2D([], [], color="0.3", linewidth=0.7, label="single runs of ours")
        handles = [*_named(tasks), single, published]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _named(tasks: Mapping[str, Learners]) -> list[Line2D]:
    """Return a line for each name of the figure, in the order of `LEARNERS`."""
    looks: dict[str, tuple[str, LineStyle]] = {
        LEARNERS[name].ours: (name, STYLES[0]) for name in DRAWN
    }
    for learners in tasks.values():
        looks |= {_name(learners, *own): (own[0], _style(learners, *own)) for own in learners}
    return [
        Line2D([], [], color=COLORS[algorithm], linestyle=style, linewidth=2, label=name)
        for each in LEARNERS
        for name, (algorithm, style) in looks.items()
        if algorithm == each
    ]


def _name(learners: Learners, algorithm: str, utd: int) -> str:
    name = LEARNERS[algorithm].ours
    several = sum(other == algorithm for other, _ in learners) > 1
    return f"{name} with {utd} updates" if several else name


def _style(learners: Learners, algorithm: str, utd: int) -> LineStyle:
    """Return what tells apart the lines of an algorithm, which have one colour."""
    utds = sorted(other for name, other in learners if name == algorithm)
    return STYLES[utds.index(utd) % len(STYLES)]


def _format_hours(panel: Axes) -> None:
    panel.set_xscale("log")
    log_numbers(panel)
    panel.set_xlabel("Wall-clock (hours)")


def _draw_published(panel: Axes, task: str, learners: Learners) -> None:
    """Draw the points up to the next one behind our runs."""
    own = {algorithm for algorithm, _ in learners}
    drawn = [name for name in LEARNERS if (name in own and name not in VARIANTS) or name in DRAWN]
    points = {algorithm: published_points(task, algorithm) for algorithm in drawn}
    last = max(row["env_steps"] for rows in learners.values() for row in rows)
    steps = (point.env_steps for found in points.values() for point in found)
    limit = 1.04 * min((step for step in steps if step > last), default=last)
    panel.set_xlim(right=limit)
    # Beside each other where they belong to the same step.
    shifts = 0.01 * (np.arange(len(points)) - 0.5 * (len(points) - 1))
    for (algorithm, found), shift in zip(points.items(), shifts, strict=True):
        shown = [point for point in found if point.env_steps <= limit]
        if not shown:
            continue
        steps, _, mean, spread = np.transpose(shown)
        line, *_ = panel.errorbar(
            steps + shift * limit,
            mean,
            spread,
            color=COLORS[algorithm],
            **PUBLISHED,
            capsize=2,
            elinewidth=0.8,
            zorder=3,
        )
        line.set_label(f"published: {LEARNERS[algorithm].published_as}")


def _draw_ours(panel: Axes, learners: Learners, *, clock: bool = False) -> None:
    """Draw all runs and their means."""
    for (algorithm, utd), rows in learners.items():
        color, curves = COLORS[algorithm], collect(rows, "return_mean")
        places = np.broadcast_to(curves.env_steps, curves.values.shape)
        if clock:
            places = collect(rows, "wall_seconds").values / 3600
        for x, y in zip(places, curves.values, strict=True):
            known = np.isfinite(y)
            panel.plot(x[known], y[known], color=color, linewidth=0.7, alpha=0.6, label="_")
        complete = np.isfinite(curves.values).all(axis=0)
        middle = places[:, complete].mean(axis=0)
        value, low, high = statistics.estimate(statistics.mean, [curves.values[:, complete].T])
        style, label = _style(learners, algorithm, utd), _name(learners, algorithm, utd)
        panel.plot(middle, value, color=color, linestyle=style, linewidth=2, label=label)
        draw_band(panel, middle, low, high, color)

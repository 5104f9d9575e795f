"""Figures that compare algorithms: learning curves, and means with intervals.

Each figure is built by one function and saved by another, so that its content can be examined.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbpo_jax.files import Row
from mbpo_jax.reports.figures import (
    CURVE_STYLES,
    THOUSANDS,
    banded,
    figure_style,
    label_ends,
    legend_below,
    log_numbers,
    save_figure,
)
from mbpo_jax.reports.plots import Summary, collect, draw_mean, format_steps

Interval = tuple[float, float, float]
"""A mean and the ends of its interval."""


def comparison_curves(
    path: Path,
    panels: Mapping[str, Mapping[str, Sequence[Row]]],
    title: str | None = None,
    *,
    clock: bool = False,
) -> None:
    """Save `comparison_figure` as PNG."""
    save_figure(path, comparison_figure(panels, title, clock=clock))


def comparison_figure(
    panels: Mapping[str, Mapping[str, Sequence[Row]]],
    title: str | None = None,
    *,
    clock: bool = False,
) -> Figure:
    """Draw mean return and its range over seeds, one panel per environment.

    Args:
      panels: evaluation rows by environment and label, such as `{"hopper": {"MBPO": rows}}`. A
        label has the same colour and line style in every panel and is written beside the last one.
        Of more than four curves in a panel, those that end lower have their range at the end alone.
      title: heading above all panels.
      clock: draw a second row of panels, against the seconds that all runs of a label took.
    """
    styles = label_styles(panels)
    num_rows = 1 + clock
    # Many labels need room beside the last panel.
    height = max(2.7, 0.3 * len(styles))
    with figure_style():
        figure = Figure(figsize=(0.9 + 2.5 * len(panels), height * num_rows), layout="constrained")
        grid = figure.subplots(num_rows, len(panels), squeeze=False)
        for panel, (environment, curves) in zip(grid[0], panels.items(), strict=True):
            panel.set_title(environment)
            _draw_curves(panel, curves, styles)
            format_steps(panel, most_ticks=3)
        for panel, curves in zip(grid[1:].flat, panels.values(), strict=bool(clock)):
            _draw_curves(panel, curves, styles, clock=True)
            panel.set_xscale("log")
            log_numbers(panel)
            panel.set_xlabel("Wall-clock of all runs (s)")
        for axes in grid:
            axes[0].set_ylabel("Evaluation return\n(mean and range over seeds)")
        if title is not None:
            figure.suptitle(title, x=0.01, horizontalalignment="left")
        for axes in grid:
            label_ends(axes[-1], {label: color for label, (color, _) in styles.items()})
    return figure


def interval_curves(
    path: Path,
    panels: Mapping[str, Mapping[str, Mapping[int, Interval]]],
    x_label: str,
    y_label: str,
) -> None:
    """Save `interval_figure` as PNG."""
    save_figure(path, interval_figure(panels, x_label, y_label))


def interval_figure(
    panels: Mapping[str, Mapping[str, Mapping[int, Interval]]], x_label: str, y_label: str
) -> Figure:
    """Draw means with intervals against the values of a setting, which are spaced evenly.

    Args:
      panels: intervals by environment, label and value.
      x_label: what is varied.
      y_label: what was measured.
    """
    styles = label_styles(panels)
    values = sorted({x for curves in panels.values() for points in curves.values() for x in points})
    # Beside each other where they belong to the same value.
    shifts = dict(zip(styles, np.linspace(-0.18, 0.18, len(styles)), strict=True))
    with figure_style():
        figure = Figure(figsize=(1.2 + 3.2 * len(panels), 3.8), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for panel, (environment, curves) in zip(axes, panels.items(), strict=True):
            panel.set_title(environment)
            for label, points in curves.items():
                x = np.array([values.index(value) for value in points]) + shifts[label]
                mean, low, high = np.transpose(list(points.values()))
                color, line = styles[label]
                panel.errorbar(
                    x,
                    mean,
                    (mean - low, high - mean),
                    color=color,
                    linestyle=line,
                    marker="o",
                    capsize=2,
                    elinewidth=0.8,
                    label=label,
                )
            panel.set_xticks(range(len(values)), map(str, values))
            panel.set_xlabel(x_label)
            panel.yaxis.set_major_formatter(THOUSANDS)
        axes[0].set_ylabel(y_label)
        legend_below(figure, *axes)
    return figure


def label_styles(panels: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, str]]:
    """Return colour and line style of every label, the same in all panels."""
    labels = dict.fromkeys(itertools.chain.from_iterable(panels.values()))
    return dict(zip(labels, itertools.cycle(CURVE_STYLES), strict=False))


def _draw_curves(
    panel: Axes,
    curves: Mapping[str, Sequence[Row]],
    styles: Mapping[str, tuple[str, str]],
    *,
    clock: bool = False,
) -> None:
    drawn: dict[str, Summary] = {}
    for label, rows in curves.items():
        summary = collect(rows, "return_mean").summary()
        if clock:
            seconds = {row["env_steps"]: row["wall_seconds"] for row in rows}
            places = np.array([seconds[step] for step in summary.env_steps])
            summary = summary._replace(env_steps=places)
        drawn[label] = summary
    whole = banded(
        {label: summary.mean[-1] for label, summary in drawn.items() if summary.mean.size}
    )
    for label, summary in drawn.items():
        draw_mean(panel, summary, *styles[label], label, label in whole)
    panel.yaxis.set_major_formatter(THOUSANDS)

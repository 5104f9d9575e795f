"""Figures that compare algorithms: learning curves, and means with intervals.

Each figure is built by one function and saved by another, so that its content can be examined.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from mbpo_jax.files import Row
from mbpo_jax.reports.figures import CURVE_STYLES, THOUSANDS, figure_style, save_png
from mbpo_jax.reports.plots import collect, draw_mean, format_steps

Interval = tuple[float, float, float]
"""A mean and the ends of its interval."""


def comparison_curves(
    path: Path,
    panels: Mapping[str, Mapping[str, Sequence[Row]]],
    title: str | None = None,
    *,
    clock: bool = False,
) -> None:
    """Save `comparison_figure` as a PNG file, replacing it as a whole."""
    save_png(path, comparison_figure(panels, title, clock=clock))


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
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            panel.xaxis.set_major_formatter(THOUSANDS)
            panel.xaxis.set_minor_formatter(NullFormatter())
            panel.set_xlabel("Wall-clock of all runs (s)")
        for axes in grid:
            axes[0].set_ylabel("Evaluation return\n(mean and range over seeds)")
            label_lines(axes[-1], {label: color for label, (color, _) in styles.items()})
        if title is not None:
            figure.suptitle(title, x=0.01, horizontalalignment="left")
    return figure


def interval_curves(
    path: Path,
    panels: Mapping[str, Mapping[str, Mapping[int, Interval]]],
    x_label: str,
    y_label: str,
) -> None:
    """Save `interval_figure` as a PNG file, replacing it as a whole."""
    save_png(path, interval_figure(panels, x_label, y_label))


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
        figure.legend(
            *axes[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=min(len(styles), 3 * len(panels)),
        )
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
    # The bands of many curves lie over each other.
    opacity = 0.18 if len(curves) <= 4 else 0.07
    for label, rows in curves.items():
        summary = collect(rows, "return_mean").summary()
        if clock:
            seconds = {row["env_steps"]: row["wall_seconds"] for row in rows}
            summary = summary._replace(env_steps=[seconds[step] for step in summary.env_steps])
        draw_mean(panel, summary, *styles[label], label, opacity)
    panel.yaxis.set_major_formatter(THOUSANDS)


def label_lines(panel: Axes, colors: Mapping[str, str]) -> None:
    """Write each label beside the panel, at the height where its line ends, clear of the others."""
    bottom, top = panel.get_ylim()
    lines = (line for line in panel.lines if np.size(line.get_ydata()))
    ends = {line.get_label(): np.asarray(line.get_ydata())[-1] for line in lines}
    heights = [(ends.get(label, bottom) - bottom) / (top - bottom) for label in colors]
    for (label, color), height in zip(colors.items(), spread(heights, gap=0.09), strict=True):
        panel.text(1.03, height, label, color=color, transform=panel.transAxes, va="center")


def spread(heights: Sequence[float], gap: float) -> np.ndarray:
    """Move heights in [0, 1] as far apart as `gap`, keeping their order."""
    order = np.argsort(heights, kind="stable")
    placed = np.clip(np.asarray(heights)[order], 0, 1)
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    placed[-1:] = np.minimum(placed[-1:], 1)
    for i in reversed(range(len(placed) - 1)):
        placed[i] = min(placed[i], placed[i + 1] - gap)
    return placed[np.argsort(order)]

"""Figures of training: the learning curves of a run directory, and comparisons of algorithms.

Each figure is built by one function and saved by another, so that its content can be examined.
None touches the global state of pyplot. Colours (Okabe and Ito 2008) and line styles together keep
curves apart for colour-blind readers and in grey print.
"""

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mbpo_jax.files import Row, replacing

BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
ORANGE, SKY, PURPLE = "#E69F00", "#56B4E9", "#CC79A7"
GREY = "#595959"

_COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
_CURVE_STYLES = tuple(zip(_COLORS, ("-", "--", "-.", ":", "-", "--"), strict=True))
_THOUSANDS = "{x:,.10g}"
_MOST_MARKERS = 30
_ERROR = "model/k_step_error_"
_ROLLOUT_LENGTH = "rollout/length_mean"


class Summary(NamedTuple):
    """Mean and a band around it over environment steps, each `[S]` float64."""

    env_steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Curves(NamedTuple):
    """One quantity of several runs over environment steps.

    Attributes:
      env_steps: `[S]` int, ascending, every step at which some run has a row.
      values: `[R, S]` float64, NaN where a run has no value.
      diverged: `[R, S]` bool, true from the step on at which the run was found to have diverged.
    """

    env_steps: np.ndarray
    values: np.ndarray
    diverged: np.ndarray

    def summary(self) -> Summary:
        """Return mean, least and greatest of the runs, at the steps where every run has a value.

        Steps that some run lacks are left out, so that the mean is over the same runs everywhere.
        The range, unlike a standard deviation of few and skewed values, holds only what was seen.
        """
        if not self.values.size:
            return Summary(*np.empty((4, 0)))
        complete = np.isfinite(self.values).all(axis=0)
        values = self.values[:, complete]
        steps = self.env_steps[complete]
        return Summary(steps, values.mean(axis=0), values.min(axis=0), values.max(axis=0))


def collect(rows: Sequence[Row], name: str) -> Curves:
    """Arrange one quantity of all rows by run and step; of two rows for the same, the later holds.

    A diverged run is frozen, so where it has no value it keeps its last one: a mean without it
    would flatter.
    """
    runs = sorted({(row["run"], row["seed"]) for row in rows})
    steps = sorted({row["env_steps"] for row in rows})
    values = np.full((len(runs), len(steps)), np.nan)
    diverged = np.zeros(values.shape, dtype=bool)
    line_of, column_of = ({key: i for i, key in enumerate(keys)} for keys in (runs, steps))
    for row in rows:
        position = line_of[row["run"], row["seed"]], column_of[row["env_steps"]]
        value = row.get(name)
        values[position] = np.nan if value is None else value
        diverged[position] = bool(row.get("diverged"))
    diverged = np.logical_or.accumulate(diverged, axis=1)
    for column in range(1, len(steps)):
        missing = diverged[:, column] & np.isnan(values[:, column])
        values[missing, column] = values[missing, column - 1]
    return Curves(np.array(steps), values, diverged)


def learning_curve(
    path: Path,
    evals: Sequence[Row],
    metrics: Sequence[Row],
    title: str,
    solved_at: float | None = None,
) -> None:
    """Save `learning_curve_figure` as a PNG file, replacing it as a whole."""
    save_png(path, learning_curve_figure(evals, metrics, title, solved_at))


def learning_curve_figure(
    evals: Sequence[Row], metrics: Sequence[Row], title: str, solved_at: float | None = None
) -> Figure:
    """Draw the runs of one program: returns above, the model's error and rollout length below.

    Args:
      evals: rows with `return_mean`, `return_std` (over episodes), and `diverged` where it is so.
      metrics: rows of metrics; without any of the model's there is no lower panel.
      title: heading.
      solved_at: return that counts as solved, drawn as a line.
    """
    errors = _error_curves(metrics)
    lengths = collect(metrics, _ROLLOUT_LENGTH)
    has_model = bool(errors) or bool(np.isfinite(lengths.values).any())
    ratios = (3, 2) if has_model else (3,)
    with _style():
        figure = Figure(figsize=(6.0, 0.8 + 0.9 * sum(ratios)), layout="constrained")
        panels = figure.subplots(len(ratios), sharex=True, squeeze=False, height_ratios=ratios)[
            :, 0
        ]
        panels[0].set_title(title)
        _draw_returns(panels[0], evals, solved_at)
        if has_model:
            _draw_model(panels[1], errors, lengths)
        _format_steps(panels[-1], most_ticks=6)
    return figure


def comparison_curves(
    path: Path, panels: Mapping[str, Mapping[str, Sequence[Row]]], title: str | None = None
) -> None:
    """Save `comparison_figure` as a PNG file, replacing it as a whole."""
    save_png(path, comparison_figure(panels, title))


def comparison_figure(
    panels: Mapping[str, Mapping[str, Sequence[Row]]], title: str | None = None
) -> Figure:
    """Draw mean return and its range over seeds, one panel per environment.

    Args:
      panels: evaluation rows by environment and label, such as `{"hopper": {"MBPO": rows}}`. A
        label has the same colour and line style in every panel and is written beside the last one.
      title: heading above all panels.
    """
    labels = dict.fromkeys(itertools.chain.from_iterable(panels.values()))
    styles = dict(zip(labels, itertools.cycle(_CURVE_STYLES), strict=False))
    with _style():
        figure = Figure(figsize=(0.9 + 2.5 * len(panels), 2.7), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for panel, (environment, curves) in zip(axes, panels.items(), strict=True):
            panel.set_title(environment)
            for label, rows in curves.items():
                _draw_mean(panel, collect(rows, "return_mean").summary(), *styles[label], label)
            _format_steps(panel, most_ticks=3)
            panel.yaxis.set_major_formatter(_THOUSANDS)
        axes[0].set_ylabel("Evaluation return\n(mean and range over seeds)")
        _label_lines(axes[-1], {label: color for label, (color, _) in styles.items()})
        if title is not None:
            figure.suptitle(title, x=0.01, horizontalalignment="left")
    return figure


def save_png(path: Path, figure: Figure) -> None:
    """Render a figure to a PNG file that appears as a whole or not at all."""
    with _style(), replacing(path) as file:
        figure.savefig(file, format="png")


def _style() -> contextlib.AbstractContextManager[None]:
    return matplotlib.rc_context(
        {
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#E5E5E5",
            "grid.linewidth": 0.6,
            "lines.linewidth": 1.6,
            "lines.markersize": 3,
            "legend.frameon": False,
            "legend.fontsize": 8,
            "savefig.dpi": 200,
        }
    )


def _draw_returns(panel: Axes, evals: Sequence[Row], solved_at: float | None) -> None:
    returns = collect(evals, "return_mean")
    summary = returns.summary()
    if len(returns.values) == 1:
        spread = collect(evals, "return_std").values[0][np.isfinite(returns.values[0])]
        summary = summary._replace(low=summary.mean - spread, high=summary.mean + spread)
        label = "one run: mean ± std. dev. over its episodes"
    else:
        _draw_single_runs(panel, returns)
        label = f"mean and range of {len(returns.values)} runs"
    _draw_mean(panel, summary, BLUE, "-", label)
    _mark_diverged(panel, returns)
    if solved_at is not None:
        panel.axhline(solved_at, color=GREY, linestyle=":", label=f"solved ({solved_at:,g})")
    panel.set_ylabel("Evaluation return")
    panel.yaxis.set_major_formatter(_THOUSANDS)
    panel.legend()


def _draw_mean(panel: Axes, summary: Summary, color: str, linestyle: str, label: str) -> Line2D:
    steps, mean, low, high = summary
    (line,) = panel.plot(steps, mean, color=color, linestyle=linestyle, label=label)
    panel.fill_between(steps, low, high, color=color, alpha=0.18, linewidth=0)
    if len(steps) <= _MOST_MARKERS:
        line.set_marker("o")
    return line


def _draw_single_runs(panel: Axes, curves: Curves) -> None:
    for run, values in enumerate(curves.values):
        known = np.isfinite(values)
        (line,) = panel.plot(curves.env_steps[known], values[known], color=SKY, linewidth=0.8)
        line.set_label("single runs" if run == 0 else "_")  # One legend entry stands for all.


def _mark_diverged(panel: Axes, curves: Curves) -> None:
    runs = np.flatnonzero(curves.diverged.any(axis=1))
    if runs.size:
        found = curves.diverged[runs].argmax(axis=1)
        panel.plot(
            curves.env_steps[found],
            curves.values[runs, found],
            color=VERMILLION,
            linestyle="none",
            marker="X",
            markersize=7,
            label=f"diverged ({runs.size} of {len(curves.values)} runs)",
        )


def _error_curves(metrics: Sequence[Row]) -> dict[int, Curves]:
    """Return the errors of model predictions over one step and over most steps, by their number."""
    known = {name for row in metrics for name, value in row.items() if value is not None}
    counts = (name.removeprefix(_ERROR) for name in known if name.startswith(_ERROR))
    numbers = {int(count) for count in counts if count.isdecimal()}
    chosen = sorted({1, max(numbers, default=1)} & numbers)
    return {number: collect(metrics, f"{_ERROR}{number}") for number in chosen}


def _draw_model(panel: Axes, errors: Mapping[int, Curves], lengths: Curves) -> None:
    lines = []
    styles = ((GREEN, "-"), (VERMILLION, "--"))
    for (number, curves), style in zip(errors.items(), styles, strict=False):
        lines.append(_draw_mean(panel, curves.summary(), *style, f"{number}-step error"))
    panel.set_yscale("log")
    panel.set_ylabel("Model error\n(RMSE / std. dev. of data)")
    panel.yaxis.set_visible(bool(errors))
    if np.isfinite(lengths.values).any():
        right = panel.twinx()
        lines.append(_draw_mean(right, lengths.summary(), PURPLE, "-.", "realised rollout length"))
        right.set_ylim(bottom=0)
        right.set_ylabel("Rollout length (steps)")
        right.grid(visible=False)
        right.spines["right"].set_visible(True)
    above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    panel.legend(handles=lines, ncols=len(lines), **above)


def _format_steps(panel: Axes, most_ticks: int) -> None:
    panel.set_xlabel("Environment steps")
    panel.set_xlim(left=0)
    panel.xaxis.set_major_locator(MaxNLocator(most_ticks, steps=[1, 2, 5, 10], integer=True))
    panel.xaxis.set_major_formatter(_THOUSANDS)


def _label_lines(panel: Axes, colors: Mapping[str, str]) -> None:
    """Write each label beside the panel, at the height where its line ends, clear of the others."""
    bottom, top = panel.get_ylim()
    lines = (line for line in panel.lines if np.size(line.get_ydata()))
    ends = {line.get_label(): np.asarray(line.get_ydata())[-1] for line in lines}
    heights = [(ends.get(label, bottom) - bottom) / (top - bottom) for label in colors]
    for (label, color), height in zip(colors.items(), _spread(heights, gap=0.09), strict=True):
        panel.text(1.03, height, label, color=color, transform=panel.transAxes, va="center")


def _spread(heights: Sequence[float], gap: float) -> np.ndarray:
    """Move heights in [0, 1] as far apart as `gap`, keeping their order."""
    order = np.argsort(heights, kind="stable")
    placed = np.clip(np.asarray(heights)[order], 0, 1)
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    placed[-1:] = np.minimum(placed[-1:], 1)
    for i in reversed(range(len(placed) - 1)):
        placed[i] = min(placed[i], placed[i + 1] - gap)
    return placed[np.argsort(order)]

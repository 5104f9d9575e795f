"""Learning curves of a run directory, and how rows of its logs become curves."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mbpo_jax.files import Row
from mbpo_jax.reports.figures import (
    BLUE,
    GREEN,
    GREY,
    MOST_MARKERS,
    PURPLE,
    SKY,
    THOUSANDS,
    VERMILLION,
    draw_band,
    figure_style,
    step_axis,
)

_ERROR = "model/k_step_error_"
_ROLLOUT_LENGTH = "rollout/length_mean"
_KEPT = "rollout/kept"


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


def error_curves(metrics: Sequence[Row]) -> dict[int, Curves]:
    """Return the errors of open-loop predictions by their number of steps, ascending."""
    known = {name for row in metrics for name, value in row.items() if value is not None}
    counts = (name.removeprefix(_ERROR) for name in known if name.startswith(_ERROR))
    numbers = sorted(int(count) for count in counts if count.isdecimal())
    return {number: collect(metrics, f"{_ERROR}{number}") for number in numbers}


def learning_curve_figure(
    evals: Sequence[Row], metrics: Sequence[Row], title: str, solved_at: float | None = None
) -> Figure:
    """Draw the runs of one program: returns above, the model's error and rollout length below.

    Where rollouts are truncated, the share of their steps that was kept is a panel below these.

    Args:
      evals: rows with `return_mean`, `return_std` (over episodes), and `diverged` where it is so.
      metrics: rows of metrics; without any of the model's there is no lower panel.
      title: heading.
      solved_at: return that counts as solved, drawn as a line.
    """
    errors = error_curves(metrics)
    errors = {number: errors[number] for number in errors if number in (1, max(errors))}
    lengths = collect(metrics, _ROLLOUT_LENGTH)
    has_model = bool(errors) or bool(np.isfinite(lengths.values).any())
    kept = collect(metrics, _KEPT)
    truncates = bool(np.isfinite(kept.values).any())
    ratios = (3, *((2,) if has_model else ()), *((1,) if truncates else ()))
    with figure_style():
        figure = Figure(figsize=(6.0, 0.8 + 0.9 * sum(ratios)), layout="constrained")
        panels = figure.subplots(len(ratios), sharex=True, squeeze=False, height_ratios=ratios)[
            :, 0
        ]
        figure.suptitle(title, x=0.01, horizontalalignment="left")
        _draw_returns(panels[0], evals, solved_at)
        if has_model:
            _draw_model(panels[1], errors, lengths)
        if truncates:
            _draw_kept(panels[-1], kept)
        format_steps(panels[-1], most_ticks=6)
    return figure


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
    draw_mean(panel, summary, BLUE, "-", label)
    _mark_diverged(panel, returns)
    if solved_at is not None:
        panel.axhline(solved_at, color=GREY, linestyle=":", label=f"solved ({solved_at:,g})")
    panel.set_ylabel("Evaluation return")
    panel.yaxis.set_major_formatter(THOUSANDS)
    _legend_above(panel, *panel.get_legend_handles_labels())


def draw_mean(
    panel: Axes, summary: Summary, color: str, linestyle: str, label: str, whole: bool = True
) -> Line2D:
    """Draw a mean and a band around it, or its range at the end alone if not `whole`."""
    steps, mean, low, high = summary
    (line,) = panel.plot(steps, mean, color=color, linestyle=linestyle, label=label)
    draw_band(panel, steps, low, high, color, whole)
    if len(steps) <= MOST_MARKERS:
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


def _draw_model(panel: Axes, errors: Mapping[int, Curves], lengths: Curves) -> None:
    lines = []
    styles = ((GREEN, "-"), (VERMILLION, "--"))
    for (number, curves), style in zip(errors.items(), styles, strict=False):
        lines.append(draw_mean(panel, curves.summary(), *style, f"{number}-step error"))
    panel.set_yscale("log")
    panel.set_ylabel("Model error\n(RMSE / std. dev. of data)")
    panel.yaxis.set_visible(bool(errors))
    if np.isfinite(lengths.values).any():
        right = panel.twinx()
        lines.append(draw_mean(right, lengths.summary(), PURPLE, "-.", "realised rollout length"))
        right.set_ylim(bottom=0)
        right.set_ylabel("Rollout length (steps)")
        right.grid(visible=False)
        right.spines["right"].set_visible(True)
    _legend_above(panel, lines, [str(line.get_label()) for line in lines])


def _legend_above(panel: Axes, handles: Sequence[Artist], names: Sequence[str]) -> None:
    """Name curves where they hide none of each other."""
    panel.legend(
        handles,
        names,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        borderaxespad=0.2,
        ncols=2 if len(names) > 3 else max(len(names), 1),
    )


def _draw_kept(panel: Axes, kept: Curves) -> None:
    draw_mean(panel, kept.summary(), PURPLE, "-", "")
    panel.set_ylim(0.0, 1.0)
    panel.set_ylabel("Kept\n(share of steps)")


def format_steps(panel: Axes, most_ticks: int) -> None:
    """Label the axis of environment steps, which begins at 0."""
    step_axis(panel, "Environment steps", most_ticks)
    panel.set_xlim(left=0)

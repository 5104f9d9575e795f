"""How the error of a model's predictions grows with the length of a rollout.

An error of eps a step accumulates to O(eps T^2) over T steps, because a prediction that went astray
is the start of the next one. The figure compares this with what was measured.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from mbpo_jax.files import Row
from mbpo_jax.reports.figures import (
    BLUE,
    GREY,
    ORANGE,
    THOUSANDS,
    VERMILLION,
    draw_band,
    draw_rows,
    figure_style,
)
from mbpo_jax.reports.outputs import draw_shares, explained_shares
from mbpo_jax.reports.plots import Curves, error_curves

_STYLES = ((ORANGE, ":", "^"), (VERMILLION, "--", "s"), (BLUE, "-", "o"))
"""Of the first, the middle and the last moment; if there are less of them, of the last."""

_MOST_LABELLED = 1e4
"""Largest range of errors, as a factor, with three numbers at the axis in each decade."""


class Growth(NamedTuple):
    """Errors at one moment of training: median and range over runs.

    Attributes:
      env_steps: when.
      lengths: `[K]` int, steps of the predictions, ascending from 1.
      median: `[K]` float64, in standard deviations of the training data.
      low: `[K]`, the least of the runs.
      high: `[K]`, the greatest.
    """

    env_steps: int
    lengths: np.ndarray
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray


def error_growth(errors: dict[int, Curves]) -> list[Growth]:
    """Return the errors of the first, the middle and the last moment that has any.

    At each moment, lengths that one of the runs lacks are left out, so that the median is over the
    same runs everywhere. A run without a one-step error has none at all and does not count.

    Args:
      errors: of predictions over 1, 2, ... steps, as `error_curves` makes them.
    """
    if 1 not in errors:
        return []
    lengths = np.array(list(errors))
    values = np.stack([curves.values for curves in errors.values()], axis=-1)
    known = np.isfinite(values[..., 0])
    moments = np.flatnonzero(known.any(axis=0))
    growths = []
    for moment in sorted({moments[0], moments[len(moments) // 2], moments[-1]}):
        runs = values[known[:, moment], moment]
        complete = np.isfinite(runs).all(axis=0)
        runs = runs[:, complete]
        spread = np.median(runs, axis=0), runs.min(axis=0), runs.max(axis=0)
        growths.append(Growth(int(errors[1].env_steps[moment]), lengths[complete], *spread))
    return growths


def model_error_figure(metrics: Sequence[Row], title: str, observed: Sequence[str] = ()) -> Figure:
    """Draw the error of open-loop predictions over their length, early, midway and late.

    The axes are logarithmic, so that any power of the length is a straight line. The guide
    `eps k^2` starts at the last curve's one-step error eps. Errors of one length alone are rows.

    Args:
      metrics: rows with `model/k_step_error_k`; without any the axes stay empty.
      title: heading.
      observed: names of the observation's components, for a panel of how well each is predicted,
        which is there if the rows say so.
    """
    errors = error_curves(metrics)
    growths = error_growth(errors)
    with figure_style():
        shares = explained_shares(metrics, observed)
        heights = [3.5, 0.9 + 0.2 * len(shares)] if shares else [3.5]
        figure = Figure(figsize=(5.6, sum(heights)), layout="constrained")
        panel, *below = figure.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0]
        for each in below:
            draw_shares(each, shares)
        panel.set_title(title)
        if growths and len(errors) == 1:
            _draw_one_length(panel, growths)
            return figure
        for growth, look in zip(growths, _STYLES[-len(growths) :], strict=False):
            _draw_growth(panel, growth, *look)
        if growths:
            _draw_guide(panel, growths[-1])
            num_runs = len(errors[1].values)
            heading = f"median and range of {num_runs} runs" if num_runs > 1 else None
            panel.legend(title=heading, alignment="left", loc="upper left", bbox_to_anchor=(1, 1))
        _format_axes(panel, max(errors, default=1))
    return figure


def _draw_one_length(panel: Axes, growths: Sequence[Growth]) -> None:
    draw_rows(
        panel,
        [f"after {growth.env_steps:,} steps" for growth in growths],
        [growth.median[0] for growth in growths],
        [(growth.low[0], growth.high[0]) for growth in growths],
        [(color, marker) for color, _, marker in _STYLES[-len(growths) :]],
    )
    panel.set_xlim(left=0.0)
    panel.set_xlabel(
        f"{growths[0].lengths[0]}-step prediction error: median and range of runs\n"
        "(RMS, standard deviations of the training data)"
    )


def _draw_growth(panel: Axes, growth: Growth, color: str, linestyle: str, marker: str) -> None:
    label = f"after {growth.env_steps:,} steps"
    (line,) = panel.plot(growth.lengths, growth.median, color=color, linestyle=linestyle)
    line.set(marker=marker, label=label)
    draw_band(panel, growth.lengths, growth.low, growth.high, color)


def _draw_guide(panel: Axes, growth: Growth) -> None:
    label = "guide ε k², where ε is\nthe last 1-step error"
    guide = growth.median[0] * growth.lengths**2
    panel.plot(growth.lengths, guide, color=GREY, linewidth=1, label=label)


def _format_axes(panel: Axes, longest: int) -> None:
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlim(0.9, 1.1 * longest)
    panel.set_xlabel("Rollout length k (steps)")
    panel.set_ylabel("k-step prediction error\n(RMS, standard deviations of the training data)")
    bottom, top = panel.get_ylim()
    subs = (1, 2, 5) if top < _MOST_LABELLED * bottom else (1,)
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_locator(LogLocator(subs=subs))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_minor_formatter(NullFormatter())
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(THOUSANDS)

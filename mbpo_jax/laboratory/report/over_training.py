"""How gradient estimators did while a run trained."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbpo_jax.files import Row
from mbpo_jax.laboratory.report.figures import Style, by_estimator, estimator_styles
from mbpo_jax.reports.figures import (
    banded,
    draw_band,
    draw_rows,
    figure_style,
    label_ends,
    step_axis,
)

Point = tuple[float, float, float]
"""A number and the ends of its interval; the number itself where there is none."""


class Curve(NamedTuple):
    """A number of one estimator over environment steps, with the ends of a band around it."""

    steps: list[int]
    middle: list[float]
    low: list[float]
    high: list[float]


def tracking_figure(rows: Sequence[Row], title: str) -> Figure:
    """Draw signal-to-noise ratio and bias of estimates over training.

    Of one run with the 95 % intervals of the estimates; of several their mean, and a band from the
    least to the largest.

    Args:
      rows: of `training.tracking`. A bias is against the gradient in the true system, so it holds
        the model's.
      title: heading.
    """
    alone = len({row["run"] for row in rows}) == 1
    styles, groups = estimator_styles(rows), by_estimator(rows)
    snr, bias = (
        {name: curve for name, own in groups.items() if (curve := _curve(own, value, alone)).steps}
        for value in (_snr, _relative_bias)
    )
    over_time = len({row["env_steps"] for row in rows}) > 1
    # The same estimators have bands in both panels.
    whole = banded({name: curve.middle[-1] for name, curve in snr.items()})
    with figure_style():
        figure = Figure(figsize=(9.0, max(3.6, 1.0 + 0.21 * len(styles))), layout="constrained")
        left, right = figure.subplots(1, 2)
        for panel, curves in ((left, snr), (right, bias)):
            if over_time:
                _draw_curves(panel, curves, styles, whole)
            else:
                _draw_one_moment(panel, curves, styles)
        axis = "y" if over_time else "x"
        left.set(**{f"{axis}label": "Signal-to-noise ratio of an estimate"})
        right.set(**{f"{axis}label": "Squared bias over the squared norm\nof the true gradient"})
        for panel, scale in (
            (left, {"value": "log", "nonpositive": "clip"}),
            (right, {"value": "symlog", "linthresh": 0.1}),
        ):
            (panel.set_yscale if over_time else panel.set_xscale)(**scale)
        when = "" if over_time else f", at {rows[0]['env_steps']:,} environment steps"
        figure.suptitle(f"{title}: gradients at H = {rows[0]['horizon']}{when}", x=0.01, ha="left")
        for panel in (left, right) if over_time else ():
            label_ends(panel, {})
    return figure


def _curve(rows: Sequence[Row], value: Callable[[Row], Point | None], alone: bool) -> Curve:
    """Return a number over training: of one run with its interval, of several their range."""
    points: dict[int, list[Point]] = {}
    for row in rows:
        if (found := value(row)) is not None:
            points.setdefault(row["env_steps"], []).append(found)
    steps = sorted(points)
    return Curve(
        steps,
        [float(np.mean([middle for middle, _, _ in points[step]])) for step in steps],
        [min(p[1] if alone else p[0] for p in points[step]) for step in steps],
        [max(p[2] if alone else p[0] for p in points[step]) for step in steps],
    )


def _draw_curves(
    panel: Axes, curves: Mapping[str, Curve], styles: Mapping[str, Style], whole: Collection[str]
) -> None:
    for name, (steps, middle, low, high) in curves.items():
        color, line, marker = styles[name]
        panel.plot(steps, middle, color=color, linestyle=line, marker=marker, label=name)
        draw_band(panel, steps, low, high, color, name in whole)
    step_axis(panel, "Environment steps", most_ticks=4)


def _draw_one_moment(panel: Axes, curves: Mapping[str, Curve], styles: Mapping[str, Style]) -> None:
    draw_rows(
        panel,
        list(curves),
        [curve.middle[0] for curve in curves.values()],
        [(curve.low[0], curve.high[0]) for curve in curves.values()],
        [(styles[name][0], styles[name][2]) for name in curves],
    )


def _snr(row: Row) -> Point | None:
    return None if row["snr"] is None else (row["snr"], *_ends(row, "snr"))


def _relative_bias(row: Row) -> Point | None:
    if row["squared_bias"] is None or not row["reference_norm"]:
        return None
    square = row["reference_norm"] ** 2
    low, high = _ends(row, "squared_bias")
    return row["squared_bias"] / square, low / square, high / square


def _ends(row: Row, name: str) -> tuple[float, float]:
    return tuple(row[f"{name}_interval"] or (row[name], row[name]))

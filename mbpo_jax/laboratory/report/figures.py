"""Figures of the gradient laboratory.

Each is built by one function from tidy rows, and says on its axes what is drawn in which unit. An
estimator has the same colour, line and marker in all of them. Intervals are at 95 %.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from mbpo_jax.files import Row
from mbpo_jax.reports.figures import (
    BLUE,
    GREY,
    SKY,
    VERMILLION,
    Style,
    draw_rows,
    figure_style,
    label_ends,
    legend_below,
    styles_of,
)


def estimator_styles(rows: Sequence[Row]) -> dict[str, Style]:
    """Return the style of every estimator, in the order of the rows."""
    return styles_of(row["estimator"] for row in rows)


def by_estimator(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of each estimator."""
    return {
        name: [row for row in rows if row["estimator"] == name] for name in estimator_styles(rows)
    }


def plot_interval(
    panel: Axes, rows: Sequence[Row], x: str, value: str, interval: str, style: Style, label: str
) -> None:
    """Draw a number with its interval against another, and leave out what is not known."""
    known = [row for row in rows if row[value] is not None]
    if not known:
        return
    y = np.array([row[value] for row in known])
    ends = np.array([row[interval] or (np.nan, np.nan) for row in known], float)
    color, line, marker = style
    panel.errorbar(
        [row[x] for row in known],
        y,
        np.abs(ends.T - y[None]),
        color=color,
        linestyle=line,
        marker=marker,
        markersize=4,
        capsize=2,
        elinewidth=0.8,
        label=label,
    )


def log_integers(panel: Axes, values: Sequence[int], label: str) -> None:
    """Put whole numbers on a logarithmic axis, written out."""
    panel.set_xscale("log")
    panel.set_xticks(sorted(set(values)), [str(x) for x in sorted(set(values))])
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel(label)


def relative(rows: Sequence[Row]) -> list[Row]:
    """Return rows whose variance and its interval are divided by the reference's squared norm."""

    def one(row: Row) -> Row:
        square, ends = row["reference_norm"] ** 2, row["variance_interval"]
        if square == 0.0 or row["variance"] is None:
            return {**row, "relative": None, "relative_interval": None}
        interval = [x and x / square for x in ends] if ends else None
        return {**row, "relative": row["variance"] / square, "relative_interval": interval}

    return [one(row) for row in rows]


def variance_figure(rows: Sequence[Row], stability: Sequence[Row] = ()) -> Figure:
    """Draw the relative variance of every estimator against the horizon.

    Where the Lyapunov exponents are known, a dotted line grows as the second moment of the
    Jacobians' product does: the pathwise variance is expected to follow it. Thin lines have the
    slopes of H and of H cubed.

    Args:
      rows: of one batch size.
      stability: rows with `horizon` and `log10_second_moment`.
    """
    styles, horizons = estimator_styles(rows), [row["horizon"] for row in rows]
    label = f"Variance of an estimate of {rows[0]['batch_size']} trajectories"
    if len(set(horizons)) == 1:
        return _at_one_horizon(
            relative(rows), styles, f"{label} over the squared norm of the gradient"
        )
    with figure_style():
        figure = Figure(figsize=(7.0, max(4.2, 0.21 * len(styles))), layout="constrained")
        panel = figure.subplots()
        for name, own in by_estimator(relative(rows)).items():
            plot_interval(
                panel, own, "horizon", "relative", "relative_interval", styles[name], name
            )
        if any((row["relative"] or 0.0) > 0.0 for row in relative(rows)):
            panel.set_yscale("log")
        log_integers(panel, horizons, "Horizon H (steps)")
        panel.set_ylabel(f"{label}\nover the squared norm of the gradient")
        panel.set_title(f"{rows[0]['problem']}: variance against horizon")
        _slopes(panel, rows)
        _guide(panel, rows, stability)
        label_ends(panel, {})
    return figure


def _at_one_horizon(rows: Sequence[Row], styles: Mapping[str, Style], label: str) -> Figure:
    """Draw the relative variance of every estimator, which has a row each."""
    by_name = {row["estimator"]: row for row in rows}
    values, ends = [], []
    for name in styles:
        value, found = by_name[name]["relative"], by_name[name]["relative_interval"]
        values.append(np.nan if value is None else value)
        ends.append([np.nan if end is None else end for end in found or (None, None)])
    with figure_style():
        figure = Figure(figsize=(6.5, 1.1 + 0.24 * len(styles)), layout="constrained")
        panel = figure.subplots()
        draw_rows(
            panel, list(styles), values, ends, [(c, marker) for c, _, marker in styles.values()]
        )
        if any(value > 0.0 for value in values):  # or nothing could be drawn on it
            panel.set_xscale("log")
        across = panel.get_yaxis_transform()
        for place, (name, value) in enumerate(zip(styles, values, strict=True)):
            if np.isnan(value):
                why = "overflow" if by_name[name]["overflowed"] else "too noisy to tell"
                panel.text(0.02, place, why, color=GREY, va="center", transform=across)
        panel.set_xlabel(label)
        panel.set_title(f"{rows[0]['problem']}: variance, at H = {rows[0]['horizon']}")
    return figure


def _slopes(panel: Axes, rows: Sequence[Row]) -> None:
    horizons = sorted({row["horizon"] for row in rows})
    starts = [r["relative"] for r in relative(rows) if r["horizon"] == horizons[0]]
    starts = [x for x in starts if x]
    if len(horizons) < 3 or not starts:
        return
    limits = panel.get_ylim()
    growth = np.array(horizons, float) / horizons[0]
    for power, label in ((1, "slope of H"), (3, "slope of H³")):
        line = _up_to(limits, horizons, np.log(np.median(starts)) + power * np.log(growth))
        panel.plot(*line, "-" if power == 1 else "--", color=GREY, lw=0.7, label=label)
    panel.set_ylim(limits)


def _up_to(
    limits: tuple[float, float], horizons: Sequence[int], logs: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return a guide up to where it leaves its logarithmic axes for good: there it is named.

    Args:
      limits: of the vertical axis.
      horizons: of the guide's points.
      logs: natural logarithms of its values; what is not finite is left out.
    """
    known = np.isfinite(logs)
    x, y, (low, high) = np.log(horizons)[known], np.asarray(logs)[known], np.log(limits)
    inside = np.flatnonzero((y >= low) & (y <= high))
    last = inside[-1] if inside.size else len(y) - 1
    if last < len(y) - 1:
        end = high if y[last + 1] > high else low
        share = (end - y[last]) / (y[last + 1] - y[last])
        x = np.append(x[: last + 1], x[last] + share * (x[last + 1] - x[last]))
        y = np.append(y[: last + 1], end)
    return np.exp(x), np.exp(np.clip(y, -700.0, 700.0))


def _guide(panel: Axes, rows: Sequence[Row], stability: Sequence[Row]) -> None:
    known = {
        row["horizon"]: row["relative"]
        for row in relative(rows)
        if row["estimator"] == "rp" and row["relative"]
    }
    grown = {row["horizon"]: row["log10_second_moment"] for row in stability}
    shared = sorted(set(known) & set(grown))
    if len(shared) < 2:
        return
    first = shared[0]
    line = [np.log(known[first]) + np.log(10.0) * (grown[h] - grown[first]) for h in shared]
    limits = panel.get_ylim()
    line = _up_to(limits, shared, line)
    panel.plot(*line, ":", color=GREY, label="growth of the Jacobians")
    panel.set_ylim(limits)


def cosine_figure(rows: Sequence[Row]) -> Figure:
    """Draw the cosine between estimate and gradient against the batch size, at one horizon.

    Bars reach from the 5 % to the 95 % quantile. The grey lines are what independent errors of
    equal size in all directions would give.
    """
    styles = estimator_styles(rows)
    with figure_style():
        figure = Figure(figsize=(6.5, 4.4), layout="constrained")
        panel = figure.subplots()
        for name, own in by_estimator(rows).items():
            known = [
                {**row, "quantiles": [row["cosine_5"], row["cosine_95"]]}
                for row in own
                if row["cosine"] is not None
            ]
            plot_interval(panel, known, "batch_size", "cosine_50", "quantiles", styles[name], name)
            theory = [(r["batch_size"], r["isotropic_cosine"]) for r in own]
            theory = [(b, c) for b, c in theory if c is not None]
            panel.plot(*np.transpose(theory or [(np.nan, np.nan)]), color=GREY, linewidth=0.7)
        log_integers(panel, [row["batch_size"] for row in rows], "Batch size B (trajectories)")
        panel.set_ylabel("Cosine to the gradient\n(median and 90 % of estimates)")
        panel.set_title(f"{rows[0]['problem']}: direction, at H = {rows[0]['horizon']}")
        label_ends(panel, {})
    return figure


def efficiency_figure(rows: Sequence[Row]) -> Figure:
    """Draw mean squared error against FLOPs at one horizon; lower left is better."""
    styles = estimator_styles(rows)
    with figure_style():
        figure = Figure(figsize=(6.5, 4.4), layout="constrained")
        panel = figure.subplots()
        for name, own in by_estimator(rows).items():
            plot_interval(
                panel,
                [row for row in own if (row["mean_squared_error"] or 0.0) > 0.0],
                "flops",
                "mean_squared_error",
                "mean_squared_error_interval",
                styles[name],
                name,
            )
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel("Cost of an estimate (floating-point operations)")
        panel.set_ylabel("Mean squared error of an estimate\n(squared units of the gradient)")
        panel.set_title(f"{rows[0]['problem']}: error against cost, at H = {rows[0]['horizon']}")
        legend_below(figure, panel)
    return figure


PARTS = {
    "split_model_bias": (VERMILLION, "model bias, squared"),
    "split_estimator_bias": (SKY, "estimator bias, squared"),
    "split_variance": (BLUE, "estimator variance"),
}


def is_split(row: Row) -> bool:
    """Return whether the parts of a row's error are known, and what to divide them by."""
    return row["split_total"] is not None and row["true_squared_norm"] > 0.0


def split_figure(rows: Sequence[Row]) -> Figure:
    """Draw the parts of every estimator's error against the true system, a panel per horizon.

    The black mark is the sum, with the cross term of the two biases. An estimator is missing where
    its variance could not be told, or the true gradient's norm.
    """
    horizons = sorted({row["horizon"] for row in rows})
    names = list(estimator_styles(rows))
    with figure_style():
        figure = Figure(
            figsize=(1.6 + 2.1 * len(horizons), 1.6 + 0.26 * len(names)), layout="constrained"
        )
        panels = figure.subplots(1, len(horizons), sharey=True, squeeze=False)[0]
        for panel, horizon in zip(panels, horizons, strict=True):
            own = [row for row in rows if row["horizon"] == horizon and is_split(row)]
            places = [names.index(row["estimator"]) for row in own]
            squares = np.array([row["true_squared_norm"] for row in own])
            left = np.zeros(len(own))
            for field, (color, label) in PARTS.items():
                part = np.array([max(row[field], 0.0) for row in own]) / squares
                panel.barh(places, part, left=left, color=color, label=label)
                left += part
            total = np.array([row["split_total"] for row in own]) / squares
            error = np.array([row["split_total_error"] for row in own], float) / squares
            panel.errorbar(
                total,
                places,
                xerr=2.0 * error,
                fmt="|",
                color="black",
                capsize=2,
                label="sum with the cross term, 95 %",
            )
            panel.set_xscale("symlog", linthresh=0.1)
            panel.set_xlim(left=0.0)
            panel.set_title(f"H = {horizon}")
            panel.set_yticks(range(len(names)), names)
        panels[0].invert_yaxis()
        panels[len(panels) // 2].set_xlabel(
            "Mean squared error over the squared\nnorm of the true gradient"
        )
        legend_below(figure, panels[0])
    return figure

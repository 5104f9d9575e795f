"""Figures of a closer look at gradient estimators, at one horizon."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from mbpo_jax.files import Row
from mbpo_jax.laboratory.report.figures import by_estimator, estimator_styles
from mbpo_jax.reports.figures import (
    BLUE,
    CURVE_STYLES,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    THOUSANDS,
    VERMILLION,
    banded,
    draw_band,
    figure_style,
    legend_below,
    name_curves,
    step_axis,
)


def step_figure(rows: Sequence[Row]) -> Figure:
    """Draw how large the gradient by each step's action is, and how much it varies.

    Args:
      rows: with `estimator`, `step`, `squared_mean` and `variance`, at one horizon.
    """
    groups = by_estimator(rows)
    drawn = {
        "Squared norm of the mean": "squared_mean",
        "Variance": "variance",
    }
    with figure_style():
        # No lower than the names beside the colours are long.
        height = max(3.0, 1.4 + 0.28 * len(groups))
        figure = Figure(figsize=(7.5, height), layout="constrained")
        for panel, (title, field) in zip(
            figure.subplots(1, 2, sharey=True), drawn.items(), strict=True
        ):
            values = np.array([[row[field] or np.nan for row in own] for own in groups.values()])
            logs = np.log10(np.maximum(values, np.finfo(float).tiny))
            image = panel.imshow(np.where(values > 0, logs, np.nan), aspect="auto", cmap="cividis")
            panel.set_yticks(range(len(groups)), list(groups))
            step_axis(panel, "Step of the action (t)")
            panel.set_title(title)
            panel.grid(False)
            figure.colorbar(image, ax=panel, label="log10, squared units of the gradient")
    return figure


SOURCES = {
    "start": (BLUE, "start state"),
    "member": (ORANGE, "ensemble member"),
    "action": (SKY, "noise of the policy"),
    "outcome": (GREEN, "noise of the system"),
    "own": (VERMILLION, "the estimator's own draws"),
    "interaction": (GREY, "two or more together"),
}


def source_figure(rows: Sequence[Row]) -> Figure:
    """Draw the share of each source in the variance of every estimator.

    Args:
      rows: with `estimator`, `source`, `variance`, its standard error and `total`. Shares below 0,
        which chance makes, are drawn as 0, and it is said that the others are more than 1 then.
        Black lines are twice the standard error of each share.
    """
    groups = by_estimator(rows)
    with figure_style():
        figure = Figure(figsize=(6.5, 1.3 + 0.28 * len(groups)), layout="constrained")
        panel = figure.subplots()
        left = np.zeros(len(groups))
        for place, (source, (color, label)) in enumerate(SOURCES.items()):
            own = {name: r for name, rows in groups.items() for r in rows if r["source"] == source}
            drawn = [
                (
                    max(own[n]["variance"], 0.0) / own[n]["total"],
                    own[n]["variance_error"] / own[n]["total"],
                )
                if n in own
                else (0.0, np.nan)
                for n in groups
            ]
            shares, errors = np.array(drawn).T
            if shares.any():
                places = np.arange(len(groups)) + 0.08 * (len(SOURCES) / 2 - place)
                panel.barh(range(len(groups)), shares, left=left, color=color, label=label)
                panel.errorbar(
                    left + shares,
                    places,
                    xerr=2.0 * errors,
                    fmt="none",
                    ecolor="black",
                    elinewidth=0.8,
                )
            left += shares
        panel.axvline(1.0, color="black", linewidth=0.8)
        panel.set_yticks(range(len(groups)), list(groups))
        panel.invert_yaxis()
        why = "\nBeyond 1 where another one, drawn as 0, came out below 0 by chance."
        beyond = bool((left > 1.005).any())
        panel.set_xlabel("Share in the variance of an estimate" + beyond * why)
        panel.set_title(f"{rows[0]['problem']}: where the variance comes from")
        legend_below(figure, panel)
    return figure


def stability_figure(rows: Sequence[Row]) -> Figure:
    """Draw the closed loop's singular values and its Lyapunov exponents against time.

    Args:
      rows: of `gradients.inspection.stability_rows`.
    """
    horizons = [row["horizon"] for row in rows]
    with figure_style():
        figure = Figure(figsize=(7.5, 3.2), layout="constrained")
        values, exponents = figure.subplots(1, 2)
        lines = {
            "largest": (values, "largest", "largest_quantiles", "-", BLUE),
            "smallest": (values, "smallest", "smallest_quantiles", "--", VERMILLION),
            "second moment": (exponents, "moment_exponent", "moment_exponent_interval", "-", BLUE),
            "mean": (exponents, "mean_exponent", "mean_exponent_interval", "--", VERMILLION),
        }
        marker = "o" if len(horizons) == 1 else None  # which is no line
        for label, (panel, field, ends, line, color) in lines.items():
            curve = [row[field] for row in rows]
            panel.plot(horizons, curve, line, color=color, label=label, marker=marker)
            low, high = np.transpose([row[ends] for row in rows])
            draw_band(panel, horizons, low, high, color)
        if any(row["largest"] > 0.0 for row in rows):
            values.set_yscale("log")
        values.set_ylabel("Singular value of a step's Jacobian\n(median and 90 % of trajectories)")
        exponents.axhline(0.0, color=GREY, linewidth=0.8)
        if all(row["moment_exponent"] == -np.inf for row in rows):
            across = exponents.transAxes
            why = "-∞: a step forgets where it began"
            exponents.text(0.5, 0.6, why, color=GREY, ha="center", transform=across)
        exponents.set_ylabel("Lyapunov exponent (nats per step)")
        for panel in (values, exponents):
            panel.set_xlim(horizons[0] - 0.5, horizons[-1] + 0.5)
            step_axis(panel, "Step (t)")
            panel.legend()
        figure.suptitle(f"{rows[0]['problem']}: the closed loop", x=0.01, ha="left")
    return figure


def weight_figure(rows: Sequence[Row]) -> Figure:
    """Draw the weight of the likelihood ratio against the step, means and 90 % of batches."""
    styles = estimator_styles(rows)
    with figure_style():
        figure = Figure(figsize=(5.0, 3.2), layout="constrained")
        panel = figure.subplots()
        groups = by_estimator(rows)
        whole = banded({name: own[-1]["weight"] for name, own in groups.items()})
        for name, own in groups.items():
            color, line, _ = styles[name]
            steps = [row["step"] for row in own]
            panel.plot(steps, [row["weight"] for row in own], line, color=color, label=name)
            ends = [row["weight_5"] for row in own], [row["weight_95"] for row in own]
            draw_band(panel, steps, *ends, color, name in whole)
        panel.set_ylim(-0.02, 1.02)
        step_axis(panel, "Step of the action (t)")
        panel.set_ylabel("Weight of the likelihood ratio (0 to 1)")
        name_curves(figure, panel)
    return figure


def slice_figure(rows: Sequence[Row]) -> Figure:
    """Draw returns along the gradient, in the model and in the true system."""
    with figure_style():
        figure = Figure(figsize=(5.0, 3.2), layout="constrained")
        panel = figure.subplots()
        for i, name in enumerate(dict.fromkeys(row["problem"] for row in rows)):
            own = [row for row in rows if row["problem"] == name]
            color, line = CURVE_STYLES[i]
            x = [row["distance"] for row in own]
            y = np.array([row["return"] for row in own])
            error = 1.96 * np.array([row["return_error"] for row in own])
            panel.plot(x, y, line, color=color, label=name)
            draw_band(panel, x, y - error, y + error, color)
        panel.axvline(0.0, color=GREY, linewidth=0.8)
        panel.set_xlabel("Distance along the gradient (norm of the parameters' change)")
        panel.locator_params(axis="x", nbins=5)
        panel.yaxis.set_major_formatter(THOUSANDS)
        panel.set_ylabel(f"Mean return of {rows[0]['horizon']} steps")
        legend_below(figure, panel)
    return figure

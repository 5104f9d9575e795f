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
    CURVE_STYLES,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    VERMILLION,
    figure_style,
)

MARKERS = "osD^vP*X<>hpd8"

Style = tuple[str, str, str]
"""Colour, line and marker."""


def estimator_styles(rows: Sequence[Row]) -> dict[str, Style]:
    """Return the style of every estimator, in the order of the rows."""
    names = dict.fromkeys(row["estimator"] for row in rows)
    return {
        name: (*CURVE_STYLES[i % len(CURVE_STYLES)], MARKERS[i % len(MARKERS)])
        for i, name in enumerate(names)
    }


def by_estimator(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of each estimator."""
    return {
        name: [row for row in rows if row["estimator"] == name] for name in estimator_styles(rows)
    }


def with_legend(figure: Figure, panel: Axes, columns: int = 6) -> None:
    """Put one legend below all panels."""
    handles, labels = panel.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(
        list(unique.values()),
        list(unique),
        loc="outside lower center",
        ncols=min(columns, len(unique)),
    )


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
        square = row["reference_norm"] ** 2 or None
        ends = row["variance_interval"]
        known = square is not None and row["variance"] is not None
        return {
            **row,
            "relative": row["variance"] / square if known else None,
            "relative_interval": [x and x / square for x in ends] if known and ends else None,
        }

    return [one(row) for row in rows]


def variance_figure(rows: Sequence[Row], stability: Sequence[Row] = ()) -> Figure:
    """Draw the relative variance of every estimator against the horizon.

    Where the Lyapunov exponents are known, a dotted line grows as the second moment of the
    Jacobians' product does: the pathwise variance is expected to follow it.

    Args:
      rows: of one batch size.
      stability: rows with `horizon` and `log10_second_moment`.
    """
    styles, horizons = estimator_styles(rows), [row["horizon"] for row in rows]
    with figure_style():
        figure = Figure(figsize=(6.5, 4.6), layout="constrained")
        panel = figure.subplots()
        for name, own in by_estimator(relative(rows)).items():
            plot_interval(
                panel, own, "horizon", "relative", "relative_interval", styles[name], name
            )
        panel.set_yscale("log")
        log_integers(panel, horizons, "Horizon H (steps)")
        panel.set_ylabel(
            f"Variance of an estimate of {rows[0]['batch_size']} trajectories\n"
            "over the squared norm of the gradient"
        )
        panel.set_title(f"{rows[0]['problem']}: variance against horizon")
        _guide(panel, rows, stability)
        with_legend(figure, panel)
    return figure


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
    line = [known[first] * 10.0 ** (grown[h] - grown[first]) for h in shared]
    panel.plot(shared, line, ":", color=GREY, label="growth of the Jacobians")


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
        with_legend(figure, panel)
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
        with_legend(figure, panel)
    return figure


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
        figure = Figure(figsize=(7.5, 1.4 + 0.28 * len(groups)), layout="constrained")
        for panel, (title, field) in zip(
            figure.subplots(1, 2, sharey=True), drawn.items(), strict=True
        ):
            values = np.array([[row[field] or np.nan for row in own] for own in groups.values()])
            logs = np.log10(np.maximum(values, np.finfo(float).tiny))
            image = panel.imshow(np.where(values > 0, logs, np.nan), aspect="auto", cmap="cividis")
            panel.set_yticks(range(len(groups)), list(groups))
            panel.set_xlabel("Step of the action (t)")
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
      rows: with `estimator`, `source`, `variance` and `total`. Shares below 0, which chance makes,
        are drawn as 0.
    """
    groups = by_estimator(rows)
    with figure_style():
        figure = Figure(figsize=(6.5, 1.3 + 0.28 * len(groups)), layout="constrained")
        panel = figure.subplots()
        left = np.zeros(len(groups))
        for source, (color, label) in SOURCES.items():
            shares = np.array(
                [
                    sum(max(r["variance"], 0.0) / r["total"] for r in own if r["source"] == source)
                    for own in groups.values()
                ]
            )
            if shares.any():
                panel.barh(range(len(groups)), shares, left=left, color=color, label=label)
            left += shares
        panel.set_yticks(range(len(groups)), list(groups))
        panel.invert_yaxis()
        panel.set_xlabel("Share in the variance of an estimate")
        panel.set_title(f"{rows[0]['problem']}: where the variance comes from")
        with_legend(figure, panel, columns=3)
    return figure


def stability_figure(rows: Sequence[Row]) -> Figure:
    """Draw the closed loop's singular values and its Lyapunov exponents against time.

    Args:
      rows: with `problem`, `horizon`, `largest`, `smallest`, `mean_exponent`, `moment_exponent`.
    """
    horizons = [row["horizon"] for row in rows]
    with figure_style():
        figure = Figure(figsize=(7.5, 3.2), layout="constrained")
        values, exponents = figure.subplots(1, 2)
        values.plot(horizons, [r["largest"] for r in rows], "-", color=BLUE, label="largest")
        values.plot(
            horizons, [r["smallest"] for r in rows], "--", color=VERMILLION, label="smallest"
        )
        values.set_yscale("log")
        values.set_ylabel("Singular value of a step's Jacobian\n(median over trajectories)")
        exponents.plot(
            horizons, [r["moment_exponent"] for r in rows], "-", color=BLUE, label="second moment"
        )
        exponents.plot(
            horizons, [r["mean_exponent"] for r in rows], "--", color=VERMILLION, label="mean"
        )
        exponents.axhline(0.0, color=GREY, linewidth=0.8)
        exponents.set_ylabel("Lyapunov exponent (nats per step)")
        for panel in (values, exponents):
            panel.set_xlabel("Step (t)")
            panel.legend()
        figure.suptitle(f"{rows[0]['problem']}: the closed loop", x=0.01, ha="left")
    return figure


PARTS = {
    "split_model_bias": (VERMILLION, "model bias, squared"),
    "split_estimator_bias": (SKY, "estimator bias, squared"),
    "split_variance": (BLUE, "estimator variance"),
}


def split_figure(rows: Sequence[Row]) -> Figure:
    """Draw the parts of every estimator's error against the true system, a panel per horizon.

    The black mark is the sum, with the cross term of the two biases.
    """
    horizons = sorted({row["horizon"] for row in rows})
    names = list(estimator_styles(rows))
    with figure_style():
        figure = Figure(
            figsize=(1.6 + 2.1 * len(horizons), 1.6 + 0.26 * len(names)), layout="constrained"
        )
        panels = figure.subplots(1, len(horizons), sharey=True, squeeze=False)[0]
        for panel, horizon in zip(panels, horizons, strict=True):
            own = [row for row in rows if row["horizon"] == horizon]
            places = [names.index(row["estimator"]) for row in own]
            squares = np.array([max(row["true_squared_norm"], 1e-300) for row in own])
            left = np.zeros(len(own))
            for field, (color, label) in PARTS.items():
                part = np.array([max(row[field], 0.0) for row in own]) / squares
                panel.barh(places, part, left=left, color=color, label=label)
                left += part
            total = np.array([row["split_total"] for row in own]) / squares
            panel.plot(total, places, "|", color="black", markersize=8, label="sum, cross term too")
            panel.set_xscale("symlog", linthresh=0.1)
            panel.set_xlim(left=0.0)
            panel.set_title(f"H = {horizon}")
            panel.set_yticks(range(len(names)), names)
        panels[0].invert_yaxis()
        panels[len(panels) // 2].set_xlabel(
            "Mean squared error over the squared\nnorm of the true gradient"
        )
        with_legend(figure, panels[0], columns=2)
    return figure


def study_figures(
    rows: Sequence[Row],
    steps: Sequence[Row] = (),
    sources: Sequence[Row] = (),
    stability: Sequence[Row] = (),
) -> Mapping[str, Figure]:
    """Return all figures that the rows of a study make, by name."""
    batch_sizes = sorted({row["batch_size"] for row in rows})
    longest = max(row["horizon"] for row in rows)
    largest = [row for row in rows if row["batch_size"] == batch_sizes[-1]]
    at_end = [row for row in rows if row["horizon"] == longest]
    figures = {
        "variance": variance_figure(largest, stability),
        "efficiency": efficiency_figure([r for r in at_end if r in largest]),
    }
    if len(batch_sizes) > 1:
        figures["cosine"] = cosine_figure(at_end)
    if "split_total" in rows[0]:
        figures["split"] = split_figure(largest)
    if steps:
        figures["steps"] = step_figure(steps)
    if sources:
        figures["sources"] = source_figure(sources)
    if stability:
        figures["stability"] = stability_figure(stability)
    return figures

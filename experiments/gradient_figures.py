"""Figures of `experiments.gradient_estimators`, one for each part."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import common
from mbpo_jax.files import Row
from mbpo_jax.laboratory.report.figures import log_integers, relative
from mbpo_jax.reports.figures import (
    BLUE,
    CURVE_STYLES,
    GREY,
    MARKERS,
    figure_style,
    label_ends,
    legend_below,
    save_figure,
    step_axis,
)

Key = Callable[[Row], object]


def curves(
    panel: Axes,
    rows: Sequence[Row],
    x: str,
    y: str = "variance",
    label: Key = lambda row: row["estimator"],
    order: Sequence[object] = (),
    rough: str | None = None,
) -> None:
    """Draw a number against another, a curve for each label, with intervals where there are any.

    Where the number is not known, `rough` may name one to draw in its place, with an open marker.
    """
    labels = list(dict.fromkeys([*order, *map(label, rows)]))
    for i, name in enumerate(labels):
        color, line = CURVE_STYLES[i]
        if rough:
            every = [row for row in rows if label(row) == name]
            points = [(row[x], row[rough] if row[y] is None else row[y]) for row in every]
            points = [(a, b) for a, b in points if b is not None]
            panel.plot(*np.transpose(points), color=color, linestyle=line, label=str(name))
            unknown = [(row[x], row[rough]) for row in every if row[y] is None and row[rough]]
            panel.plot(
                *np.transpose(unknown or [(np.nan, np.nan)]),
                color=color,
                linestyle="none",
                marker=MARKERS[i % len(MARKERS)],
                markersize=4,
                markerfacecolor="white",
            )
        own = [row for row in rows if label(row) == name and row[y] is not None]
        ends = [row.get(f"{y}_interval") or (row[y], row[y]) for row in own]
        values = np.array([row[y] for row in own])
        panel.errorbar(
            [row[x] for row in own],
            values,
            np.abs(np.array(ends).reshape(-1, 2).T - values[None]),
            color=color,
            linestyle="none" if rough else line,
            marker=MARKERS[i % len(MARKERS)],
            markersize=3,
            capsize=2,
            elinewidth=0.8,
            label="_" if rough else str(name),
        )
    panel.set_yscale("log")


def selected(rows: Sequence[Row], **values: object) -> list[Row]:
    """Return the rows that have these values."""
    return [row for row in rows if all(row.get(name) == value for name, value in values.items())]


FORMULAS = {"quadratic": "(x - k)²", "exponential": "exp(-k x²)", "cosine": "cos(k x)"}


def one_step(rows: Sequence[Row]) -> Figure:
    """Draw variances against the parameter of three functions."""
    functions = list(dict.fromkeys(row["function"] for row in rows))
    figure = Figure(figsize=(8.2, 5.0), layout="constrained")
    panels = figure.subplots(2, len(functions), sharey="row")
    for axes, parameter in zip(panels, ("mean", "std"), strict=True):
        for panel, function in zip(axes, functions, strict=True):
            own = selected(rows, function=function, parameter=parameter)
            curves(panel, own, "k", order=("rp", "lr_total", "lr_loo", "mvd"))
            panel.set_ylim(1e-3, 1e3)
            panel.set_title(
                {"quadratic": "(x - k)²", "exponential": "exp(-k x²)"}.get(function, "cos(k x)")
            )
            panel.set_xlabel("k")
        axes[0].set_ylabel(f"Variance of the gradient\nin the {parameter}, one sample")
    legend_below(figure, *panels.flat)
    return figure


def linear_quadratic(rows: Sequence[Row]) -> Figure:
    """Draw variances against the horizon, and the trade-off of value expansion."""
    figure = Figure(figsize=(8.2, 3.8), layout="constrained")
    left, *others = figure.subplots(1, 3)
    table = [row for row in rows if "window" not in row]
    curves(left, table, "horizon")
    step_axis(left, "Horizon H (steps)")
    left.set_ylabel("Variance of one trajectory's gradient")
    left.legend(fontsize=7)
    for panel, error in zip(others, (0.0, 0.3), strict=True):
        own = selected(rows, estimator="svg_tiled", critic_error=error)
        windows = [row["window"] for row in own]
        bias = np.array([(row["gradient"] - row["exact"]) ** 2 for row in own])
        variance = np.array([row["variance"] for row in own]) / 16
        panel.bar(windows, bias, color=CURVE_STYLES[1][0], label="bias, squared")
        panel.bar(windows, variance, bottom=bias, color=CURVE_STYLES[0][0], label="variance")
        panel.set_title(f"critic off by {error:g} x²", fontsize=9)
        step_axis(panel, "Window h (steps)")
        panel.set_ylabel("Mean squared error of 16 trajectories")
        panel.set_ylim(0.0, 3.0)
    others[0].legend()
    return figure


def chaos(rows: Sequence[Row]) -> Figure:
    """Draw variances against the horizon for every gain of the network."""
    figure = Figure(figsize=(8.2, 3.8), layout="constrained")
    panels = figure.subplots(1, 3)
    single = [row for row in rows if row.get("batch_size") is None]
    for panel, name, title in zip(
        panels, ("rp", "lr"), ("pathwise", "likelihood ratio"), strict=False
    ):
        own = selected(single, estimator=name)
        curves(panel, own, "horizon", label=lambda row: f"β = {row['beta']:g}")
        panel.set_title(title)
        panel.set_ylabel("Variance of one trajectory's gradient")
    curves(panels[2], selected(rows, batch_size=1000), "horizon")
    panels[2].set_title("β = 2.4")
    panels[2].set_ylabel("Variance of an estimate of 1,000 trajectories")
    panels[2].legend()
    for panel in panels:
        step_axis(panel, "Horizon H (steps)")
    panels[0].legend()
    return figure


def fall(rows: Sequence[Row]) -> Figure:
    """Draw variances of the falling double pendulum against the horizon."""
    return _two_estimators(rows, "horizon", "Horizon H (steps of 0.05 s)")


def stiffness(rows: Sequence[Row]) -> Figure:
    """Draw variances of pushing against the stiffness."""
    return _two_estimators(rows, "stiffness", "Stiffness of the contact (N/m)")


def _two_estimators(rows: Sequence[Row], x: str, label: str) -> Figure:
    figure = Figure(figsize=(4.6, 3.4), layout="constrained")
    panel = figure.subplots()
    curves(panel, rows, x)
    panel.set_xscale("log")
    panel.set_xlabel(label)
    panel.set_ylabel("Variance of one trajectory's gradient")
    panel.legend()
    return figure


def steps(rows: Sequence[Row]) -> Figure:
    """Draw variance against the width of a step, and the mean of weighted estimators."""
    figure = Figure(figsize=(8.2, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    exact = [row for row in rows if "batch_size" not in row]
    curves(left, exact, "width")
    widths = sorted({row["width"] for row in exact})
    left.plot(widths, [8.0 / w for w in widths], ":", color=GREY, label="8 / width")
    left.set_ylabel("Variance of one sample's gradient")
    weighted = [
        {**row, "found": row["gradient"] / row["exact"]} for row in selected(rows, batch_size=10)
    ]
    curves(right, weighted, "width", "found")
    right.set_yscale("linear")
    right.axhline(1.0, color=GREY, linewidth=0.8)
    right.set_ylabel("Mean of estimates of 10 samples\nover the true gradient")
    for panel in (left, right):
        panel.set_xscale("log")
        panel.set_xlabel("Width of the step")
        panel.legend()
    return figure


def contact(rows: Sequence[Row]) -> Figure:
    """Draw the error of weighted estimators under stiff contact."""
    figure = Figure(figsize=(8.2, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)

    def name(row: Row) -> str:
        tolerance = row.get("tolerance")
        return row["estimator"] + (f" {tolerance:g}" if tolerance else "")

    for panel, size in zip(panels, (10, 100), strict=True):
        own = selected(rows, batch_size=size)
        labels = [name(row) for row in own]
        panel.set_xscale("log")
        for place, row in enumerate(own):
            square = row["reference_norm"] ** 2
            if row["mean_squared_error"] is None:
                across = panel.get_yaxis_transform()
                panel.text(0.02, place, "heavy tails", color=GREY, va="center", transform=across)
                continue
            value = row["mean_squared_error"] / square
            low, high = (end / square for end in row["mean_squared_error_interval"])
            panel.errorbar(
                value, place, xerr=[[value - low], [high - value]], fmt="o", color=BLUE, capsize=2
            )
        panel.set_yticks(range(len(own)), labels)
        panel.set_title(f"{size} trajectories")
        panel.set_xlabel("Mean squared error over the\ngradient's squared norm")
    panels[0].invert_yaxis()
    return figure


def trained_run(rows: Sequence[Row]) -> Figure:
    """Draw variance, and error against the true gradient, of all estimators against the horizon.

    Open markers are medians of the variances of eight groups of estimates, where tails are heavy.
    """
    learned = [
        {**row, "rough": rough / row["reference_norm"] ** 2 if rough else None}
        for row in relative(rows)
        if "learned" in row["problem"]
        for rough in [row["median_of_means_variance"]]
    ]
    kinds = {
        "likelihood ratios and differences": lambda n: n[:2] == "lr" or n in ("es", "fd", "mvd"),
        "pathwise and critic": lambda n: n[:2] == "rp" or n[:3] == "svg" or n == "q",
        "weighted": lambda n: n in ("mix", "aobg", "ddcg", "tp") or n[:3] == "ivw",
    }
    errors = [
        {**row, "error": row["split_total"] / max(row["true_squared_norm"], 1e-12)}
        for row in learned
        if row["split_total"] is not None and not row["heavy_tailed"]
    ]
    errors = [row for row in errors if row["error"] > 0.0]
    figure = Figure(figsize=(11.0, 6.6), layout="constrained")
    panels = figure.subplots(2, 3, sharey="row")
    for column, (title, belongs) in enumerate(kinds.items()):
        above, below = panels[:, column]
        own = [row for row in learned if belongs(row["estimator"])]
        names = list(dict.fromkeys(row["estimator"] for row in own))
        curves(above, own, "horizon", "relative", rough="rough")
        found = [row for row in errors if belongs(row["estimator"])]
        curves(below, found, "horizon", "error", order=names)
        above.set_title(title, fontsize=9)
        for panel in (above, below):
            log_integers(panel, [row["horizon"] for row in rows], "Horizon H (steps)")
    panels[0, 0].set_ylabel("Variance of 16 trajectories over the\nsquared norm of the gradient")
    panels[1, 0].set_ylabel("Mean squared error over the squared\nnorm of the true gradient")
    for panel in panels.flat:
        label_ends(panel, {})
    return figure


def spectral_norm(rows: Sequence[Row]) -> Figure:
    """Draw variance, model bias and exponent against the horizon, with and without."""
    figure = Figure(figsize=(8.6, 3.4), layout="constrained")
    drawn = {
        "relative": "Variance of 16 trajectories over the\nsquared norm of the gradient",
        "bias": "Squared model bias over the squared\nnorm of the true gradient",
        "moment_exponent": "Second-moment exponent (nats per step)",
    }
    full = [
        {**row, "bias": row["split_model_bias"] / row["true_squared_norm"]}
        for row in relative(rows)
        if row["true_squared_norm"] > 0.0
    ]
    for panel, (field, label) in zip(figure.subplots(1, 3), drawn.items(), strict=True):
        known = [row for row in full if row[field] is not None]
        if field == "bias":
            known = [row for row in known if row["bias"] > 0.0]
        curves(panel, known, "horizon", field, label=_normalised)
        if field == "moment_exponent":
            panel.set_yscale("linear")
        log_integers(panel, [row["horizon"] for row in rows], "Horizon H (steps)")
        panel.set_ylabel(label)
    figure.axes[0].legend()
    return figure


def _normalised(row: Row) -> str:
    return "spectral norm" if row["spectral_norm"] else "plain"


DRAW: dict[str, Callable[[Sequence[Row]], Figure]] = {
    "one_step": one_step,
    "linear_quadratic": linear_quadratic,
    "chaos": chaos,
    "fall": fall,
    "stiffness": stiffness,
    "steps": steps,
    "contact": contact,
    "spectral_norm": spectral_norm,
    "run_pendulum": trained_run,
    "run_inverted_pendulum": trained_run,
}


def draw_all(rows: Sequence[Row]) -> None:
    """Draw every part that has rows."""
    for part, draw in DRAW.items():
        own = selected(rows, part=part)
        if own:
            with figure_style():
                figure = draw(own)
            save_figure(common.RESULTS / f"gradient_estimators_{part}.png", figure)

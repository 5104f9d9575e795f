"""The figure and the table of `experiments.model_fitting`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from experiments import common
from mbpo_jax.files import Row
from mbpo_jax.reports.figures import (
    CURVE_STYLES,
    draw_band,
    figure_style,
    legend_below,
    save_figure,
)

REFERENCE = "early"
MEASURES = {
    "nll": "Median log-loss beyond the reference's",
    "k_step_error": "10-step error / reference's",
}
OTHERS = "osD^vPX*<>dphH"


def means(rows: Sequence[Row], part: str, column: str) -> np.ndarray:
    """Return the mean of a column over the fits of each seed, `[seeds]`."""
    own = [row for row in rows if row["part"] == part]
    seeds = sorted({row["seed"] for row in own})
    return np.array([np.mean([r[column] for r in own if r["seed"] == s]) for s in seeds])


def total(rows: Sequence[Row], part: str, column: str) -> float:
    """Return the sum of a column over the fits, averaged over seeds."""
    own = [row for row in rows if row["part"] == part]
    return sum(row[column] for row in own) / len({row["seed"] for row in own})


def against_reference(rows: Sequence[Row], schedule: str, rule: str, column: str) -> np.ndarray:
    """Return a rule's number in terms of the reference's, `[seeds]`: less, or how many times."""
    own = means(rows, f"{schedule}: {rule}", column)
    reference = means(rows, f"{schedule}: {REFERENCE}", column).mean()
    return own - reference if column == "nll" else own / reference


def rules_of(rows: Sequence[Row], schedule: str) -> list[str]:
    """Return the rules that have rows, in their order."""
    parts = dict.fromkeys(row["part"] for row in rows)
    return [part.partition(": ")[2] for part in parts if part.startswith(f"{schedule}: ")]


def is_plain_budget(rule: str) -> bool:
    """Return whether a rule is a budget and nothing else."""
    return rule.startswith("budget") and "," not in rule


def panel(
    axes: Axes, rows: Sequence[Row], schedule: str, column: str, others: Sequence[str]
) -> None:
    """Draw each rule at its gradient steps.

    Args:
      axes: to draw into.
      rows: of one task.
      schedule: "dense" or "sparse".
      column: a measure.
      others: rules that are no plain budgets, of all tasks: each has its marker and colour in all.
    """
    rules = rules_of(rows, schedule)
    axes.axhline(0.0 if column == "nll" else 1.0, color="0.6", linewidth=0.8)
    plain = sorted(
        (total(rows, f"{schedule}: {rule}", "gradient_steps"), rule)
        for rule in rules
        if is_plain_budget(rule)
    )
    if plain:
        x = [steps for steps, _ in plain]
        y = np.array([against_reference(rows, schedule, rule, column) for _, rule in plain])
        color = CURVE_STYLES[0][0]
        axes.plot(x, y.mean(axis=1), ".-", color=color, label="budget of N steps")
        draw_band(axes, x, y.min(axis=1), y.max(axis=1), color)
        for steps, value, (_, rule) in zip(x, y.mean(axis=1), plain, strict=True):
            axes.annotate(
                rule.removeprefix("budget "),
                (steps, value),
                textcoords="offset points",
                xytext=(0, 5),
                ha="center",
                fontsize="x-small",
            )
    for i, rule in enumerate(others):
        if rule not in rules:
            continue
        y = against_reference(rows, schedule, rule, column)
        x = total(rows, f"{schedule}: {rule}", "gradient_steps")
        axes.errorbar(
            x,
            y.mean(),
            np.array([[y.mean() - y.min()], [y.max() - y.mean()]]),
            marker=OTHERS[i % len(OTHERS)],
            color=CURVE_STYLES[(i + 1) % len(CURVE_STYLES)][0],
            linestyle="",
            markersize=5,
            elinewidth=0.8,
            label=rule,
        )
    count_logarithmically(axes)


def count_logarithmically(axes: Axes) -> None:
    """Give a panel a logarithmic axis of counts, written in full."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def draw(path: Path, by_task: Mapping[str, Sequence[Row]], schedule: str = "dense") -> None:
    """Draw both measures of all tasks against the gradient steps of a schedule."""
    by_task = {task: rows for task, rows in by_task.items() if rules_of(rows, schedule)}
    rules = dict.fromkeys(rule for rows in by_task.values() for rule in rules_of(rows, schedule))
    others = [rule for rule in rules if not is_plain_budget(rule)]
    with figure_style():
        figure = Figure(figsize=(3.6 * len(by_task), 6.6), layout="constrained")
        grid = figure.subplots(len(MEASURES), len(by_task), squeeze=False, sharex="col")
        for column, (task, rows) in enumerate(by_task.items()):
            for line, (name, label) in enumerate(MEASURES.items()):
                panel(grid[line, column], rows, schedule, name, others)
                if column == 0:
                    grid[line, column].set_ylabel(label)
            grid[0, column].set_title(task)
            grid[-1, column].set_xlabel("Gradient steps of all fits")
        legend_below(figure, *grid.flat)
    save_figure(path, figure)


def table(by_task: Mapping[str, Sequence[Row]]) -> str:
    """Return the table of all rules in Markdown."""
    lines = [
        "Means over the fits and over two seeds: gradient steps and seconds of all fits (on a core",
        "beside other work, so seconds tell little), the median log-loss of one step over the",
        "1,000 transitions that come next, less the reference's (`early`), and the error of",
        "open-loop predictions over ten steps, over the reference's.",
    ]
    for task, rows in by_task.items():
        for schedule in ("dense", "sparse"):
            if not (rules := rules_of(rows, schedule)):
                continue
            names = ("rule", "gradient steps", "seconds", "log-loss", "ten-step error")
            cells = []
            for rule in sorted(
                rules, key=lambda r: total(rows, f"{schedule}: {r}", "gradient_steps")
            ):
                steps, seconds = (
                    total(rows, f"{schedule}: {rule}", name)
                    for name in ("gradient_steps", "seconds")
                )
                nll, error = (
                    against_reference(rows, schedule, rule, name).mean() for name in MEASURES
                )
                cells.append(
                    (rule, f"{steps:,.0f}", f"{seconds:,.0f}", f"{nll:+.3f}", f"{error:.3f}")
                )
            lines += ["", f"## {task}, {schedule}", "", common.markdown(names, cells)]
    return "\n".join(lines) + "\n"

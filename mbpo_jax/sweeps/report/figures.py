"""Figures of a sweep; each is built by one function from its summary.

Points and lines are interquartile means over seeds with 95 % intervals of a stratified bootstrap;
under three seeds there are no intervals.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbpo_jax.files import Row
from mbpo_jax.reports import statistics
from mbpo_jax.reports.figures import (
    THOUSANDS,
    Style,
    banded,
    draw_band,
    draw_rows,
    figure_style,
    legend_below,
    name_curves,
    step_axis,
    styles_of,
)
from mbpo_jax.reports.statistics import Estimate, Scores, estimate
from mbpo_jax.sweeps.report.summary import (
    AGGREGATES,
    RETURNS,
    Sensitivity,
    Variant,
    best_variants,
    curve_of,
    environments_of,
    in_order,
    scores_by_algorithm,
    sensitivities,
    shown,
)

SCALE = "Scores, 0 for the worst run and 1 for the middle of the best variant"
MOST_CURVES = 8
"""Variants of an environment that are all drawn; of more, the best of each algorithm."""

Styles = Mapping[str, Style]


def curves_figure(
    variants: Sequence[Variant], evaluations: Sequence[Row], environment: str
) -> Figure:
    """Draw the learning curves of one environment.

    Of more than four, those that end lower have their interval at the end alone.
    """
    own = [v for v in variants if v.environment == environment and v.rows]
    if len(own) > MOST_CURVES:
        own = best_variants(variants, environment)
    if len({v.algorithm for v in own}) == len(own):
        by_algorithm = styles_of([v.algorithm for v in variants])
        styles = {v.label: by_algorithm[v.algorithm] for v in own}
    else:
        styles = styles_of([v.label for v in own])
    with figure_style():
        figure = Figure(figsize=(7.5, 3.6), layout="constrained")
        panel = figure.subplots()
        curves = {variant.label: curve_of(variant, evaluations) for variant in own}
        curves = {label: curve for label, curve in curves.items() if curve.env_steps.size}
        whole = banded({label: curve.middle.value[-1] for label, curve in curves.items()})
        for label, (steps, middle) in curves.items():
            color, line, _ = styles[label]
            panel.plot(steps, middle.value, line, color=color, label=label)
            draw_band(panel, steps, middle.low, middle.high, color, label in whole)
        step_axis(panel, "Environment steps")
        panel.margins(x=0.0)
        panel.set_ylabel("Return of an evaluation")
        panel.yaxis.set_major_formatter(THOUSANDS)
        panel.set_title(environment)
        name_curves(figure, panel)
    return figure


def _bars(
    panel: Axes, labels: Sequence[str], found: Sequence[Estimate], styles: Sequence[tuple]
) -> None:
    """Draw numbers with their intervals, one below the other."""
    values = [float(one.value) for one in found]
    ends = [(float(one.low), float(one.high)) for one in found]
    draw_rows(panel, labels, values, ends, [(color, marker) for color, _, marker in styles])
    panel.locator_params(axis="x", nbins=4)


def intervals_figure(variants: Sequence[Variant], environment: str) -> Figure:
    """Draw the final and the mean return of every variant of one environment."""
    own = [v for v in variants if v.environment == environment and v.rows]
    by_algorithm = styles_of([v.algorithm for v in variants])
    styles = [by_algorithm[v.algorithm] for v in own]
    with figure_style():
        figure = Figure(figsize=(7.5, 1.2 + 0.25 * len(own)), layout="constrained")
        panels = figure.subplots(1, len(RETURNS), sharey=True)
        for panel, (column, title) in zip(panels, RETURNS.items(), strict=True):
            _bars(panel, [v.label for v in own], [v.middle(column) for v in own], styles)
            panel.set_xlabel(title)
            panel.xaxis.set_major_formatter(THOUSANDS)
    return figure


def sensitivity_figure(variants: Sequence[Variant], field: str) -> Figure | None:
    """Draw returns against one swept setting, a column per environment; None if it is not swept."""
    swept = [n for n in environments_of(variants) if sensitivities(variants, n, field)]
    if not swept:
        return None
    styles = styles_of([v.algorithm for v in variants])
    with figure_style():
        figure = Figure(figsize=(1.5 + 2.8 * len(swept), 4.6), layout="constrained")
        grid = figure.subplots(len(RETURNS), len(swept), squeeze=False, sharex="col")
        for row, (column, title) in zip(grid, RETURNS.items(), strict=True):
            row[0].set_ylabel(title)
            for panel, environment in zip(row, swept, strict=True):
                found = sensitivities(variants, environment, field, column)
                _answers(panel, found, column, styles)
        for panel, environment in zip(grid[0], swept, strict=True):
            panel.set_title(environment)
        for panel in grid[-1]:
            panel.set_xlabel(field)
        legend_below(figure, *grid[0])
    return figure


def _answers(panel: Axes, found: Sequence[Sensitivity], column: str, styles: Styles) -> None:
    """Draw how algorithms answer to a setting, at places that are evenly spaced."""
    values = sorted(dict.fromkeys(x for s in found for x in s.values), key=in_order)
    for place, s in enumerate(found):
        color, line, marker = styles[s.algorithm]
        middles = [v.middle(column) for v in s.best]
        middle = np.array([m.value for m in middles])
        ends = [middle - [m.low for m in middles], [m.high for m in middles] - middle]
        panel.errorbar(
            # A little apart, so that intervals can be told.
            [values.index(x) + 0.04 * place for x in s.values],
            middle,
            np.maximum(np.nan_to_num(ends), 0.0),
            color=color,
            linestyle=line,
            marker=marker,
            capsize=3,
            label=s.algorithm,
        )
    panel.set_xticks(range(len(values)), [shown(x) for x in values])
    panel.yaxis.set_major_formatter(THOUSANDS)


def aggregates_figure(scores: Mapping[str, Scores]) -> Figure:
    """Draw aggregates over environments of algorithms' normalised scores."""
    styles = list(styles_of(list(scores)).values())
    with figure_style():
        figure = Figure(figsize=(8.5, 1.3 + 0.25 * len(scores)), layout="constrained")
        for panel, (name, statistic) in zip(
            figure.subplots(1, len(AGGREGATES), sharey=True), AGGREGATES.items(), strict=True
        ):
            found = [estimate(statistic, own) for own in scores.values()]
            _bars(panel, list(scores), found, styles)
            panel.set_xlabel(name)
        figure.suptitle(SCALE, x=0.01, ha="left")
    return figure


def profile_figure(scores: Mapping[str, Scores]) -> Figure:
    """Draw the share of algorithms' runs above each normalised score."""
    highest = max((np.max(x) for own in scores.values() for x in own), default=1.0)
    thresholds = np.linspace(0.0, max(highest, 1.0), 101)
    with figure_style():
        figure = Figure(figsize=(5.5, 3.2), layout="constrained")
        panel = figure.subplots()
        styles = styles_of(list(scores))
        found = {
            name: estimate(lambda x: statistics.performance_profile(x, thresholds), own)
            for name, own in scores.items()
        }
        # All profiles end at 0, so that it is their areas that say which is highest.
        whole = banded({name: float(np.mean(one.value)) for name, one in found.items()})
        for name, one in found.items():
            color, line, _ = styles[name]
            panel.plot(thresholds, one.value, line, color=color, label=name)
            if name in whole:
                draw_band(panel, thresholds, one.low, one.high, color)
        panel.set_xlabel(SCALE)
        panel.set_ylabel("Share of runs above")
        legend_below(figure, panel)
    return figure


def report_figures(variants: Sequence[Variant], evaluations: Sequence[Row]) -> dict[str, Figure]:
    """Return all figures of a sweep by names that files can have.

    Args:
      variants: of the sweep.
      evaluations: of all runs, with their `id`.
    """
    begun = [variant for variant in variants if variant.rows]
    environments, figures = environments_of(begun), {}
    for environment in environments:
        figures[f"curves-{environment}"] = curves_figure(begun, evaluations, environment)
        figures[f"variants-{environment}"] = intervals_figure(begun, environment)
    for column in RETURNS:
        scores = scores_by_algorithm(begun, column)
        if len(scores) > 1:
            figures[f"profiles-{column}"] = profile_figure(scores)
            if len(environments) > 1:
                figures[f"aggregates-{column}"] = aggregates_figure(scores)
    for field in dict.fromkeys(field for variant in begun for field in variant.settings):
        if figure := sensitivity_figure(begun, field):
            figures[f"sensitivity-{field}"] = figure
    return figures

"""Learning curves that a reader of the page can ask, of all variants of an environment."""

from collections.abc import Sequence

from mbpo_jax.files import Row
from mbpo_jax.reports import charts
from mbpo_jax.reports.figures import styles_of
from mbpo_jax.sweeps.report.figures import MOST_CURVES, curves_figure
from mbpo_jax.sweeps.report.summary import Variant, best_variants, curve_of


def curves_of(variants: Sequence[Variant], evaluations: Sequence[Row], environment: str) -> str:
    """Return the learning curves of one environment as HTML.

    What the figure shows is drawn at first, in its colours; the other variants can be chosen.

    Args:
      variants: that have results.
      evaluations: of all runs.
      environment: whose curves.
    """
    own = [v for v in variants if v.environment == environment]
    runs = {row["id"] for v in own for row in v.rows}
    evaluations = [row for row in evaluations if row["id"] in runs]
    best = best_variants(variants, environment)
    at_first = own if len(own) <= MOST_CURVES else best
    chosen = {v.label for v in at_first}
    # As the figure has them: by algorithm where each has one curve.
    alone = len({v.algorithm for v in at_first}) == len(at_first)
    names = {v.label: v.algorithm if alone and v.label in chosen else v.label for v in own}
    before = [v.algorithm for v in variants] if alone else []
    styles = styles_of([*before, *names.values()])
    lines = []
    for variant in sorted(own, key=lambda v: v.label not in chosen):
        curve = curve_of(variant, evaluations)
        color, dash, _ = styles[names[variant.label]]
        lines.append(
            charts.Line(
                variant.label,
                curve.env_steps,
                curve.middle,
                color,
                dash,
                variant.label in chosen,
            )
        )
    what = "Learning curves" if at_first is own else "Learning curves at the best settings"
    return charts.chart_of(
        lines,
        "Environment steps",
        "Return of an evaluation",
        curves_figure(variants, evaluations, environment),
        f"{what}: interquartile means over seeds, with 95 % intervals.",
    )

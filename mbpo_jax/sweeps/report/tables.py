"""Tables of a sweep: headings, then rows of cells; a page or a terminal shows them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mbpo_jax.reports import page, statistics
from mbpo_jax.reports.statistics import Scores, estimate
from mbpo_jax.sweeps.report.summary import (
    MODEL_COLUMNS,
    RETURNS,
    Variant,
    environments_of,
    number,
    sensitivities,
    shown,
    with_interval,
)


def variant_table(variants: Sequence[Variant]) -> page.Table:
    """Return a row for every variant; time and speed are a run's share of what its group took."""
    head = ["environment", "variant", "trained", *RETURNS.values(), "minutes a run", "steps/s"]
    body = []
    for v in variants:
        seconds, steps = v.scores("run_seconds"), v.scores("env_steps")
        body.append(
            [
                v.environment,
                v.label,
                f"{v.trained} of {v.size}",
                *(with_interval(v.middle(column)) if v.rows else "-" for column in RETURNS),
                number(float(np.mean(seconds)) / 60.0, 3) if v.rows else "-",
                number(float(np.mean(steps / seconds)), 3) if v.rows else "-",
            ]
        )
    diverged = [sum(bool(row["diverged"]) for row in v.rows) for v in variants]
    if any(diverged):
        head.append("diverged")
        body = [[*row, str(count)] for row, count in zip(body, diverged, strict=True)]
    return [head, *body]


def improvement_table(scores: Mapping[str, Scores]) -> page.Table:
    """Return how likely a run of one algorithm scores above one of another."""

    def chance(a: str, b: str) -> str:
        if a == b:
            return ""
        found = estimate(statistics.probability_of_improvement, scores[a], scores[b])
        return with_interval(found, decimals=2)

    body = [[a, *(chance(a, b) for b in scores)] for a in scores]
    return [["P(row above column)", *scores], *body]


def sensitivity_table(variants: Sequence[Variant], fields: Sequence[str]) -> page.Table:
    """Return the best value of every swept setting, by each of the returns."""
    body = []
    for field in fields:
        for environment in environments_of(variants):
            by_column = [sensitivities(variants, environment, field, column) for column in RETURNS]
            for found in zip(*by_column, strict=True):
                cells = []
                for column, one in zip(RETURNS, found, strict=True):
                    heights = [v.height(column) for v in one.best]
                    best = heights.index(max(heights))
                    cells += [shown(one.values[best]), with_interval(one.best[best].middle(column))]
                body.append([field, environment, found[0].algorithm, *cells])
    columns = [text for words in RETURNS.values() for text in (f"best by {words}", words)]
    return [["setting", "environment", "algorithm", *columns], *body]


def model_table(variants: Sequence[Variant]) -> page.Table | None:
    """Return how well the models of every variant predicted at the end, means over seeds."""
    body = []
    for v in variants:
        values = [v.scores(column) for column in MODEL_COLUMNS]
        if np.isfinite(values).any():
            means = [number(float(np.mean(x)), 3) for x in values]
            body.append([v.environment, v.label, *means])
    names = [column.removeprefix("model/").replace("_", " ") for column in MODEL_COLUMNS]
    return [["environment", "variant", *names], *body] if body else None


def machine_table(environments: Sequence[Mapping[str, Any]]) -> page.Table:
    """Return what the groups of a sweep were trained with; what differs is listed."""
    found = [_facts(environment) for environment in environments] or [_facts({})]
    names = dict.fromkeys(name for facts in found for name in facts)
    values = [dict.fromkeys(facts.get(name, "-") for facts in found) for name in names]
    begun = min(facts["begun"] for facts in found)
    body = [[name, "; ".join(told)] for name, told in zip(names, values, strict=True)]
    return [["what", "value"], *body[:-1], ["begun", begun]]


def _facts(environment: Mapping[str, Any]) -> dict[str, str]:
    versions = environment.get("versions", {})
    return {
        "devices": ", ".join(environment.get("devices", [])) or "-",
        "machine": str(environment.get("platform", "-")),
        "cores": str(environment.get("host_cores", "-")),
        "Python": str(environment.get("python", "-")),
        **{name: str(version or "-") for name, version in versions.items()},
        "source": str(environment.get("git_revision") or "-"),
        "begun": str(environment.get("time", "-")),
    }

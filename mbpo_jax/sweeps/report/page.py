"""The report of a sweep as one HTML file that needs no network."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mbpo_jax.files import Row
from mbpo_jax.reports import page, statistics
from mbpo_jax.reports.statistics import Estimate, Scores, estimate
from mbpo_jax.sweeps.report.figures import (
    MOST_CURVES,
    aggregates_figure,
    curves_figure,
    intervals_figure,
    profile_figure,
    sensitivity_figure,
)
from mbpo_jax.sweeps.report.summary import (
    MODEL_COLUMNS,
    RETURNS,
    Variant,
    environments_of,
    ranked,
    scores_by_algorithm,
    sensitivities,
    shown,
    swept_fields,
    variants_of,
)

FOLDER = Path(__file__).parent


def number(value: float | None, digits: int = 4) -> str:
    """Return a number as a table shows it; a dash where it is not known."""
    if value is None or not np.isfinite(value):
        return "-"
    return f"{value:,.0f}" if round(abs(value)) >= 10 ** (digits - 1) else f"{value:,.{digits}g}"


def with_interval(found: Estimate) -> str:
    """Return a number and its interval."""
    if not np.isfinite(found.low):
        return number(float(found.value))
    value, low, high = (number(float(x)) for x in found)
    return f"{value} ({low} to {high})"


def findings(variants: Sequence[Variant], rows: Sequence[Row]) -> list[str]:
    """Say in sentences how much is done, which algorithm leads where, and what to mind."""
    lines = [f"{sum(row['trained'] for row in rows)} of {len(rows)} runs are trained"]
    diverged = sum(bool(row["diverged"]) for row in rows)
    if diverged:
        lines.append(f"non-finite: {diverged} runs, which count with their last finite parameters")
    failed = sorted({row["group"] for row in rows if row["state"] == "failed"})
    if failed:
        lines.append(f"failed groups: {', '.join(failed)}")
    for environment in environments_of(variants):
        own = ranked(variants, environment)
        if not own:
            continue
        best, *others = own
        middle = best.middle()
        # False where there is no interval.
        tied = [v.label for v in others if v.middle().high >= middle.low]
        left = sum(v.environment == environment and v.trained < v.size for v in variants)
        so_far = " so far" if left else ""
        text = f"{environment}: {best.label} has the highest final return{so_far}, "
        text += with_interval(middle)
        if tied:
            text += f"; the intervals of {page.few(tied, 3)} reach it"
        fastest = ranked(variants, environment, "mean_return")[0]
        text += f"; the highest mean return, {with_interval(fastest.middle('mean_return'))}, has "
        text += "the same" if fastest is best else fastest.label
        if left:
            text += f"; {left} variants are not trained to their end"
        lines.append(text)
    few = [v for v in variants if 0 < len(v.rows) < statistics.FEWEST]
    if few:
        lines.append(f"{len(few)} variants have fewer than {statistics.FEWEST} seeds: no intervals")
    return lines


def variant_table(variants: Sequence[Variant]) -> page.Table:
    """Return numbers of every variant; time and speed are a run's share of what its group took."""
    head = ["environment", "variant", "runs trained", "final return (IQM)", "mean return (IQM)"]
    head += ["minutes a run", "env steps/s", "diverged"]
    body = []
    for v in variants:
        seconds, steps = v.scores("run_seconds"), v.scores("env_steps")
        body.append(
            [
                v.environment,
                v.label,
                str(v.size) if v.trained == v.size else f"{v.trained} of {v.size}",
                with_interval(v.middle()) if v.rows else "-",
                with_interval(v.middle("mean_return")) if v.rows else "-",
                number(float(np.mean(seconds)) / 60.0, 3) if v.rows else "-",
                number(float(np.mean(steps / seconds)), 3) if v.rows else "-",
                str(sum(bool(r["diverged"]) for r in v.rows)),
            ]
        )
    return [head, *body]


def comparison(variants: Sequence[Variant]) -> list[str]:
    """Return the part of the page that compares algorithms, where several can be compared."""
    parts = []
    for column, words in RETURNS.items():
        scores = scores_by_algorithm(variants, column)
        if len(scores) < 2:
            return []
        parts += [
            f"<h3>By {words}</h3>",
            page.figure_of(aggregates_figure(scores), "Aggregates over environments."),
            page.figure_of(profile_figure(scores), "Performance profiles."),
            page.table_of(improvement_table(scores)),
        ]
    return [
        "<h2>Algorithms compared, each at its best settings</h2>",
        "<p class=note>The best of several settings is chosen by the same runs that are shown: "
        "an algorithm with more settings has more chances.</p>",
        *parts,
    ]


def improvement_table(scores: Mapping[str, Scores]) -> page.Table:
    """Return how likely a run of one algorithm scores above one of another."""
    body = [
        [
            a,
            *(
                ""
                if a == b
                else with_interval(
                    estimate(statistics.probability_of_improvement, scores[a], scores[b])
                )
                for b in scores
            ),
        ]
        for a in scores
    ]
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


def runs_table(rows: Sequence[Row]) -> str:
    """Return every run in a table that can be sorted and filtered, with links to directories."""
    fields = swept_fields(rows)
    columns = ["environment", "algorithm", "seed", *fields, "final_return", "mean_return"]
    columns += ["env_steps", "run_seconds", "state", "diverged", "run"]

    def cell(row: Row, column: str) -> str:
        value = row[column]
        if column == "diverged":
            value = "yes" if value else ""
        if value is None:
            return "<td data-value=''>-</td>"
        if isinstance(value, float):
            return f"<td data-value='{value!r}'>{html.escape(number(value))}</td>"
        kind = "" if isinstance(value, int) else " class=text"
        return f"<td{kind}>{html.escape(str(value))}</td>"

    heading = "".join(f"<th><button>{html.escape(c)}</button></th>" for c in columns)
    lines = "".join(
        "<tr>"
        + "".join(cell(row, column) for column in columns)
        + f"<td class=text><a href='{html.escape(row['directory'])}/'>"
        + f"{html.escape(row['group'])}</a></td></tr>"
        for row in rows
    )
    return (
        "<p><input id=filter placeholder='filter, such as mbpo finished' "
        "aria-label='filter runs'> <span id=count></span></p>"
        f"<div class=wide><table id=runs><thead><tr>{heading}<th><button>directory</button></th>"
        f"</tr></thead><tbody>{lines}</tbody></table></div>"
    )


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
        **{name: str(version) for name, version in versions.items()},
        "source": str(environment.get("git_revision") or "-"),
        "begun": str(environment.get("time", "-")),
    }


def write_page(
    path: Path,
    title: str,
    rows: Sequence[Row],
    evaluations: Sequence[Row],
    failures: Sequence[Row],
    environments: Sequence[Mapping[str, Any]],
    source: str,
) -> None:
    """Write the report as a whole.

    Args:
      path: of the file; links to run directories are relative to its folder.
      title: heading.
      rows: of `sweeps.results`, one for each run.
      evaluations: of all runs.
      failures: with `group`, `time`, `reason` and `last_line`.
      environments: versions, devices and machine of every group that has begun.
      source: the sweep file's text.
    """
    variants = variants_of(rows)
    begun = [v for v in variants if v.rows]
    fields = swept_fields(rows)
    style = (FOLDER / "runs.css").read_text("utf-8")
    parts = [f"<style>{style}</style>", "<h2>In short</h2><ul>"]
    parts += [f"<li>{html.escape(line)}</li>" for line in findings(variants, rows)]
    parts.append(
        "</ul><p class=note>The final return of a run is the mean of the last tenth of its "
        "evaluations; the mean return is the area under its learning curve, over its steps. "
        "Numbers are interquartile means over seeds, with 95 % intervals of a stratified "
        "bootstrap.</p>"
    )
    for name in environments_of(begun):
        parts.append(f"<h2>{html.escape(name)}</h2>")
        many = sum(v.environment == name for v in begun) > MOST_CURVES
        caption = f"Learning curves{' of each algorithm at its best settings' if many else ''}."
        parts.append(page.figure_of(curves_figure(begun, evaluations, name), caption))
        parts.append(page.figure_of(intervals_figure(begun, name), "Every variant."))
    parts += comparison(begun)
    drawn = {field: figure for field in fields if (figure := sensitivity_figure(begun, field))}
    if drawn:
        parts.append("<h2>Sensitivity</h2>")
        caption = "with all other settings at their best for it"
        parts += [page.figure_of(f, f"{field}, {caption}.") for field, f in drawn.items()]
        parts.append(page.table_of(sensitivity_table(begun, list(drawn))))
    parts += ["<h2>Numbers</h2>", page.table_of(variant_table(variants))]
    if diagnostics := model_table(begun):
        parts += ["<h2>Models</h2>", page.table_of(diagnostics)]
    if failures:
        head = ["group", "time", "reason", "last_line"]
        body = [[str(failure.get(name, "-")) for name in head] for failure in failures]
        parts += ["<h2>Failures</h2>", page.table_of([head, *body])]
    parts += ["<h2>Runs</h2>", runs_table(rows)]
    parts += ["<h2>What was run</h2>", page.table_of(machine_table(environments))]
    parts.append(
        f"<details><summary>sweep file</summary><pre>{html.escape(source)}</pre></details>"
    )
    parts.append(f"<script>{(FOLDER / 'runs.js').read_text('utf-8')}</script>")
    page.write(path, title, parts)

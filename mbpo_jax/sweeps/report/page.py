"""The report of a sweep as one HTML file that needs no network."""

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mbpo_jax.files import Row
from mbpo_jax.reports import charts, page
from mbpo_jax.sweeps.report.conclusions import conclusions
from mbpo_jax.sweeps.report.curves import curves_of
from mbpo_jax.sweeps.report.figures import (
    aggregates_figure,
    intervals_figure,
    profile_figure,
    sensitivity_figure,
)
from mbpo_jax.sweeps.report.summary import (
    RETURNS,
    Variant,
    environments_of,
    number,
    scores_by_algorithm,
    shown,
    swept_fields,
    variants_of,
)
from mbpo_jax.sweeps.report.tables import (
    improvement_table,
    machine_table,
    model_table,
    sensitivity_table,
    variant_table,
)

FOLDER = Path(__file__).parent
NUMBER = r"\d[\d.]*e-\d+"

NOTE = """A run's final return is the mean of the last tenth of its evaluations; its mean return is
the area under its learning curve, over its steps. Numbers are interquartile means over seeds, with
95 % intervals of a stratified bootstrap. What is tied with the best has an interval that reaches
the interval of the best: the runs do not tell them apart, which does not mean that they are
equal."""
BEST_NOTE = """The best of several settings is chosen by the same runs that are shown: an algorithm
with more settings has more chances. Scores are 0 for the worst run of an environment and 1 for the
middle of its best variant."""


def comparison(variants: Sequence[Variant]) -> list[str]:
    """Return the part of the page that compares algorithms, where several can be compared."""
    parts = []
    for column, words in RETURNS.items():
        scores = scores_by_algorithm(variants, column)
        if len(scores) < 2:
            return []
        blocks = [
            page.figure_of(profile_figure(scores), "Performance profiles."),
            page.table_of(improvement_table(scores)),
        ]
        if len(next(iter(scores.values()))) > 1:
            aggregates = aggregates_figure(scores)
            blocks.insert(0, page.figure_of(aggregates, "Aggregates over environments."))
        parts += [f"<h3>By {words}</h3>", page.row_of(blocks)]
    return [f"<p class=note>{BEST_NOTE}</p>", *parts]


def runs_table(rows: Sequence[Row]) -> str:
    """Return every run in a table that can be sorted and filtered, with links to directories."""
    fields = swept_fields(rows)
    columns = ["environment", "algorithm", "seed", *fields, "final_return", "mean_return"]
    columns += ["env_steps", "run_seconds", "state", "diverged", "run"]
    if not any(row["diverged"] for row in rows):
        columns.remove("diverged")

    def kind(value: Any) -> str:
        return "" if value is None or isinstance(value, int | float) else " class=text"

    def cell(row: Row, column: str) -> str:
        value = row[column]
        if column == "diverged":
            value = "yes" if value else ""
        if value is None:
            return "<td data-value=''>-</td>"
        if kind(value):
            return f"<td class=text>{html.escape(str(value))}</td>"
        text = shown(value) if column in fields else f"{value:,}"
        if isinstance(value, float) and column not in fields:
            text = number(value)
        return f"<td data-value='{float(value)!r}'>{html.escape(text)}</td>"

    def heading(name: str, values: Sequence[Any]) -> str:
        # After a dot, too, a line may end.
        words = html.escape(name.replace("_", " ")).replace(".", ".<wbr>")
        return f"<th{kind(values[0])}><button>{words}</button></th>"

    headings = "".join(heading(c, [row[c] for row in rows]) for c in columns)
    lines = "".join(
        "<tr>"
        + "".join(cell(row, column) for column in columns)
        # Environment and algorithm, with which its name begins, stand in the row.
        + f"<td class=text><a href='{html.escape(row['directory'])}/'>"
        + f"{html.escape(row['group'].rpartition('-')[2])}</a></td></tr>"
        for row in rows
    )
    return (
        "<p><input id=filter placeholder='filter, such as mbpo finished' "
        "aria-label='filter runs'> <span id=count></span></p>"
        f"<div class=wide id=runs-place><table id=runs><thead><tr>{headings}"
        "<th class=text><button>group</button></th></tr></thead>"
        f"<tbody>{lines}</tbody></table></div>"
    )


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
    told = map(html.escape, conclusions(variants, rows))
    # A number such as 3e-4 stays on one line.
    kept = (re.sub(NUMBER, r"<span>\g<0></span>", line) for line in told)
    lines = "".join(f"<li>{line}</li>" for line in kept)
    sections = {"In short": [f"<ul>{lines}</ul><p class=note>{NOTE}</p>"]}
    for name in environments_of(begun):
        every = page.figure_of(
            intervals_figure(begun, name), "Final and mean return of every variant."
        )
        sections[name] = [page.row_of([curves_of(begun, evaluations, name), every])]
    sections["Algorithms at their best settings"] = comparison(begun)
    swept = swept_fields(rows)
    drawn = {field: figure for field in swept if (figure := sensitivity_figure(begun, field))}
    if drawn:
        caption = "with all other settings at their best for it"
        figures = [page.figure_of(f, f"{field}, {caption}.") for field, f in drawn.items()]
        table = page.table_of(sensitivity_table(begun, list(drawn)))
        sections["Sensitivity"] = [page.row_of(figures), table]
    sections["Numbers"] = [page.table_of(variant_table(variants))]
    if diagnostics := model_table(begun):
        sections["Models"] = [page.table_of(diagnostics)]
    if failures:
        head = ["group", "time", "reason", "last_line"]
        body = [[str(failure.get(name, "-")) for name in head] for failure in failures]
        sections["Failures"] = [page.table_of([head, *body])]
    sections["Runs"] = [runs_table(rows)]
    file = f"<details open><summary>sweep file</summary><pre>{html.escape(source)}</pre></details>"
    sections["What was run"] = [page.row_of([page.table_of(machine_table(environments)), file])]
    parts = [
        f"<style>{(FOLDER / 'runs.css').read_text('utf-8')}</style>",
        *page.sections_of(sections),
        charts.assets() if begun else "",
        f"<script>{(FOLDER / 'runs.js').read_text('utf-8')}</script>",
    ]
    page.write(path, title, parts)

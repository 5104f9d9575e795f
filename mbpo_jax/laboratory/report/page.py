"""The gradient laboratory's result as one HTML file that needs no network."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mbpo_jax.config import EstimatorRecord
from mbpo_jax.files import Row
from mbpo_jax.laboratory.report.details import (
    slice_figure,
    source_figure,
    stability_figure,
    step_figure,
    weight_figure,
)
from mbpo_jax.laboratory.report.figures import (
    cosine_figure,
    efficiency_figure,
    split_figure,
    variance_figure,
)
from mbpo_jax.reports import page

Notes = Mapping[str, EstimatorRecord]
"""What is known of every estimator, by name."""

CAPTIONS = {
    "variance": "Variance of an estimate over the squared norm of the gradient, at each "
    "horizon. Bars are 95 % intervals; an estimator is missing where its variance could not be "
    "told.",
    "efficiency": "Error against cost at the longest horizon. Lower left is better.",
    "cosine": "How well an estimate points along the gradient. Grey lines: what errors of equal "
    "size in all directions would give.",
    "split": "What the error against the true system is made of.",
    "steps": "Which step's action the gradient comes from, and which its noise.",
    "sources": "How much of the variance is due to each source of noise alone, or to several "
    "together. Shares add up to 1, unless one came out below 0 by chance.",
    "weights": "Weight of the likelihood ratio at each step, mean and 90 % of batches.",
    "slice": "Return along the gradient, up to a tenth of the parameters' length to either side, "
    "with 95 % intervals of the mean.",
    "stability": "Jacobians of the closed loop. The pathwise variance grows as the second moment "
    "of their product, twice the second-moment exponent per step.",
}


def study_figures(
    rows: Sequence[Row],
    steps: Sequence[Row] = (),
    sources: Sequence[Row] = (),
    stability: Sequence[Row] = (),
    weights: Sequence[Row] = (),
    slices: Sequence[Row] = (),
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
    # Of one step alone there is nothing to draw over steps.
    if steps and longest > 1:
        figures["steps"] = step_figure(steps)
    if sources:
        figures["sources"] = source_figure(sources)
    if len(stability) > 1:
        figures["stability"] = stability_figure(stability)
    if weights and longest > 1:
        figures["weights"] = weight_figure(weights)
    if slices:
        figures["slice"] = slice_figure(slices)
    return figures


def write_page(
    path: Path,
    title: str,
    command: str,
    findings: Sequence[str],
    tables: Sequence[page.Table],
    figures: Mapping[str, Figure],
    notes: Notes,
) -> None:
    """Write the page as a whole.

    Args:
      path: of the file.
      title: its heading.
      command: that makes it again.
      findings: sentences.
      tables: headings, then rows of cells.
      figures: by name, see `CAPTIONS`.
      notes: on the estimators.
    """
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in findings)
    drawn = [page.figure_of(figure, CAPTIONS[name]) for name, figure in figures.items()]
    sections = {
        "In short": [f"<ul>{lines}</ul>"],
        "Figures": [page.row_of(drawn)],
        "Numbers": [page.table_of(table) for table in tables],
        "Estimators": [page.table_of(_notes(notes))],
    }
    parts = [f"<p><code>{html.escape(command)}</code></p>", *page.sections_of(sections)]
    page.write(path, title, parts)


def _notes(notes: Notes) -> page.Table:
    """Return what is known of every estimator."""
    body = [
        [
            name,
            f"{record.summary} ({record.source})",
            f"gradient of the {record.estimand}; "
            + (f"biased: {record.biased}" if record.biased else "unbiased"),
        ]
        for name, record in notes.items()
    ]
    return [["estimator", "what it is", "what it estimates"], *body]

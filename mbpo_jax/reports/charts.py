"""Curves that a reader can ask: values under the pointer, and a choice of what is drawn.

A chart stands in a page beside the figure of the same curves, which is what is printed, and what is
there without JavaScript. It is drawn by uPlot, which lies in `chart_assets` and goes into the page.
"""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import colors
from matplotlib.figure import Figure

from mbpo_jax.reports import page
from mbpo_jax.reports.statistics import Estimate

ASSETS = Path(__file__).parent / "chart_assets"
STYLE = Path(__file__).with_suffix(".css")
SCRIPT = Path(__file__).with_suffix(".js")
DASHES = {"-": (), "--": (8, 4), "-.": (8, 3, 2, 3), ":": (2, 3)}
"""Lengths of strokes and gaps, in pixels, of the line styles that figures have."""
OPACITY = 0.18
"""Of an interval."""


class Line(NamedTuple):
    """A curve with intervals, which are NaN where there are none.

    Attributes:
      name: what it is.
      x: where its values are, ascending `[S]`.
      middle: its values, `[S]` each.
      color: as Matplotlib has it.
      dash: of `DASHES`.
      drawn: it is there at first.
    """

    name: str
    x: np.ndarray
    middle: Estimate
    color: str
    dash: str
    drawn: bool = True


def chart_of(
    lines: Sequence[Line], x_label: str, y_label: str, figure: Figure, caption: str
) -> str:
    """Return curves as HTML: a chart, and for print a figure of those that are drawn at first.

    Args:
      lines: all that can be chosen.
      x_label: what is across, which goes in whole numbers.
      y_label: what is up.
      figure: of the lines that are drawn at first.
      caption: what both show.
    """
    caption = html.escape(caption)
    # No text in it can end the element that holds it.
    data = json.dumps(_data(lines, x_label, y_label), allow_nan=False).replace("<", "\\u003c")
    return (
        f"<figure class=chart style='--width: {page.width_of(figure)}'>"
        f"<div class=still>{page.drawing_of(figure, caption)}</div><div class=live hidden></div>"
        f"<script type=application/json>{data}</script><figcaption>{caption}</figcaption></figure>"
    )


def assets() -> str:
    """Return what a page with charts needs, once, behind the last of them."""

    def text(path: Path) -> str:
        return path.read_text("utf-8")

    return (
        f"<!--\n{text(ASSETS / 'THIRD_PARTY.md')}-->\n"
        f"<style>{text(ASSETS / 'uPlot.min.css')}{text(STYLE)}</style>"
        f"<script>{text(ASSETS / 'uPlot.iife.min.js')}</script><script>{text(SCRIPT)}</script>"
    )


def _data(lines: Sequence[Line], x_label: str, y_label: str) -> dict:
    """Return what the script reads; all lines have the same places, null for what is unknown."""
    places = np.unique(np.concatenate([line.x for line in lines])) if lines else np.array([])

    def column(line: Line, values: np.ndarray) -> list[float | None]:
        at = dict(zip(line.x.tolist(), np.asarray(values).tolist(), strict=True))
        found = (at.get(place, np.nan) for place in places.tolist())
        return [float(f"{value:.6g}") if np.isfinite(value) else None for value in found]

    return {
        "x": places.tolist(),
        "xLabel": x_label,
        "yLabel": y_label,
        "lines": [
            {
                "name": line.name,
                "color": colors.to_hex(line.color),
                "fill": colors.to_hex((*colors.to_rgb(line.color), OPACITY), keep_alpha=True),
                "dash": DASHES[line.dash],
                "drawn": line.drawn,
                **{name: column(line, values) for name, values in line.middle._asdict().items()},
            }
            for line in lines
        ],
    }

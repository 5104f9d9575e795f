"""What all figures share: colours, line styles, and how they are saved.

Nothing touches the global state of pyplot. Colours (Okabe and Ito 2008) and line styles together
keep curves apart for colour-blind readers and in grey print.
"""

import contextlib
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from mbpo_jax.files import replacing

BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
ORANGE, SKY, PURPLE = "#E69F00", "#56B4E9", "#CC79A7"
BLACK, WINE, OLIVE = "#000000", "#882255", "#888822"
GREY = "#595959"

COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, WINE, OLIVE)
LINES = ("-", "--", "-.", ":")
CURVE_STYLES = tuple(
    (COLORS[i % len(COLORS)], LINES[(i + i // len(COLORS)) % 4]) for i in range(2 * len(COLORS))
)
"""Colours and line styles of curves beside each other; no two are the same."""

THOUSANDS = "{x:,.10g}"
"""Format of numbers at an axis."""


def figure_style() -> contextlib.AbstractContextManager[None]:
    """Return the context in which figures are built and saved."""
    return matplotlib.rc_context(
        {
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#E5E5E5",
            "grid.linewidth": 0.6,
            "lines.linewidth": 1.6,
            "lines.markersize": 3,
            "legend.frameon": False,
            "legend.fontsize": 8,
            "savefig.dpi": 200,
        }
    )


def save_png(path: Path, figure: Figure) -> None:
    """Render a figure to a PNG file that appears as a whole or not at all."""
    with figure_style(), replacing(path) as file:
        figure.savefig(file, format="png")

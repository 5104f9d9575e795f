"""What all figures share: colours, line styles, bands, names of curves, and how they are saved.

Nothing touches the global state of pyplot. Colours (Okabe and Ito 2008) and line styles together
keep curves apart for colour-blind readers and in grey print.

Curves are named where they end, in the order in which they end, as long as the names are short;
else by one legend below, in the order in which they were given, guides last.
"""

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike
from scipy.optimize import isotonic_regression

from mbpo_jax.errors import ConfigError
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
MARKERS = "osD^vP*X<>hpd8"
Style = tuple[str, str, str]
"""Colour, line and marker."""
MOST_MARKERS = 30
"""Points of a curve that are marked; of more, none is."""

THOUSANDS = "{x:,.10g}"
"""Format of numbers at an axis."""

FORMATS = ("pdf", "svg")
"""What a figure can be saved as besides PNG."""

MOST_BANDS = 4
"""Bands in a panel; more of them, each over the others, can be told apart by nobody."""
BAND_OPACITY = 0.2

_LONGEST_NAME = 0.32
"""Widest name of a curve that stands beside it, as a share of the figure's width."""


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
            # TrueType letters: publishers refuse those of type 3.
            "pdf.fonttype": 42,
        }
    )


def styles_of(names: Iterable[str]) -> dict[str, Style]:
    """Return how each of several things is drawn beside the others, each name once."""
    return {
        name: (*CURVE_STYLES[i % len(CURVE_STYLES)], MARKERS[i % len(MARKERS)])
        for i, name in enumerate(dict.fromkeys(names))
    }


def formats_of(given: str | Iterable[str]) -> tuple[str, ...]:
    """Return the formats, one or several, that figures are to have besides PNG.

    Raises:
      ConfigError: one is not there.
    """
    formats = (given,) if isinstance(given, str) else tuple(given)
    if unknown := [kind for kind in formats if kind not in FORMATS]:
        raise ConfigError(
            f"figure_format: {unknown[0]!r} is not there; choose of {', '.join(FORMATS)}, which "
            "are written beside PNG"
        )
    return formats


def save_figure(path: Path, figure: Figure, also: Collection[str] = ()) -> None:
    """Write a figure as PNG and, beside it, in other formats; a file appears whole or not at all.

    Where there is such a file already, it is written anew, too: none is behind the others.

    Args:
      path: of the PNG file; the others differ in its ending.
      figure: the figure.
      also: of `FORMATS`.
    """
    # Without the date, files of equal figures are equal.
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    with figure_style():
        for kind in ("png", *FORMATS):
            place = path.with_suffix(f".{kind}")
            if kind == "png" or kind in also or place.exists():
                with replacing(place) as file:
                    figure.savefig(file, format=kind, metadata=undated.get(kind))


def remove_figure(path: Path) -> None:
    """Remove the files that `save_figure` wrote, if there are any."""
    for kind in ("png", *FORMATS):
        path.with_suffix(f".{kind}").unlink(missing_ok=True)


def step_axis(panel: Axes, label: str, most_ticks: int = 6) -> None:
    """Name the horizontal axis, and put round whole numbers on it."""
    panel.set_xlabel(label)
    panel.xaxis.set_major_locator(MaxNLocator(most_ticks, steps=[1, 2, 5, 10], integer=True))
    panel.xaxis.set_major_formatter(THOUSANDS)


def log_numbers(panel: Axes) -> None:
    """Write out numbers on the horizontal axis, a logarithmic one whose limits are known.

    At 1 and 3 of each decade; over more than two decades labels at 3 would touch others.
    """
    low, high = panel.get_xlim()
    axis = panel.xaxis
    axis.set_major_locator(LogLocator(subs=(1, 3) if high < 100 * low else (1,)))
    axis.set_major_formatter(THOUSANDS)
    axis.set_minor_formatter(NullFormatter())


def banded(ends: Mapping[str, float]) -> set[str]:
    """Return which curves have bands: the `MOST_BANDS` that end highest.

    Args:
      ends: the last value of each curve.
    """
    known = {name: value for name, value in ends.items() if np.isfinite(value)}
    return set(sorted(known, key=lambda name: known[name], reverse=True)[:MOST_BANDS])


def draw_band(
    panel: Axes, x: ArrayLike, low: ArrayLike, high: ArrayLike, color: str, whole: bool = True
) -> None:
    """Draw the interval around a curve, or, if not `whole`, only where the curve ends."""
    x, low, high = np.asarray(x), np.asarray(low, float), np.asarray(high, float)
    if whole:
        panel.fill_between(x, low, high, color=color, alpha=BAND_OPACITY, linewidth=0)
    elif len(x) and np.isfinite([low[-1], high[-1]]).all():
        middle = 0.5 * (low[-1] + high[-1])
        reach = 0.5 * (high[-1] - low[-1])
        panel.errorbar(x[-1:], [middle], [reach], fmt="none", ecolor=color, capsize=2, elinewidth=1)


def draw_rows(
    panel: Axes,
    names: Sequence[str],
    values: Sequence[float],
    ends: Sequence[tuple[float, float]],
    styles: Sequence[tuple[str, str]],
) -> None:
    """Draw numbers with their intervals, one below the other.

    Args:
      panel: where.
      names: of the rows.
      values: NaN where there is none.
      ends: of the intervals; NaN where there is none.
      styles: colour and marker of each.
    """
    for place, (value, (low, high), (color, marker)) in enumerate(
        zip(values, ends, styles, strict=True)
    ):
        reach = np.maximum(np.nan_to_num([[value - low], [high - value]]), 0.0)
        panel.errorbar(
            [value], [place], xerr=reach, fmt=marker, color=color, markersize=5, capsize=3
        )
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.5, -0.5)


def name_curves(figure: Figure, panel: Axes) -> None:
    """Name the curves of the last panel where they end, or below if a name is too long for that."""
    named = _named(panel)
    width = max((len(name) for name in named), default=0) * 0.5 * _font_size() / 72.0
    if width <= _LONGEST_NAME * figure.get_size_inches()[0]:
        label_ends(panel, {})
    else:
        legend_below(figure, panel)


def legend_below(figure: Figure, *panels: Axes) -> Legend | None:
    """Put one legend below all panels, in as many columns as the figure is wide.

    Entries are in the order in which curves were drawn, line by line; guides, which are lines
    without markers beside curves that have some, come last.
    """
    found: dict[str, Artist] = {}
    for panel in panels:
        found |= {name: handle for name, handle in _named(panel).items() if name not in found}
    for columns in range(len(found), 0, -1):
        entries = _by_rows(list(found.items()), columns)
        legend = figure.legend(
            [handle for _, handle in entries],
            [name for name, _ in entries],
            loc="outside lower center",
            ncols=columns,
        )
        if columns == 1 or legend.get_window_extent().width <= 0.98 * figure.bbox.width:
            return legend
        legend.remove()
    return None


def _by_rows(entries: list, columns: int) -> list:
    """Put entries in the order in which matplotlib, which fills columns, shows them line by line.

    It gives the first columns one more where they are not equally long.
    """
    return [entry for i in range(columns) for entry in entries[i::columns]]


def _named(panel: Axes) -> dict[str, Artist]:
    """Return what a legend would name, guides last."""
    handles, names = panel.get_legend_handles_labels()
    return dict(sorted(zip(names, handles, strict=True), key=lambda pair: _is_bare(pair[1])))


def _is_bare(handle: Artist) -> bool:
    return isinstance(handle, Line2D) and handle.get_marker() in ("", "None", None)


def _font_size() -> float:
    return float(matplotlib.rcParams["font.size"])


def label_ends(panel: Axes, others: Mapping[str, str]) -> None:
    """Write the name of each curve beside the panel, where it ends, clear of the others.

    What is drawn in the panel has to be complete.

    Args:
      panel: with curves that have labels.
      others: colours of names that have no curve in this panel; they stand below.
    """
    figure = panel.get_figure()
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()  # The layout tells how high the panel is.
    to_axes = panel.transAxes.inverted()
    ends: dict[str, tuple[np.ndarray, str]] = {}
    for name, handle in _named(panel).items():
        line = handle[0] if isinstance(handle, ErrorbarContainer) else handle
        if not isinstance(line, Line2D):
            continue
        points = np.asarray(line.get_xydata(), float)
        points = points[np.isfinite(points).all(axis=1)]
        if len(points):
            end = to_axes.transform(panel.transData.transform(points[-1]))
            ends[name] = np.clip(end, 0.0, 1.0), to_hex(line.get_color())
    names = [*ends, *(name for name in others if name not in ends)]
    heights = [ends[name][0][1] if name in ends else 0.0 for name in names]
    gap = 1.25 * _font_size() / 72.0 * figure.dpi / panel.bbox.height
    for name, height in zip(names, spread(heights, gap), strict=True):
        end, color = ends.get(name, (np.zeros(2), others.get(name)))
        panel.annotate(
            name,
            xy=(end[0], end[1]),
            xytext=(1.04, height),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=color,
            verticalalignment="center",
            arrowprops={
                "arrowstyle": "-",
                "color": color,
                "linewidth": 0.6,
                "shrinkA": 1.0,
                "shrinkB": 0.0,
                "relpos": (0.0, 0.5),
            }
            # From afar it would cross other curves, or look like more of its own.
            if end[0] > 0.85
            else None,
        )


def spread(heights: Sequence[float], gap: float) -> np.ndarray:
    """Move heights in [0, 1] as far apart as `gap`, keeping their order, and as little as can be.

    Where there is no room for all, the lowest come to lie below 0.
    """
    if not len(heights):
        return np.empty(0)
    order = np.argsort(heights, kind="stable")
    steps = gap * np.arange(len(order))
    # Less the least distances they have to be in order, which the nearest such numbers are.
    free = isotonic_regression(np.asarray(heights)[order] - steps).x
    room = 1.0 - steps[-1]
    placed = np.clip(free, min(0.0, room), room) + steps
    return placed[np.argsort(order)]

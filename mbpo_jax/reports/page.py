"""Reports as one HTML file that needs no network: style, figures inside, tables."""

import html
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mbpo_jax.files import replacing
from mbpo_jax.reports.figures import figure_style

Table = Sequence[Sequence[str]]
"""Headings, then rows of cells."""

STYLE = Path(__file__).with_suffix(".css")
LONG = 60
"""Letters of a cell, of which more are broken into lines."""
SCRIPT = Path(__file__).with_suffix(".js")
NO_REQUESTS = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
)
"""Policy by which a browser asks for nothing, whatever a page contains."""


def figure_of(figure: Figure, caption: str) -> str:
    """Return a figure, drawn into the page, and what it shows."""
    caption = html.escape(caption)
    return (
        f"<figure style='--width: {width_of(figure)}'>{drawing_of(figure, caption)}"
        f"<figcaption>{caption}</figcaption></figure>"
    )


def width_of(figure: Figure) -> int:
    """Return a figure's own width, in pixels of a page."""
    return round(96 * figure.get_figwidth())


def drawing_of(figure: Figure, label: str) -> str:
    """Return a figure, drawn into the page, which scrolls where it has too little room.

    Args:
      figure: what to draw.
      label: what it shows, as HTML.
    """
    with figure_style():
        buffer = io.StringIO()
        # Without the date, pages of equal figures are equal; without the rest, no address is in it.
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    drawing = buffer.getvalue()
    # Inside HTML a drawing needs no names of namespaces.
    drawing = re.sub(r' xmlns(:\w+)?="[^"]*"', "", drawing[drawing.index("<svg") :])
    return f"<div class=wide role=img aria-label='{label}'>{drawing}</div>"


def row_of(figures: Sequence[str]) -> str:
    """Return figures, which are HTML, side by side as far as there is room."""
    return f"<div class=row>{''.join(figures)}</div>"


def table_of(table: Table) -> str:
    """Return a table as HTML; its cells are text."""
    head, *body = table
    columns = list(zip(*body, strict=True)) or [()] * len(head)
    texts = [not all(map(is_number, column)) for column in columns]

    def kind(cell: str, is_text: bool) -> str:
        return " class='text long'" if len(cell) > LONG else " class=text" if is_text else ""

    def heading(cell: str, is_text: bool) -> str:
        # Broken between words alone, not within |g|.
        words = " ".join(f"<span>{html.escape(word)}</span>" for word in cell.split(" "))
        return f"<th{kind('', is_text)}>{words}</th>"

    def line(cells: Sequence[str]) -> str:
        each = zip(cells, texts, strict=True)
        return "".join(f"<td{kind(c, is_text)}>{html.escape(c)}</td>" for c, is_text in each)

    headings = "".join(map(heading, head, texts))
    lines = "".join(f"<tr>{line(row)}</tr>" for row in body)
    return f"<div class=wide><table><tr>{headings}</tr>{lines}</table></div>"


def is_number(cell: str) -> bool:
    """Return whether a cell is a number, perhaps with its interval, and belongs to the right."""
    return cell.strip(" *<>~")[:1] in set("-+.0123456789") or not cell


def few(names: Sequence[str], most: int = 4) -> str:
    """Return names as a sentence lists them, cut off where they are many."""
    if len(names) > most + 1:  # one more needs no more room than its number
        names = [*names[:most], f"{len(names) - most} more"]
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def sections_of(sections: Mapping[str, Sequence[str]]) -> list[str]:
    """Return parts under headings, with links to all of them above.

    Args:
      sections: parts, which are HTML, by the text of their heading; empty ones are left out.
    """
    filled = [(html.escape(name), parts) for name, parts in sections.items() if parts]
    links = (f"<a href='#part-{i}'>{name}</a>" for i, (name, _) in enumerate(filled))
    found = [f"<nav>{''.join(links)}</nav>"]
    for i, (name, parts) in enumerate(filled):
        found += [f"<h2 id=part-{i}>{name}</h2>", *parts]
    return found


def write(path: Path, title: str, parts: Sequence[str]) -> None:
    """Write a page of parts, which are HTML, as a whole."""
    head = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f'<meta http-equiv=Content-Security-Policy content="{NO_REQUESTS}">',
        "<meta name=viewport content='width=device-width'><link rel=icon href='data:,'>",
        f"<title>{html.escape(title)}</title><style>{STYLE.read_text('utf-8')}</style>",
        f"<h1>{html.escape(title)}</h1>",
    ]
    with replacing(path) as file:
        script = f"<script>{SCRIPT.read_text('utf-8')}</script>"
        file.write("\n".join([*head, *parts, script, "</html>"]).encode())

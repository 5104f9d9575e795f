"""Reports as one HTML file that needs no network: style, figures inside, tables."""

import html
import io
import re
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mbpo_jax.files import replacing
from mbpo_jax.reports.figures import figure_style

Table = Sequence[Sequence[str]]
"""Headings, then rows of cells."""

STYLE = Path(__file__).with_suffix(".css")


def figure_of(figure: Figure, caption: str) -> str:
    """Return a figure, drawn into the page, and what it shows."""
    with figure_style():
        buffer = io.StringIO()
        # Without the date, pages of equal figures are equal; without the rest, no address is in it.
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    drawing = buffer.getvalue()
    # Inside HTML a drawing needs no names of namespaces.
    drawing = re.sub(r' xmlns(:\w+)?="[^"]*"', "", drawing[drawing.index("<svg") :])
    caption = html.escape(caption)
    label = f"role=img aria-label='{caption}'"
    return f"<figure {label}>{drawing}<figcaption>{caption}</figcaption></figure>"


def table_of(table: Table) -> str:
    """Return a table as HTML; its cells are text."""
    head, *body = table
    columns = list(zip(*body, strict=True)) or [()] * len(head)
    kinds = ["" if all(map(is_number, column)) else " class=text" for column in columns]

    def line(cells: Sequence[str], tag: str) -> str:
        each = zip(cells, kinds, strict=True)
        return "".join(f"<{tag}{kind}>{html.escape(cell)}</{tag}>" for cell, kind in each)

    heading, rows = line(head, "th"), (line(row, "td") for row in body)
    lines = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<div class=wide><table><tr>{heading}</tr>{lines}</table></div>"


def is_number(cell: str) -> bool:
    """Return whether a cell is a number, perhaps with its interval, and belongs to the right."""
    return cell.strip(" *<>~")[:1] in set("-+.0123456789") or not cell


def few(names: Sequence[str], most: int = 4) -> str:
    """Return a list of names, cut off where it becomes long."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def write(path: Path, title: str, parts: Sequence[str]) -> None:
    """Write a page of parts, which are HTML, as a whole."""
    head = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<title>{html.escape(title)}</title><style>{STYLE.read_text('utf-8')}</style>",
        f"<h1>{html.escape(title)}</h1>",
    ]
    with replacing(path) as file:
        file.write("\n".join([*head, *parts, "</html>"]).encode())

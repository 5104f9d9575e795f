"""Terminals and files that keep what is written to them."""

import io

from rich.console import Console


def make_console(terminal: bool, width: int = 80) -> Console:
    return Console(
        file=io.StringIO(),
        force_terminal=terminal,
        force_interactive=terminal,
        color_system="standard" if terminal else None,
        width=width,
    )


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()

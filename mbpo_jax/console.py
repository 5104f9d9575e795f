"""What commands say while they work: bars and links on a terminal, plain lines elsewhere."""

import datetime
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.style import Style
from rich.text import Text


def say(console: Console, text: str, path: Path | None = None) -> None:
    """Write a line, and a path behind it, which a terminal that can makes a link.

    Lines are not broken, so that a path can be copied from any width; if it does not fit beside the
    text, it gets a line of its own.
    """
    line = Text(text)
    if path is not None:
        fits = len(text) + 1 + len(str(path)) <= console.width
        line.append(" " if fits or not console.is_terminal else "\n")
        line.append(str(path), Style(link=path.absolute().as_uri()))
    console.print(line, soft_wrap=True)


def seconds_of(seconds: float) -> str:
    """Return a time as people read it: 44 s, 3:05 min, 1:02:03 h."""
    if seconds < 100.0:
        return f"{seconds:.0f} s"
    text = str(datetime.timedelta(seconds=round(seconds))).removeprefix("0:").removeprefix("0")
    return f"{text} {'min' if text.count(':') == 1 else 'h'}"


class Stages:
    """Shows which of so many stages is worked on: by a bar, or by a line for each."""

    def __init__(
        self, total: int, console: Console, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Count so many stages; `clock` (seconds) is for tests."""
        self._total, self._console, self._clock = total, console, clock
        self._begun, self._since = 0, clock()
        columns = TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn()
        self._bar = Progress(
            *columns, TimeElapsedColumn(), console=console, transient=True, get_time=clock
        )
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> "Stages":
        if self._console.is_interactive:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_interactive:
            self._bar.stop()

    def begin(self, text: str) -> None:
        """Say what is worked on from now on."""
        if self._console.is_interactive:
            self._bar.update(self._task, description=text, completed=self._begun)
        self._begun += 1
        if not self._console.is_interactive:
            spent = seconds_of(self._clock() - self._since)
            say(self._console, f"{self._begun}/{self._total} {text} ({spent} so far)")

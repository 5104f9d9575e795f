"""What a person sees of a sweep: a live table of all groups, and a closing one of all variants."""

import datetime
import itertools
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mbpo_jax.files import Row, read_rows
from mbpo_jax.sweeps.report.summary import variants_of
from mbpo_jax.sweeps.report.tables import variant_table
from mbpo_jax.sweeps.store import Unit
from mbpo_jax.training import logs

COLUMNS = ("group", "runs", "state", "env steps", "returns", "steps/s a run", "ETA")
RETURN = "final return"
"""The column that says what its numbers are, in a table without a text below it."""
CLOSING_COLUMNS = ("trained", RETURN, "minutes a run", "diverged")
REFRESH = 2.0
"""Seconds between looks at what groups have written."""


class Standing(NamedTuple):
    """How a unit stands.

    Attributes:
      state: see `Unit.state`.
      env_steps: of each run at its last evaluation.
      returns: of every run there, `[R]`.
      diverged: runs that became non-finite.
      speed: environment steps a second and run, compiling included; None before an evaluation.
      seconds: spent so far.
    """

    state: str
    env_steps: int
    returns: np.ndarray
    diverged: int
    speed: float | None
    seconds: float


def standing(unit: Unit) -> Standing:
    """Read how a unit stands from its run directory."""
    rows: list[Row] = []
    if (path := unit.path / logs.EVALS).exists():
        rows = read_rows(path)
    last = max((row["env_steps"] for row in rows), default=0)
    newest = [row for row in rows if row["env_steps"] == last]
    seconds = max((row["wall_seconds"] for row in newest), default=0.0)
    return Standing(
        state=unit.state,
        env_steps=last,
        returns=np.array([row["return_mean"] for row in newest], float),
        diverged=sum(bool(row.get("diverged")) for row in newest),
        speed=last / seconds if last and seconds > 0.0 else None,
        seconds=seconds,
    )


def table_of(units: Sequence[Unit], working: Sequence[Unit] = ()) -> Table:
    """Return a table with a row for each unit."""
    table = Table(box=None, pad_edge=False)
    for i, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if i in (0, 2) else "right", no_wrap=True)
    for unit in units:
        table.add_row(*_cells(unit, unit in working))
    return table


def _cells(unit: Unit, is_working: bool) -> list[str]:
    now, total = standing(unit), unit.group.config.total_env_steps
    left = ""
    if is_working and now.speed:
        left = str(datetime.timedelta(seconds=round(max(total - now.env_steps, 0) / now.speed)))
    state = now.state + (f", {now.diverged} diverged" if now.diverged else "")
    returned = "-"
    known = now.returns[np.isfinite(now.returns)]
    if known.size:
        # Its runs may differ in more than their seeds, so their mean would say nothing.
        low, high = f"{np.min(known):,.1f}", f"{np.max(known):,.1f}"
        returned = low if low == high else f"{low} to {high}"
    return [
        unit.name,
        str(len(unit.group.runs)),
        state,
        f"{now.env_steps:,} of {total:,}",
        returned,
        "-" if now.speed is None else f"{now.speed:,.3g}",
        left,
    ]


def closing_table(rows: Sequence[Row]) -> Table:
    """Return a table with a row for each variant, below the name of its environment.

    Args:
      rows: of `sweeps.results`, one for each run.
    """
    (_, _, *head), *body = variant_table(variants_of(rows))
    chosen = [i for i, column in enumerate(head) if column in CLOSING_COLUMNS]
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for i in chosen:
        name = head[i]
        if name == RETURN:
            has_intervals = any(cells[2 + i].endswith(")") for cells in body)
            name += " (IQM, 95 %)" if has_intervals else " (IQM)"
        table.add_column(name, justify="right", no_wrap=True)
    for environment, below in itertools.groupby(body, key=lambda cells: cells[0]):
        table.add_row(Text(environment, "bold"))
        for _, variant, *cells in below:
            table.add_row(Padding(Text(variant), (0, 0, 0, 2)), *(cells[i] for i in chosen))
    return table


def print_closing(rows: Sequence[Row], console: Console | None = None) -> None:
    """Print `closing_table`, which has room where nobody looks at a terminal."""
    console = console or Console()
    wide = console if console.is_terminal else Console(width=160, file=console.file)
    wide.print(closing_table(rows))


class Board:
    """Shows the table at the bottom of a terminal, for as long as it is at work there."""

    def __init__(self, units: Sequence[Unit], console: Console | None = None) -> None:
        self._units, self._console = units, console or Console()
        interactive = self._console.is_interactive
        self._live = Live(console=self._console, transient=True) if interactive else None
        self._looked = 0.0

    def __enter__(self) -> "Board":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def look(self, working: Sequence[Unit]) -> None:
        """Bring the table up to date, if it is time."""
        if self._live and time.monotonic() - self._looked > REFRESH:
            self._looked = time.monotonic()
            self._live.update(table_of(self._units, working))

    def print(self, text: str) -> None:
        """Write a line, above the table if there is one."""
        self._console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

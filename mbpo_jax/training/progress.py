"""What a person sees while a run trains: a live bar, or plain lines where nobody can see one."""

import collections
import datetime
import time
from collections.abc import Callable
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_WINDOW = 20
"""Updates over which rates are taken: enough to even out fits and evaluations of the model."""


class _Sample(NamedTuple):
    seconds: float
    env_steps: int
    gradient_steps: int


class Progress:
    """Shows how far training is, how well it does and how fast it is.

    On a terminal a bar stays at the bottom; elsewhere each evaluation is a line without control
    characters. Steps are those of one run, however many run side by side. Rates are those of the
    recent past: an interval between updates in which a phase occurred for the first time, as
    compiling does, is left out of them, because it says nothing of the time that remains.
    """

    def __init__(
        self,
        total_env_steps: int,
        start_env_steps: int = 0,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with `start_env_steps` done; `console` and `clock` (seconds) are for tests."""
        self._total = total_env_steps
        self._env_steps = start_env_steps
        self._return: float | None = None
        self._clock = clock
        self._phase = ""
        self._known_phases: set[str] = set()
        self._interval_counts = False
        self._samples: collections.deque[_Sample] = collections.deque(maxlen=_WINDOW)
        self._console = console or Console()
        self._live = self._make_live() if self._console.is_interactive else None

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def phase(self, text: str) -> None:
        """Say what is being done from now to the next update, where it is not training."""
        self._phase = text
        if text not in self._known_phases:
            self._known_phases.add(text)
            self._interval_counts = False
            if not self._live:
                self.print(text)

    def update(self, env_steps: int, gradient_steps: int, return_mean: float | None = None) -> None:
        """Report counts since the start of the run, and the mean return after an evaluation."""
        if not self._interval_counts:
            self._samples.clear()
        self._samples.append(_Sample(self._clock(), env_steps, gradient_steps))
        self._interval_counts = True
        self._env_steps = env_steps
        self._phase = "training"
        if return_mean is not None:
            self._return = return_mean
            if not self._live:
                self.print(" | ".join([self._steps(), *self._results(), *self._eta()]))

    def print(self, text: str) -> None:
        """Write a line, above the bar if there is one."""
        self._console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def rates(self) -> tuple[float, float] | None:
        """Return recent environment steps and gradient steps per second, or None if not known."""
        if len(self._samples) < 2:
            return None
        first, last = self._samples[0], self._samples[-1]
        seconds = last.seconds - first.seconds
        if seconds <= 0:
            return None
        return (
            (last.env_steps - first.env_steps) / seconds,
            (last.gradient_steps - first.gradient_steps) / seconds,
        )

    def eta_seconds(self) -> float | None:
        """Return the seconds left at the recent rate, or None if it is not known."""
        rates = self.rates()
        if rates is None or rates[0] <= 0:
            return None
        seconds = max(self._total - self._env_steps, 0) / rates[0]
        return max(seconds - (self._clock() - self._samples[-1].seconds), 0.0)

    def _steps(self) -> str:
        return f"{self._env_steps:,} of {self._total:,} env steps"

    def _results(self) -> list[str]:
        parts = [] if self._return is None else [f"return {self._return:,.1f}"]
        if (rates := self.rates()) is not None:
            parts += [f"{_number(rates[0])} env-steps/s", f"{_number(rates[1])} gradient steps/s"]
        return parts

    def _eta(self) -> list[str]:
        seconds = self.eta_seconds()
        return [] if seconds is None else [f"ETA {datetime.timedelta(seconds=round(seconds))}"]

    def _make_live(self) -> Live:
        return Live(get_renderable=self._render, console=self._console, refresh_per_second=4)

    def _render(self) -> RenderableType:
        bar = Table.grid(padding=(0, 1))
        bar.add_column(no_wrap=True)
        bar.add_column(max_width=30)
        bar.add_column(no_wrap=True)
        bar.add_row(
            Text(self._phase or "starting", style="bold"),
            ProgressBar(total=self._total, completed=self._env_steps),
            Text(" | ".join([self._steps(), *self._eta()])),
        )
        return Group(bar, Text(" | ".join(self._results()), no_wrap=True, overflow="ellipsis"))


def _number(rate: float) -> str:
    """Format a rate with about three digits."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"

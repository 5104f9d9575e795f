"""What a person sees while a run trains: a live bar, or plain lines where nobody can see one."""

import collections
import datetime
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mbpo_jax.console import say, seconds_of

_WINDOW = 20
"""Updates over which rates are taken: enough to even out fits and evaluations of the model."""


_LINE_EVERY = 10.0
"""Seconds between lines of something that is counted, where there is no bar."""

_TRAINING = "training"


class _Phase(NamedTuple):
    text: str
    began: float
    note: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""

    def how_far(self) -> str:
        """Return how much is done."""
        return f"{self.done:,} of {self.total:,} {self.unit}".rstrip()


class _Sample(NamedTuple):
    seconds: float
    env_steps: int
    gradient_steps: int


class Progress:
    """Shows how far training is, how well it does and how fast it is.

    On a terminal a bar stays at the bottom and goes when training ends; elsewhere each evaluation
    is a line without control characters. Steps are those of one run, however many run side by side.
    Rates are those of the recent past: an interval between updates in which a phase occurred for
    the first time, as compiling does, is left out of them, because it says nothing of the time that
    remains.
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
        self._phase = _Phase("starting", clock())
        self._known_phases: set[str] = set()
        self._interval_counts = False
        self._samples: collections.deque[_Sample] = collections.deque(maxlen=_WINDOW)
        self._console = console or Console()
        self._live = self._make_live() if self._console.is_interactive else None
        self._printed = clock()

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def phase(self, text: str, note: str = "") -> None:
        """Say what is being done from now to the next update, where it is not training.

        Args:
          text: what is done; the same text again goes on with it.
          note: what else is known of it.
        """
        self._phase = _Phase(text, self._beginning_of(text), note)
        if text not in self._known_phases:
            self._known_phases.add(text)
            self._interval_counts = False
            if not self._live:
                self.print(text + (f" ({note})" if note else ""))

    def _beginning_of(self, text: str) -> float:
        """Return since when this is done, which is now if something else was."""
        return self._phase.began if self._phase.text == text else self._clock()

    def count(self, text: str, done: int, total: int, unit: str = "") -> None:
        """Say how far something else than training is."""
        is_new = self._phase.text != text
        self._phase = _Phase(text, self._beginning_of(text), done=done, total=total, unit=unit)
        self._interval_counts = False
        if not self._live and (is_new or self._clock() - self._printed > _LINE_EVERY):
            self.print(f"{text}: {self._phase.how_far()}")

    def update(self, env_steps: int, gradient_steps: int, return_mean: float | None = None) -> None:
        """Report counts since the start of the run, and the mean return after an evaluation."""
        if not self._interval_counts:
            self._samples.clear()
        self._samples.append(_Sample(self._clock(), env_steps, gradient_steps))
        self._interval_counts = True
        self._env_steps = env_steps
        self._phase = _Phase(_TRAINING, self._clock())
        if return_mean is not None:
            self._return = return_mean
            if not self._live:
                self.print(" | ".join([self._steps(), *self._results(), *self._eta()]))

    def print(self, text: str, path: Path | None = None) -> None:
        """Write a line, and a path behind it, above the bar if there is one."""
        self._printed = self._clock()
        say(self._console, text, path)

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
        return Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=4,
            transient=True,
        )

    def _render(self) -> RenderableType:
        phase, spent = self._phase, seconds_of(self._clock() - self._phase.began)
        if phase.text == _TRAINING:
            made = ProgressBar(total=self._total, completed=self._env_steps)
            told = [self._steps(), *(self._eta() or [spent])]
        elif phase.total:
            made = ProgressBar(total=phase.total, completed=phase.done)
            told = [phase.how_far(), spent]
        else:
            made = ProgressBar(total=None, pulse=True, animation_time=self._clock())
            told = [spent]
        bar = Table.grid(padding=(0, 1))
        bar.add_column(no_wrap=True)
        bar.add_column(max_width=30)
        bar.add_column(no_wrap=True)
        bar.add_row(Text(phase.text, style="bold"), made, Text(" | ".join(told)))
        below = phase.note or " | ".join(self._results())
        return Group(bar, Text(below, no_wrap=True, overflow="ellipsis"))


def _number(rate: float) -> str:
    """Format a rate with about three digits."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"

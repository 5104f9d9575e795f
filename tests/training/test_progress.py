"""The live bar and its plain replacement, with an injected clock."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from mbpo_jax.training.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def _console(terminal: bool, width: int = 80) -> Console:
    return Console(
        file=io.StringIO(),
        force_terminal=terminal,
        force_interactive=terminal,
        color_system="standard" if terminal else None,
        width=width,
    )


def _output(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _plain(clock: Clock, total: int = 1000, start: int = 0) -> Progress:
    return Progress(total, start, console=_console(terminal=False), clock=clock)


def _advance(progress: Progress, clock: Clock, seconds: float, env_steps: int) -> None:
    clock.seconds += seconds
    progress.update(env_steps, 20 * env_steps)


class TestRates:
    def test_unknown_before_an_interval_is_complete(self, clock):
        progress = _plain(clock)
        assert (progress.rates(), progress.eta_seconds()) == (None, None)
        _advance(progress, clock, 10, 100)
        assert (progress.rates(), progress.eta_seconds()) == (None, None)

    def test_are_steps_over_time_and_give_the_time_left(self, clock):
        progress = _plain(clock)
        for env_steps in (100, 200, 300):
            _advance(progress, clock, 4, env_steps)
        assert progress.rates() == pytest.approx((25, 500))
        assert progress.eta_seconds() == pytest.approx(700 / 25)
        clock.seconds += 8
        assert progress.eta_seconds() == pytest.approx(700 / 25 - 8)

    def test_compiling_does_not_count(self, clock):
        progress = _plain(clock)
        progress.phase("compiling the training step")
        _advance(progress, clock, 300, 100)
        _advance(progress, clock, 5, 200)
        assert progress.rates() == pytest.approx((20, 400))

    def test_a_phase_counts_from_its_second_time_on(self, clock):
        progress = _plain(clock)
        _advance(progress, clock, 1, 0)
        for seconds, env_steps in ((99, 100), (8, 200), (12, 300)):
            progress.phase("evaluating")
            _advance(progress, clock, seconds, env_steps)
        assert progress.rates() == pytest.approx((200 / 20, 4000 / 20))

    def test_follow_the_recent_past(self, clock):
        progress = _plain(clock, total=10_000)
        for env_steps in range(0, 1000, 100):
            _advance(progress, clock, 100, env_steps)
        for env_steps in range(1000, 5000, 100):
            _advance(progress, clock, 1, env_steps)
        assert progress.rates() == pytest.approx((100, 2000))

    def test_survive_a_clock_that_stands_still(self, clock):
        progress = _plain(clock)
        _advance(progress, clock, 0, 100)
        _advance(progress, clock, 0, 200)
        assert progress.rates() is None

    def test_a_resumed_run_does_not_count_what_was_done_before(self, clock):
        progress = _plain(clock, start=500)
        _advance(progress, clock, 10, 600)
        _advance(progress, clock, 10, 700)
        assert progress.rates() == pytest.approx((10, 200))


class TestPlain:
    def test_one_line_for_an_evaluation_none_for_other_updates(self, clock):
        console = _console(terminal=False, width=20)
        with Progress(5000, console=console, clock=clock) as progress:
            progress.phase("compiling the training step")
            progress.update(250, 0)
            clock.seconds = 10.0
            progress.update(500, 5000, 12.34)
            progress.phase("evaluating")
            progress.phase("evaluating")
            progress.print("saved in [bold]/runs/1 :smile:")
        assert _output(console).splitlines() == [
            "compiling the training step",
            "500 of 5,000 env steps | return 12.3 | 25 env-steps/s | 500 gradient steps/s"
            " | ETA 0:03:00",
            "evaluating",
            "saved in [bold]/runs/1 :smile:",
        ]

    def test_no_control_characters(self, clock):
        console = _console(terminal=False)
        with Progress(5000, console=console, clock=clock) as progress:
            progress.phase("compiling")
            progress.update(250, 0, 1.0)
        output = _output(console)
        assert output.endswith("\n")
        assert all(line.isprintable() for line in output.split("\n"))


class TestLive:
    def test_bar_shows_phase_steps_return_and_rates(self, clock):
        console = _console(terminal=True)
        with Progress(1_000_000, console=console, clock=clock) as progress:
            progress.phase("compiling the training step")
            progress.update(250_000, 0)
            clock.seconds = 1000.0
            progress.update(500_000, 5_000_000, 950.34)
        output = _output(console)
        for text in (
            "training",
            "500,000 of 1,000,000 env steps | ETA 0:33:20",
            "return 950.3 | 250 env-steps/s | 5,000 gradient steps/s",
        ):
            assert text in output

    def test_phase_is_shown_until_the_next_update(self, clock):
        console = _console(terminal=True)
        progress = Progress(1000, console=console, clock=clock)

        def shown() -> str:
            with console.capture() as capture:
                console.print(progress._render())
            return Text.from_ansi(capture.get()).plain

        progress.phase("compiling the training step")
        assert shown().startswith("compiling the training step")
        progress.update(100, 0)
        assert shown().split()[0] == "training"

    def test_lines_stand_above_the_bar_and_the_cursor_comes_back(self, clock):
        console = _console(terminal=True)
        with pytest.raises(KeyboardInterrupt), Progress(1000, console=console) as progress:
            progress.print("saved in /runs/[1]")
            raise KeyboardInterrupt
        output = _output(console)
        assert output.index("saved in /runs/[1]") < output.rindex("0 of 1,000 env steps")
        assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")

"""The live bar and its plain replacement, with an injected clock."""

import pytest
from rich.console import Console
from rich.text import Text

from mbpo_jax.training.progress import Progress
from tests.consoles import make_console, written


def _shown(progress: Progress, console: Console) -> list[str]:
    """Return the lines at the bottom of a terminal, as they are now."""
    with console.capture() as capture:
        console.print(progress._render())
    return [line.rstrip() for line in Text.from_ansi(capture.get()).plain.splitlines()]


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _plain(clock: Clock, total: int = 1000, start: int = 0) -> Progress:
    return Progress(total, start, console=make_console(terminal=False), clock=clock)


def _advance(progress: Progress, clock: Clock, seconds: float, env_steps: int) -> None:
    clock.seconds += seconds
    progress.update(env_steps, 20 * env_steps)


class TestRates:
    def test_unknown_before_an_interval_is_complete(self, clock):
        progress = _plain(clock)
        assert (progress.rates(), progress.eta_seconds()) == (None, None)
        _advance(progress, clock, 10, 100)
        assert (progress.rates(), progress.eta_seconds()) == (None, None)

    def test_catching_up_does_not_count(self, clock):
        progress = _plain(clock)
        for updates in (0, 500, 1000):
            progress.count("catching up", updates, 1000, "updates")
            clock.seconds += 100
            progress.update(100, updates)
        _advance(progress, clock, 5, 200)
        assert progress.rates() == pytest.approx((20, (4000 - 1000) / 5))

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
        console = make_console(terminal=False, width=20)
        with Progress(5000, console=console, clock=clock) as progress:
            progress.phase("compiling the training step")
            progress.update(250, 0)
            clock.seconds = 10.0
            progress.update(500, 5000, 12.34)
            progress.phase("evaluating")
            progress.phase("evaluating")
            progress.print("saved in [bold]/runs/1 :smile:")
        assert written(console).splitlines() == [
            "compiling the training step",
            "500 of 5,000 env steps | return 12.3 | 25 env-steps/s | 500 gradient steps/s"
            " | ETA 0:03:00",
            "evaluating",
            "saved in [bold]/runs/1 :smile:",
        ]

    def test_what_is_counted_is_a_line_now_and_then(self, clock):
        console = make_console(terminal=False)
        with Progress(5000, console=console, clock=clock) as progress:
            for updates in range(0, 5000, 250):
                progress.count("catching up", updates, 5000, "updates")
                clock.seconds += 2.0
        assert written(console).splitlines() == [
            f"catching up: {updates:,} of 5,000 updates" for updates in (0, 1500, 3000, 4500)
        ]

    def test_what_is_known_of_a_phase_stands_behind_it(self, clock):
        console = make_console(terminal=False)
        with Progress(5000, console=console, clock=clock) as progress:
            progress.phase("compiling", "31 s last time")
            progress.phase("compiling", "31 s last time; at every start")
        assert written(console) == "compiling (31 s last time)\n"

    def test_no_control_characters(self, clock):
        console = make_console(terminal=False)
        with Progress(5000, console=console, clock=clock) as progress:
            progress.phase("compiling")
            progress.update(250, 0, 1.0)
        output = written(console)
        assert output.endswith("\n")
        assert all(line.isprintable() for line in output.split("\n"))


class TestLive:
    def test_bar_shows_phase_steps_return_and_rates(self, clock):
        console = make_console(terminal=True)
        with Progress(1_000_000, console=console, clock=clock) as progress:
            progress.phase("compiling the training step")
            progress.update(250_000, 0)
            clock.seconds = 1000.0
            progress.update(500_000, 5_000_000, 950.34)
        output = written(console)
        for text in (
            "training",
            "500,000 of 1,000,000 env steps | ETA 0:33:20",
            "return 950.3 | 250 env-steps/s | 5,000 gradient steps/s",
        ):
            assert text in output

    def test_phase_is_shown_until_the_next_update(self, clock):
        console = make_console(terminal=True)
        progress = Progress(1000, console=console, clock=clock)
        progress.phase("compiling the training step")
        assert _shown(progress, console)[0].startswith("compiling the training step")
        progress.update(100, 0)
        assert _shown(progress, console)[0].split()[0] == "training"

    def test_lines_stand_above_the_bar_and_the_cursor_comes_back(self, clock):
        console = make_console(terminal=True)
        with pytest.raises(KeyboardInterrupt), Progress(1000, console=console) as progress:
            progress.print("saved in /runs/[1]")
            raise KeyboardInterrupt
        output = written(console)
        assert output.index("saved in /runs/[1]") < output.rindex("starting")
        assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")

    def test_nothing_is_left_of_the_bar_below_the_last_line(self, clock):
        console = make_console(terminal=True)
        with Progress(1000, console=console, clock=clock) as progress:
            progress.update(1000, 20_000, 1.0)
            progress.print("done: return 1.0")
        assert "env steps" not in written(console)[written(console).rindex("\x1b[2K") :]

    def test_a_phase_says_how_long_it_has_been_going_on_and_what_is_known_of_it(self, clock):
        console = make_console(terminal=True)
        progress = Progress(1000, console=console, clock=clock)
        progress.phase("compiling the training step", "31 s last time")
        clock.seconds += 7.0
        # The same phase goes on when more is known of it.
        progress.phase("compiling the training step", "31 s last time; at every start")
        shown = _shown(progress, console)
        assert shown[0].startswith("compiling the training step")
        assert shown[0].endswith("7 s")
        assert shown[1] == "31 s last time; at every start"

    def test_what_is_counted_has_a_bar_of_its_own(self, clock):
        console = make_console(terminal=True)
        progress = Progress(10_000, console=console, clock=clock)
        progress.count("random steps", 0, 5000)
        clock.seconds += 3.0
        progress.count("random steps", 1250, 5000)
        line = _shown(progress, console)[0]
        assert line.startswith("random steps")
        assert line.endswith("1,250 of 5,000 | 3 s")
        assert "━" in line

    def test_before_there_is_a_rate_the_seconds_go_on(self, clock):
        console = make_console(terminal=True)
        progress = Progress(1000, console=console, clock=clock)
        progress.phase("training")
        clock.seconds += 12.0
        assert _shown(progress, console)[0].endswith("0 of 1,000 env steps | 12 s")

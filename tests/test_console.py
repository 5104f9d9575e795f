"""Lines, links and stages, on a terminal and in a file."""

from pathlib import Path

import pytest

from mbpo_jax.console import Stages, say, seconds_of
from tests.consoles import make_console, written


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99.4, "99 s"), (185, "3:05 min"), (3723, "1:02:03 h"), (600, "10:00 min")],
)
def test_times_are_told_as_people_read_them(seconds, text):
    assert seconds_of(seconds) == text


def test_a_path_is_a_link_on_a_terminal_and_plain_elsewhere():
    path = Path("runs/[bold]x")
    for terminal in (True, False):
        shown = make_console(terminal)
        say(shown, "see", path)
        if terminal:
            assert f"{path.absolute().as_uri()}\x1b\\runs/[bold]x" in written(shown)
        else:
            assert written(shown) == "see runs/[bold]x\n"


def test_a_path_that_does_not_fit_beside_its_text_has_a_line_of_its_own():
    shown = make_console(terminal=True, width=30)
    say(shown, "done: return 1.0 over 5 runs; see", Path("runs/a-long-name-of-a-run-directory"))
    first, second = written(shown).splitlines()
    assert first == "done: return 1.0 over 5 runs; see"
    assert "runs/a-long-name-of-a-run-directory" in second


def test_each_stage_is_a_line_where_nobody_sees_a_bar():
    shown, now = make_console(terminal=False), [0.0]
    with Stages(2, shown, clock=lambda: now[0]) as stages:
        now[0] = 1.0
        stages.begin("horizon 1: reference")
        now[0] = 65.0
        stages.begin("horizon 1: rp")
    assert written(shown).splitlines() == [
        "1/2 horizon 1: reference (1 s so far)",
        "2/2 horizon 1: rp (65 s so far)",
    ]


def test_a_bar_counts_the_stages_that_are_over_and_leaves_nothing_behind():
    shown = make_console(terminal=True)
    with Stages(21, shown) as stages:
        for _ in range(3):
            stages.begin("horizon 1: rp")
        stages._bar.refresh()
    text = written(shown)
    assert "horizon 1: rp" in text
    assert "2/21" in text
    assert text.rindex("\x1b[2K") > text.rindex("2/21")

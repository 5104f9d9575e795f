"""The report of a sweep, from rows that are made up."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mbpo_jax.reports import statistics
from mbpo_jax.sweeps.board import print_closing
from mbpo_jax.sweeps.report.conclusions import conclusions
from mbpo_jax.sweeps.report.page import write_page
from mbpo_jax.sweeps.report.summary import (
    MODEL_COLUMNS,
    best_variants,
    curve_of,
    normalised,
    scores_by_algorithm,
    sensitivities,
    shown,
    titles_of,
    variants_of,
    with_interval,
)
from mbpo_jax.sweeps.report.tables import variant_table
from tests.browser import chromium, opened, overflow, unreachable

STEPS = (100, 200, 300)


def run(identity, algorithm, seed, rate, final, environment="hopper", **changes):
    row = {
        **{"id": identity, "environment": environment, "algorithm": algorithm, "seed": seed},
        **{"sac.learning_rate": rate, "total_env_steps": 300, "env_steps": 300},
        **{"diverged": False, "final_return": final, "mean_return": final and final / 2},
        **{"wall_seconds": 30.0, "run_seconds": 3.0, "state": "finished", "trained": True},
        **{"group": f"{environment}-{algorithm}"},
        **{"run": seed, "directory": f"groups/{environment}-{algorithm}"},
        **dict.fromkeys(MODEL_COLUMNS),
    }
    return row | changes


def made_up():
    """Return rows of two environments, two algorithms, two learning rates and four seeds."""
    rng = np.random.default_rng(0)
    rows = []
    for environment in ("hopper", "<walker>"):
        for algorithm, rates in (("mbpo", (1e-4, 1e-3)), ("sac", (3e-4,))):
            for rate in rates:
                for seed in range(4):
                    final = 100.0 * (algorithm == "mbpo") + 1e5 * rate + rng.normal()
                    identity = f"{environment}{algorithm}{rate}{seed}"
                    rows.append(run(identity, algorithm, seed, rate, final, environment))
    rows[0] |= {"diverged": True}
    evaluations = [
        {"id": row["id"], "env_steps": step, "return_mean": row["final_return"] * step / 300}
        for row in rows
        for step in STEPS
    ]
    return rows, evaluations


def test_variants_are_runs_that_differ_in_seeds_alone():
    rows, _ = made_up()
    variants = variants_of([*rows, run("new", "sac", 9, 3e-4, None)])
    labels = [(v.environment, v.label, len(v.rows), v.waiting) for v in variants]
    assert labels[:3] == [
        ("hopper", "MBPO, learning rate 1e-4", 4, 0),
        ("hopper", "MBPO, learning rate 1e-3", 4, 0),
        # The algorithm's only learning rate is no setting of the sweep.
        ("hopper", "SAC", 4, 1),
    ]
    hopper = variants[1]
    expected = statistics.interquartile_mean([hopper.scores()])
    assert hopper.middle().value == expected
    assert hopper.middle().low < expected < hopper.middle().high


def test_the_best_settings_are_those_of_the_highest_middle():
    rows, _ = made_up()
    best = best_variants(variants_of(rows), "hopper")
    assert [v.label for v in best] == ["MBPO, learning rate 1e-3", "SAC"]
    (found,) = sensitivities(variants_of(rows), "hopper", "sac.learning_rate")
    assert (found.algorithm, found.values) == ("MBPO", [1e-4, 1e-3])
    assert found.best[0].height() < found.best[1].height()
    assert [v.settings["sac.learning_rate"] for v in found.best] == found.values


def test_scores_go_from_the_worst_run_to_the_best():
    rows, _ = made_up()
    variants = variants_of(rows)
    scores = normalised(variants, "hopper")
    best = best_variants(variants, "hopper")[0]
    assert statistics.interquartile_mean([scores[best.algorithm]]) == pytest.approx(1.0)
    assert all(x.min() >= 0.0 for x in scores.values())
    tasks = scores_by_algorithm(variants)
    assert {name: len(own) for name, own in tasks.items()} == {"MBPO": 2, "SAC": 2}


def test_a_curve_holds_the_steps_that_all_runs_have():
    rows, evaluations = made_up()
    variant = variants_of(rows)[0]
    del evaluations[2]  # of the first run, at the end
    curve = curve_of(variant, evaluations)
    assert list(curve.env_steps) == [100, 200]
    assert np.all(curve.middle.low < curve.middle.value)


def sentence(*found: tuple[str, float, list[float]], environment: str = "hopper") -> str:
    """Return what is said of algorithms, their learning rates and their runs' final returns."""
    rows = [
        run(f"{algorithm}{rate}{i}", algorithm, i, rate, final, environment, mean_return=None)
        for algorithm, rate, finals in found
        for i, final in enumerate(finals)
    ]
    rows = [row | {"mean_return": row["final_return"]} for row in rows]
    return conclusions(variants_of(rows), rows)[1]


def test_what_cannot_be_told_apart_is_tied():
    low, middle, high = [1.0, 2.0, 3.0, 4.0], [3.0, 4.0, 5.0, 6.0], [30.0, 31.0, 32.0, 33.0]
    one = sentence(("sac", 3e-4, middle), ("mbpo", 3e-4, low), ("mbpo", 1e-3, low))
    assert one.startswith("hopper: SAC is best, with a final return of 4.500 (")
    assert "); MBPO at 3e-4 and MBPO at 1e-3 are tied with it. By mean return it is best, " in one
    clear = sentence(("sac", 3e-4, low), ("sac", 1e-3, high))
    assert clear.startswith("hopper: SAC at 1e-3 is best, with a final return of 31.50 (")
    assert "), and none is tied with it. By mean return it is best, with 31.50 (" in clear
    both = sentence(("sac", 3e-4, low), ("sac", 1e-3, middle), ("sac", 3e-3, high))
    assert "SAC at 3e-3 is best" in both
    assert "and none is tied with it" in both
    tied = sentence(*(("sac", rate, low) for rate in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)))
    assert "is highest, with a final return of" in tied
    assert "all 4 others are tied with it" in tied
    assert "best" not in tied
    many = sentence(("mbpo", 1e-3, [-9.0] * 3), *(("sac", r, low) for r in np.arange(1, 8) / 10))
    assert "SAC at 0.2, SAC at 0.3, SAC at 0.4 and 3 more are tied with it" in many


@pytest.mark.parametrize(("seeds", "least", "most"), [(3, 8, 13), (4, 2, 5), (5, 1, 3)])
def test_how_many_of_100_pairs_of_equals_are_not_tied(seeds, least, most):
    returns = np.random.default_rng(0).normal(size=(2, 2000, seeds))
    first, second = (statistics.estimate(statistics.interquartile_mean, [x]) for x in returns)
    apart = (first.high < second.low) | (second.high < first.low)
    assert least <= 100 * np.mean(apart) <= most


def test_who_is_best_is_not_said_without_intervals():
    text = sentence(("sac", 3e-4, [1.0, 2.0]), ("mbpo", 3e-4, [3.0, 4.0]))
    assert text.startswith("hopper: MBPO is highest, with a final return of 3.500. By mean return")
    assert "tied" not in text
    assert "best" not in text


def test_what_is_said_in_short():
    rows, _ = made_up()
    failed = run("x", "sac", 9, 3e-4, None, state="failed", trained=False)
    lines = conclusions(variants_of(rows), [*rows, failed])
    assert lines[0] == "24 of 25 runs are trained."
    assert "1 run became non-finite" in lines[1]
    assert lines[2] == "Failed groups: hopper-sac."
    assert any(line.startswith("hopper: MBPO at 1e-3 is best") for line in lines)
    assert conclusions(variants_of(rows), rows)[0] == "All 24 runs are trained."
    two = [row for row in rows if row["seed"] < 2]
    assert "6 variants have fewer than 3 seeds" in conclusions(variants_of(two), two)[-1]
    three = [row for row in rows if row["seed"] < 3]
    assert "Intervals of 3 seeds are too short" in conclusions(variants_of(three), three)[-1]


def test_a_variant_is_named_as_short_as_it_can_be_told():
    values = [3e-4, 1e-3, 2.5e-5, 0.01, 0.995, 0.0, 1000.0, 2e6, float("inf"), 64, "tanh"]
    told = ["3e-4", "1e-3", "2.5e-5", "0.01", "0.995", "0", "1000", "2e6", "inf", "64", "tanh"]
    assert [shown(value) for value in values] == told
    several = [
        run(f"{a}{b}", "mbpo", 0, a, 1.0) | {"ensemble.learning_rate": b, "expansion.horizon": 2}
        for a in (1e-3, 1e-4)
        for b in (1e-3, 1e-4)
    ]
    assert variants_of(several)[0].label == (
        "MBPO, sac.learning_rate 1e-4, ensemble.learning_rate 1e-4"
    )
    own = ("first:make_mine", "second:make_mine", "sac")
    assert titles_of(own) == {own[0]: own[0], own[1]: own[1], "sac": "SAC"}
    assert with_interval(statistics.Estimate(*np.array([2.565, 0.0843, 3.9]))) == (
        "2.565 (0.084 to 3.900)"
    )
    assert with_interval(statistics.Estimate(*np.array([0.0, np.nan, np.nan]))) == "0"


def test_the_closing_table_has_a_row_for_each_variant():
    rows, _ = made_up()
    out = Console(file=io.StringIO(), width=80)
    print_closing(rows, out)
    lines = out.file.getvalue().splitlines()
    assert lines[0].split() == [
        "trained",
        "final",
        "return",
        "(IQM,",
        "95",
        "%)",
        "minutes",
        "a",
        "run",
        "diverged",
    ]
    assert lines[1].strip() == "hopper"
    assert [line.partition("4 of 4")[0].strip() for line in lines[2:5]] == [
        "MBPO, learning rate 1e-4",
        "MBPO, learning rate 1e-3",
        "SAC",
    ]
    assert lines[5].strip() == "<walker>"
    assert f" {with_interval(variants_of(rows)[0].middle())} " in lines[2]


def test_the_closing_table_names_an_interval_only_where_there_is_one():
    rows, _ = made_up()
    out = Console(file=io.StringIO(), width=80)
    print_closing([row for row in rows if row["seed"] < 2], out)
    assert "final return (IQM) " in out.file.getvalue().splitlines()[0]


def test_runs_that_are_not_trained_to_their_end_are_not_ranked_beside_those_that_are():
    rows, _ = made_up()
    early = [run(f"e{i}", "mve", i, 3e-4, 1e6, trained=False, state="running") for i in range(3)]
    variants = variants_of([*rows, *early])
    assert [v.algorithm for v in best_variants(variants, "hopper")] == ["MBPO", "SAC"]
    assert [v.algorithm for v in best_variants(variants_of(early), "hopper")] == ["MVE"]
    assert conclusions(variants_of(early), early)[1].startswith("hopper, so far: MVE has a final")
    (row,) = [row for row in variant_table(variants) if row[1] == "MVE"]
    assert row[2] == "0 of 3"
    assert "1 variant is not trained to the end" in conclusions(variants, [*rows, *early])[2]


HOSTILE = "</script><script>document.title = 'taken'</script><img src=x>"


def written(path: Path, rows, evaluations) -> Path:
    failure = {"group": "g", "time": "now", "reason": "exit code 3", "last_line": "<b>no</b>"}
    versions = {"versions": {"jax": "0.10"}, "devices": ["cpu:0"], "platform": "Linux"}
    write_page(
        path, "A <sweep>", rows, evaluations, [failure], [versions, versions], "algorithms: [a]"
    )
    return path


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("report") / "report.html", *made_up())


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """Return a page of more variants than are drawn at first, one of them with a hostile name."""
    rows = []
    for rate in (*np.arange(1, 10) / 10, HOSTILE):
        for seed in range(3):
            final = 10.0 * seed + (100.0 * rate if isinstance(rate, float) else 0.0)
            rows.append(run(f"{rate}{seed}", "sac", seed, rate, final))
    evaluations = [
        {"id": row["id"], "env_steps": step, "return_mean": row["final_return"] * step / 300}
        for row in rows
        for step in STEPS
    ]
    return written(tmp_path_factory.mktemp("many") / "report.html", rows, evaluations)


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


def test_the_page_shows_text_as_text(report):
    text = report.read_text()
    assert "<walker>" not in text
    assert "<b>no</b>" not in text
    assert "A &lt;sweep&gt;" in text
    assert text.count("<svg") == 2 * 2 + 2 * 2 + 1


def test_aggregates_over_environments_need_several(report, tmp_path):
    rows, evaluations = made_up()
    hopper = [row for row in rows if row["environment"] == "hopper"]
    one = written(tmp_path / "one.html", hopper, evaluations).read_text()
    assert "Aggregates over environments" in report.read_text()
    assert "Aggregates over environments" not in one
    assert "Performance profiles" in one


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 600])
@pytest.mark.parametrize("name", ["report", "many"])
def test_the_page_fits_its_window_and_asks_for_nothing(browser, request, name, width):
    with opened(browser, request.getfixturevalue(name), width) as page:
        assert overflow(page) == 0
        assert unreachable(page) == []
        assert page.title() == "A <sweep>"
        ends = page.evaluate(
            "[...document.querySelectorAll('.row figure')]"
            ".map(figure => figure.getBoundingClientRect().right)"
        )
        assert 0.93 * width < max(ends) <= width
        if width == 600:
            assert page.locator("p.hint:visible").count() >= 1
        # The bar that moves the table of runs sideways is on the screen with its headings.
        assert page.locator("#runs-place").bounding_box()["height"] < 900
        last = page.locator("#runs thead th").last
        last.scroll_into_view_if_needed()
        assert last.bounding_box()["x"] + last.bounding_box()["width"] <= width


@pytest.mark.slow
def test_the_page_sorts_and_filters(browser, report):
    with opened(browser, report) as page:
        page.fill("#filter", "SAC hopper")
        assert page.locator("#count").text_content() == "4 of 24 runs"
        page.fill("#filter", "")
        heading = page.get_by_role("button", name="final return")
        at = page.evaluate("buttons.findIndex(b => b.textContent === 'final return')")
        for order in (1, -1):
            heading.click()
            found = page.evaluate(f"[...body.rows].map(r => Number(r.cells[{at}].dataset.value))")
            assert found == sorted(found, reverse=order < 0)
        page.reload()
        again = f"[...body.rows].map(r => Number(r.cells[{at}].dataset.value))"
        assert page.evaluate(again) == found


@pytest.mark.slow
def test_curves_tell_values_and_are_chosen(browser, many):
    with opened(browser, many) as page:
        chart = page.locator("figure.chart")
        boxes, canvas = chart.locator("input"), chart.locator("canvas")
        names = chart.locator("label").all_text_contents()
        assert len(names) == 10
        assert f"SAC, learning rate {HOSTILE}" in names
        # The best is drawn at first, and stands first.
        assert [boxes.nth(i).is_checked() for i in range(10)] == [True] + [False] * 9
        assert names[0] == "SAC, learning rate 0.9"
        assert "at 300 environment steps" in chart.locator(".at").text_content()
        cells = chart.locator("tr").first.locator("td").all_text_contents()
        assert cells[1:] == ["100.0", "(90.0 to 110.0)"]
        over = chart.locator(".u-over")
        area = over.bounding_box()
        over.hover(position={"x": area["width"] / 2, "y": area["height"] / 2})
        assert "at 200 environment steps" in chart.locator(".at").text_content()
        cells = chart.locator("tr").first.locator("td").all_text_contents()
        assert cells[1:] == ["66.7", "(60.0 to 73.3)"]
        # The keyboard does the same.
        chart.locator(".plot").press("ArrowLeft")
        assert "at 100 environment steps" in chart.locator(".at").text_content()

        one = canvas.screenshot()
        page.get_by_role("button", name="all", exact=True).click()
        assert all(boxes.nth(i).is_checked() for i in range(10))
        page.wait_for_timeout(200)
        assert canvas.screenshot() != one
        page.get_by_role("button", name="none", exact=True).click()
        boxes.nth(3).check()
        page.reload()
        assert [boxes.nth(i).is_checked() for i in range(10)] == [i == 3 for i in range(10)]
        page.get_by_role("button", name="as at first").click()
        assert boxes.nth(0).is_checked()


@pytest.mark.slow
def test_print_and_a_page_without_javascript_have_the_drawing(browser, report):
    with opened(browser, report) as page:
        still, live = page.locator(".still").first, page.locator(".live").first
        assert (still.is_visible(), live.is_visible()) == (False, True)
        page.emulate_media(media="print")
        assert (still.is_visible(), live.is_visible()) == (True, False)
    with opened(browser, report, java_script_enabled=False) as page:
        assert page.locator(".still").first.is_visible()
        assert not page.locator(".live").first.is_visible()

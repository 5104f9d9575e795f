"""Published returns beside ours: what is read, tabulated and drawn."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection

from experiments import published, published_data
from experiments.published_figure import published_figure
from mbpo_jax.errors import ConfigError
from mbpo_jax.files import Row, append_rows, read_rows
from tests.reports.rows import line_of, points


def write_run(
    directory: Path,
    returns: Callable[[int], float] = float,
    *,
    name: str = "gym/HalfCheetah-v5",
    algorithm: str = "mbpo",
    utd: int = 40,
    seed: int = 0,
    last: int = 20_000,
) -> Path:
    """Write what a run leaves behind that gets some return at each step."""
    directory.mkdir(exist_ok=True)
    (directory / "config.yaml").write_text(
        f"algorithm: {algorithm}\nenv:\n  name: {name}\nsac:\n  utd_ratio: {utd}\n"
    )
    environment = {
        "versions": {"jax": "0.10.2", "gymnasium": "1.4.0", "mujoco": "4.0.0", "flax": "0.12"},
        "host_cores": 2,
        "devices": ["cpu:0 cpu"],
        "git_revision": "b" * 40,
        "git_dirty": True,
        "earlier": [{"git_revision": "a" * 40, "git_dirty": False}] * 2,
    }
    (directory / "environment.json").write_text(json.dumps(environment))
    (directory / "evals.jsonl").unlink(missing_ok=True)
    index = {"run": 0, "seed": seed, "return_std": 1.0}
    steps = range(6000, last + 1, 1000)
    append_rows(
        directory / "evals.jsonl",
        [
            {"env_steps": step, **index, "return_mean": returns(step), "wall_seconds": 3.6 * step}
            for step in steps
        ],
    )
    return directory


def rows_of(*run_dirs: Path) -> list[Row]:
    return [row for run_dir in run_dirs for row in published_data.run_rows(run_dir, "nothing")]


def cells(table: str, *beginning: str) -> list[str]:
    """Return the one line of a Markdown table that begins so."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    (found,) = [line for line in lines if tuple(line[: len(beginning)]) == beginning]
    return found


class TestPublishedPoints:
    def test_are_those_of_the_task_in_order_without_the_random_steps(self):
        found = published_data.published_points("Hopper-v5", "mbpo")
        assert found[0] == (10_000, 5, 327.4, 165.6)
        assert [point.env_steps for point in found] == sorted({point.env_steps for point in found})
        assert found[-1] == (125_000, 5, 3278.2, 453.2)

    def test_of_two_recordings_the_one_with_more_seeds_counts(self, tmp_path):
        lines = ("sac,Hopper,10000,5,1.0,2.0", "sac,Hopper,10000,8,3.0,4.0")
        for order in (lines, lines[::-1]):
            text = "\n".join(("algorithm,env,env_steps,seeds,return_mean,return_std", *order))
            (tmp_path / "points.csv").write_text(text)
            found = published_data.published_points("Hopper-v5", "sac", tmp_path / "points.csv")
            assert found == [(10_000, 8, 3.0, 4.0)]

    def test_every_panel_has_points_of_both_algorithms(self):
        for task in {run.task for run in published.RUNS.values()}:
            for algorithm in published_data.LEARNERS:
                assert published_data.published_points(task, algorithm)


class TestCollect:
    def test_a_row_says_what_ran_and_on_what(self, tmp_path):
        run_dir = write_run(tmp_path / "run", seed=3, last=7000)
        rows = published_data.collect([run_dir], "a test suite", tmp_path / "rows.jsonl")
        assert rows == read_rows(tmp_path / "rows.jsonl")
        assert rows[0] == {
            "task": "HalfCheetah-v5",
            "algorithm": "mbpo",
            "utd": 40,
            "env_steps": 6000,
            "run": 0,
            "seed": 3,
            "return_mean": 6000.0,
            "return_std": 1.0,
            "wall_seconds": 21_600.0,
            "commits": ["a" * 40, "b" * 40 + "-dirty"],
            "versions": {"jax": "0.10.2", "gymnasium": "1.4.0", "mujoco": "4.0.0"},
            "cores": 2,
            "devices": ["cpu:0 cpu"],
            "load": "a test suite",
        }
        assert [row["env_steps"] for row in rows] == [6000, 7000]

    def test_rows_of_the_same_run_are_replaced_and_others_stay(self, tmp_path):
        results = tmp_path / "rows.jsonl"
        first = write_run(tmp_path / "first", seed=0, last=8000)
        second = write_run(tmp_path / "second", seed=1, last=8000)
        published_data.collect([second, first], "both", results)
        write_run(first, lambda step: -step, seed=0, last=9000)
        rows = published_data.collect([first], "alone", results)
        assert [(row["seed"], row["env_steps"], row["load"]) for row in rows] == [
            *((0, step, "alone") for step in (6000, 7000, 8000, 9000)),
            *((1, step, "both") for step in (6000, 7000, 8000)),
        ]
        assert {row["return_mean"] for row in rows if row["seed"] == 0} == {-6e3, -7e3, -8e3, -9e3}

    def test_a_run_that_has_only_begun_has_no_rows(self, tmp_path):
        run_dir = write_run(tmp_path / "run")
        (run_dir / "evals.jsonl").unlink()
        (run_dir / "environment.json").unlink()
        assert published_data.collect([run_dir], "", tmp_path / "rows.jsonl") == []

    @pytest.mark.parametrize(
        ("name", "algorithm"),
        [("hopper", "mbpo"), ("gym/Pusher-v5", "mbpo"), ("gym/Hopper-v5", "svg")],
    )
    def test_what_has_no_published_curve_is_refused(self, tmp_path, name, algorithm):
        run_dir = write_run(tmp_path / "run", name=name, algorithm=algorithm)
        with pytest.raises(ConfigError, match="nothing is published"):
            published_data.collect([run_dir], "", tmp_path / "rows.jsonl")
        assert not (tmp_path / "rows.jsonl").exists()

    def test_a_folder_that_is_no_run_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match=r"config\.yaml"):
            published_data.collect([tmp_path], "", tmp_path / "rows.jsonl")


class TestCompare:
    def test_averages_around_the_step_and_only_as_far_as_the_run_goes(self, tmp_path):
        # A slope alone does not move an average whose middle is the step; a jump beyond it does.
        rising = write_run(tmp_path / "a", seed=0)
        jumping = write_run(tmp_path / "b", lambda step: 5.0 * (step > 12_000), seed=1)
        early, late = published_data.compare(rows_of(rising, jumping))
        assert (early.point.env_steps, late.point.env_steps) == (10_000, 20_000)
        np.testing.assert_allclose(early.returns, [10_000, 0])
        np.testing.assert_allclose(late.returns, [20_000, 5])

    def test_runs_count_where_they_got_to(self, tmp_path):
        whole = write_run(tmp_path / "a", seed=0)
        part = write_run(tmp_path / "b", seed=1, last=19_000)
        early, late = published_data.compare(rows_of(whole, part))
        assert (early.returns.size, late.returns.size) == (2, 1)

    def test_differences_are_in_published_deviations(self, tmp_path):
        (point, *_) = published_data.published_points("HalfCheetah-v5", "mbpo")
        above = write_run(tmp_path / "a", lambda step: point.mean + 3 * point.std, seed=0)
        below = write_run(tmp_path / "b", lambda step: point.mean - point.std, seed=1)
        found = published_data.compare(rows_of(above, below))[0]
        assert found.difference == pytest.approx(1.0)

    def test_settings_are_not_mixed(self, tmp_path):
        usual = write_run(tmp_path / "a", last=10_000)
        fewer = write_run(tmp_path / "b", utd=10, last=10_000)
        found = published_data.compare(rows_of(usual, fewer))
        assert [(each.utd, each.returns.size) for each in found] == [(40, 1), (10, 1)]


class TestTables:
    def test_returns_stand_beside_the_published(self, tmp_path):
        runs = [write_run(tmp_path / str(i), lambda _, i=i: 1e3 * i, seed=i) for i in range(4)]
        found = cells(published.tables(rows_of(*runs)), "HalfCheetah-v5", "MBPO", "40", "10,000")
        assert found[4:6] == ["1,740 ± 384 (5)", "1,500 ± 1,118 (4)"]
        low, high = (float(end.replace(",", "")) for end in found[6].split(" to "))
        assert 0 <= low < 1500 < high <= 3000
        assert found[7] == "-0.6"

    def test_one_seed_has_no_deviation_and_few_have_no_interval(self, tmp_path):
        run = write_run(tmp_path / "run", lambda _: 4183.3)
        found = cells(published.tables(rows_of(run)), "HalfCheetah-v5", "MBPO", "40", "20,000")
        assert found[5:] == ["4,183 (1)", "", "+0.0"]

    def test_every_run_is_listed_with_time_and_versions(self, tmp_path):
        run = write_run(tmp_path / "run", algorithm="sac", utd=1, seed=1)
        found = cells(published.tables(rows_of(run)), "HalfCheetah-v5", "SAC", "1", "1")
        assert found[4:] == [
            *("20,000", "20.00", "2", "cpu:0 cpu", "0.10.2", "1.4.0", "4.0.0"),
            *("aaaaaaa, bbbbbbb-dirty", "nothing"),
        ]

    def test_what_a_run_did_not_say_is_left_open(self, tmp_path):
        run = write_run(tmp_path / "run")
        (run / "environment.json").unlink()
        found = cells(published.tables(rows_of(run)), "HalfCheetah-v5", "MBPO", "40", "0")
        assert found[6:-1] == ["?"] * 6


class TestOverview:
    def test_a_line_has_ours_over_the_published_and_the_best_of_ours_in_bold(self, tmp_path):
        runs = [
            *(write_run(tmp_path / f"m{i}", lambda _, i=i: 100.0 * i, seed=i) for i in range(3)),
            write_run(tmp_path / "d", lambda _: 5000.0, algorithm="dhmbpo", utd=1),
        ]
        table = published.overview(rows_of(*runs))
        found = cells(table, "HalfCheetah-v5", "10,000")
        assert found[2].startswith("100 [")
        assert found[2].endswith("], 3 seeds<br>*1,740 ± 384*")
        assert found[3] == "**5,000**, 1 seed<br>*4,138 ± 1,450*"
        assert table.splitlines()[0] == "| task | env steps | MBPO | DHMBPO |"

    def test_where_only_one_got_to_the_others_are_empty(self, tmp_path):
        runs = [
            write_run(tmp_path / "m", last=10_000),
            write_run(tmp_path / "d", algorithm="dhmbpo", utd=1),
        ]
        found = cells(published.overview(rows_of(*runs)), "HalfCheetah-v5", "20,000")
        assert found[2] == ""

    def test_the_readme_has_that_of_the_committed_rows(self):
        readme = Path(__file__).parents[2] / "README.md"
        rows = read_rows(published.common.results_file("published"))
        assert published.overview(rows) in readme.read_text()
        written = published.common.RESULTS / "published.md"
        assert written.read_text() == published.tables(rows)

    def test_learners_with_other_updates_stand_below_each_other(self, tmp_path):
        runs = [write_run(tmp_path / "a", lambda _: 1.0), write_run(tmp_path / "b", utd=10)]
        found = cells(published.overview(rows_of(*runs)), "HalfCheetah-v5", "10,000")
        assert found[2].count("1 seed") == 2
        assert found[2].count("**") == 2

    def test_sac_with_five_critics_is_told_apart_from_sac(self, tmp_path):
        run = write_run(tmp_path / "run", algorithm="sac", utd=1)
        assert published_data.compare(rows_of(run))[0].algorithm == "sac"
        config = run / "config.yaml"
        config.write_text(config.read_text() + "  num_critics: 5\n")
        assert published_data.compare(rows_of(run))[0].algorithm == "sac_5_critics"

    def test_larger_fits_are_a_variant_whose_published_points_are_shown_once(self, tmp_path):
        runs = [write_run(tmp_path / name, algorithm="dhmbpo", utd=1) for name in ("a", "b")]
        config = runs[1] / "config.yaml"
        config.write_text(config.read_text() + "fit: {batch_size: 1024}\n")
        found = published_data.compare(rows_of(*runs))
        assert {each.algorithm for each in found} == {"dhmbpo", "dhmbpo_large_fits"}
        assert "±" in published.overview_cell(found[0], bold=False)
        assert "±" not in published.overview_cell(found[-1], bold=False)

    def test_mbpo_with_a_threshold_is_a_learner_of_its_own(self, tmp_path):
        run = write_run(tmp_path / "run", name="gym/Hopper-v5", utd=20)
        config = run / "config.yaml"
        config.write_text(config.read_text() + "rollout:\n  truncation: threshold\n")
        (found, *_) = published_data.compare(rows_of(run))
        assert found.utd == 20
        assert (found.algorithm, found.point[:4]) == ("macura", (10_000, 8, 654.7, 339.3))


def error_bars(panel: Axes) -> list[np.ndarray]:
    """Return the ends of every error bar, `[2, 2]`."""
    bars = (bars for bars in panel.collections if isinstance(bars, LineCollection))
    return [np.asarray(bar) for each in bars for bar in each.get_segments()]


class TestFigure:
    def test_lines_are_runs_and_their_mean(self, tmp_path):
        runs = [write_run(tmp_path / str(i), lambda _, i=i: 100.0 * i, seed=i) for i in range(2)]
        steps, clock = published_figure(rows_of(*runs)).axes
        assert steps.get_title(loc="left") == "HalfCheetah-v5"
        mean = points(line_of(steps, "MBPO"))
        np.testing.assert_allclose(mean[[0, -1]], [(6000, 50), (20_000, 50)])
        hours = points(line_of(clock, "MBPO"))
        np.testing.assert_allclose(hours[[0, -1]], [(6, 50), (20, 50)])
        thin = [line for line in steps.lines if line.get_linewidth() < 1 and line.get_alpha()]
        np.testing.assert_allclose([line.get_ydata()[0] for line in thin], [0, 100])
        (legend,) = steps.figure.legends
        names = [text.get_text() for text in legend.get_texts()]
        assert names[:3] == ["MBPO", "DHMBPO", "SAC, 5 critics"]  # SAC has no run here
        assert len(names) == 5

    def test_the_mean_is_over_the_same_runs_everywhere(self, tmp_path):
        whole = write_run(tmp_path / "a", lambda _: 0.0, seed=0)
        part = write_run(tmp_path / "b", lambda _: 100.0, seed=1, last=12_000)
        steps, clock = published_figure(rows_of(whole, part)).axes
        np.testing.assert_allclose(points(line_of(steps, "MBPO"))[-1], (12_000, 50))
        np.testing.assert_allclose(points(line_of(clock, "MBPO"))[-1], (12, 50))

    def test_published_points_reach_to_the_next_one_behind_ours(self, tmp_path):
        steps, _ = published_figure(rows_of(write_run(tmp_path / "run"))).axes
        for label, expected in (
            ("published: MBPO", [1739.9, 4183.3, 5751.2]),
            ("published: SAC, 5 critics", [535.9, 4046.6, 4759.3]),
        ):
            shown = points(line_of(steps, label))
            np.testing.assert_allclose(shown[:, 0], [10_000, 20_000, 30_000], atol=400)
            np.testing.assert_allclose(shown[:, 1], expected)
        assert 30_000 < steps.get_xlim()[1] < 32_000
        ends = [sorted(bar[:, 1]) for bar in error_bars(steps)]
        assert [pytest.approx(4183.3 - 628.6), pytest.approx(4183.3 + 628.6)] in ends

    def test_from_three_seeds_on_there_is_an_interval(self, tmp_path):
        runs = [write_run(tmp_path / str(i), lambda _, i=i: 100.0 * i, seed=i) for i in range(3)]
        for count, has_band in ((2, False), (3, True)):
            steps = published_figure(rows_of(*runs[:count])).axes[0]
            bands = [band for band in steps.collections if isinstance(band, PolyCollection)]
            assert any(band.get_paths() for band in bands) == has_band

    def test_algorithms_keep_their_colours_and_settings_are_told_apart(self, tmp_path, recwarn):
        runs = [
            write_run(tmp_path / "a", name="gym/Hopper-v5", utd=20),
            write_run(tmp_path / "b", name="gym/Hopper-v5", utd=5),
            write_run(tmp_path / "c", algorithm="sac", utd=1),
        ]
        figure = published_figure(rows_of(*runs))
        figure.savefig(io.BytesIO(), format="png")
        assert not recwarn.list
        hopper, cheetah, *_ = figure.axes
        names = [text.get_text() for text in figure.legends[0].get_texts()]
        assert {"MBPO with 20 updates", "MBPO with 5 updates", "SAC"} <= set(names)
        for label in ("published: MBPO", "published: SAC, 5 critics"):
            assert line_of(hopper, label).get_color() == line_of(cheetah, label).get_color()
        ours, fewer = (line_of(hopper, f"MBPO with {utd} updates") for utd in (20, 5))
        assert ours.get_linestyle() != fewer.get_linestyle()
        assert ours.get_color() == line_of(hopper, "published: MBPO").get_color()


class TestCommand:
    def test_runs_are_named_apart_and_said_in_full(self, monkeypatch, capsys):
        monkeypatch.setattr("sys.argv", ["published", "run"])
        assert published.main() == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == len(published.RUNS) == 26
        assert lines[0].split() == [
            *("halfcheetah-mbpo-0", "mbpo-jax", "train", "gym/HalfCheetah-v5"),
            *("--algorithm", "mbpo", "--seed", "0", "--total-env-steps", "20000"),
            *("--eval-every", "1000", "--checkpoint-every", "1000"),
            *("--run-dir", "runs/published/halfcheetah-mbpo-0"),
        ]
        assert "--sac.utd-ratio 1" in lines[2]
        (five,) = [line for line in lines if line.startswith("halfcheetah-sac_5_critics-0 ")]
        assert "--algorithm sac" in five
        assert "--preset sac_5_critics" in five

    def test_a_run_becomes_its_own_process_on_its_core(self, monkeypatch):
        called = []
        monkeypatch.setattr(
            "os.sched_setaffinity", lambda *given: called.append(given), raising=False
        )
        monkeypatch.setattr("os.execv", lambda *given: called.append(given))
        monkeypatch.setattr("sys.argv", ["published", "run", "hopper-mbpo-1", "--core", "1"])
        published.main()
        pinned, (_, command) = called
        assert pinned == (0, {1})
        assert command[1:4] == ["-m", "mbpo_jax", "train"]
        assert command[4:] == published.RUNS["hopper-mbpo-1"].arguments()[1:]

    def test_collects_draws_and_writes_the_tables(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr("experiments.common.RESULTS", tmp_path)
        run = write_run(tmp_path / "run")
        monkeypatch.setattr("sys.argv", ["published", "collect", str(run), "--load", "nothing"])
        assert published.main() == 0
        assert "1 runs, 15 evaluations" in capsys.readouterr().out
        monkeypatch.setattr("sys.argv", ["published", "draw"])
        assert published.main() == 0
        assert capsys.readouterr().out.strip() == (tmp_path / "published.md").read_text().strip()
        assert (tmp_path / "published.png").stat().st_size > 0

    def test_nothing_is_drawn_of_nothing(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr("experiments.common.RESULTS", tmp_path)
        monkeypatch.setattr("sys.argv", ["published", "draw"])
        with pytest.raises(SystemExit):
            published.main()
        assert "collect run directories first" in capsys.readouterr().err

    def test_a_wrong_folder_is_said_in_one_line(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr("experiments.common.RESULTS", tmp_path)
        monkeypatch.setattr("sys.argv", ["published", "collect", str(tmp_path), "--load", ""])
        with pytest.raises(SystemExit):
            published.main()
        assert "config.yaml: cannot be read" in capsys.readouterr().err
        assert not (tmp_path / "published.jsonl").exists()

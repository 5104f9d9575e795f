"""Rows of a sweep, read from run directories as training leaves them."""

import math
from pathlib import Path

import pytest

from mbpo_jax import cli
from mbpo_jax.errors import ConfigError
from mbpo_jax.files import append_rows, read_rows, replace_rows
from mbpo_jax.sweeps import results, store
from mbpo_jax.training import run_directory
from tests.sweeps.processes import laid_out

CONTENT = {
    "environments": ["pendulum"],
    "presets": ["debug"],
    "seeds": 2,
    "parts": [
        {"algorithms": ["mbpo"], "grid": {"sac.gamma": [0.9, 0.99]}},
        {"algorithms": ["sac"]},
    ],
}


@pytest.fixture
def sweep_dir(tmp_path):
    """Make a sweep whose MBPO runs have been evaluated four times, and whose SAC runs wait."""
    for unit in laid_out(tmp_path / "a'b", CONTENT):
        if unit.group.config.algorithm == "sac":
            continue
        for step in (50, 100, 150, 200):
            rows = [
                {
                    **{"env_steps": step, "run": i, "seed": run.seed},
                    **{"return_mean": run.sac.gamma * step, "wall_seconds": float(step)},
                    **({"diverged": True} if (i, step) == (0, 200) else {}),
                }
                for i, run in enumerate(unit.group.runs)
            ]
            append_rows(unit.path / "evals.jsonl", rows)
            append_rows(
                unit.path / "metrics.jsonl",
                [{**row, "model/holdout_r2": step / 200} for row in rows],
            )
        run_directory.write_status(unit.path, "finished")
    return tmp_path / "a'b"


def test_every_run_has_a_row_with_what_is_swept(sweep_dir):
    rows, evaluations = results.read_sweep_rows(sweep_dir)
    assert len(rows) == 6
    assert len(evaluations) == 4 * 4
    mbpo = [row for row in rows if row["algorithm"] == "mbpo"]
    assert [row["final_return"] for row in mbpo] == [200 * row["sac.gamma"] for row in mbpo]
    # The mean height of a line from 50 to 200.
    assert mbpo[0]["mean_return"] == pytest.approx(125 * mbpo[0]["sac.gamma"])
    assert [row["diverged"] for row in mbpo] == [True, False, False, False]
    assert {row["model/holdout_r2"] for row in mbpo} == {1.0}
    sac = [row for row in rows if row["algorithm"] == "sac"]
    assert {(row["state"], row["final_return"]) for row in sac} == {("waiting", None)}


def test_a_return_that_is_not_finite_counts_as_the_lowest_of_its_environment(sweep_dir):
    unit = next(u for u in store.units_of(sweep_dir) if u.group.config.algorithm == "mbpo")
    append_rows(
        unit.path / "evals.jsonl",
        [{"env_steps": 250, "run": 1, "seed": 1, "return_mean": math.nan, "wall_seconds": 9.0}],
    )
    rows, evaluations = results.read_sweep_rows(sweep_dir)
    lowest = min(run.sac.gamma * 50 for run in unit.group.runs)
    row = next(row for row in rows if (row["algorithm"], row["run"]) == ("mbpo", 1))
    assert (row["final_return"], row["diverged"]) == (lowest, True)
    assert [r["return_mean"] for r in evaluations if not r["finite"]] == [lowest]
    assert "2 runs became non-finite" in results.write_report(sweep_dir).read_text()


def test_sql_sees_runs_evaluations_and_metrics(sweep_dir):
    query = "select algorithm, count(*), max(final_return) from runs group by all order by 1"
    assert results.connect(sweep_dir).sql(query).fetchall() == [
        ("mbpo", 4, 198.0),
        ("sac", 2, None),
    ]
    joined = """select count(*) from evaluations join runs using (id)
        join metrics on metrics."group" = runs."group" and metrics.run = runs.run
        and metrics.env_steps = evaluations.env_steps"""
    assert results.connect(sweep_dir).sql(joined).fetchall() == [(16,)]
    assert "198.0" in results.answer(sweep_dir, query)
    for ask in (results.answer, results.table):
        with pytest.raises(ConfigError, match="finalreturn"):
            ask(sweep_dir, "select finalreturn from runs")
        with pytest.raises(ConfigError, match="sql: Conversion"):  # known only as it is executed
            ask(sweep_dir, "select cast(algorithm as int) from runs")


def test_a_metric_that_was_not_finished_is_left_out(sweep_dir):
    unit = next(u for u in store.units_of(sweep_dir) if (u.path / "metrics.jsonl").exists())
    query = "select count(*), count(env_steps) from metrics"
    whole = results.connect(sweep_dir).sql(query).fetchall()
    with open(unit.path / "metrics.jsonl", "a") as file:
        file.write('{"env_steps": 300, "ru')
    assert results.connect(sweep_dir).sql(query).fetchall() == whole


def test_an_answer_is_a_data_frame_or_all_of_its_text(sweep_dir):
    frame = results.table(sweep_dir, "select seed, return_mean from evaluations")
    assert frame.shape == (16, 2)
    assert frame["return_mean"].max() == 198.0
    long = results.answer(sweep_dir, "select range as n, repeat('x', 300) as x from range(500)")
    assert long.count("x" * 300) == 500


def test_runs_without_any_finite_return_are_still_known_to_have_diverged(tmp_path):
    for unit in laid_out(tmp_path, CONTENT):
        row = {"env_steps": 50, "return_mean": None, "wall_seconds": 1.0, "diverged": True}
        runs = enumerate(unit.group.runs)
        append_rows(unit.path / "evals.jsonl", [{**row, "run": i, "seed": r.seed} for i, r in runs])
    rows, evaluations = results.read_sweep_rows(tmp_path)
    assert {(r["diverged"], r["env_steps"], r["final_return"]) for r in rows} == {(True, 50, None)}
    assert evaluations == []
    assert "6 runs became non-finite" in results.write_report(tmp_path).read_text()


def test_what_was_damaged_beside_the_rows_does_not_stop_a_report(sweep_dir):
    unit = store.units_of(sweep_dir)[0]
    (unit.path / "environment.json").write_text("{")
    (unit.path / "failures.json").write_text('[{"reason": "no time"}, 3]')
    (unit.path.parent / "notes.txt").write_text("mine")
    assert "no time" in results.write_report(sweep_dir).read_text()


def test_a_sweep_that_has_not_begun_can_be_asked(tmp_path):
    laid_out(tmp_path, CONTENT)
    for name in ("evaluations", "metrics"):
        query = f"select max(env_steps) from {name}"
        assert results.connect(tmp_path).sql(query).fetchall() == [(None,)]
    assert "0 of 6 runs are trained" in results.write_report(tmp_path).read_text()


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_rows_are_exported_as_the_ending_says(sweep_dir, tmp_path, ending):
    import duckdb

    path = tmp_path / f"runs.{ending}"
    results.export(sweep_dir, path, "select * from runs;")
    (found,) = duckdb.sql(f"select count(*), max(final_return) from '{path}'").fetchall()
    assert found == (6, 198.0)


def test_what_cannot_be_exported_leaves_nothing(sweep_dir, tmp_path):
    for path, sql in ((tmp_path / "x.xlsx", "select 1"), (tmp_path / "x.csv", "select nothing")):
        with pytest.raises(ConfigError):
            results.export(sweep_dir, path, sql)
    assert not list(tmp_path.glob("*x.*"))


def test_the_command_prints_a_row_for_each_variant(sweep_dir, capsys):
    assert cli.main(["report", str(sweep_dir)]) == 0
    told = capsys.readouterr().out
    head, environment, *variants, last = told.splitlines()
    assert head.split()[:3] == ["trained", "final", "return"]
    assert environment.strip() == "pendulum"
    assert [line.split()[:6] for line in variants] == [
        ["MBPO,", "gamma", "0.9", "2", "of", "2"],
        ["MBPO,", "gamma", "0.99", "2", "of", "2"],
        ["SAC", "0", "of", "2", "-", "-"],
    ]
    assert last == f"see {sweep_dir / 'report.html'}"


def test_the_report_is_written_into_the_sweep(sweep_dir):
    path = results.write_report(sweep_dir)
    text = path.read_text()
    assert path.parent == sweep_dir
    assert "4 of 6 runs are trained" in text
    assert "1 run became non-finite" in text
    assert "<span>holdout</span> <span>r2</span>" in text


def test_a_directory_without_groups_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no sweep directory"):
        results.write_report(tmp_path)


@pytest.mark.slow
def test_figures_of_the_report_are_written_in_the_formats_that_are_asked_for(sweep_dir):
    results.write_report(sweep_dir)
    assert not (sweep_dir / results.FIGURES).exists()
    results.write_report(sweep_dir, ["pdf"])
    found = {path.name for path in (sweep_dir / results.FIGURES).iterdir()}
    assert {Path(name).suffix for name in found} == {".png", ".pdf"}
    assert {path for path in found if path.startswith("curves-")}
    for path in (sweep_dir / results.FIGURES).glob("*.png"):
        path.unlink()
    results.write_report(sweep_dir)
    assert {path.name for path in (sweep_dir / results.FIGURES).iterdir()} == found


def test_what_was_not_trained_yet_is_no_result(sweep_dir):
    before, _ = results.read_sweep_rows(sweep_dir)
    for unit in store.units_of(sweep_dir):
        path = unit.path / "evals.jsonl"
        old = read_rows(path) if path.exists() else []
        rows = [
            {"env_steps": 0, "run": i, "seed": run.seed, "return_mean": 1e6, "wall_seconds": 1.0}
            for i, run in enumerate(unit.group.runs)
        ]
        replace_rows(path, [*rows, *old])
    after, evaluations = results.read_sweep_rows(sweep_dir)
    for name in ("final_return", "mean_return"):
        assert [row[name] for row in after] == [row[name] for row in before]
    assert sum(row["env_steps"] == 0 for row in evaluations) == len(after)

"""The evaluation before training, at which curves begin, and what it leaves as it is."""

import dataclasses
import functools
import json
import math
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import mbpo_jax
from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.config import Config
from mbpo_jax.envs.base import play_episodes
from mbpo_jax.errors import ConfigError
from mbpo_jax.files import Row, read_rows
from mbpo_jax.training import compiled, devices, driver
from mbpo_jax.training.loop import acting, make_program
from tests.probe_environments import linear_gaussian, tiny_config

pytestmark = pytest.mark.smoke

ENV = linear_gaussian(noise=0.05, episode_length=6)
SAC = dataclasses.replace(tiny_config(), algorithm="sac", total_env_steps=26)


@pytest.fixture(autouse=True)
def _fast(undrawn, monkeypatch):
    """Draw no pictures; devices are set up already when these tests run."""
    monkeypatch.setattr(devices, "use_host_devices", lambda num_runs: None)


def train(run_dir: str, config: Config = SAC, **options) -> mbpo_jax.Run:
    return mbpo_jax.train(config, run_dir, env=ENV, **options)


@functools.cache
def straight() -> Path:
    """Train without a break, once for all tests."""
    train("straight")
    return Path("straight").resolve()


def evaluations(run_dir: str | Path) -> list[Row]:
    """Return evaluations without clock times."""
    rows = read_rows(Path(run_dir, "evals.jsonl"))
    return [{name: row[name] for name in row if name != "wall_seconds"} for row in rows]


def test_the_first_row_is_of_the_untrained_policy_and_costs_no_compilation():
    first = evaluations(straight())[0]
    assert first["env_steps"] == 0
    # By its own words: the policy that training starts from, in the episodes of step 0.
    key, evaluation_key = jax.random.split(jax.random.key(0))
    start = make_program(ENV).init(SAC, key)
    play = acting(make_algorithm(ENV, SAC), start.model, start.agent)
    episodes = jax.random.fold_in(evaluation_key, 0), SAC.eval_episodes
    returns, *_ = play_episodes(ENV, *play, *episodes)
    np.testing.assert_allclose(first["return_mean"], returns.mean(), rtol=1e-5)
    status = json.loads((straight() / "status.json").read_text())
    compiled_once = {"the training step", "the evaluation", "the random steps"}
    assert set(status["compile_seconds"]) == compiled_once


@pytest.mark.slow
def test_it_changes_no_number_and_a_directory_without_it_is_gone_on_with(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(driver.Training, "_evaluate_untrained", lambda self: None)
        train("old", dataclasses.replace(SAC, total_env_steps=18))
    train("old")
    assert evaluations("old") == evaluations(straight())[1:]
    assert Path("old/metrics.jsonl").read_bytes() == (straight() / "metrics.jsonl").read_bytes()


def test_who_was_killed_before_training_makes_it_once(monkeypatch):
    class Killed(BaseException):
        pass

    def kill(self):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(driver.Training, "_advance", kill)
        train("killed")
    assert [row["env_steps"] for row in evaluations("killed")] == [0]
    train("killed")
    assert evaluations("killed") == evaluations(straight())


def test_it_counts_for_what_did_best_but_not_as_solved():
    config = dataclasses.replace(SAC, stop_at_return=-1e6, total_env_steps=42)
    run = train("solved", config)
    rows = evaluations("solved")
    assert [row["env_steps"] for row in rows] == [0, 18, 26]
    best = max(rows, key=lambda row: row["return_mean"])
    assert run.env_steps(best=True) == best["env_steps"]


def test_what_blows_up_before_training_is_not_the_best_for_ever(monkeypatch):
    compile_program = compiled.compile_program

    def blown_up(setup, announce):
        program = compile_program(setup, announce)

        def evaluate(env_steps, state):
            returns, lengths = program.evaluate(env_steps, state)
            return (returns * (math.nan if env_steps == 0 else 1.0)), lengths

        return program._replace(evaluate=evaluate)

    monkeypatch.setattr(driver, "compile_program", blown_up)
    run = train("blown_up")
    assert evaluations("blown_up")[0]["return_mean"] is None
    assert run.env_steps(best=True) in (18, 26)


def test_a_run_that_begins_with_what_another_learned_is_evaluated_with_that():
    """Of the same seed, it plays the same episodes with another policy than a fresh one."""
    train(
        "begun",
        dataclasses.replace(SAC, total_env_steps=18),
        init_from=mbpo_jax.load(straight(), ENV),
    )
    begun, fresh = (evaluations(run)[0] for run in ("begun", straight()))
    assert begun["env_steps"] == fresh["env_steps"] == 0
    assert begun["return_mean"] != fresh["return_mean"]


@pytest.mark.figures
def test_a_listener_is_told_of_it_without_metrics_and_may_fail():
    told = []

    def fail_once(rows):
        told.append(rows)
        if len(told) == 1:
            raise RuntimeError("no connection")

    with pytest.raises(RuntimeError, match="no connection"):
        train("told", on_evaluation=fail_once)
    assert not any("/" in name for name in told[0][0])
    train("told", on_evaluation=fail_once, figure_format="pdf")
    assert [rows[0]["env_steps"] for rows in told] == [0, 18, 26]
    assert evaluations("told") == evaluations(straight())
    assert Path("told/curve.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.figures
def test_a_finished_run_is_drawn_anew_in_the_formats_that_are_asked_for():
    shutil.copytree(straight(), "run")
    train("run", figure_format=["svg"])
    assert b"<svg" in Path("run/curve.svg").read_bytes()
    assert not Path("run/curve.pdf").exists()
    with pytest.raises(ConfigError, match="figure_format: 'gif' is not there"):
        train("other", figure_format="gif")
    assert not Path("other").exists()

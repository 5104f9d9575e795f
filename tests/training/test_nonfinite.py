"""Real transitions that are not finite: what a simulator's glitch does to a run, and what not."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mbpo_jax
from mbpo_jax import replay
from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.config import Config, EnvConfig
from mbpo_jax.files import read_rows
from mbpo_jax.training import devices, driver, loop, playback
from mbpo_jax.training.state import Learned
from mbpo_jax.trees import all_finite
from mbpo_jax.types import RUNS_AXIS, Env, Metrics
from tests.choice import mostly_exhaustive
from tests.probe_environments import GLITCH, GLITCHES, glitchy, tiny_config
from tests.programs import collected

RANDOM_STEPS, STEPS = 12, 8
SAC = dataclasses.replace(
    tiny_config(),
    algorithm="sac",
    random_steps=RANDOM_STEPS,
    total_env_steps=RANDOM_STEPS + 4 * STEPS,
    env=EnvConfig(name="lq", backend="analytic"),  # settings hold known names only
)
MBPO = dataclasses.replace(SAC, algorithm="mbpo", env=EnvConfig(termination="learned"))
STARTS = (0.0, 10.0)
"""An episode that begins at 0 fails in its fifth step, one that begins at 10 never."""


def env_steps(chunk: int) -> jax.Array:
    """Return the environment steps before a chunk."""
    return jnp.int32(RANDOM_STEPS + chunk * STEPS)


Trained = tuple[list[loop.TrainState], list[Metrics]]
"""The states after the random steps and after each chunk, and each chunk's metrics."""


def trainer(env: Env, config: Config, chunks: int) -> Callable[[jax.Array], Trained]:
    """Return a function that trains with a key, compiled once for all keys."""
    program = loop.make_program(env)
    start = jax.jit(lambda key: collected(program, config, key))
    step = jax.jit(lambda steps, state: program.step(config, steps, state))

    def train(key: jax.Array) -> Trained:
        states, metrics = [start(key)], []
        for chunk in range(chunks):
            state, found = step(env_steps(chunk), states[-1])
            states.append(state)
            metrics.append(found)
        return states, metrics

    return train


def trained(env: Env, config: Config, key: jax.Array, chunks: int) -> Trained:
    return trainer(env, config, chunks)(key)


newest = jax.jit(replay.newest, static_argnums=1)


def rows_of(state: loop.TrainState):
    rows, valid = newest(state.replay, int(state.replay.size))
    assert valid.all()
    return jax.tree.map(np.asarray, rows)


@pytest.mark.parametrize(
    ("field", "value"), mostly_exhaustive(GLITCHES, lambda g: (g[0] == "reward") == np.isnan(g[1]))
)
def test_they_are_counted_left_out_and_end_their_episodes(key, field, value):
    """Every fifth step fails, in the random steps and after them."""
    states, metrics = trained(glitchy(field, value), SAC, key, chunks=2)
    for chunk, state in enumerate(states):
        made = np.arange(RANDOM_STEPS + chunk * STEPS) % GLITCH
        rows = rows_of(state)
        np.testing.assert_array_equal(rows.observation[:, 0], made[made < GLITCH - 1])
        np.testing.assert_array_equal(rows.next_observation, rows.observation + 1.0)
        np.testing.assert_array_equal(rows.reward, 1.0)
        assert state.episode_return == len(made) % GLITCH
        assert bool(state.healthy)
        assert bool(all_finite(state.agent))
    assert [int(found["train/nonfinite"]) for found in metrics] == [2, 1]
    for found in metrics:
        assert found["train/reward"] == 1.0
        assert np.isnan(found["train/episode_return"]), "no episode ended as it should"


def test_returns_are_those_of_the_episodes_that_ended_as_they_should(key):
    states, metrics = trained(glitchy("reward", np.nan, STARTS), SAC, key, chunks=3)
    returns = [float(found["train/episode_return"]) for found in metrics]
    assert set(np.asarray(returns)[np.isfinite(returns)]) == {7.0}
    left_out = sum(int(found["train/nonfinite"]) for found in metrics)
    assert left_out > 0
    assert int(states[-1].replay.size - states[0].replay.size) == 3 * STEPS - left_out


@pytest.mark.parametrize(
    ("field", "value"), mostly_exhaustive(GLITCHES, lambda g: (g[0] == "reward") != np.isnan(g[1]))
)
def test_an_evaluated_episode_ends_before_it(key, field, value):
    program = loop.make_program(glitchy(field, value, STARTS))
    config = dataclasses.replace(SAC, eval_episodes=20)
    init_key, play_key = jax.random.split(key)
    with jax.debug_key_reuse(False):
        state = program.init(config, init_key)
        returns, lengths = program.evaluate(config, play_key, state)
    assert set(zip(returns.tolist(), lengths.tolist(), strict=True)) == {(4.0, 4.0), (7.0, 7.0)}


@pytest.mark.parametrize(
    ("start", "rewards"),
    [(0.0, 4), (10.0, 7), (GLITCH - 1.0, 0)],
    ids=["fails", "sound", "at once"],
)
def test_a_played_episode_is_shown_up_to_there(key, start, rewards):
    env = glitchy("reward", np.nan, (start,))
    agent_key, episode_key = jax.random.split(key)
    learned = Learned((), make_algorithm(env, SAC).agent.init(agent_key))
    episode = playback.play_episode(env, SAC, learned, episode_key)
    assert episode.total_reward == rewards
    assert len(episode.transitions.reward) == max(rewards, 1)


@pytest.mark.parametrize("bad", [2, 10])
def test_rows_that_are_there_already_are_taken_out_first(key, bad):
    """As an earlier version left them behind; even if there is no other."""
    env, (init_key, step_key) = glitchy("reward", np.nan), jax.random.split(key)
    program = loop.make_program(env)
    state = trained(env, SAC, init_key, chunks=0)[0][0]._replace(key=step_key)
    reward = state.replay.data.reward.at[:bad].set(jnp.nan)
    state = state._replace(
        replay=state.replay._replace(data=state.replay.data._replace(reward=reward))
    )
    state, metrics = jax.jit(lambda state: program.step(SAC, env_steps(0), state))(state)
    assert metrics["train/nonfinite"] == bad + 2
    assert int(state.replay.size) == 10 - bad + 6
    np.testing.assert_array_equal(rows_of(state).reward, 1.0)
    assert bool(state.healthy)


@pytest.mark.slow
def test_a_model_is_fitted_and_judged_without_them_in_runs_side_by_side(key):
    """Runs that left out different numbers have the numbers of runs alone."""
    env = glitchy("observation", np.nan, STARTS)
    program, keys = loop.make_program(env), jax.random.split(key, 4)
    alone = list(map(trainer(env, MBPO, chunks=2), map(jax.random.clone, keys)))
    with jax.debug_key_reuse(False):
        state = jax.jit(jax.vmap(lambda key: collected(program, MBPO, key)))(keys)
        step = jax.vmap(
            lambda steps, state: program.step(MBPO, steps, state), (None, 0), axis_name=RUNS_AXIS
        )
        step, all_metrics = jax.jit(step), []
        for chunk in range(2):
            state, metrics = step(env_steps(chunk), state)
            all_metrics.append(metrics)
    assert len(set(state.replay.size.tolist())) > 1
    for run, (states, expected) in enumerate(alone):
        assert state.replay.size[run] == states[-1].replay.size
        for metrics, one in zip(all_metrics, expected, strict=True):
            assert one["train/healthy"] == 1.0
            for name, value in one.items():
                assert np.isfinite(value) or name == "train/episode_return", name
                np.testing.assert_allclose(metrics[name][run], value, rtol=5e-3, atol=1e-3)
        assert bool(all_finite((states[-1].replay, states[-1].experience)))


# The host


def host_config() -> Config:
    return dataclasses.replace(SAC, num_seeds=2, total_env_steps=RANDOM_STEPS + 3 * STEPS)


@pytest.fixture
def _host(undrawn, monkeypatch):
    """Draw no pictures."""
    # Devices are set up already when these tests run.
    monkeypatch.setattr(devices, "use_host_devices", lambda num_runs: None)


@pytest.mark.slow
@pytest.mark.usefixtures("_host")
def test_the_host_warns_once_of_each_run_and_counts_them_through_a_resume(monkeypatch, capsys):
    env = glitchy("reward", np.nan)
    assert mbpo_jax.train(host_config(), Path("straight"), env=env).state == "finished"
    warnings = [line for line in capsys.readouterr().out.splitlines() if "not finite" in line]
    assert [line.split(" were ")[0] for line in warnings] == [
        f"warning: 2 transitions of run {run} (seed {run})" for run in (0, 1)
    ]
    status = json.loads(Path("straight/status.json").read_text())
    total = (RANDOM_STEPS + 3 * STEPS) // GLITCH
    assert status["nonfinite"] == [total, total]
    rows = read_rows(Path("straight/metrics.jsonl"))
    assert [row["train/nonfinite"] for row in rows if row["run"] == 0] == [2.0, 1.0, 2.0]
    assert all(np.isfinite(row["return_mean"]) for row in read_rows(Path("straight/evals.jsonl")))

    saved = driver.Training._save
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):

        def save_and_stop(self):
            saved(self)
            raise InterruptedError

        patch.setattr(driver.Training, "_save", save_and_stop)
        mbpo_jax.train(host_config(), Path("resumed"), env=env)
    capsys.readouterr()
    assert mbpo_jax.train(host_config(), Path("resumed"), env=env).state == "finished"
    assert "not finite" not in capsys.readouterr().out
    assert json.loads(Path("resumed/status.json").read_text())["nonfinite"] == [total, total]
    assert read_rows(Path("resumed/metrics.jsonl")) == rows

"""Episodes of a trained policy: what is kept of them, and in which file they are shown."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.config import Config, EnvConfig, SACConfig
from mbpo_jax.envs import brax_rendering
from mbpo_jax.files import append_rows
from mbpo_jax.reports import animation
from mbpo_jax.training import devices, driver, playback
from mbpo_jax.training.playback import Episode, Learned, play_episode
from tests.probe_environments import linear_gaussian

SAC = Config(
    algorithm="sac",
    total_env_steps=20,
    random_steps=10,
    steps_per_fit=5,
    eval_every=5,
    eval_episodes=2,
    checkpoint_every=5,
    sac=SACConfig(utd_ratio=1, batch_size=4, hidden_sizes=(8,)),
)


def _config(name: str, episode_length: int) -> Config:
    """Return a configuration of SAC on an analytic environment."""
    env = EnvConfig(name=name, backend="analytic", episode_length=episode_length)
    return dataclasses.replace(SAC, env=env)


def _untrained(config: Config, key: jax.Array) -> Learned:
    return Learned((), make_algorithm(playback.make_env(config.env), config).agent.init(key))


def _play(config: Config) -> Episode:
    agent_key, episode_key = jax.random.split(jax.random.key(0))
    return play_episode(config, _untrained(config, agent_key), episode_key)


def test_an_analytic_episode_is_kept_as_transitions_that_obey_the_equations():
    """Gym's pendulum, written down again: reward and motion follow from what is observed."""
    episode = _play(_config("pendulum", episode_length=30))
    steps = episode.steps
    assert steps.observation.shape == (30, 3)
    np.testing.assert_array_equal(steps.next_observation[:-1], steps.observation[1:])
    cosine, sine, speed = (steps.observation * [1, 1, 8]).T.astype(np.float64)
    torque = 2 * steps.action[:, 0]
    reward = -(np.arctan2(sine, cosine) ** 2 + 0.1 * speed**2 + 0.001 * torque**2)
    np.testing.assert_allclose(steps.reward, reward, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(episode.total_reward, reward.sum(), rtol=1e-4)
    faster = np.clip(speed + 0.05 * (15 * sine + 3 * torque), -8, 8)
    np.testing.assert_allclose(8 * steps.next_observation[:, 2], faster, rtol=1e-4, atol=1e-4)


def test_an_episode_ends_where_it_terminates():
    episode = _play(_config("probe_delayed", episode_length=10))
    np.testing.assert_array_equal(episode.steps.observation[:, 0], [0, 1])
    np.testing.assert_array_equal(episode.steps.discount, [1, 0])
    assert episode.total_reward == 1.0


class Simulator(NamedTuple):
    pipeline_state: jax.Array


def _seen_by_brax(_: EnvConfig):
    """Return a linear system whose simulator has the same form as Brax's."""
    env = linear_gaussian(noise=0.0, episode_length=6)

    def watched(state):
        return state._replace(simulator=Simulator(state.observation))

    def step(key, state, action):
        state, transition = env.step(key, state, action)
        return watched(state), transition

    return env._replace(reset=lambda key: watched(env.reset(key)), step=step)


def test_a_brax_episode_is_kept_as_pipeline_states(monkeypatch):
    monkeypatch.setattr(playback, "make_env", _seen_by_brax)
    config = dataclasses.replace(SAC, env=EnvConfig(backend="generalized"))
    states = _play(config).steps
    # Where the policy does nothing else, x' = A x + B a: the part off the control is known.
    assert states.shape[1:] == (2,)
    assert 1 <= len(states) <= 6
    across = np.array([0.2, -0.7])  # at right angles to B
    drift = states[:-1] @ np.array([[0.9, 0.2], [-0.1, 0.8]]).T
    np.testing.assert_allclose((states[1:] - drift) @ across, 0, atol=1e-6)


def _state_of_one_run(config: Config):
    state = driver.make_program(playback.make_env(config.env)).init(config, jax.random.key(1))
    return jax.tree.map(lambda x: x[None], state)


def test_an_analytic_episode_is_shown_as_curves_and_nothing_else():
    config = _config("lq", episode_length=20)
    assert playback.picture_name(config) == "episode.png"
    assert playback.render(config, Path(), _state_of_one_run(config), run=0) == []
    assert [path.name for path in Path().iterdir()] == ["episode.png"]


def test_a_brax_episode_is_shown_in_the_viewer_and_what_is_missing_is_said(monkeypatch):
    def no_picture(*_):
        raise animation.RenderingUnavailable("no OpenGL")

    monkeypatch.setattr(playback, "make_env", _seen_by_brax)
    monkeypatch.setattr(brax_rendering, "viewer_json", lambda *_: "{}")
    monkeypatch.setattr(animation, "write_animation", no_picture)
    config = dataclasses.replace(SAC, env=EnvConfig(backend="generalized"))
    assert playback.picture_name(config) == "rollout.html"
    lines = playback.render(config, Path(), _state_of_one_run(config), run=0)
    assert lines == ["no OpenGL"]
    assert [path.name for path in Path().iterdir()] == ["rollout.html"]


def test_a_finished_run_is_shown_and_can_be_shown_again(monkeypatch, capsys):
    """A figure that cannot be drawn is a warning, whatever went wrong."""

    def no_ink(*_):
        raise ValueError("no ink")

    # Devices are set up already when these tests run.
    monkeypatch.setattr(devices, "use_host_devices", lambda num_runs: None)
    with monkeypatch.context() as patch:
        patch.setattr(driver, "learning_curve", no_ink)
        assert driver.train(_config("probe_delayed", episode_length=4), Path("run")) == 0
    printed = capsys.readouterr().out
    assert "playing an episode for episode.png" in printed
    assert "warning: the figures are not up to date: no ink" in printed
    picture = Path("run/episode.png")
    picture.unlink()
    assert playback.render_run(Path("run"), run=0) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"see {picture}"
    assert picture.exists()
    assert not Path("run/rollout.html").exists()


@pytest.mark.parametrize("diagnosed", [True, False])
def test_the_error_is_drawn_where_a_model_was_diagnosed(diagnosed):
    index = {"env_steps": 250, "run": 0, "seed": 0}
    append_rows(Path("evals.jsonl"), [index | {"return_mean": 1.0, "return_std": 0.0}])
    errors = {f"model/k_step_error_{k}": 0.1 * k if diagnosed else jnp.nan for k in (1, 2)}
    append_rows(Path("metrics.jsonl"), [index | errors])
    driver.draw_figures(SAC, Path())
    drawn = {path.name for path in Path().glob("*.png")}
    assert drawn == {"curve.png"} | ({"model_error.png"} if diagnosed else set())

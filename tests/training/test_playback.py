"""Episodes of a trained policy: what is kept of them, and in which file they are shown."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mbpo_jax
from mbpo_jax import cli
from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.config import Config, EnvConfig, SACConfig
from mbpo_jax.envs import make_env
from mbpo_jax.errors import ConfigError
from mbpo_jax.files import append_rows
from mbpo_jax.reports import animation
from mbpo_jax.training import devices, figures, playback
from mbpo_jax.training.figures import draw_figures
from mbpo_jax.training.loop import make_program
from mbpo_jax.training.playback import Episode, play_episode
from mbpo_jax.training.state import Learned, learned
from mbpo_jax.types import Env, Picture
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


def _untrained(env: Env, config: Config, key: jax.Array) -> Learned:
    return Learned((), make_algorithm(env, config).agent.init(key))


def _play(env: Env, config: Config) -> Episode:
    agent_key, episode_key = jax.random.split(jax.random.key(0))
    return play_episode(env, config, _untrained(env, config, agent_key), episode_key)


def test_an_analytic_episode_is_kept_as_transitions_that_obey_the_equations():
    """Gym's pendulum, written down again: reward and motion follow from what is observed."""
    config = _config("pendulum", episode_length=30)
    episode = _play(make_env(config.env), config)
    steps = episode.transitions
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
    config = _config("probe_delayed", episode_length=10)
    episode = _play(make_env(config.env), config)
    np.testing.assert_array_equal(episode.transitions.observation[:, 0], [0, 1])
    np.testing.assert_array_equal(episode.transitions.discount, [1, 0])
    assert episode.total_reward == 1.0


def pictured(viewer=None) -> Env:
    """Return a linear system with a picture, whose frames are observations."""
    env = linear_gaussian(noise=0.0, episode_length=6)
    picture = Picture(lambda state: state.observation, lambda: "model", lambda x: x, viewer)
    return env._replace(picture=picture)


def test_frames_are_those_of_the_states_that_steps_led_to():
    episode = _play(pictured(), SAC)
    assert 1 <= len(episode.frames) <= 6
    np.testing.assert_array_equal(episode.frames, episode.transitions.next_observation)


def _shown(env: Env, config: Config = SAC) -> playback.Shown:
    begun = make_program(env).init(config, jax.random.key(1))
    return playback.render(env, config, Path(), learned(begun))


def test_an_analytic_episode_is_shown_as_curves_and_nothing_else():
    config = _config("lq", episode_length=20)
    assert _shown(make_env(config.env), config) == (Path("episode.png"), [])
    assert [path.name for path in Path().iterdir()] == ["episode.png"]


def no_picture(*_):
    raise animation.RenderingUnavailable("no OpenGL")


@pytest.mark.parametrize("has_viewer", [True, False])
def test_without_opengl_there_is_the_viewer_or_curves_and_it_is_said(monkeypatch, has_viewer):
    monkeypatch.setattr(animation, "write_animation", no_picture)
    shown = _shown(pictured((lambda frames, dt: "{}") if has_viewer else None))
    assert shown.notes == ["no OpenGL"]
    assert [path.name for path in Path().iterdir()] == [shown.path.name]
    assert shown.path.name == ("rollout.html" if has_viewer else "episode.png")


def test_what_is_drawn_is_the_model_at_the_positions_of_the_episode(monkeypatch):
    drawn = []
    monkeypatch.setattr(animation, "write_animation", lambda *given: drawn.append(given))
    env = pictured()
    assert _shown(env) == (Path("rollout.webp"), [])
    ((path, model, positions, dt),) = drawn
    assert (path.name, model, dt) == ("rollout.webp", "model", env.spec.dt)
    assert positions.shape[1:] == (2,)


@pytest.mark.parametrize(("part", "fault"), [("frame", ValueError), ("positions", KeyError)])
def test_a_picture_at_fault_is_named(part, fault):
    def draw(_):
        raise fault("no such body")

    env = pictured()
    env = env._replace(picture=env.picture._replace(**{part: draw}))
    with pytest.raises(ConfigError, match=f"{fault.__name__}.*no such body.*Env.picture"):
        _shown(env)


@pytest.mark.slow
def test_a_finished_run_is_shown_and_can_be_shown_again(monkeypatch, capsys):
    """A figure that cannot be drawn is a warning, whatever went wrong."""

    def no_ink(*_):
        raise ValueError("no ink")

    # Devices are set up already when these tests run.
    monkeypatch.setattr(devices, "use_host_devices", lambda num_runs: None)
    with monkeypatch.context() as patch:
        patch.setattr(figures, "learning_curve_figure", no_ink)
        run = mbpo_jax.train(_config("probe_delayed", episode_length=4), "run")
    assert run.state == "finished"
    printed = capsys.readouterr().out
    assert "playing an episode" in printed
    assert "warning: the figures are not up to date: no ink" in printed
    picture = Path("run/episode.png")
    picture.unlink()
    assert cli.main(["render", "run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"see {picture}"
    assert picture.exists()
    assert not Path("run/rollout.html").exists()


@pytest.mark.parametrize("diagnosed", [True, False])
def test_the_error_is_drawn_where_a_model_was_diagnosed(diagnosed):
    index = {"env_steps": 250, "run": 0, "seed": 0}
    append_rows(Path("evals.jsonl"), [index | {"return_mean": 1.0, "return_std": 0.0}])
    errors = {f"model/k_step_error_{k}": 0.1 * k if diagnosed else jnp.nan for k in (1, 2)}
    append_rows(Path("metrics.jsonl"), [index | errors])
    draw_figures(SAC, Path())
    drawn = {path.name for path in Path().glob("*.png")}
    assert drawn == {"curve.png"} | ({"model_error.png"} if diagnosed else set())

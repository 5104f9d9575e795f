"""The assembly of MBPO: what its batches hold, and that without model data it is SAC."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import replay
from mbpo_jax.algorithms import make_algorithm, mbpo
from mbpo_jax.config import Config, ConfigError, EnsembleConfig, EnvConfig, RolloutConfig
from mbpo_jax.envs.termination import never
from mbpo_jax.training.loop import make_program
from mbpo_jax.types import EnvSpec, Transition
from tests.probe_environments import linear_gaussian, tiny_config

SPEC = EnvSpec("hopper", 11, 3, episode_length=1000, action_repeat=1, dt=0.008)
REAL, MODEL = 1.0, -1.0


def buffer_of(payload, rows=5):
    """Return a full buffer every number of which is the payload."""
    empty = replay.init(rows, 2, 1)
    return replay.add(empty, jax.tree.map(lambda x: jnp.full_like(x, payload), empty.data))


@functools.partial(jax.jit, static_argnums=1)
def draw(key, shape, real_ratio) -> Transition:
    return mbpo.mixed_batch(key, buffer_of(REAL), buffer_of(MODEL), shape, real_ratio)


@pytest.mark.parametrize(
    ("real_ratio", "batch_size", "num_real"),
    [
        (0.0, 256, 0),
        (0.05, 256, 12),
        (0.5, 256, 128),
        (0.999, 256, 255),
        (1.0, 256, 256),
        (0.29, 100, 29),
        (0.7, 10, 7),
        (0.1, 3, 0),
    ],
)
def test_a_batch_holds_exactly_the_share_of_real_rows(key, real_ratio, batch_size, num_real):
    batch = draw(key, (3, batch_size), real_ratio)
    for leaf in batch:
        from_real = np.asarray(leaf.reshape(3, batch_size, -1) == REAL)
        # A row comes from one source as a whole.
        np.testing.assert_array_equal(from_real.all(axis=-1), from_real.any(axis=-1))
        np.testing.assert_array_equal(from_real.all(axis=-1).sum(axis=1), num_real)
        np.testing.assert_array_equal(from_real[:, :num_real], True)


@pytest.mark.parametrize(
    ("real_ratio", "batch_size", "num_real"),
    [(0.251, 10000, 2510), (0.332, 10000, 3320), (0.009, 5000, 45), (0.513, 16384, 8404)],
)
def test_large_batches_are_not_off_by_the_rounding_of_single_precision(
    key, real_ratio, batch_size, num_real
):
    batch = draw(key, (batch_size,), real_ratio)
    assert np.sum(np.asarray(batch.reward) == REAL) == num_real


def test_while_there_are_no_model_transitions_all_are_real(key):
    column = jnp.ones((4, 1))
    ones = Transition(column, column, jnp.ones(4), jnp.ones(4), column)
    real, none = replay.add(replay.init(4, 1, 1), ones), replay.init(4, 1, 1)
    for leaf in mbpo.mixed_batch(key, real, none, (20,), 0.05):
        np.testing.assert_array_equal(leaf, 1.0)


def test_rows_of_a_batch_are_drawn_from_all_of_either_source(key):
    rows = jnp.arange(4.0)
    column = rows[:, None]
    sources = [
        replay.add(replay.init(4, 1, 1), Transition(column, column, rows + offset, rows, column))
        for offset in (0.0, 10.0)
    ]
    batch = mbpo.mixed_batch(key, *sources, (200,), 0.5)
    np.testing.assert_array_equal(np.unique(batch.reward[:100]), np.arange(4))
    np.testing.assert_array_equal(np.unique(batch.reward[100:]), 10 + np.arange(4))
    # Fields of one row belong together.
    np.testing.assert_array_equal(batch.reward % 10, batch.discount)
    np.testing.assert_array_equal(batch.observation, batch.next_observation)


def test_the_model_buffer_has_room_for_the_longest_rollouts():
    rollout = RolloutConfig(
        rollouts_per_step=10,
        retain_epochs=3,
        min_length=1,
        max_length=4,
        start_epoch=0,
        end_epoch=9,
    )
    config = Config(rollout=rollout, epoch_length=50, steps_per_fit=25, eval_every=25)
    assert mbpo.model_buffer_capacity(config) == 3 * 10 * 50 * 4
    state = jax.eval_shape(make_algorithm(SPEC, config).experience.init, jax.random.key(0))
    assert state.buffer.data.observation.shape == (6000, 11)
    assert state.buffer.data.action.shape == (6000, 3)


def test_an_environment_without_a_known_rule_is_refused():
    config = Config(env=EnvConfig(name="terra incognita"))
    with pytest.raises(ConfigError, match="termination=learned"):
        make_algorithm(SPEC._replace(name="terra incognita"), config)


@pytest.mark.parametrize("mode", ["learned", "none"])
def test_an_environment_without_a_known_rule_can_do_without(mode):
    config = Config(env=EnvConfig(termination=mode), ensemble=EnsembleConfig(hidden_sizes=(4,) * 4))
    algorithm = make_algorithm(SPEC._replace(name="terra incognita"), config)
    shapes = jax.eval_shape(algorithm.experience.init, jax.random.key(0))
    outputs = jax.tree.leaves(shapes.model.params.members["params"]["layer_4"]["bias"])[0].shape[-1]
    # Mean and log-variance of the reward and 11 observed numbers, and perhaps a logit.
    assert outputs == 24 + (mode == "learned")


@pytest.mark.parametrize("backend", ["generalized", "mjx"])
def test_the_termination_rule_is_that_of_the_physics_backend(monkeypatch, backend):
    asked = []

    def recorded(*arguments):
        asked.append(arguments)
        return never

    monkeypatch.setattr(mbpo, "termination_fn", recorded)
    config = Config(env=EnvConfig(name="ant", backend=backend))
    make_algorithm(SPEC._replace(name="ant"), config)
    assert asked == [("ant", "known", backend)]


@pytest.mark.slow
def test_mbpo_on_real_data_alone_is_sac(key):
    """With a real ratio of 1 the model is fitted and rolled out to no effect on the agent."""
    config = tiny_config()
    config = dataclasses.replace(
        config,
        env=dataclasses.replace(config.env, termination="none"),
        rollout=dataclasses.replace(config.rollout, real_ratio=1.0),
    )
    program = make_program(linear_gaussian(noise=0.05, episode_length=5))

    @jax.jit
    def train(config, key):
        state = program.collect(config, program.init(config, key))
        return program.step(config, jnp.int32(config.random_steps), state)[0]

    mbpo_end, sac_end = (
        train(dataclasses.replace(config, algorithm=algorithm), jax.random.clone(key))
        for algorithm in ("mbpo", "sac")
    )
    assert mbpo_end.experience.buffer.size > 0
    for name in ("agent", "env", "replay", "episode_return"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            getattr(mbpo_end, name),
            getattr(sac_end, name),
        )

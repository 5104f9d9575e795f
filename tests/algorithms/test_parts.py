"""What algorithms are assembled from: batches of two sources, and the model that is asked for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import replay
from mbpo_jax.algorithms import parts
from mbpo_jax.config import Config, EnsembleConfig, EnvConfig
from mbpo_jax.errors import ConfigError
from mbpo_jax.types import Env, EnvSpec, Transition

REAL, MODEL = 1.0, -1.0


def hopper_like(terminated=None) -> Env:
    """Return an environment of which only the sizes and the rule are looked at."""
    spec = EnvSpec("terra incognita", 11, 3, episode_length=1000, action_repeat=1, dt=0.008)
    return Env(spec, None, None, terminated=terminated)


def own_rule(observation: jax.Array) -> jax.Array:
    return observation[..., 3] > 2.0


def buffer_of(payload, rows=5, **kept):
    """Return a full buffer every number of which is the payload."""
    empty = replay.init(rows, 2, 1, **kept)
    return replay.add(empty, jax.tree.map(lambda x: jnp.full_like(x, payload), empty.data))


@functools.partial(jax.jit, static_argnums=1)
def draw(key, shape, real_ratio) -> Transition:
    return parts.mixed_batch(key, buffer_of(REAL), buffer_of(MODEL), shape, real_ratio)


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
    for leaf in jax.tree.leaves(batch):
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
    real, none = buffer_of(REAL, rows=4), replay.init(4, 2, 1)
    batch = parts.mixed_batch(key, real, none, (20,), 0.05)
    assert len(jax.tree.leaves(batch)) == 5
    for leaf in jax.tree.leaves(batch):
        np.testing.assert_array_equal(leaf, REAL)


def test_rows_of_a_batch_are_drawn_from_all_of_either_source(key):
    rows = jnp.arange(4.0)
    column = rows[:, None]
    sources = [
        replay.add(replay.init(4, 1, 1), Transition(column, column, rows + offset, rows, column))
        for offset in (0.0, 10.0)
    ]
    batch = parts.mixed_batch(key, *sources, (200,), 0.5)
    np.testing.assert_array_equal(np.unique(batch.reward[:100]), np.arange(4))
    np.testing.assert_array_equal(np.unique(batch.reward[100:]), 10 + np.arange(4))
    # Fields of one row belong together.
    np.testing.assert_array_equal(batch.reward % 10, batch.discount)
    np.testing.assert_array_equal(batch.observation, batch.next_observation)


def test_what_only_real_rows_hold_stays_out_of_a_mixed_batch(key):
    """Neither log-densities nor simulator states are known of model transitions."""
    real = buffer_of(REAL, log_prob=True, simulator={"clock": jnp.zeros(3)})
    batch = parts.mixed_batch(jax.random.clone(key), real, buffer_of(MODEL), (4, 10), 0.5)
    assert (batch.log_prob, batch.simulator) == ((), ())
    plain = parts.mixed_batch(key, buffer_of(REAL), buffer_of(MODEL), (4, 10), 0.5)
    jax.tree.map(np.testing.assert_array_equal, batch, plain)


def test_replay_alone_is_a_mixed_batch_of_real_rows_number_for_number(key):
    rows = jnp.arange(50.0)
    column = rows[:, None]
    real = replay.add(replay.init(50, 1, 1), Transition(column, column, rows, rows, column))
    mixed = parts.mixed_batch(jax.random.clone(key), real, real, (3, 8), 1.0)
    alone = parts.replay_experience().sample(key, (), real, (3, 8))
    jax.tree.map(np.testing.assert_array_equal, mixed, alone)


def test_an_environment_without_a_known_rule_is_refused():
    config = Config()
    with pytest.raises(ConfigError, match="termination=learned"):
        parts.make_model(hopper_like(), config)


@pytest.mark.parametrize("mode", ["learned", "none"])
def test_an_environment_without_a_known_rule_can_do_without(mode):
    config = Config(env=EnvConfig(termination=mode), ensemble=EnsembleConfig(hidden_sizes=(4,) * 4))
    model = parts.make_model(hopper_like(), config)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    outputs = jax.tree.leaves(shapes.params.members["params"]["layer_4"]["bias"])[0].shape[-1]
    # Mean and log-variance of the reward and 11 observed numbers, and perhaps a logit.
    assert outputs == 24 + (mode == "learned")


@pytest.mark.parametrize("name", ["hopper", "terra incognita"])
def test_the_termination_rule_is_the_environments_own(name, monkeypatch):
    """Whatever the configuration calls it: names decide nothing once it is made."""
    asked = []
    monkeypatch.setattr(parts, "make_learned_model", lambda *given: asked.append(given[-1]))
    config = Config(env=EnvConfig(name=name))
    parts.make_model(hopper_like(own_rule), config)
    assert asked == [own_rule]


def test_the_true_system_needs_no_termination_rule_and_nothing_to_fit():
    """It knows how it ends, so that nobody is asked for a rule of an unknown environment."""
    config = Config(model="oracle")
    model = parts.make_model(hopper_like(), config)
    assert model.needs_simulator
    assert model.num_members == 1
    assert jax.tree.leaves(model.init(jax.random.key(0))) == []

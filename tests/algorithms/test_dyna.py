"""Generalised Dyna: real updates as SAC's, then planning updates; without these it is SAC."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.algorithms.parts import mixed_batch
from mbpo_jax.config import ALGORITHMS, DynaConfig
from tests.algorithms.against_sac import assert_trains_as_sac
from tests.algorithms.clocked_system import CAPACITY, ENV, make_config, played, rows_of

NUM_REAL, BATCH_SIZE = 2, 8


def dyna_config(*, rollout=(), **settings):
    return make_config("dyna", rollout=rollout, dyna=DynaConfig(**settings))


def batches(algorithm: str, key, config, buffer, real):
    """Return the batches of one environment step."""
    model = config.model if ALGORITHMS[algorithm].has_model else "learned"
    config = dataclasses.replace(config, algorithm=algorithm, model=model)
    algorithm = make_algorithm(ENV, config)
    shape = (algorithm.agent.updates_per_step, algorithm.agent.batch_size)
    return algorithm.experience.sample(key, buffer, real, shape)


@functools.partial(jax.jit, static_argnums=1)
def refresh(config, policy_action, key, buffer, real, env_steps):
    algorithm = make_algorithm(ENV, config)
    experience = algorithm.experience

    def policy(key, observation):
        return jnp.full((*observation.shape[:-1], 1), policy_action)

    buffer = experience.init() if buffer is None else buffer
    return experience.refresh(key, buffer, (), real, policy, env_steps)[0]


@pytest.mark.parametrize("model_updates", [0, 1, 5])
def test_real_updates_come_first_with_the_batches_of_sac_then_mixed_ones(key, model_updates):
    real_key, made_key, key = jax.random.split(key, 3)
    config = dyna_config(model_updates=model_updates)
    # Another stretch of the system's life in the place of model transitions.
    real = played(real_key, 20)
    made = played(made_key, CAPACITY)
    made = made._replace(data=made.data._replace(simulator=()))
    drawn = batches("dyna", jax.random.clone(key), config, made, real)
    assert drawn.reward.shape == (NUM_REAL + model_updates, BATCH_SIZE)
    alone = batches("sac", jax.random.clone(key), config, (), real)
    mixed_key, shape = jax.random.fold_in(key, 1), (model_updates, BATCH_SIZE)
    mixed = mixed_batch(mixed_key, real, made, shape, config.rollout.real_ratio)
    for name in ("observation", "action", "reward", "discount", "next_observation"):
        first, then = jnp.split(getattr(drawn, name), [NUM_REAL])
        np.testing.assert_array_equal(first, getattr(alone, name))
        np.testing.assert_array_equal(then, getattr(mixed, name))
    # Real rows of the later batches are not the first ones again.
    if model_updates:
        assert not np.array_equal(drawn.reward[0, :4], drawn.reward[NUM_REAL, :4])


@pytest.mark.parametrize("actions", ["policy", "replay", "random"])
def test_rollouts_begin_with_the_action_that_is_asked_for(key, actions):
    real_key, key = jax.random.split(key)
    config = dyna_config(actions=actions, rollout={"max_length": 1})
    real = played(real_key, 20)
    made = rows_of(refresh(config, 0.25, key, None, real, jnp.int32(20)))
    stored = rows_of(real)
    taken = dict(zip(map(bytes, stored.observation), stored.action[:, 0], strict=True))
    replayed = np.array([taken[bytes(observation)] for observation in made.observation])
    made_action = made.action[:, 0]
    same_as = {"policy": made_action == np.float32(0.25), "replay": made_action == replayed}
    assert len(made_action) == 40
    for name, same in same_as.items():
        assert same.all() if name == actions else not same.any()
    if actions == "random":
        assert len(np.unique(made.action)) == 40
        assert np.ptp(made.action) > 1.0


@pytest.mark.parametrize("keep", [True, False])
def test_without_keeping_model_data_only_the_newest_fits_transitions_are_valid(key, keep):
    real_key, first_key, second_key = jax.random.split(key, 3)
    config = dyna_config(keep_model_data=keep, rollout={"max_length": 1})
    real = played(real_key, 20)
    buffer = refresh(config, 0.1, first_key, None, real, jnp.int32(10))
    buffer = refresh(config, 0.2, second_key, buffer, real, jnp.int32(18))
    actions, counts = np.unique(rows_of(buffer).action, return_counts=True)
    np.testing.assert_allclose(actions, [0.1, 0.2] if keep else [0.2])
    np.testing.assert_array_equal(counts, 40)


@pytest.mark.slow
def test_dyna_without_model_updates_is_sac(key):
    """The model's rollouts are made to no effect on the agent."""
    config = dyna_config(model_updates=0)
    end = assert_trains_as_sac(key, config)
    assert end.agent.log_alpha != 0.0

"""Model-based acceleration: it branches from the newest transitions alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.algorithms import make_algorithm
from tests.algorithms.clocked_system import (
    ENV,
    assert_true_transitions,
    make_config,
    played,
    rows_of,
)


@functools.partial(jax.jit, static_argnums=0)
def model_transitions(num_steps, config, key, real):
    algorithm = make_algorithm(ENV, config)
    experience = algorithm.experience
    return experience.refresh(
        key,
        experience.init(),
        algorithm.model.ready(()),
        real,
        lambda key, observation: jax.random.uniform(key, (*observation.shape[:-1], 1)),
        jnp.int32(num_steps),
    )[0]


@pytest.mark.parametrize(
    ("algorithm", "recent_steps", "num_starts"),
    [("mba", 1, 1), ("mba", 3, 3), ("mba", 250, 20), ("mbpo", 3, 20)],
)
def test_only_mba_branches_from_the_newest_transitions_alone(
    key, algorithm, recent_steps, num_starts
):
    """Of 20 transitions, 200 rollouts of one step; MBPO does not look at the setting."""
    real_key, key = jax.random.split(key)
    rollout = {"recent_steps": recent_steps, "max_length": 1, "rollouts_per_step": 25}
    config, real = make_config(algorithm, rollout=rollout), played(real_key, 20)
    made = rows_of(model_transitions(20, config, key, real))
    assert len(made.reward) == 200
    assert_true_transitions(rows_of(real), made)
    np.testing.assert_array_equal(
        np.unique(made.observation, axis=0),
        np.unique(rows_of(real).observation[-num_starts:], axis=0),
    )

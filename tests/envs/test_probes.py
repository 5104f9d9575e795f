"""The table of the probes' values, by playing them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.envs.analytic import make_analytic_env
from mbpo_jax.envs.probes import PROBES, RIGHT_ACTION

LIMIT = 200


def probe_values(name: str, gamma: float) -> dict[float, float]:
    """Return the optimal value of every observation from which a probe goes on.

    Args:
      name: of the probe.
      gamma: discount factor, below 1.
    """
    table = {
        "probe_constant": {0.0: 1.0},
        "probe_observation": {-1.0: -1.0, 1.0: 1.0},
        "probe_delayed": {0.0: gamma, 1.0: 1.0},
        "probe_action": {0.0: 0.0},
        "probe_endless": {0.0: 1.0 / (1.0 - gamma)},
    }
    return table[name]


@functools.partial(jax.jit, static_argnums=0)
def discounted_return(name, start, action, gamma):
    """Play from an observation by one action, until a termination or next to nothing is left."""
    env = make_analytic_env(name, LIMIT)
    row = jnp.array([start])
    state = env.reset(jax.random.key(0))._replace(simulator=row, observation=row)

    def step(carry, key):
        state, weight = carry
        state, transition = env.step(key, state, jnp.array([action]))
        return (state, weight * gamma * transition.discount), weight * transition.reward

    keys = jax.random.split(jax.random.key(1), LIMIT)
    return jnp.sum(jax.lax.scan(step, (state, jnp.ones(())), keys)[1])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("name", PROBES)
def test_the_best_action_earns_the_value_in_the_table(name, gamma):
    for observation, value in probe_values(name, gamma).items():
        earned = discounted_return(name, observation, RIGHT_ACTION, gamma)
        assert float(earned) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("action", [-1.0, 0.0, 0.4, 0.6, 1.0])
def test_only_one_probe_minds_the_action(action):
    for name in PROBES:
        for observation, value in probe_values(name, 0.5).items():
            earned = discounted_return(name, observation, action, 0.5)
            loss = (action - RIGHT_ACTION) ** 2 if name == "probe_action" else 0.0
            assert float(earned) == pytest.approx(value - loss, abs=1e-5)


@pytest.mark.parametrize("name", PROBES)
def test_episodes_start_from_an_observation_of_the_table(name):
    env = make_analytic_env(name, LIMIT)
    starts = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 50)).observation
    table = set(probe_values(name, 0.5))
    assert set(np.unique(starts)) == (table - {1.0} if name == "probe_delayed" else table)

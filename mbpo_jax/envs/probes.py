"""Probe environments: each needs one ability of a learner, and its values are known.

| probe       | an episode                          | what it needs | optimal values         |
|-------------|-------------------------------------|---------------|------------------------|
| constant    | one step, reward 1                  | a scale       | V(0) = 1               |
| observation | one step from s = -1 or 1, reward s | observations  | V(s) = s               |
| delayed     | s = 0, then 1; reward s             | discounting   | V(0) = gamma, V(1) = 1 |
| action      | one step, reward -(a - 0.5)^2       | better action | V(0) = 0 at a = 0.5    |
| endless     | s = 0 for ever, reward 1            | bootstrapping | V(0) = 1 / (1 - gamma) |

Observations and actions are single numbers. Only time limits end an episode of `endless`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mbpo_jax.envs.system import System

RIGHT_ACTION = 0.5
"""What `probe_action` rewards most."""


def make_probe(
    reward: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    initial: Callable[[jax.Array], jax.Array] = lambda key: jnp.zeros(1),
    limit: float = 0.5,
    drift: float = 1.0,
) -> System:
    """Build a probe: the observation, which is the state, drifts by a constant.

    Args:
      reward: `(observation [1], action [1]) -> reward [1]`.
      initial: draws the first observation `[1]`.
      limit: an episode terminates once the observation exceeds it.
      drift: change of the observation per step.
    """
    return System(
        observation_size=1,
        action_size=1,
        dt=1.0,
        initial=initial,
        dynamics=lambda key, state, action: state + drift,
        reward=lambda state, action, next_state: reward(state, action)[0],
        observe=lambda state: state,
        terminated=lambda observation: observation[..., 0] > limit,
    )


def _one(observation: jax.Array, action: jax.Array) -> jax.Array:
    return jnp.ones_like(observation)


def _itself(observation: jax.Array, action: jax.Array) -> jax.Array:
    return observation


def _miss(observation: jax.Array, action: jax.Array) -> jax.Array:
    return -jnp.square(action - RIGHT_ACTION)


def _either_sign(key: jax.Array) -> jax.Array:
    return jax.random.rademacher(key, (1,), jnp.float32)


PROBES = {
    "probe_constant": make_probe(_one),
    # Wherever it starts, it ends: -1 goes to 0 and 1 to 2.
    "probe_observation": make_probe(_itself, initial=_either_sign, limit=-0.5),
    "probe_delayed": make_probe(_itself, limit=1.5),
    "probe_action": make_probe(_miss),
    "probe_endless": make_probe(_one, drift=0.0),
}

"""Problems made of mechanical systems: pendulums under a network, a free fall, and a stiff contact.

Their gradients are not known in closed form. The fall and the contact are those of Suh et al. 2022
(arXiv:2202.00817), where pathwise gradients lose to likelihood ratios.
"""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from mbpo_jax.envs import mechanics
from mbpo_jax.envs.system import System
from mbpo_jax.laboratory.problems.problem import Gaussian, Problem
from mbpo_jax.nets.networks import make_mlp
from mbpo_jax.types import PyTree

HIDDEN_UNITS = 16
LOG_STD = -1.0
"""Of the policy's actions before they are squashed, at the parameters where it is looked at."""


def make_system_problem(name: str, system: System) -> Problem:
    """Build a problem of a system without noise under a small random network.

    The policy is a tanh network on the observation, whose actions are squashed by a tanh; its
    weights and the logarithms of its standard deviations are the parameters. The state is that of
    the system, `[S]`. Rewards are the system's, and nothing is paid for the last state.

    Args:
      name: of the problem.
      system: which ignores the key of its dynamics, and never terminates.
    """
    network = make_mlp(
        system.observation_size, (HIDDEN_UNITS,), system.action_size, activation=jnp.tanh
    )
    initial = network.init(jax.random.key(0)), jnp.full(system.action_size, LOG_STD)
    # Flax makes float32, whatever the precision.
    params, restore = ravel_pytree(jax.tree.map(lambda x: jnp.asarray(x, float), initial))
    ignored = jax.random.key(0)

    def policy(restored: PyTree, state: jax.Array) -> Gaussian:
        weights, log_std = restored
        return Gaussian(network.apply(weights, system.observe(state)), jnp.exp(log_std))

    return Problem(
        name=name,
        params=params,
        action_size=system.action_size,
        start=system.initial,
        policy=policy,
        restore=restore,
        squash=jnp.tanh,
        advance=lambda state, action, outcome: system.dynamics(ignored, state, action),
        reward=system.reward,
        terminal=lambda state: jnp.zeros(()),
    )


def make_pendulum_problem() -> Problem:
    """Build `envs.mechanics.make_pendulum` as a problem."""
    return make_system_problem("pendulum", mechanics.make_pendulum())


def make_cartpole_problem() -> Problem:
    """Build `envs.mechanics.make_cartpole` as a problem."""
    return make_system_problem("cartpole", mechanics.make_cartpole())


def make_double_pendulum_problem() -> Problem:
    """Build `envs.mechanics.make_double_pendulum` as a problem."""
    return make_system_problem("double_pendulum", mechanics.make_double_pendulum())


FALL_MEAN = (1.5 * jnp.pi, jnp.pi, 5.0, -5.0)
"""The first link lies level and the second hangs, in radians and radians per second."""
FALL_STD = 0.5
FALL_END = 2.0
"""Seconds that the last state counts for."""


def make_double_pendulum_fall_problem() -> Problem:
    """Build the fall of a double pendulum from a random state, of their figure 6.

    The parameters `[4]` are the mean of the normal state that it falls from, with a standard
    deviation of 0.5. That state is the first action: a step of this problem before the fall. Later
    actions do nothing, and their law does not depend on the parameters. A state costs
    `q1^2 + q2^2 + (w1^2 + w2^2) / 10` per second, and the last one as much as two seconds of it;
    both angles lie in [-pi, pi) and are counted from the upright.

    The paper counts angles from the hanging position, where its mean is (pi/2, 0, 5, -5); ours is
    the mirror image of it. Its links are points of 0.1 kg instead of rods, its steps take 0.001 s
    instead of 0.05 s, and its costs are the same but for a factor of 1000.

    The state is that of the pendulum and a clock `[5]`: 0 before the fall, then 1.
    """
    system = mechanics.make_double_pendulum()
    ignored = jax.random.key(0)

    def policy(params: jax.Array, state: jax.Array) -> Gaussian:
        falling = state[-1] > 0.0
        mean = jnp.where(falling, 0.0, params)
        return Gaussian(mean, jnp.where(falling, 1.0, jnp.full_like(mean, FALL_STD)))

    def advance(state: jax.Array, action: jax.Array, outcome: jax.Array) -> jax.Array:
        fallen = system.dynamics(ignored, state[:-1], jnp.zeros(system.action_size))
        return jnp.append(jnp.where(state[-1] > 0.0, fallen, action), 1.0)

    def cost(state: jax.Array) -> jax.Array:
        angles, speeds = mechanics.wrapped(state[:2]), state[2:4]
        return jnp.sum(jnp.square(angles)) + 0.1 * jnp.sum(jnp.square(speeds))

    def reward(state: jax.Array, action: jax.Array, following: jax.Array) -> jax.Array:
        return -jnp.where(state[-1] > 0.0, system.dt * cost(state), 0.0)

    return Problem(
        name="double_pendulum_fall",
        params=jnp.array(FALL_MEAN),
        action_size=4,
        start=lambda key: jnp.zeros(5),
        policy=policy,
        squash=lambda u: u,
        advance=advance,
        reward=reward,
        terminal=lambda state: -FALL_END * cost(state),
    )


PUSHING_STEPS = 100
PUSHING_DT = 0.005
PUSHING_MASS = 0.1
PUSHING_DAMPING = 0.1
PUSHING_STD = 0.3
PUSHING_START = (0.0, 1.0, 0.1, 0.0)
PUSHING_TARGET = 2.0


def make_pushing_problem(stiffness: float = 100.0) -> Problem:
    """Build a pusher that moves a block through a spring, after their figure 5.

    Pusher and block, at x1 and x2, touch where they are less than a metre apart. The block then
    feels the force `f = stiffness (1 - (x2 - x1))`, elsewhere 0, and the pusher u - f, where u is
    the action in newtons:

      v1' = v1 + dt (u - f - d v1) / m,  v2' = v2 + dt (f - d v2) / m,  x' = x + dt v',

    with dt = 0.005 s, m = 0.1 kg and d = 0.1 N s/m. They start in touch, at 0 and 1 m, the pusher
    at 0.1 m/s. A state costs `(x2 - 2)^2`, the last one included. In the paper's code a step leaves
    a tenth of a speed instead, and there are costs of the action, which outweigh all else.

    The parameters `[100]` are the mean forces of as many steps, 1 newton each, whose standard
    deviation is 0.3; beyond these steps, the last one goes on. The state is `(x1, x2, v1, v2)` and
    a clock in steps, `[5]`.

    Args:
      stiffness: in newtons per metre; 10 to 10,000 in the paper. The return is continuous for all
        of them, but the slope of a collision grows.
    """

    def policy(params: jax.Array, state: jax.Array) -> Gaussian:
        time = jnp.minimum(state[-1].astype(int), PUSHING_STEPS - 1)
        return Gaussian(params[time][None], jnp.full(1, PUSHING_STD))

    def advance(state: jax.Array, action: jax.Array, outcome: jax.Array) -> jax.Array:
        positions, speeds, time = state[:2], state[2:4], state[4:]
        contact = stiffness * jnp.maximum(0.0, 1.0 - (positions[1] - positions[0]))
        force = jnp.stack([action[0] - contact, contact]) - PUSHING_DAMPING * speeds
        speeds = speeds + PUSHING_DT / PUSHING_MASS * force
        return jnp.concatenate([positions + PUSHING_DT * speeds, speeds, time + 1.0])

    def distance(state: jax.Array) -> jax.Array:
        return jnp.square(state[1] - PUSHING_TARGET)

    return Problem(
        name="pushing",
        params=jnp.ones(PUSHING_STEPS),
        action_size=1,
        start=lambda key: jnp.array([*PUSHING_START, 0.0]),
        policy=policy,
        squash=lambda u: u,
        advance=advance,
        reward=lambda state, action, following: -distance(state),
        terminal=lambda state: -distance(state),
    )

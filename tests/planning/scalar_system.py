"""The scalar system of the exact tests: `x' = a x + 0.5 u + w`, cost `x^2 + 0.1 u^2`, last `x^2`.

With a = 1.1, x0 = 1, 20 steps and noise of variance 0.04, the least expected cost is known: in
closed loop, for an open-loop plan, and without noise.
"""

import jax.numpy as jnp

from mbpo_jax.planning.lqr import LinearQuadratic

HORIZON = 20
NOISE = 0.04
CLOSED_LOOP, OPEN_LOOP, WITHOUT_NOISE = 2.458622, 46.140185, 1.374925
SCALE = 4.0
"""The control that an action of 1 stands for. The best controls are -1.7 at first, then smaller."""


def problem(horizon=HORIZON, a=1.1, terminal=1.0):
    """Return the problem in terms of controls; second derivatives are twice the cost's factors."""
    matrix = jnp.ones((horizon, 1, 1))
    return LinearQuadratic(
        A=a * matrix,
        B=0.5 * matrix,
        c=jnp.zeros((horizon, 1)),
        Q=jnp.concatenate([2.0 * matrix, jnp.full((1, 1, 1), 2.0 * terminal)]),
        S=0.0 * matrix,
        R=0.2 * matrix,
        q=jnp.zeros((horizon + 1, 1)),
        r=jnp.zeros((horizon, 1)),
    )


def dynamics(x, action):
    return 1.1 * x + 0.5 * SCALE * action


def reward(x, action):
    return -jnp.sum(x**2) - 0.1 * jnp.sum((SCALE * action) ** 2)


def terminal_reward(x):
    return -jnp.sum(x**2)

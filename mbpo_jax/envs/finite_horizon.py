"""Stochastic systems judged over a fixed number of steps, after which they terminate.

What is left to be paid depends on the time. So the clock is a part of the state, as its last number
in steps, and of the observation, as its last number in horizons: 1 at the end. Nothing is paid for
steps after the end.
"""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from mbpo_jax.envs.system import System
from mbpo_jax.types import TerminationFn


def at_horizon(horizon: int) -> TerminationFn:
    """Return the rule that the clock has run down, to half a step, as a model only predicts it."""
    return lambda observation: observation[..., -1] > 1.0 - 0.5 / horizon


def observe_clock(state: jax.Array, horizon: int) -> jax.Array:
    """Return the state with its clock in horizons instead of steps."""
    return state.at[-1].divide(horizon)


def make_lq(
    A: ArrayLike,
    B: ArrayLike,
    Q: ArrayLike,
    R: ArrayLike,
    noise_covariance: ArrayLike,
    x0: ArrayLike,
    horizon: int,
    *,
    terminal: ArrayLike | None = None,
    action_scale: float = 4.0,
) -> System:
    """Build a linear-quadratic problem of n states and m controls.

    `x' = A x + B u + w` with `w ~ N(0, noise_covariance)` and `u = action_scale * action`. The
    reward of a step is `-(x^T Q x + u^T R u)`, and the last step pays `-x'^T terminal x'` besides.
    An action is clipped to [-1, 1], so the scale has to be so large that it does not matter.

    The state is x and the clock `[n + 1]`, and so is the observation.

    Args:
      A: `[n, n]`; numbers stand for matrices of one row and column, here and below.
      B: `[n, m]`.
      Q: `[n, n]`.
      R: `[m, m]`.
      noise_covariance: `[n, n]`.
      x0: `[n]`, where every episode starts.
      horizon: steps of an episode.
      terminal: `[n, n]`, the weight of the last state; 0 if None.
      action_scale: control at an action of 1.
    """
    drift, control = _matrix(A), _matrix(B)
    size, num_controls = control.shape
    state_cost, control_cost = _matrix(Q), _matrix(R)
    last_cost = np.zeros_like(state_cost) if terminal is None else _matrix(terminal)
    variances, axes = np.linalg.eigh(_matrix(noise_covariance))
    noise_root = axes * np.sqrt(np.maximum(variances, 0.0))
    start = np.append(np.asarray(x0, np.float32), np.float32(0))

    def mean_dynamics(state: jax.Array, action: jax.Array) -> jax.Array:
        x = drift @ state[:-1] + control @ (action_scale * action)
        return jnp.append(x, state[-1] + 1.0)

    def dynamics(key: jax.Array, state: jax.Array, action: jax.Array) -> jax.Array:
        noise = noise_root @ jax.random.normal(key, (size,))
        return mean_dynamics(state, action).at[:-1].add(noise)

    def reward(state: jax.Array, action: jax.Array, next_state: jax.Array) -> jax.Array:
        x, u, last = state[:-1], action_scale * action, next_state[:-1]
        running = jnp.where(state[-1] < horizon, x @ state_cost @ x + u @ control_cost @ u, 0.0)
        return -running - jnp.where(next_state[-1] == horizon, last @ last_cost @ last, 0.0)

    return System(
        observation_size=size + 1,
        action_size=num_controls,
        dt=1.0,
        initial=lambda key: jnp.asarray(start),
        dynamics=dynamics,
        reward=reward,
        observe=lambda state: observe_clock(state, horizon),
        terminated=at_horizon(horizon),
        mean_dynamics=mean_dynamics,
        observed=(*(["x"] if size == 1 else [f"x {i}" for i in range(size)]), f"t / {horizon}"),
    )


def make_scalar_lq() -> System:
    """Build `x' = 1.1 x + 0.5 u + w`, `w ~ N(0, 0.04)`, from x = 1, over 20 steps.

    The costs are `x^2 + 0.1 u^2` for a step and `x^2` for the last state; `u = 4 * action`. In
    expectation, the optimal policy pays 2.458622, and the best plan made in advance 46.140185.
    """
    return make_lq(1.1, 0.5, 1.0, 0.1, 0.04, 1.0, 20, terminal=1.0)


CHAOTIC_WEIGHTS = np.array([[-5.0, -25.0], [5.0, 25.0]], np.float32)
CHAOTIC_START = (0.35, 0.55)
CHAOTIC_GAIN = 2.4
GAIN_PER_ACTION = 0.5
CHAOTIC_NOISE = 0.001
CHAOTIC_HORIZON = 100


def chaotic_map(state: jax.Array, gain: jax.Array | float) -> jax.Array:
    """Return `sigmoid(gain * state W)` of a state `[2]`."""
    return jax.nn.sigmoid(gain * (state @ CHAOTIC_WEIGHTS))


def make_chaotic_rnn() -> System:
    """Build a recurrent network of two neurons whose gradients explode with the gain.

    `s' = sigmoid(gain * s W) + N(0, 0.001^2)` from s = (0.35, 0.55) over 100 steps, where the gain
    is `2.4 + 0.5 * action`: the dynamics contract at 1 and are chaotic at 3.5. The last step pays
    `-|1 - s|^2 / 2`. The state is s and the clock, and so is the observation.
    """

    def mean_dynamics(state: jax.Array, action: jax.Array) -> jax.Array:
        following = chaotic_map(state[:2], CHAOTIC_GAIN + GAIN_PER_ACTION * action[0])
        return jnp.append(following, state[2] + 1.0)

    def dynamics(key: jax.Array, state: jax.Array, action: jax.Array) -> jax.Array:
        noise = CHAOTIC_NOISE * jax.random.normal(key, (2,))
        return mean_dynamics(state, action).at[:2].add(noise)

    def reward(state: jax.Array, action: jax.Array, next_state: jax.Array) -> jax.Array:
        del state, action
        loss = 0.5 * jnp.sum(jnp.square(1.0 - next_state[:2]))
        return jnp.where(next_state[2] == CHAOTIC_HORIZON, -loss, 0.0)

    return System(
        observation_size=3,
        action_size=1,
        dt=1.0,
        initial=lambda key: jnp.array([*CHAOTIC_START, 0.0]),
        dynamics=dynamics,
        reward=reward,
        observe=lambda state: observe_clock(state, CHAOTIC_HORIZON),
        terminated=at_horizon(CHAOTIC_HORIZON),
        mean_dynamics=mean_dynamics,
        observed=("neuron 0", "neuron 1", f"t / {CHAOTIC_HORIZON}"),
    )


def _matrix(value: ArrayLike) -> np.ndarray:
    """Return a number or matrix as a float32 matrix."""
    return np.atleast_2d(np.asarray(value, np.float32))

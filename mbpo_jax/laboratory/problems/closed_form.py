"""Problems with known gradients, and a chaotic one whose gradients have been measured."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from mbpo_jax.envs import finite_horizon
from mbpo_jax.laboratory.problems.problem import Critic, Gaussian, Problem


def nothing(*_) -> jax.Array:
    """Return 0."""
    return jnp.zeros(())


def make_one_step_problem(
    name: str,
    f: Callable[[jax.Array], jax.Array],
    mean: float,
    std: float,
    exact: Callable[[jax.Array, int], jax.Array] | None = None,
    smooth: bool = True,
) -> Problem:
    """Build `E f(x)` of a normal x, whose parameters `[2]` are mean and standard deviation.

    The model is f itself, whose value is the next state; only the last one is paid.
    """

    def policy(params: jax.Array, state: jax.Array) -> Gaussian:
        del state
        return Gaussian(params[:1], params[1:])

    return Problem(
        name=name,
        params=jnp.array([mean, std]),
        action_size=1,
        start=nothing,
        policy=policy,
        squash=lambda u: u,
        advance=lambda state, action, outcome: f(action[0]),
        reward=nothing,
        terminal=lambda value: value,
        exact=exact,
        smooth=smooth,
    )


def make_quadratic_problem(mean: float = 1.0, std: float = 0.7, centre: float = 0.3) -> Problem:
    """Build `E (x - centre)^2`."""

    def exact(params: jax.Array, horizon: int) -> jax.Array:
        del horizon
        return 2.0 * (params - jnp.array([centre, 0.0], params.dtype))

    return make_one_step_problem("quadratic", lambda x: (x - centre) ** 2, mean, std, exact)


def make_cosine_problem(frequency: float = 1.43, mean: float = 1.0, std: float = 0.7) -> Problem:
    """Build `E cos(frequency x)`: where that is high, the function is as good as chaotic."""

    def exact(params: jax.Array, horizon: int) -> jax.Array:
        del horizon
        mean, std = params
        damping = jnp.exp(-0.5 * (frequency * std) ** 2)
        in_mean = -frequency * jnp.sin(frequency * mean)
        in_std = -(frequency**2) * std * jnp.cos(frequency * mean)
        return damping * jnp.stack([in_mean, in_std])

    return make_one_step_problem("cosine", lambda x: jnp.cos(frequency * x), mean, std, exact)


def make_heaviside_problem(width: float = 0.1, mean: float = 0.0, std: float = 0.2) -> Problem:
    """Build `E clip(2 x / width, -1, 1)`, a step as steep as the width is small."""

    def exact(params: jax.Array, horizon: int) -> jax.Array:
        del horizon
        mean, std = params
        high, low = (0.5 * width - mean) / std, (-0.5 * width - mean) / std
        # d/dm E f = E f', and d/ds E f = s E f'' by parts, of which only the kinks are left.
        inside = jax.scipy.stats.norm.cdf(high) - jax.scipy.stats.norm.cdf(low)
        kinks = jax.scipy.stats.norm.pdf(low) - jax.scipy.stats.norm.pdf(high)
        return 2.0 / width * jnp.stack([inside, kinks])

    def f(x: jax.Array) -> jax.Array:
        return jnp.clip(2.0 * x / width, -1.0, 1.0)

    return make_one_step_problem("heaviside", f, mean, std, exact, smooth=False)


def matrix(value: ArrayLike) -> jax.Array:
    """Return a number or a matrix as a matrix."""
    return jnp.asarray(np.atleast_2d(np.asarray(value, float)))


def make_lq_problem(
    A: ArrayLike,
    B: ArrayLike,
    Q: ArrayLike,
    R: ArrayLike,
    K: ArrayLike,
    action_covariance: ArrayLike,
    noise_covariance: ArrayLike,
    x0: ArrayLike,
    *,
    terminal: ArrayLike | None = None,
    critic_error: float = 0.0,
    name: str = "lq",
) -> Problem:
    """Build a linear system with quadratic costs under a linear policy with noise.

    `x' = A x + B u + w`, `u ~ N(K x, action_covariance)`; the reward of a step is `-(x'Qx + u'Ru)`
    and the last state is worth `-x' terminal x`. The parameters are the rows of K.

    Args:
      A: `[n, n]`; numbers stand for matrices of one row and column, here and below.
      B: `[n, m]`.
      Q: `[n, n]`.
      R: `[m, m]`.
      K: `[m, n]`.
      action_covariance: `[m, m]`, diagonal.
      noise_covariance: `[n, n]`, diagonal.
      x0: `[n]`, where trajectories start.
      terminal: `[n, n]`; 0 if None.
      critic_error: what the critic's quadratic form has too much on its diagonal.
      name: of the problem.
    """
    A, B, Q, R, K = (matrix(x) for x in (A, B, Q, R, K))
    m, n = K.shape
    control_covariance = matrix(action_covariance)
    covariance = matrix(noise_covariance)
    last_cost = jnp.zeros_like(Q) if terminal is None else matrix(terminal)
    start = jnp.asarray(np.atleast_1d(np.asarray(x0, float)))
    action_std, std = jnp.sqrt(jnp.diag(control_covariance)), jnp.sqrt(jnp.diag(covariance))
    noisy = bool(np.any(np.asarray(covariance)))

    def cost(x: jax.Array, u: jax.Array) -> jax.Array:
        return x @ Q @ x + u @ R @ u

    def advance(x: jax.Array, u: jax.Array, outcome: jax.Array) -> jax.Array:
        return outcome if noisy else A @ x + B @ u

    def values(params: jax.Array, horizon: int) -> tuple[jax.Array, jax.Array]:
        """Return the forms `P [H + 1, n, n]` and constants `p [H + 1]` of the cost-to-go."""
        gain = params.reshape(m, n)
        closed = A + B @ gain

        def back(after: tuple[jax.Array, jax.Array], _):
            form, constant = after
            before = (
                Q + gain.T @ R @ gain + closed.T @ form @ closed,
                constant
                + jnp.trace(R @ control_covariance)
                + jnp.trace(form @ (B @ control_covariance @ B.T + covariance)),
            )
            return before, after

        first, rest = jax.lax.scan(back, (last_cost, jnp.zeros(())), None, horizon, reverse=True)
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)

    def critic(params: jax.Array, horizon: int) -> Critic:
        forms, constants = values(params, horizon)
        forms += critic_error * jnp.eye(n)[None]
        noise = jnp.trace(forms @ covariance, axis1=1, axis2=2)

        def value(time: jax.Array, x: jax.Array) -> jax.Array:
            return -(x @ forms[time] @ x + constants[time])

        def action_value(time: jax.Array, x: jax.Array, u: jax.Array) -> jax.Array:
            after = value(time + 1, A @ x + B @ u) - noise[time + 1]
            return after - cost(x, u)

        return Critic(value, action_value)

    def exact(params: jax.Array, horizon: int) -> jax.Array:
        gain = params.reshape(m, n)
        closed = A + B @ gain
        forms, _ = values(params, horizon)

        def add(moment: jax.Array, after: jax.Array):
            slope = 2.0 * (R @ gain + B.T @ after @ closed) @ moment
            spread = B @ control_covariance @ B.T + covariance
            return closed @ moment @ closed.T + spread, slope

        _, slopes = jax.lax.scan(add, jnp.outer(start, start), forms[1:])
        return -jnp.sum(slopes, axis=0).reshape(-1)

    return Problem(
        name=name,
        params=K.reshape(-1),
        action_size=m,
        start=lambda key: start,
        policy=lambda params, x: Gaussian(params.reshape(m, n) @ x, action_std),
        squash=lambda u: u,
        advance=advance,
        reward=lambda x, u, following: -cost(x, u),
        terminal=lambda x: -(x @ last_cost @ x),
        outcome=(lambda x, u: Gaussian(A @ x + B @ u, std)) if noisy else None,
        outcome_size=n if noisy else 0,
        critic=critic,
        exact=exact,
    )


def make_scalar_lq_problem(critic_error: float = 0.0) -> Problem:
    """Build `x' = 1.1 x + 0.5 u` from x = 1 under `u ~ N(-0.6 x, 0.25)`.

    The costs are `x^2 + 0.1 u^2`, and `x^2` of the last state.
    """
    return make_lq_problem(
        1.1, 0.5, 1.0, 0.1, -0.6, 0.25, 0.0, 1.0, terminal=1.0, critic_error=critic_error
    )


def make_noisy_scalar_lq_problem(critic_error: float = 0.0) -> Problem:
    """Build the same with `N(0, 0.04)` added to every next state."""
    return make_lq_problem(
        1.1,
        0.5,
        1.0,
        0.1,
        -0.6,
        0.25,
        0.04,
        1.0,
        terminal=1.0,
        critic_error=critic_error,
        name="lq_noisy",
    )


def make_lq_3d_problem(critic_error: float = 0.0) -> Problem:
    """Build a noisy linear system of three states and two controls; all six gains are parameters.

    Left alone, the system grows by 10 % a step; under the policy it shrinks by 13 %.
    """
    return make_lq_problem(
        A=[[1.0, 0.2, 0.0], [0.0, 1.0, 0.2], [0.1, -0.1, 0.9]],
        B=[[0.0, 0.1], [0.3, 0.0], [0.0, 0.4]],
        Q=np.diag([1.0, 0.5, 0.1]),
        R=np.diag([0.1, 0.2]),
        K=[[-0.5, -0.8, 0.0], [-0.4, 0.0, -0.3]],
        action_covariance=np.diag([0.09, 0.04]),
        noise_covariance=np.diag([0.01, 0.01, 0.02]),
        x0=[1.0, -0.5, 0.5],
        terminal=np.eye(3),
        critic_error=critic_error,
        name="lq_3d",
    )


def make_chaotic_rnn_problem(beta: float = 2.4) -> Problem:
    """Build a recurrent network of two neurons; the parameter is its gain beta.

    `s' = sigmoid(beta s W) + N(0, 0.001^2)`, and the last state is worth `-|1 - s|^2 / 2`. The
    network is the policy, whose noisy action is the next state.
    """
    weights = jnp.asarray(finite_horizon.CHAOTIC_WEIGHTS, float)

    def policy(params: jax.Array, state: jax.Array) -> Gaussian:
        mean = jax.nn.sigmoid(params[0] * (state @ weights))
        return Gaussian(mean, jnp.full_like(mean, finite_horizon.CHAOTIC_NOISE))

    return Problem(
        name="chaotic_rnn",
        params=jnp.array([beta], float),
        action_size=2,
        start=lambda key: jnp.array(finite_horizon.CHAOTIC_START, float),
        policy=policy,
        squash=lambda u: u,
        advance=lambda state, action, outcome: action,
        reward=nothing,
        terminal=lambda state: -0.5 * jnp.sum(jnp.square(1.0 - state)),
    )

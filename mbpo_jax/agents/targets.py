"""What a critic regresses to.

The time axis comes first, `[T, ...]`; everything else is elementwise. Row t belongs to the
transition from s_t to s_{t+1}. What joins two transitions has one row less, `[T - 1, ...]`, and its
row t belongs to s_{t+1} and a_{t+1}.
"""

import chex
import jax
import jax.numpy as jnp

COVARIANCE_RIDGE = 1e-3
"""What `covariance_weights` adds to the diagonal of the covariance matrix."""


def td0(
    reward: jax.Array, discount: jax.Array, next_value: jax.Array, gamma: jax.Array | float
) -> jax.Array:
    """Return the one-step target `r + gamma * discount * V(s')`, elementwise.

    Args:
      reward: `[...]`.
      discount: `[...]`, 0 where the episode terminated.
      next_value: `[...]`, value of the successor.
      gamma: discount factor.
    """
    chex.assert_equal_shape([reward, discount, next_value])
    return reward + gamma * discount * next_value


def lambda_return(
    reward: jax.Array,
    discount: jax.Array,
    next_value: jax.Array,
    entropy_bonus: jax.Array,
    gamma: jax.Array | float,
    decay: jax.Array | float,
) -> jax.Array:
    """Return `G_t = r_t + gamma d_t [(1 - decay_t) V(s_{t+1}) + decay_t (b_{t+1} + G_{t+1})]`.

    The last one is TD(0), and so is any one whose decay is 0. With decay 1, `G_t` is the value
    expansion that uses all T - t transitions (Feinberg et al. 2018, arXiv:1803.00101); training on
    all of them is that paper's TD-k trick. With decay 1 up to row h - 1 and 0 from there on, `G_0`
    is the expansion by h steps.

    Args:
      reward: `[T, ...]`.
      discount: `[T, ...]`, 0 where the episode terminated; rows after that are to be finite.
      next_value: `[T, ...]`, (soft) value of s_{t+1}.
      entropy_bonus: `[T - 1, ...]`, `-alpha log pi(a_{t+1} | s_{t+1})`, which a soft value holds
        and a return does not; zeros for plain values.
      gamma: discount factor.
      decay: lambda, one number or `[T - 1, ...]`; 0 where the next row does not go on from s_{t+1}.

    Returns:
      The targets `[T, ...]`.
    """
    decay = _between(decay, reward)
    chex.assert_equal_shape([reward[1:], entropy_bonus, decay])
    bootstrap = (1.0 - decay) * next_value[:-1] + decay * entropy_bonus
    return _backwards(reward, discount, next_value, bootstrap, decay, gamma)


def retrace(
    reward: jax.Array,
    discount: jax.Array,
    next_value: jax.Array,
    next_q: jax.Array,
    trace: jax.Array,
    gamma: jax.Array | float,
) -> jax.Array:
    """Return `G_t = r_t + gamma d_t [V(s_{t+1}) + c_{t+1} (G_{t+1} - Q(s_{t+1}, a_{t+1}))]`.

    The last one is TD(0), and so is any one whose trace is 0 (Munos et al. 2016, arXiv:1606.02647).
    With soft values the equation is the same: a soft Q leaves out the entropy of its own action,
    and so does `G`.

    Args:
      reward: `[T, ...]`.
      discount: `[T, ...]`, 0 where the episode terminated; rows after that are to be finite.
      next_value: `[T, ...]`, (soft) value of s_{t+1} under the target policy.
      next_q: `[T - 1, ...]`, value of the action that was taken in s_{t+1}.
      trace: `[T - 1, ...]`, c_{t+1} from `retrace_coefficient`; 0 where the next row does not go on
        from s_{t+1}.
      gamma: discount factor.

    Returns:
      The targets `[T, ...]`.
    """
    chex.assert_equal_shape([reward[1:], next_q, trace])
    bootstrap = next_value[:-1] - trace * next_q
    return _backwards(reward, discount, next_value, bootstrap, trace, gamma)


def retrace_coefficient(
    log_prob_target: jax.Array, log_prob_behaviour: jax.Array, decay: jax.Array | float
) -> jax.Array:
    """Return `c = lambda min(1, pi(a | s) / mu(a | s))` (Munos et al. 2016).

    Args:
      log_prob_target: `[...]`, log-density of the action under the policy that is evaluated.
      log_prob_behaviour: `[...]`, the same under the policy that took it.
      decay: lambda, one number or `[...]`.
    """
    chex.assert_equal_shape([log_prob_target, log_prob_behaviour])
    return decay * jnp.exp(jnp.minimum(log_prob_target - log_prob_behaviour, 0.0))


def inverse_variance_weights(targets: jax.Array) -> jax.Array:
    """Return weights of the depths proportional to `1 / Var_N T_i` (Buckman et al. 2018).

    The paper is arXiv:1807.01675. The variance is the biased one, which repeated candidates leave
    as it is; the unbiased one gives the same weights, for N is the same at all depths. The square
    of what the arithmetic resolves at the size of the targets is added to it, so that depths
    without variance share the weight equally. In float32 this alters a weight by less than a
    millionth unless the candidates of a depth agree in four digits.

    Args:
      targets: `[D, N, ...]`, of D depths and N candidates, each of one model and one critic.

    Returns:
      `[D, ...]`, positive with sum 1 over the depths.
    """
    variance = jnp.mean(jnp.square(_deviations(targets)), axis=1)
    resolution = jnp.finfo(targets.dtype).eps ** 2 * jnp.mean(jnp.square(targets), axis=(0, 1))
    floor = jnp.maximum(resolution, jnp.finfo(targets.dtype).tiny)[None]
    precision = floor / (variance + floor)
    return precision / jnp.sum(precision, axis=0, keepdims=True)


def covariance_weights(targets: jax.Array) -> jax.Array:
    """Return weights of the depths proportional to `(Sigma + ridge I)^-1 1` (Buckman et al. 2018).

    Sigma is the biased covariance matrix of the depths over the candidates. The ridge is that of
    the authors' code, which adds it to N Sigma; where Sigma is so large that the arithmetic could
    not tell the sum from Sigma, it is larger.

    Args:
      targets: `[D, N, ...]`, of D depths and N candidates, each of one model and one critic.

    Returns:
      `[D, ...]` with sum 1 over the depths; some may be negative.
    """
    depths = targets.shape[0]
    deviations = _deviations(targets)
    covariance = jnp.einsum("in...,jn...->...ij", deviations, deviations) / targets.shape[1]
    trace = jnp.trace(covariance, axis1=-2, axis2=-1)
    least = depths * jnp.finfo(targets.dtype).eps * trace
    ridge = jnp.maximum(COVARIANCE_RIDGE, least)[..., None, None]
    identity = jnp.broadcast_to(jnp.eye(depths, dtype=targets.dtype), covariance.shape)
    ones = jnp.ones((*covariance.shape[:-1], 1), targets.dtype)
    solution = jnp.linalg.solve(covariance + ridge * identity, ones)[..., 0]
    weights = solution / jnp.sum(solution, axis=-1, keepdims=True)
    return jnp.moveaxis(weights, -1, 0)


def steve_target(targets: jax.Array, weights: jax.Array) -> jax.Array:
    """Return `sum_i w_i mean_N T_i` (Buckman et al. 2018, arXiv:1807.01675).

    Args:
      targets: `[D, N, ...]`, of D depths and N candidates.
      weights: `[D, ...]` with sum 1 over the depths.
    """
    means = jnp.mean(targets, axis=1)
    chex.assert_equal_shape([means, weights])
    return jnp.sum(weights * means, axis=0)


def _deviations(targets: jax.Array) -> jax.Array:
    """Return the candidates' deviations from their mean, exactly zero where all are equal."""
    shifted = targets - targets[:, :1]
    return shifted - jnp.mean(shifted, axis=1, keepdims=True)


def _between(number: jax.Array | float, reward: jax.Array) -> jax.Array:
    """Return, as `[T - 1, ...]`, a number that joins all transitions alike or row by row."""
    if jnp.ndim(number) == 0:
        return jnp.full_like(reward[1:], number)
    return jnp.asarray(number)


def _backwards(
    reward: jax.Array,
    discount: jax.Array,
    next_value: jax.Array,
    bootstrap: jax.Array,
    trace: jax.Array,
    gamma: jax.Array | float,
) -> jax.Array:
    """Return `G_t = r_t + gamma d_t (u_t + c_t G_{t+1})` from the last, TD(0), to the first."""
    chex.assert_equal_shape([reward, discount, next_value])
    last = td0(reward[-1], discount[-1], next_value[-1], gamma)

    def step(following, row):
        reward, discount, bootstrap, trace = row
        target = td0(reward, discount, bootstrap + trace * following, gamma)
        return target, target

    rows = reward[:-1], discount[:-1], bootstrap, trace
    _, targets = jax.lax.scan(step, last, rows, reverse=True)
    return jnp.concatenate([targets, last[None]])

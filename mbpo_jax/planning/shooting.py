"""Planners that sample action sequences: random shooting, CEM, iCEM and MPPI.

All but the first work in rounds: they draw a population from independent Gaussians, one per time
and component, judge it, and fit the Gaussians anew to the samples, weighted by how well they did.

| method | noise | weights | plan |
|---|---|---|---|
| `cem` | white | the elites', equal | mean of the last fit |
| `icem` | coloured; some elites stay | the elites', equal | best sample of the last round |
| `mppi` | white | all samples', exponential in the return | mean of the last fit |

Actions lie in [-1, 1] by clipping. A return that is not finite counts as minus infinity: a rollout
that broke down has no weight, and where all of them did, a round changes nothing.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from mbpo_jax.config import PlannerConfig

Evaluate = Callable[[jax.Array, jax.Array], jax.Array]
"""`(key, actions [N, T, A]) -> returns [N]`, what each action sequence is worth."""


class Plan(NamedTuple):
    """What a search found.

    Attributes:
      actions: `[T, A]` in [-1, 1].
      value: the return expected of them. Random shooting and iCEM: the best sample's own, which is
        optimistic where returns are noisy. CEM and MPPI: the weighted mean of the last round's,
        which cannot exceed that of the plan where the return is concave. Minus infinity if no
        return was finite.
      mean: `[T, A]`, from where the next search should start, after `shift`.
    """

    actions: jax.Array
    value: jax.Array
    mean: jax.Array


class Search(NamedTuple):
    """Carry of the rounds.

    Attributes:
      mean: `[T, A]`, of the Gaussians.
      std: `[T, A]`, their standard deviations.
      samples: `[M, T, A]`, what they were fitted to: the elites, best first, or the population.
      returns: `[M]`, of the samples.
    """

    mean: jax.Array
    std: jax.Array
    samples: jax.Array
    returns: jax.Array


def shift(sequence: jax.Array) -> jax.Array:
    """Return a sequence `[T, ...]` one step later, with zeros at its end.

    The last action of a plan is not repeated: it was chosen for its own reward alone and tells
    nothing about the one after it. Zero is the middle of the range, where a first search starts.
    """
    return jnp.concatenate([sequence[1:], jnp.zeros_like(sequence[:1])])


def color(noise: jax.Array, exponent: jax.Array | float) -> jax.Array:
    """Filter white noise along time so that its power falls as `frequency^-exponent`.

    The filter works on the Fourier coefficients, the constant one being scaled like that of the
    lowest frequency, `1/T`. The result is stationary, periodic, and of unit variance at each time.

    Args:
      noise: `[N, T, A]`, independent, of unit variance.
      exponent: 0 leaves the noise as it is; 2 is that of Brownian motion.
    """
    length = noise.shape[1]
    index = jnp.arange(length)
    frequency = jnp.clip(jnp.minimum(index, length - index), 1).astype(noise.dtype)
    power = frequency**-exponent
    gain = jnp.sqrt(power / jnp.mean(power))[: length // 2 + 1]
    spectrum = jnp.fft.rfft(noise, axis=1) * gain[None, :, None]
    return jnp.fft.irfft(spectrum, length, axis=1)


def elite_weights(returns: jax.Array) -> jax.Array:
    """Return equal weights `[M]` of the elites whose returns are finite; zeros if none is."""
    finite = jnp.isfinite(returns)
    return finite / jnp.maximum(jnp.sum(finite), 1)


def exponential_weights(returns: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """Return `w_i ~ exp((R_i - max R) / (temperature * spread))`; zeros if no return is finite.

    The spread is `max R - median R`, so weights do not depend on the rewards' unit, nor on how bad
    the bad half of the population is: with temperature 1 the median sample weighs 1/e of the best.

    Args:
      returns: `[N]`; those that are not finite get no weight.
      temperature: as above.
    """
    finite = jnp.isfinite(returns)
    best = jnp.max(returns, where=finite, initial=-jnp.inf)
    below = jnp.where(finite, returns - best, jnp.nan)
    spread = -jnp.nanmedian(below)
    score = below / (temperature * jnp.where(spread > 0, spread, 1.0))
    weights = jnp.where(finite, jnp.exp(score), 0.0)
    return weights / jnp.maximum(jnp.sum(weights), 1.0)


def weighted_moments(samples: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return mean and standard deviation `[T, A]` of samples `[M, T, A]` under weights `[M]`."""
    weights = weights[:, None, None]
    mean = jnp.sum(weights * samples, axis=0)
    variance = jnp.sum(weights * jnp.square(samples - mean[None]), axis=0)
    return mean, jnp.sqrt(variance)


def judge(key: jax.Array, evaluate: Evaluate, actions: jax.Array) -> jax.Array:
    """Return what sequences `[N, T, A]` are worth, `[N]`, minus infinity where it is not finite."""
    returns = evaluate(key, actions)
    chex.assert_shape(returns, actions.shape[:1])
    return jnp.where(jnp.isfinite(returns), returns, -jnp.inf)


def random_shooting(key: jax.Array, evaluate: Evaluate, mean: jax.Array, population: int) -> Plan:
    """Return the best of some sequences that are uniform in [-1, 1].

    Args:
      key: a key, used up.
      evaluate: judges sequences.
      mean: `[T, A]`, the plan if no return is finite.
      population: how many sequences are drawn.
    """
    sample_key, evaluate_key = jax.random.split(key)
    shape = (population, *mean.shape)
    samples = jax.random.uniform(sample_key, shape, mean.dtype, minval=-1.0, maxval=1.0)
    return best_of(samples, judge(evaluate_key, evaluate, samples), mean)


def best_of(samples: jax.Array, returns: jax.Array, otherwise: jax.Array) -> Plan:
    """Return the best of samples `[M, T, A]`, or another plan `[T, A]` if no return is finite."""
    best = jnp.argmax(returns)
    actions = jnp.where(jnp.isfinite(returns[best]), samples[best], otherwise)
    return Plan(actions, returns[best], actions)


def with_elites(samples: jax.Array, search: Search, keep_fraction: jax.Array | float) -> jax.Array:
    """Replace the first of new samples `[N, T, A]` by a share of the last round's elites.

    They are judged again with the others, so that luck does not keep them.
    """
    num_elites = search.returns.shape[0]
    kept = jnp.arange(num_elites) < jnp.round(keep_fraction * num_elites)
    kept &= jnp.isfinite(search.returns)
    first = jnp.where(kept[:, None, None], search.samples, samples[:num_elites])
    return samples.at[:num_elites].set(first)


def weigh(returns: jax.Array, config: PlannerConfig) -> jax.Array:
    """Return the weights `[M]` by which the next Gaussians are fitted to samples."""
    if config.method == "mppi":
        return exponential_weights(returns, config.temperature)
    return elite_weights(returns)


def draw(key: jax.Array, search: Search, last: jax.Array, config: PlannerConfig) -> jax.Array:
    """Return the population `[N, T, A]` of a round.

    Args:
      key: a key, used up.
      search: the Gaussians and the last round's elites.
      last: bool, the last round, in which iCEM's mean takes part.
      config: settings.
    """
    mean = search.mean
    noise = jax.random.normal(key, (config.population, *mean.shape), mean.dtype)
    if config.method == "icem":
        noise = color(noise, config.noise_exponent)
    samples = jnp.clip(mean[None] + search.std[None] * noise, -1.0, 1.0)
    if config.method == "icem":
        samples = with_elites(samples, search, config.keep_fraction)
        samples = samples.at[-1].set(jnp.where(last, mean, samples[-1]))
    return samples


def fit(search: Search, samples: jax.Array, returns: jax.Array, config: PlannerConfig) -> Search:
    """Return a search after a round: `new = smoothing old + (1 - smoothing) moments`.

    Args:
      search: before the round.
      samples: `[M, T, A]`, what to fit to.
      returns: `[M]`, theirs.
      config: settings.
    """
    mean, std = (
        config.smoothing * old + (1.0 - config.smoothing) * new
        for old, new in zip(
            (search.mean, search.std),
            weighted_moments(samples, weigh(returns, config)),
            strict=True,
        )
    )
    # A mean of numbers within the limits exceeds them by no more than rounding does.
    fitted = Search(jnp.clip(mean, -1.0, 1.0), jnp.maximum(std, config.min_std), samples, returns)
    found = jnp.any(jnp.isfinite(returns))
    return jax.tree.map(lambda new, old: jnp.where(found, new, old), fitted, search)


def refine(key: jax.Array, evaluate: Evaluate, mean: jax.Array, config: PlannerConfig) -> Plan:
    """Search in rounds, by CEM, iCEM or MPPI; see `plan`."""
    num_samples = config.population if config.method == "mppi" else config.num_elites

    def search_round(i, search: Search) -> Search:
        draw_key, evaluate_key = jax.random.split(jax.random.fold_in(key, i))
        samples = draw(draw_key, search, i == config.iterations - 1, config)
        returns = judge(evaluate_key, evaluate, samples)
        if config.method != "mppi":
            returns, rows = jax.lax.top_k(returns, num_samples)
            samples = samples[rows]
        return fit(search, samples, returns, config)

    start = Search(
        mean=mean,
        std=jnp.full_like(mean, config.initial_std),
        samples=jnp.zeros((num_samples, *mean.shape), mean.dtype),
        returns=jnp.full(num_samples, -jnp.inf, mean.dtype),
    )
    search = jax.lax.fori_loop(0, config.iterations, search_round, start)
    if config.method == "icem":
        return best_of(search.samples, search.returns, mean)._replace(mean=search.mean)
    weights = weigh(search.returns, config)
    value = jnp.sum(jnp.where(weights > 0, weights * search.returns, 0.0))
    return Plan(search.mean, jnp.where(jnp.any(weights > 0), value, -jnp.inf), search.mean)


def plan(key: jax.Array, evaluate: Evaluate, mean: jax.Array, config: PlannerConfig) -> Plan:
    """Search for the action sequence of the highest return, by `config.method`.

    - `random` does not look at `mean`, unless no return is finite.
    - `cem` returns its mean and not the best sample, which luck favours where returns are noisy.
    - `icem` (Pinneri et al. 2020, arXiv:2008.06389) differs from the paper: the population does not
      shrink from round to round, and the next search gets the mean but no elites of this one.
    - `mppi` (Williams et al. 2015, arXiv:1509.01149) fits the standard deviation, too, as Hansen et
      al. (2022, arXiv:2203.04955) do: of all Gaussians, that with both weighted moments is nearest
      to the weighted samples in relative entropy. A fixed one would keep the mean at a distance
      from the optimum. With one round and no smoothing this is the paper's update.

    Args:
      key: a key, used up.
      evaluate: judges a population; called with a fresh key in each round.
      mean: `[T, A]` in [-1, 1], the first guess: zeros, or the last plan's mean after `shift`.
      config: settings.
    """
    chex.assert_rank(mean, 2)
    if config.method == "random":
        return random_shooting(key, evaluate, mean, config.population)
    return refine(key, evaluate, mean, config)

"""Model rollouts branched from replay states (Janner et al. 2019, arXiv:1906.08253, alg. 2)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax import replay
from mbpo_jax.config import RolloutConfig
from mbpo_jax.models.ensemble import Ensemble, EnsembleState, Outcome, select_members
from mbpo_jax.replay import ReplayState
from mbpo_jax.types import Metrics, Policy, PyTree, TerminationFn, Transition

BLOCK_ROWS = 10_000
"""Most rows that the networks see at once. It bounds the memory of their activations, which then
also stay in a CPU's caches: on two cores, 100,000 rollouts take a quarter less time."""


class Step(NamedTuple):
    """Sampled outcome of one model step, each member with rows of its own.

    Attributes:
      reward: `[E, B]`.
      next_observation: `[E, B, O]`.
      terminated: `[E, B]` bool, predicted termination; non-finite predictions count as terminated.
      finite: `[E, B]` bool.
    """

    reward: jax.Array
    next_observation: jax.Array
    terminated: jax.Array
    finite: jax.Array


class RolloutLoop(NamedTuple):
    """Carry of a batch of rollouts.

    Attributes:
      observation: `[B, O]`, where each rollout is.
      alive: `[B]` bool, rollouts that have not terminated.
      buffer: of model transitions.
      lengths: float32, transitions made so far by all rollouts.
      terminated: float32, predicted terminations so far.
      nonfinite: float32, non-finite predictions so far.
    """

    observation: jax.Array
    alive: jax.Array
    buffer: ReplayState
    lengths: jax.Array
    terminated: jax.Array
    nonfinite: jax.Array


def rollout_length(epoch: jax.Array | int, config: RolloutConfig) -> jax.Array:
    """Return k on the linear schedule, rounded down; int32, a traced value.

    `k = min_length + (epoch - start) / (end - start) * (max_length - min_length)`, clipped.
    """
    span = max(config.end_epoch - config.start_epoch, 1)
    progress = jnp.clip(epoch - config.start_epoch, 0, span)
    return (config.min_length + progress * (config.max_length - config.min_length) // span).astype(
        jnp.int32
    )


def model_buffer_limit(
    length: jax.Array | int, config: RolloutConfig, epoch_length: int
) -> jax.Array | int:
    """Return how many model transitions are retained while rollouts have this length."""
    return config.retain_epochs * config.rollouts_per_step * epoch_length * length


def predict_termination(
    outcome: Outcome, next_observation: jax.Array, known: TerminationFn | None, key: jax.Array
) -> jax.Array:
    """Return predicted terminations `[E, B]` bool: by the known rule, else drawn from the head."""
    if known is not None:
        return known(next_observation)
    assert outcome.termination_logit is not None
    return jax.random.bernoulli(key, jax.nn.sigmoid(outcome.termination_logit))


def model_step(
    key: jax.Array,
    ensemble: Ensemble,
    members: EnsembleState,
    known_termination: TerminationFn | None,
    observation: jax.Array,
    action: jax.Array,
) -> Step:
    """Sample the outcomes that each member predicts for its own rows.

    Args:
      key: a key, used up.
      ensemble: its functions.
      members: the ensemble, or some of its members.
      known_termination: the environment's rule; None for the learned head.
      observation: `[E, B, O]`.
      action: `[E, B, A]`.
    """
    noise_key, termination_key = jax.random.split(key)
    outcome = ensemble.predict(members, observation, action)
    sample = outcome.mean + outcome.std * jax.random.normal(noise_key, outcome.mean.shape)
    next_observation = sample[..., 1:]
    finite = jnp.all(jnp.isfinite(sample), axis=-1)
    stops = predict_termination(outcome, next_observation, known_termination, termination_key)
    return Step(sample[..., 0], next_observation, stops | ~finite, finite)


def shuffle(key: jax.Array, rows: PyTree) -> PyTree:
    """Bring the rows of arrays `[B, ...]` into the same random order.

    One sort by random words; two equal words, which keep their order, are a matter of chance once
    in a shuffle of 100,000 rows.
    """
    words = jax.random.bits(key, jax.tree.leaves(rows)[0].shape[:1])
    order = jnp.argsort(words)
    return jax.tree.map(lambda x: x[order], rows)


def map_blocks(
    fn: Callable[[jax.Array, jax.Array], PyTree], key: jax.Array, rows: jax.Array
) -> PyTree:
    """Apply `fn` to one block of `rows [E, N, ...]` after the other, cut along `N`.

    Args:
      fn: `(key, rows [E, n, ...]) -> arrays [E, n, ...]`, `E n` being `BLOCK_ROWS` at most.
      key: a key, used up; each block gets its own.
      rows: as above; the last block is filled up with zeros.

    Returns:
      Arrays `[E, N, ...]`.
    """
    num_members, num_rows = rows.shape[:2]
    num_blocks = -(-num_rows // max(BLOCK_ROWS // num_members, 1))
    size = -(-num_rows // num_blocks)

    def cut(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, [(0, 0), (0, num_blocks * size - num_rows), *[(0, 0)] * (x.ndim - 2)])
        return jnp.moveaxis(x.reshape(num_members, num_blocks, size, *x.shape[2:]), 1, 0)

    def join(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, 1).reshape(num_members, -1, *x.shape[3:])[:, :num_rows]

    keys = jax.random.split(key, num_blocks)
    return jax.tree.map(join, jax.lax.map(lambda x: fn(*x), (keys, cut(rows))))


def branch(
    key: jax.Array,
    ensemble: Ensemble,
    model: EnsembleState,
    known_termination: TerminationFn | None,
    policy: Policy,
    real: ReplayState,
    buffer: ReplayState,
    *,
    num_rollouts: int,
    length: jax.Array | int,
    max_size: jax.Array | int,
) -> tuple[ReplayState, Metrics]:
    """Roll the policy out in the model from real states and store what it meets.

    Start states are uniform over the replay buffer; actions come from the stochastic policy; each
    row meets a random elite at each step, in equal shares; outcomes are Gaussian samples. A row
    stops at a predicted termination. A non-finite prediction is not stored.

    Args:
      key: a key, used up.
      ensemble: its functions.
      model: the fitted ensemble.
      known_termination: the environment's rule; None for the learned head.
      policy: stochastic.
      real: real transitions.
      buffer: model transitions, `num_rollouts` rows at least.
      num_rollouts: a multiple of the number of elites.
      length: k, may be traced.
      max_size: newest model transitions that stay valid.

    Returns:
      The buffer with the new transitions and `rollout/*` metrics.
    """
    start_key, steps_key = jax.random.split(key)
    elites = select_members(model, model.elites)
    num_elites = elites.elites.shape[0]

    def act_and_predict(key: jax.Array, observation: jax.Array) -> tuple[jax.Array, Step]:
        policy_key, model_key = jax.random.split(key)
        action = policy(policy_key, observation)
        step = model_step(model_key, ensemble, elites, known_termination, observation, action)
        return action, step

    def step(i, loop: RolloutLoop) -> RolloutLoop:
        shuffle_key, step_key = jax.random.split(jax.random.fold_in(steps_key, i))
        rows = loop.observation, loop.alive
        # Start states are drawn independently: their order is random already.
        observation, alive = jax.lax.cond(i > 0, lambda: shuffle(shuffle_key, rows), lambda: rows)
        shares = observation.reshape(num_elites, -1, observation.shape[1])
        action, outcome = jax.tree.map(
            lambda x: x.reshape(num_rollouts, *x.shape[2:]),
            map_blocks(act_and_predict, step_key, shares),
        )
        transition = Transition(
            observation=observation,
            action=action,
            reward=outcome.reward,
            discount=1.0 - outcome.terminated,
            next_observation=outcome.next_observation,
        )
        stored = alive & outcome.finite
        return RolloutLoop(
            observation=outcome.next_observation,
            alive=alive & ~outcome.terminated,
            buffer=replay.add(loop.buffer, transition, stored, max_size),
            lengths=loop.lengths + jnp.sum(stored),
            terminated=loop.terminated + jnp.sum(stored & outcome.terminated),
            nonfinite=loop.nonfinite + jnp.sum(alive & ~outcome.finite),
        )

    start = RolloutLoop(
        observation=replay.sample(start_key, real, (num_rollouts,)).observation,
        alive=jnp.ones(num_rollouts, bool),
        buffer=buffer,
        lengths=jnp.float32(0),
        terminated=jnp.float32(0),
        nonfinite=jnp.float32(0),
    )
    end = jax.lax.fori_loop(0, length, step, start)
    metrics = {
        "rollout/length": jnp.asarray(length, jnp.float32),
        "rollout/length_mean": end.lengths / num_rollouts,
        "rollout/terminated": end.terminated / num_rollouts,
        "rollout/nonfinite": end.nonfinite,
        "rollout/buffer_size": end.buffer.size.astype(jnp.float32),
    }
    return end.buffer, metrics

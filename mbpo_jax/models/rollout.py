"""Model rollouts branched from replay states into a buffer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax import replay
from mbpo_jax.config import RolloutConfig
from mbpo_jax.loops import greatest_of_runs
from mbpo_jax.models.truncation import Truncation
from mbpo_jax.replay import ReplayState
from mbpo_jax.types import DynamicsModel, Metrics, Point, Policy, PyTree, Transition


class RolloutLoop(NamedTuple):
    """Carry of a batch of branched rollouts.

    Attributes:
      point: where each rollout is, `[B]`.
      action: `[B, A]`, what each does first.
      alive: `[B]` bool, rollouts that have neither terminated nor reached their length.
      buffer: of model transitions.
      lengths: float32, transitions made so far by all rollouts.
      terminated: float32, predicted terminations so far.
      nonfinite: float32, non-finite predictions so far.
      refused: float32, steps that were not to be stored, so far.
      truncation: what the rule of truncation remembers, () without one.
    """

    point: Point
    action: jax.Array
    alive: jax.Array
    buffer: ReplayState
    lengths: jax.Array
    terminated: jax.Array
    nonfinite: jax.Array
    refused: jax.Array
    truncation: PyTree


def rollout_length(epoch: jax.Array | int, config: RolloutConfig) -> jax.Array:
    """Return k on the linear schedule, rounded down; int32, a traced value.

    `k = min_length + (epoch - start) / (end - start) * (max_length - min_length)`, clipped.
    """
    span = jnp.maximum(config.end_epoch - config.start_epoch, 1)
    progress = jnp.clip(epoch - config.start_epoch, 0, span)
    return (config.min_length + progress * (config.max_length - config.min_length) // span).astype(
        jnp.int32
    )


def model_buffer_limit(
    length: jax.Array | int, config: RolloutConfig, epoch_length: int
) -> jax.Array | int:
    """Return how many model transitions are retained while rollouts have this length."""
    return config.retain_epochs * config.rollouts_per_step * epoch_length * length


def branch(
    key: jax.Array,
    model: DynamicsModel,
    view: PyTree,
    policy: Policy,
    starts: Transition,
    first_action: jax.Array,
    buffer: ReplayState,
    *,
    length: jax.Array | int,
    max_size: jax.Array | int,
    truncation: Truncation | None = None,
    remembered: PyTree = (),
) -> tuple[ReplayState, PyTree, Metrics]:
    """Roll a policy out in the model from real states and store what it meets.

    As in Janner et al. 2019 (arXiv:1906.08253, alg. 2), each row meets a random elite at each step,
    and a row stops at a predicted termination. A non-finite prediction is not stored, nor is a step
    that the rule of truncation does not let be.

    Args:
      key: a key, used up.
      model: its functions.
      view: of the model's state.
      policy: stochastic.
      starts: real transitions `[B]` whose observations the rollouts start from.
      first_action: `[B, A]`, what they do first.
      buffer: model transitions, `B` rows at least.
      length: k, may be traced, and differ between runs that are computed side by side.
      max_size: newest model transitions that stay valid.
      truncation: which steps are kept, and which rollouts go on; all if None.
      remembered: what the rule remembers.

    Returns:
      The buffer with the new transitions, what the rule remembers now, and `rollout/*` metrics.
    """
    num_rollouts = first_action.shape[0]
    keeps_simulator = bool(jax.tree.leaves(buffer.data.simulator))

    def step(i, loop: RolloutLoop) -> RolloutLoop:
        keys = jax.random.split(jax.random.fold_in(key, i), 2 if truncation is None else 3)
        model_key, policy_key = keys[0], keys[1]
        if truncation is None or truncation.step is None:
            point, prediction = model.step(model_key, view, loop.point, loop.action, "step")
            evidence = ()
        else:
            point, prediction, evidence = truncation.step(model_key, view, loop.point, loop.action)
        stored, goes_on = loop.alive & prediction.finite, loop.alive
        reward, remembered = prediction.reward, loop.truncation
        refused = jnp.zeros_like(stored)
        if truncation is not None:
            place = loop.point, loop.action, loop.alive
            remembered, verdict = truncation.judge(keys[2], remembered, view, *place, i, evidence)
            refused = stored & ~verdict.stored
            stored &= verdict.stored
            goes_on &= verdict.goes_on
            reward -= verdict.penalty
        transition = Transition(
            observation=loop.point.observation,
            action=loop.action,
            reward=reward,
            discount=prediction.discount,
            next_observation=point.observation,
            simulator=loop.point.simulator if keeps_simulator else (),
        )
        terminated = prediction.discount == 0.0
        return RolloutLoop(
            point=point,
            action=policy(policy_key, point.observation),
            alive=goes_on & ~terminated & (i + 1 < length),
            buffer=replay.add(loop.buffer, transition, stored, max_size),
            lengths=loop.lengths + jnp.sum(stored),
            terminated=loop.terminated + jnp.sum(stored & terminated),
            nonfinite=loop.nonfinite + jnp.sum(loop.alive & ~prediction.finite),
            refused=loop.refused + jnp.sum(refused),
            truncation=remembered,
        )

    start = RolloutLoop(
        point=model.start(starts.observation, starts.simulator),
        action=first_action,
        alive=jnp.full(num_rollouts, length > 0),
        buffer=buffer,
        lengths=jnp.float32(0),
        terminated=jnp.float32(0),
        nonfinite=jnp.float32(0),
        refused=jnp.float32(0),
        truncation=truncation.begin(remembered, view, starts) if truncation else (),
    )
    end = jax.lax.fori_loop(0, greatest_of_runs(length), step, start)
    metrics = {
        "rollout/length": jnp.asarray(length, jnp.float32),
        # Without rollouts there is no mean.
        "rollout/length_mean": end.lengths / max(num_rollouts, 1),
        "rollout/terminated": end.terminated / max(num_rollouts, 1),
        "rollout/nonfinite": end.nonfinite,
        "rollout/buffer_size": end.buffer.size.astype(jnp.float32),
    }
    if truncation is not None:
        made = jnp.maximum(end.lengths + end.refused, 1.0)
        metrics["rollout/kept"] = end.lengths / made
        metrics |= truncation.report(end.truncation)
        remembered = truncation.end(end.truncation)
    return end.buffer, remembered, metrics

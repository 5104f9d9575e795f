"""Model rollouts: branched from replay states into a buffer, and short ones inside an update."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax import replay
from mbpo_jax.config import RolloutConfig
from mbpo_jax.models.rows import where_rows
from mbpo_jax.replay import ReplayState
from mbpo_jax.types import DynamicsModel, Metrics, Point, Policy, PyTree, Transition


class RolloutLoop(NamedTuple):
    """Carry of a batch of branched rollouts.

    Attributes:
      point: where each rollout is, `[B]`.
      action: `[B, A]`, what each does first.
      alive: `[B]` bool, rollouts that have not terminated.
      buffer: of model transitions.
      lengths: float32, transitions made so far by all rollouts.
      terminated: float32, predicted terminations so far.
      nonfinite: float32, non-finite predictions so far.
    """

    point: Point
    action: jax.Array
    alive: jax.Array
    buffer: ReplayState
    lengths: jax.Array
    terminated: jax.Array
    nonfinite: jax.Array


class Imagined(NamedTuple):
    """Steps of model rollouts, stacked; time is the first axis.

    Attributes:
      observation: `[T, B, O]`.
      action: `[T, B, A]`.
      aside: what the actor returned besides the action, `[T, B, ...]`.
      reward: `[T, B]`.
      discount: `[T, B]`, 0 where termination is predicted and from there on.
    """

    observation: jax.Array
    action: jax.Array
    aside: PyTree
    reward: jax.Array
    discount: jax.Array


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
) -> tuple[ReplayState, Metrics]:
    """Roll a policy out in the model from real states and store what it meets.

    As in Janner et al. 2019 (arXiv:1906.08253, alg. 2), each row meets a random elite at each step,
    and a row stops at a predicted termination. A non-finite prediction is not stored.

    Args:
      key: a key, used up.
      model: its functions.
      view: of the model's state.
      policy: stochastic.
      starts: real transitions `[B]` whose observations the rollouts start from.
      first_action: `[B, A]`, what they do first.
      buffer: model transitions, `B` rows at least.
      length: k, may be traced.
      max_size: newest model transitions that stay valid.

    Returns:
      The buffer with the new transitions and `rollout/*` metrics.
    """
    num_rollouts = first_action.shape[0]

    def step(i, loop: RolloutLoop) -> RolloutLoop:
        model_key, policy_key = jax.random.split(jax.random.fold_in(key, i))
        point, prediction = model.step(model_key, view, loop.point, loop.action, "step")
        transition = Transition(
            observation=loop.point.observation,
            action=loop.action,
            reward=prediction.reward,
            discount=prediction.discount,
            next_observation=point.observation,
        )
        stored = loop.alive & prediction.finite
        terminated = prediction.discount == 0.0
        return RolloutLoop(
            point=point,
            action=policy(policy_key, point.observation),
            alive=loop.alive & ~terminated,
            buffer=replay.add(loop.buffer, transition, stored, max_size),
            lengths=loop.lengths + jnp.sum(stored),
            terminated=loop.terminated + jnp.sum(stored & terminated),
            nonfinite=loop.nonfinite + jnp.sum(loop.alive & ~prediction.finite),
        )

    start = RolloutLoop(
        point=model.start(starts.observation, starts.simulator),
        action=first_action,
        alive=jnp.ones(num_rollouts, bool),
        buffer=buffer,
        lengths=jnp.float32(0),
        terminated=jnp.float32(0),
        nonfinite=jnp.float32(0),
    )
    end = jax.lax.fori_loop(0, length, step, start)
    metrics = {
        "rollout/length": jnp.asarray(length, jnp.float32),
        # Without rollouts there is no mean.
        "rollout/length_mean": end.lengths / max(num_rollouts, 1),
        "rollout/terminated": end.terminated / max(num_rollouts, 1),
        "rollout/nonfinite": end.nonfinite,
        "rollout/buffer_size": end.buffer.size.astype(jnp.float32),
    }
    return end.buffer, metrics


def imagine(
    key: jax.Array,
    model: DynamicsModel,
    view: PyTree,
    start: Point,
    act: Callable[[jax.Array, jax.Array], tuple[jax.Array, PyTree]],
    horizon: int,
    propagation: str,
    *,
    max_cotangent_norm: jax.Array | float | None = None,
    truncation: int | None = None,
) -> tuple[Imagined, Point]:
    """Roll an actor out in the model; differentiable with respect to what `act` closes over.

    A rollout that has terminated stays where it is. Nothing after that counts, but what went on
    might leave all bounds, and neither zero times infinity nor a gradient of zero that is passed
    back through an infinite number is zero. Rewards are not masked: multiply by the running product
    of discounts.

    Args:
      key: a key, used up.
      model: its functions.
      view: of the model's state.
      start: where the rollouts start, `[B]`.
      act: `(key, observation [B, O]) -> (action [B, A], aside)`.
      horizon: T, steps.
      propagation: how the rollouts meet the ensemble.
      max_cotangent_norm: longest gradient that a row passes back through a point, where it ends
        included.
      truncation: steps after which no gradient is passed back.

    Returns:
      The steps, and where the rollouts end.
    """

    def step(
        carry: tuple[Point, jax.Array], inputs: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[Point, jax.Array], Imagined]:
        (point, alive), (i, key) = carry, inputs
        act_key, model_key = jax.random.split(key)
        if max_cotangent_norm is not None:
            point = limit_cotangent(point, max_cotangent_norm)
        if truncation is not None:
            point = cut_gradient(point, i % truncation == 0)
        action, aside = act(act_key, point.observation)
        following, prediction = model.step(model_key, view, point, action, propagation)
        discount = jnp.where(alive, prediction.discount, 0.0)
        made = Imagined(point.observation, action, aside, prediction.reward, discount)
        goes_on = discount > 0.0
        return (where_rows(goes_on, following, point), goes_on), made

    inputs = jnp.arange(horizon), jax.random.split(key, horizon)
    alive = jnp.ones(start.observation.shape[0], bool)
    (end, _), steps = jax.lax.scan(step, (start, alive), inputs)
    if max_cotangent_norm is not None:
        end = limit_cotangent(end, max_cotangent_norm)
    return steps, end


def cut_gradient(tree: PyTree, cut: jax.Array) -> PyTree:
    """Return the same numbers, which pass no gradient back where `cut`."""
    return jax.tree.map(lambda x: jnp.where(cut, jax.lax.stop_gradient(x), x), tree)


@jax.custom_vjp
def limit_cotangent(tree: PyTree, max_norm: jax.Array | float) -> PyTree:
    """Return the same numbers, whose gradient is scaled down to `max_norm` in each row `[B, ...]`.

    The norm is over all floating-point numbers of a row, in all leaves.
    """
    del max_norm
    return tree


def _limit_forward(tree: PyTree, max_norm: jax.Array | float):
    return tree, max_norm


def _limit_backward(max_norm: jax.Array | float, cotangent: PyTree):
    floats = [x for x in jax.tree.leaves(cotangent) if x.dtype != jax.dtypes.float0]
    square = sum(jnp.sum(jnp.square(x), axis=tuple(range(1, x.ndim))) for x in floats)
    # The square root's own slope is of no concern, only a division by zero is.
    scale = jnp.minimum(1.0, max_norm / jnp.sqrt(jnp.maximum(square, 1e-30)))

    def limited(x):
        if x.dtype == jax.dtypes.float0:
            return x
        return x * jnp.expand_dims(scale, tuple(range(1, x.ndim)))

    return jax.tree.map(limited, cotangent), jnp.zeros_like(jnp.asarray(max_norm))


limit_cotangent.defvjp(_limit_forward, _limit_backward)

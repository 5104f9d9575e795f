"""Model rollouts inside an update: kept nowhere, differentiable, with limits on the gradient."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax.models.rows import where_rows
from mbpo_jax.types import DynamicsModel, Point, PyTree


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


def imagine(
    key: jax.Array,
    model: DynamicsModel,
    view: PyTree,
    start: Point,
    act: Callable[[jax.Array, jax.Array], tuple[jax.Array, PyTree]],
    *,
    horizon: int,
    propagation: str,
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
      propagation: one of `models.rows.PROPAGATIONS`, how the rollouts meet the ensemble.
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

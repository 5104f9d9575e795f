"""Value expansion: model rollouts of the policy inside an update, for MVE, STEVE, SVG, DHMBPO."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax.agents.actor_critic import ActorCritic, SACState, target_q, temperature
from mbpo_jax.agents.sac import TrainingRollout, soft_value
from mbpo_jax.config import Config
from mbpo_jax.models.imagination import imagine
from mbpo_jax.types import DynamicsModel, Point, PyTree, Transition


class Expansion(NamedTuple):
    """A model rollout of the policy, valued at its end; time is the first axis.

    Attributes:
      observation: `[H + 1, B, O]`, the last one where the rollout ends.
      action: `[H + 1, B, A]`, drawn from the policy.
      log_prob: `[H + 1, B]`, of the actions.
      reward: `[H, B]`.
      discount: `[H, B]`, 0 where termination is predicted.
    """

    observation: jax.Array
    action: jax.Array
    log_prob: jax.Array
    reward: jax.Array
    discount: jax.Array


def expand(
    key: jax.Array,
    nets: ActorCritic,
    policy: PyTree,
    model: DynamicsModel,
    view: PyTree,
    start: Point,
    *,
    horizon: int,
    propagation: str,
    max_cotangent_norm: jax.Array | float | None = None,
    copies: int = 1,
) -> Expansion:
    """Roll the policy out in the model for H steps, and let it act where they end.

    If the rows are so many copies of the same ones, one after the other, the policy's noise is the
    same in all of them.
    """
    end_key, steps_key = jax.random.split(key)

    def act(key: jax.Array, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        stacked = observation.reshape(copies, -1, observation.shape[-1])
        acted = jax.vmap(lambda rows: nets.sample(key, policy, rows))(stacked)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), acted)

    steps, end = imagine(
        steps_key,
        model,
        view,
        start,
        act,
        horizon=horizon,
        propagation=propagation,
        max_cotangent_norm=max_cotangent_norm,
    )
    action, log_prob = act(end_key, end.observation)

    def with_end(steps: jax.Array, last: jax.Array) -> jax.Array:
        return jnp.concatenate([steps, last[None]])

    return Expansion(
        observation=with_end(steps.observation, end.observation),
        action=with_end(steps.action, action),
        log_prob=with_end(steps.aside, log_prob),
        reward=steps.reward,
        discount=steps.discount,
    )


def training_rollout(model: DynamicsModel, config: Config) -> TrainingRollout:
    """Roll the policy out for H steps from the states of a batch, whatever was done there."""
    expansion = config.expansion
    limit = expansion.max_cotangent_norm

    def roll_out(
        key: jax.Array, nets: ActorCritic, policy: PyTree, view: PyTree, batch: Transition
    ) -> Expansion:
        return expand(
            key,
            nets,
            policy,
            model,
            view,
            model.start(batch.observation, batch.simulator),
            horizon=expansion.horizon,
            propagation=expansion.propagation,
            # The mean over rows makes the gradient of each so much shorter.
            max_cotangent_norm=None if limit is None else limit / batch.reward.shape[0],
        )

    return roll_out


def last_target(key: jax.Array, nets: ActorCritic, state: SACState, made: Expansion) -> jax.Array:
    """Return the soft value `[B]` of the expansion's last state that a target holds."""
    critics = nets.chosen(key, state.target_critics)
    q = target_q(critics, nets, made.observation[-1], made.action[-1])
    return soft_value(q, made.log_prob[-1], temperature(state))


def imagined_return(
    nets: ActorCritic, state: SACState, made: Expansion, gamma: jax.Array | float
) -> jax.Array:
    """Return what a policy climbs that goes through the model, `[B]`.

    `sum_{t<H} gamma^t m_t (r_t - alpha log pi_t) + gamma^H m_H (Q(s_H, a_H) - alpha log pi_H)`,
    where m_t is 0 from the first predicted termination on and Q is what the critics say together.
    """
    alpha = temperature(state)
    horizon = made.reward.shape[0]
    depth = jnp.arange(horizon + 1, dtype=jnp.float32)
    weight = gamma ** depth[:, None] * reach(made.discount)
    soft_reward = made.reward - alpha * made.log_prob[:-1]
    q = nets.climbed(nets.q_values(state.critics, made.observation[-1], made.action[-1]))
    value = soft_value(q, made.log_prob[-1], alpha)
    return jnp.sum(weight[:-1] * soft_reward, axis=0) + weight[-1] * value


def reach(discount: jax.Array) -> jax.Array:
    """Return whether a rollout has not terminated before each depth: `[T, B]` to `[T + 1, B]`."""
    start = jnp.ones((1, *discount.shape[1:]))
    return jnp.concatenate([start, jnp.cumprod(discount, axis=0)])

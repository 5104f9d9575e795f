"""Stochastic ensemble value expansion (Buckman et al. 2018, arXiv:1807.01675).

A target for each depth up to H, each member and each critic; depths are weighted by how well the
members and critics agree on them. Chance is no disagreement: members predict their means, as the
paper's do, and the policy's noise is the same for all of them.
"""

import jax
import jax.numpy as jnp

from mbpo_jax.agents import targets
from mbpo_jax.agents.actor_critic import ActorCritic, SACState, temperature
from mbpo_jax.agents.sac import CriticTarget, Regression, make_sac
from mbpo_jax.algorithms.expansion import Expansion, expand, reach
from mbpo_jax.algorithms.parts import make_model, replay_experience
from mbpo_jax.config import Config
from mbpo_jax.types import Algorithm, DynamicsModel, Env, PyTree, Transition


def depth_targets(
    batch: Transition, made: Expansion, q: jax.Array, alpha: jax.Array, gamma: jax.Array | float
) -> jax.Array:
    """Return the candidate targets of every depth, `[H + 1, C, B]`.

    At depth i, `r_-1 + sum_{k<i} gamma^{k+1} (r_k - alpha log pi_k) + gamma^{i+1} (Q_c - alpha log
    pi_i)`; each critic alone bootstraps a candidate, in the place of the minimum over critics.

    Args:
      batch: real transitions `[B]`.
      made: the rollouts from where they led.
      q: `[C, H + 1, B]`, the critics' values of all states and actions of the rollout.
      alpha: temperature.
      gamma: discount factor.
    """
    depth = jnp.arange(1, q.shape[1] + 1, dtype=q.dtype)
    weight = gamma ** depth[:, None] * batch.discount[None] * reach(made.discount)
    bonus = -alpha * made.log_prob
    imagined = jnp.cumsum(weight[:-1] * (made.reward + bonus[:-1]), axis=0)
    before = batch.reward[None] + jnp.pad(imagined, ((1, 0), (0, 0)))
    candidates = before[None] + weight[None] * (q + bonus[None])
    return jnp.swapaxes(candidates, 0, 1)


def steve_target(model: DynamicsModel, config: Config) -> CriticTarget:
    """Regress to the mixture of depths that the inverse variance over candidates gives."""
    expansion = config.expansion
    weights_fn = (
        targets.covariance_weights if expansion.covariance else targets.inverse_variance_weights
    )

    def target(
        key: jax.Array, nets: ActorCritic, state: SACState, view: PyTree, batch: Transition
    ) -> Regression:
        follow_key, expand_key, critics_key = jax.random.split(key, 3)
        num_rows, num_members = batch.reward.shape[0], model.num_members
        start, real = model.follow(follow_key, view, batch)
        # A share of rows for each member, all alike.
        start, tiled = jax.tree.map(
            lambda x: jnp.tile(x, (num_members, *[1] * (x.ndim - 1))), (start, real)
        )
        made = expand(
            expand_key,
            nets,
            state.policy,
            model,
            view,
            start,
            horizon=expansion.horizon,
            propagation="members",
            copies=num_members,
        )
        alpha = temperature(state)
        critics = nets.chosen(critics_key, state.target_critics)
        q = nets.bounded(nets.q_values(critics, made.observation, made.action))
        candidates = depth_targets(tiled, made, q, alpha, config.sac.gamma)
        candidates = candidates.reshape(candidates.shape[0], -1, num_rows)
        mixed = targets.steve_target(candidates, weights_fn(candidates))
        soft_reward = jnp.concatenate([tiled.reward[None], made.reward]) - alpha * made.log_prob
        return Regression(real.observation, real.action, mixed, soft_reward=soft_reward)

    return target


def make_steve(env: Env, config: Config) -> Algorithm:
    """Assemble STEVE: replay, critics that regress to a mixture of expanded values."""
    model = make_model(env, config)
    agent = make_sac(env.spec, config.sac, critic_target=steve_target(model, config))
    return Algorithm(agent, replay_experience(), model)

"""Stochastic value gradients (Heess et al. 2015, arXiv:1510.09142), on SAC.

The policy climbs the pathwise gradient of H imagined soft rewards and the critics' value of the
state where they end (SAC-SVG(H) of Amos et al. 2021, arXiv:2008.12775).
"""

import jax
import jax.numpy as jnp

from mbpo_jax.agents.sac import (
    ActorCritic,
    ActorObjective,
    SACState,
    make_sac,
    td0_target,
)
from mbpo_jax.algorithms.expansion import expand, last_value, reach
from mbpo_jax.algorithms.mve import mve_target
from mbpo_jax.algorithms.parts import make_model, replay_experience
from mbpo_jax.config import Config
from mbpo_jax.types import Algorithm, DynamicsModel, Env, PyTree, Transition


def svg_objective(model: DynamicsModel, config: Config) -> ActorObjective:
    """Climb `E[sum_{t<H} gamma^t (r_t - alpha log pi_t) + gamma^H (min_i Q_i - alpha log pi_H)]`.

    Amos et al. divide by H + 1; Adam does not feel it. The temperature follows the entropy at the
    real states, as without expansion.
    """
    expansion, gamma = config.expansion, config.sac.gamma
    limit = expansion.max_cotangent_norm

    def objective(
        key: jax.Array,
        nets: ActorCritic,
        policy: PyTree,
        state: SACState,
        view: PyTree,
        batch: Transition,
    ) -> tuple[jax.Array, jax.Array]:
        made = expand(
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
        depth = jnp.arange(expansion.horizon + 1, dtype=jnp.float32)
        weight = gamma ** depth[:, None] * reach(made.discount)
        soft_reward = made.reward - jnp.exp(state.log_alpha) * made.log_prob[:-1]
        value = jnp.sum(weight[:-1] * soft_reward, axis=0)
        value += weight[-1] * last_value(nets, state.critics, state, made)
        return -jnp.mean(value), made.log_prob[0]

    return objective


def make_svg(env: Env, config: Config) -> Algorithm:
    """Assemble SVG(H): replay, critics on TD(0) or MVE, a policy improved through the model."""
    model = make_model(env, config)
    if config.expansion.critic == "mve":
        critic_target = mve_target(model, config)
    else:
        critic_target = td0_target(config.sac.gamma)
    agent = make_sac(
        env.spec,
        config.sac,
        critic_target=critic_target,
        actor_objective=svg_objective(model, config),
    )
    return Algorithm(agent, replay_experience(), model)

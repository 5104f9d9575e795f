"""Stochastic value gradients (Heess et al. 2015, arXiv:1510.09142), on SAC.

The policy climbs the pathwise gradient of H imagined soft rewards and the critics' value of the
state where they end (SAC-SVG(H) of Amos et al. 2021, arXiv:2008.12775).
"""

import jax
import jax.numpy as jnp

from mbpo_jax.agents.actor_critic import ActorCritic, SACState
from mbpo_jax.agents.sac import (
    ActorObjective,
    make_sac,
    td0_target,
)
from mbpo_jax.algorithms.expansion import imagined_return, training_rollout
from mbpo_jax.algorithms.mve import mve_target
from mbpo_jax.algorithms.parts import make_model, replay_experience
from mbpo_jax.config import Config
from mbpo_jax.types import Algorithm, DynamicsModel, Env, PyTree, Transition


def svg_objective(model: DynamicsModel, config: Config) -> ActorObjective:
    """Climb the mean of `imagined_return` from real states.

    Amos et al. divide by H + 1; Adam does not feel it. The temperature follows the entropy at the
    real states, as without expansion.
    """
    roll_out, gamma = training_rollout(model, config), config.sac.gamma

    def objective(
        key: jax.Array,
        nets: ActorCritic,
        policy: PyTree,
        state: SACState,
        view: PyTree,
        batch: Transition,
    ) -> tuple[jax.Array, jax.Array]:
        made = roll_out(key, nets, policy, view, batch)
        return -jnp.mean(imagined_return(nets, state, made, gamma)), made.log_prob[0]

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

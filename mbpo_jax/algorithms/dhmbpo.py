"""Double-horizon model-based policy optimization (Kubo et al. 2025, arXiv:2512.15439).

Long model rollouts say where to learn, short ones what: states of rollouts that branched from
replay states are where a training rollout of H steps begins, whose value the critics regress to at
its first action and whose gradient the policy climbs. Without training rollouts it is MBPO.
"""

import jax
import jax.numpy as jnp

from mbpo_jax.agents import targets
from mbpo_jax.agents.actor_critic import ActorCritic, SACState, temperature
from mbpo_jax.agents.sac import CriticTarget, Regression, make_sac
from mbpo_jax.algorithms.branching import branched_experience
from mbpo_jax.algorithms.expansion import (
    Expansion,
    imagined_return,
    last_target,
    training_rollout,
)
from mbpo_jax.algorithms.mbpo import make_mbpo
from mbpo_jax.algorithms.parts import make_model
from mbpo_jax.config import Config
from mbpo_jax.types import Algorithm, Env, PyTree


def imagined_target(gamma: jax.Array | float) -> CriticTarget:
    """Regress the first action of a training rollout to its H-step soft return.

    `y = sum_{t<H} gamma^t m_t r_t - alpha sum_{t=1..H} gamma^t m_t log pi_t + gamma^H m_H Q'(s_H,
    a_H)`, where m_t is 0 from the first predicted termination on and Q' is the smallest of the
    chosen target critics.
    """

    def target(
        key: jax.Array, nets: ActorCritic, state: SACState, view: PyTree, made: Expansion
    ) -> Regression:
        del view
        bonus = -temperature(state) * made.log_prob
        value = last_target(key, nets, state, made)
        returns = targets.lambda_return(
            reward=made.reward,
            discount=made.discount,
            next_value=jnp.broadcast_to(value, made.discount.shape),
            entropy_bonus=bonus[1:-1],
            gamma=gamma,
            decay=1.0,
        )
        return Regression(
            made.observation[0], made.action[0], returns[0], soft_reward=made.reward + bonus[1:]
        )

    return target


def make_dhmbpo(env: Env, config: Config) -> Algorithm:
    """Assemble DHMBPO: long rollouts for states, short ones within each update."""
    if config.expansion.horizon == 0:
        return make_mbpo(env, config)
    model, gamma = make_model(env, config), config.sac.gamma

    def objective(key, nets, policy, state, view, made: Expansion):
        del key, policy, view
        return -jnp.mean(imagined_return(nets, state, made, gamma)), made.log_prob[0]

    agent = make_sac(
        env.spec,
        config.sac,
        critic_target=imagined_target(gamma),
        actor_objective=objective,
        training_rollout=training_rollout(model, config),
    )
    simulator = ()
    if model.needs_simulator:
        simulator = jax.eval_shape(env.reset, jax.random.key(0)).simulator
    experience = branched_experience(env.spec, model, config, simulator=simulator)
    return Algorithm(agent, experience, model)

"""Model-based value expansion (Feinberg et al. 2018, arXiv:1803.00101).

The critics regress to H imagined rewards and the value of the state where they end, instead of to
the value of the next state. With soft values, each imagined action's entropy is a reward, too.
"""

import jax
import jax.numpy as jnp

from mbpo_jax.agents import targets
from mbpo_jax.agents.actor_critic import ActorCritic, SACState, temperature
from mbpo_jax.agents.sac import CriticTarget, Regression, make_sac
from mbpo_jax.algorithms.expansion import expand, last_target, reach
from mbpo_jax.algorithms.parts import make_model, replay_experience
from mbpo_jax.config import Config
from mbpo_jax.types import Algorithm, DynamicsModel, Env, PyTree, Transition


def mve_target(model: DynamicsModel, config: Config) -> CriticTarget:
    """Regress to H-step returns through the model, on all depths (TD-k) or on real rows alone.

    From a real transition (s_-1, a_-1, r_-1, s_0) the policy is rolled out to s_H. At depth t the
    target is `r_t + sum_{k=t+1}^{H-1} gamma^{k-t} (r_k - alpha log pi_k) + gamma^{H-t} V(s_H)`, for
    t = -1 to H - 1, with a soft value V. With TD-k the loss is the mean over these depths, each row
    weighted by whether its rollout got there.
    """
    expansion, gamma = config.expansion, config.sac.gamma

    def target(
        key: jax.Array, nets: ActorCritic, state: SACState, view: PyTree, batch: Transition
    ) -> Regression:
        follow_key, expand_key, critics_key = jax.random.split(key, 3)
        start, real = model.follow(follow_key, view, batch)
        made = expand(
            expand_key,
            nets,
            state.policy,
            model,
            view,
            start,
            horizon=expansion.horizon,
            propagation=expansion.propagation,
        )
        discount = jnp.concatenate([real.discount[None], made.discount])
        value = last_target(critics_key, nets, state, made)
        bonus = -temperature(state) * made.log_prob
        reward = jnp.concatenate([real.reward[None], made.reward])
        returns = targets.lambda_return(
            reward=reward,
            discount=discount,
            next_value=jnp.broadcast_to(value, discount.shape),
            entropy_bonus=bonus[:-1],
            gamma=gamma,
            decay=1.0,
        )
        if not expansion.td_k:
            return Regression(real.observation, real.action, returns[0], soft_reward=reward + bonus)
        observation = jnp.concatenate([real.observation[None], made.observation[:-1]])
        action = jnp.concatenate([real.action[None], made.action[:-1]])
        return Regression(
            observation=observation.reshape(-1, observation.shape[-1]),
            action=action.reshape(-1, action.shape[-1]),
            target=returns.reshape(-1),
            soft_reward=reward + bonus,
            weight=reach(discount[:-1]).reshape(-1),
        )

    return target


def make_mve(env: Env, config: Config) -> Algorithm:
    """Assemble MVE: replay, critics that regress to expanded values."""
    model = make_model(env, config)
    agent = make_sac(env.spec, config.sac, critic_target=mve_target(model, config))
    return Algorithm(agent, replay_experience(), model)

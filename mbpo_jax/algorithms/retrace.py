"""Retrace(lambda) (Munos et al. 2016, arXiv:1606.02647) and n-step returns from replay sequences.

The model-free control that value expansion has to beat: longer returns at no model's cost.
"""

import jax
import jax.numpy as jnp

from mbpo_jax import replay
from mbpo_jax.agents import targets
from mbpo_jax.agents.actor_critic import ActorCritic, SACState, target_q, temperature
from mbpo_jax.agents.sac import (
    CriticTarget,
    Regression,
    make_sac,
    next_soft_value,
    q_objective,
)
from mbpo_jax.algorithms.parts import without_refresh
from mbpo_jax.config import Config
from mbpo_jax.replay import Sequence
from mbpo_jax.types import Algorithm, Env, PyTree, Transition


def first_transition(batch: Sequence) -> Transition:
    """Return the transitions `[B]` with which sequences `[B, T]` begin."""
    return jax.tree.map(lambda x: x[:, 0], batch.transitions)


def retrace_target(config: Config) -> CriticTarget:
    """Regress the first transition of each sequence to its corrected return.

    Without correction the target is the lambda-return along the stored actions, whose entropy is
    that of the present policy.
    """
    gamma, settings = config.sac.gamma, config.retrace

    def target(
        key: jax.Array, nets: ActorCritic, state: SACState, view: PyTree, batch: Sequence
    ) -> Regression:
        del view
        # Time first: [T, B].
        steps, connected = jax.tree.map(
            lambda x: jnp.swapaxes(x, 0, 1), (batch.transitions, batch.connected)
        )
        key, critics_key = jax.random.split(key)
        critics = nets.chosen(critics_key, state.target_critics)
        next_value, bonus = next_soft_value(key, critics, nets, state, steps.next_observation)
        later = jax.tree.map(lambda x: x[1:], steps)
        log_prob = nets.log_prob(state.policy, later.observation, later.action)
        if settings.correction == "retrace":
            next_q = target_q(critics, nets, later.observation, later.action)
            trace = targets.retrace_coefficient(log_prob, later.log_prob, settings.decay)
            returns = targets.retrace(
                reward=steps.reward,
                discount=steps.discount,
                next_value=next_value,
                next_q=next_q,
                trace=trace * connected[1:],
                gamma=gamma,
            )
        else:
            returns = targets.lambda_return(
                reward=steps.reward,
                discount=steps.discount,
                next_value=next_value,
                entropy_bonus=-temperature(state) * log_prob,
                gamma=gamma,
                decay=settings.decay * connected[1:],
            )
        first = first_transition(batch)
        return Regression(
            first.observation, first.action, returns[0], soft_reward=steps.reward + bonus
        )

    return target


def first_q_objective(key, nets, policy, state, view, batch: Sequence):
    """Improve the policy by the critics' gradient where the sequences begin."""
    return q_objective(key, nets, policy, state, view, first_transition(batch))


def make_retrace(env: Env, config: Config) -> Algorithm:
    """Assemble Retrace: sequences from replay, critics that regress to their returns."""

    def sample(key: jax.Array, real: replay.ReplayState, shape: tuple[int, ...]) -> Sequence:
        # Split as for single transitions, so that length 1 is SAC, number for number.
        real_key, _ = jax.random.split(key)
        return replay.sample_sequences(real_key, real, shape, config.retrace.length)

    agent = make_sac(
        env.spec,
        config.sac,
        critic_target=retrace_target(config),
        actor_objective=first_q_objective,
    )
    return Algorithm(agent, without_refresh(sample), keeps_log_prob=True)

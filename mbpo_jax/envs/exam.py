"""A decision that only pays for those who will see more before the next one."""

import jax
import jax.numpy as jnp

from mbpo_jax.envs.system import System

OFFERED, ASKED, OVER = 0.0, 1.0, 2.0
"""Stages."""
REWARD_IF_RIGHT = 1000.0
REWARD_IF_WRONG = -2000.0


def make_maths_test() -> System:
    """Build a test of one question that may be declined.

    First a positive action accepts the test, and any other declines it, which pays 0 and ends the
    episode. Whoever accepts is shown the question, -1 or 1 by a fair coin, and has to answer it by
    an action of the same sign: 1000 if right, else -2000.

    A policy, which sees the question before it answers, earns 1000. A plan made in advance has to
    guess: to accept is worth -500 to it, so it is best to decline. The state and the observation
    are `(stage, question)`, with stages 0 (offered), 1 (asked) and 2 (over) and a question of 0
    while there is none. In the mean of both questions, 0, any answer pays the mean of right and
    wrong.
    """

    def ask(question: jax.Array | float, state: jax.Array, action: jax.Array) -> jax.Array:
        asked = (state[0] == OFFERED) & (action[0] > 0.0)
        return jnp.where(asked, jnp.stack([ASKED, question]), jnp.array([OVER, 0.0]))

    def dynamics(key: jax.Array, state: jax.Array, action: jax.Array) -> jax.Array:
        return ask(jax.random.rademacher(key, (), state.dtype), state, action)

    def reward(state: jax.Array, action: jax.Array, next_state: jax.Array) -> jax.Array:
        del next_state
        stage, question = state
        right = jnp.sign(action[0]) == question
        graded = jnp.where(right, REWARD_IF_RIGHT, REWARD_IF_WRONG)
        guessed = 0.5 * (REWARD_IF_RIGHT + REWARD_IF_WRONG)
        graded = jnp.where(question == 0.0, guessed, graded)
        return jnp.where(stage == ASKED, graded, 0.0)

    return System(
        observation_size=2,
        action_size=1,
        dt=1.0,
        initial=lambda key: jnp.array([OFFERED, 0.0]),
        dynamics=dynamics,
        reward=reward,
        observe=lambda state: state,
        terminated=lambda observation: observation[..., 0] > 0.5 * (ASKED + OVER),
        mean_dynamics=lambda state, action: ask(0.0, state, action),
        observed=("stage", "question"),
    )

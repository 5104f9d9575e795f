"""What plans and policies can earn in the maths test."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.envs.analytic import make_analytic_env
from mbpo_jax.envs.exam import ASKED, OFFERED, OVER

ENV = make_analytic_env("maths_test", 60)


def asked(question):
    state = jnp.array([ASKED, question])
    return ENV.reset(jax.random.key(0))._replace(simulator=state, observation=state)


@pytest.mark.parametrize("action", [-1.0, -0.01, 0.0])
def test_who_declines_gets_nothing(action, key):
    state, transition = ENV.step(key, ENV.reset(jax.random.key(1)), jnp.array([action]))
    assert (float(transition.reward), float(transition.discount)) == (0.0, 0.0)
    assert state.done
    np.testing.assert_array_equal(transition.observation, [OFFERED, 0.0])
    np.testing.assert_array_equal(transition.next_observation, [OVER, 0.0])


def test_who_accepts_is_asked_either_question_half_of_the_time(key):
    def accept(key):
        return ENV.step(key, ENV.reset(jax.random.key(1)), jnp.array([0.2]))

    with jax.debug_key_reuse(False):
        states, transitions = jax.jit(jax.vmap(accept))(jax.random.split(key, 4000))
    np.testing.assert_array_equal(transitions.next_observation[:, 0], ASKED)
    questions = transitions.next_observation[:, 1]
    assert set(np.unique(questions)) == {-1.0, 1.0}
    assert abs(questions.mean()) < 4 / np.sqrt(4000)
    assert not states.done.any()
    np.testing.assert_array_equal(transitions.reward, 0.0)
    np.testing.assert_array_equal(transitions.discount, 1.0)


@pytest.mark.parametrize("question", [-1.0, 1.0])
@pytest.mark.parametrize("answer", [-0.5, 0.0, 0.5])
def test_an_answer_is_right_if_it_has_the_sign_of_the_question(question, answer, key):
    state, transition = ENV.step(key, asked(question), jnp.array([answer]))
    assert float(transition.reward) == (1000.0 if question * answer > 0 else -2000.0)
    assert float(transition.discount) == 0.0
    assert state.done


@pytest.mark.parametrize("guess", [-1.0, 1.0])
def test_a_plan_that_accepts_is_worth_minus_500(guess, key):
    rewards = [
        float(ENV.step(jax.random.clone(key), asked(question), jnp.array([guess]))[1].reward)
        for question in (-1.0, 1.0)
    ]
    assert np.mean(rewards) == -500.0


def test_a_policy_that_reads_the_question_earns_1000(key):
    def episode(key):
        accept_key, answer_key = jax.random.split(key)
        state = ENV.reset(jax.random.key(1))
        state, first = ENV.step(accept_key, state, jnp.array([1.0]))
        state, second = ENV.step(answer_key, state, state.observation[1:])
        return first.reward + second.reward, state.done

    returns, done = jax.jit(jax.vmap(episode))(jax.random.split(key, 50))
    np.testing.assert_array_equal(returns, 1000.0)
    assert done.all()

"""MBPO: that without model data it is SAC, and what it learns from when the model is the truth."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.training.loop import make_program
from tests.algorithms.against_sac import assert_trains_as_sac
from tests.algorithms.clocked_system import (
    ENV,
    assert_true_transitions,
    make_config,
    played,
    rows_of,
)
from tests.probe_environments import linear_gaussian, tiny_config
from tests.programs import collected


@pytest.mark.slow
def test_mbpo_on_real_data_alone_is_sac(key):
    """With a real ratio of 1 the model is fitted and rolled out to no effect on the agent."""
    config = tiny_config()
    rollout = dataclasses.replace(config.rollout, real_ratio=1.0)
    assert_trains_as_sac(key, dataclasses.replace(config, rollout=rollout))


@functools.partial(jax.jit, static_argnums=1)
def refresh_and_draw(config, shape, key, real, env_steps):
    """Return MBPO's model transitions, and batches of them and real ones."""
    algorithm = make_algorithm(ENV, config)
    agent_key, refresh_key, draw_key = jax.random.split(key, 3)
    experience, agent = algorithm.experience, algorithm.agent
    policy = agent.policy(agent.init(agent_key))
    view = algorithm.model.ready(())
    buffer, metrics = experience.refresh(
        refresh_key, experience.init(), view, real, policy, env_steps
    )
    return buffer, experience.sample(draw_key, buffer, real, shape), metrics


def test_with_the_true_system_for_a_model_mbpo_imagines_what_is_true(key):
    """The policy's rollouts are stored step by step, the rewards that only simulators tell too."""
    real_key, key = jax.random.split(key)
    config, real = make_config("mbpo"), played(real_key, 20)
    env_steps = jnp.int32(config.random_steps + 2 * config.epoch_length)
    buffer, batch, metrics = refresh_and_draw(config, (3, 8), key, real, env_steps)
    made = rows_of(buffer)
    assert_true_transitions(rows_of(real), made)
    assert len(np.unique(made.action)) == len(made.action) > 40
    assert metrics["rollout/nonfinite"] == 0
    # Half of a batch's rows are real ones, the others are these.
    known = {reward.tobytes() for reward in rows_of(real).reward}
    imagined = {reward.tobytes() for reward in made.reward}
    assert {x.tobytes() for x in np.asarray(batch.reward[:, :4]).ravel()} <= known
    assert {x.tobytes() for x in np.asarray(batch.reward[:, 4:]).ravel()} <= imagined


@pytest.mark.slow
@pytest.mark.parametrize("truncation", ["threshold", "ranking", "information"])
def test_rollouts_are_cut_by_the_rule_that_the_settings_ask_for(key, truncation):
    """What a rule remembers goes from step to step with the model transitions."""
    config = tiny_config()
    rollout = dataclasses.replace(
        config.rollout, truncation=truncation, min_length=3, threshold_scale=0.9
    )
    config = dataclasses.replace(config, rollout=rollout)
    program = make_program(linear_gaussian(noise=0.05, episode_length=5))
    state = jax.jit(lambda key: collected(program, config, key))(key)
    step = jax.jit(lambda env_steps, state: program.step(config, env_steps, state))
    for i in range(2):
        state, metrics = step(jnp.int32(config.random_steps + i * config.steps_per_fit), state)
        assert 0.0 < metrics["rollout/kept"] < 1.0
        assert metrics["rollout/length_mean"] < 3.0
        if truncation == "threshold":
            assert state.experience.truncation.batches == i + 1
            assert metrics["rollout/threshold"] > 0.0
        elif truncation == "information":
            assert metrics["rollout/bits_per_step"] > 0.0
            assert metrics["rollout/bits_in_all"] > 0.0
        else:
            # 16 rollouts of 3 steps: at most 6, 4 and 2 of them.
            assert metrics["rollout/length_mean"] <= 12 / 16
    assert metrics["train/healthy"] == 1.0

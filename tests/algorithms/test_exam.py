"""The maths test: a learned policy accepts and answers. That plans decline, `test_mpc` shows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.envs import make_env
from mbpo_jax.presets import environment_preset
from mbpo_jax.training.loop import make_program
from tests.programs import collected


@pytest.mark.slow
def test_a_learned_policy_accepts_because_it_will_see_the_question():
    config = environment_preset("maths_test")
    # Half the steps of the preset, on small batches, are enough.
    sac = dataclasses.replace(config.sac, batch_size=64)
    config = dataclasses.replace(config, algorithm="sac", total_env_steps=1000, sac=sac)
    program = make_program(make_env(config.env))
    # Under `vmap`, with which episodes are played, JAX takes keys of a scan for used ones.
    with jax.debug_key_reuse(False):
        start = jax.jit(lambda key: collected(program, config, key))
        step = jax.jit(lambda env_steps, state: program.step(config, env_steps, state)[0])
        state = start(jax.random.key(0))
        for env_steps in range(config.random_steps, config.total_env_steps, config.steps_per_fit):
            state = step(jnp.int32(env_steps), state)
        evaluate = jax.jit(lambda key, state: program.evaluate(config, key, state))
        returns, lengths = evaluate(jax.random.key(1), state)
    np.testing.assert_array_equal(returns, 1000.0)
    np.testing.assert_array_equal(lengths, 2.0)

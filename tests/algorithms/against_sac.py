"""Training an algorithm and SAC alike, to see that they end with the same numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mbpo_jax.config import Config
from mbpo_jax.training.loop import make_program
from mbpo_jax.training.state import TrainState
from tests.probe_environments import linear_gaussian
from tests.programs import collected


def assert_trains_as_sac(key: jax.Array, config: Config) -> TrainState:
    """Train on a noisy linear system for one compiled step; return the algorithm's state."""
    env = dataclasses.replace(config.env, termination="none")
    config = dataclasses.replace(config, env=env)
    program = make_program(linear_gaussian(noise=0.05, episode_length=5))

    @jax.jit
    def train(config, key):
        state = collected(program, config, key)
        return program.step(config, jnp.int32(config.random_steps), state)[0]

    sac = dataclasses.replace(config, algorithm="sac", model="learned")
    end, sac_end = (train(config, jax.random.clone(key)) for config in (config, sac))
    assert int(end.experience.size) > 0, "there were no model transitions"
    for name in ("agent", "env", "replay", "episode_return"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            getattr(end, name),
            getattr(sac_end, name),
        )
    return end

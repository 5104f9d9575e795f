"""What tests of training programs have in common."""

import jax

from mbpo_jax.config import Config
from mbpo_jax.training.loop import Program
from mbpo_jax.training.state import TrainState


def collected(program: Program, config: Config, key: jax.Array) -> TrainState:
    """Return the state of a run after its random steps."""
    return program.collect(config, program.init(config, key))

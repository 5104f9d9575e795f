"""Generalised Dyna (Sutton 1990): direct updates from real transitions, then planning updates.

At each environment step SAC makes G updates on real batches and then K on batches with model
transitions. Where these begin and how long they go on are settings.
"""

import jax
import jax.numpy as jnp

from mbpo_jax.agents.sac import make_sac
from mbpo_jax.algorithms.branching import (
    branched_experience,
    policy_action,
    random_action,
    stored_action,
)
from mbpo_jax.algorithms.parts import make_model, replay_experience
from mbpo_jax.config import Config
from mbpo_jax.replay import ReplayState
from mbpo_jax.types import Algorithm, Env, Transition

FIRST_ACTIONS = {"policy": policy_action, "replay": stored_action, "random": random_action}


def make_dyna(env: Env, config: Config) -> Algorithm:
    """Assemble Dyna: G real and K mixed batches for SAC at each environment step."""
    model = make_model(env, config)
    num_real, num_model = config.sac.utd_ratio, config.dyna.model_updates
    branched = branched_experience(
        env.spec,
        model,
        config,
        first_action=FIRST_ACTIONS[config.dyna.actions],
        keep_model_data=config.dyna.keep_model_data,
    )
    real_alone = replay_experience()

    def sample(key: jax.Array, buffer: ReplayState, real: ReplayState, shape) -> Transition:
        num_updates, batch_size = shape
        # Of updates that follow a fit, not a step, as large a share.
        num_first = num_updates * num_real // (num_real + num_model)
        # Folded, so that the real batches are SAC's, number for number.
        mixed_key = jax.random.fold_in(key, 1)
        first = real_alone.sample(key, (), real, (num_first, batch_size))
        first = first._replace(log_prob=(), simulator=())
        then = branched.sample(mixed_key, buffer, real, (num_updates - num_first, batch_size))
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, then)

    return Algorithm(
        agent=make_sac(env.spec, config.sac, updates_per_step=num_real + num_model),
        experience=branched._replace(sample=sample),
        model=model,
    )

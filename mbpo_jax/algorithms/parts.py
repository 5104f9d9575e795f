"""What several algorithms are assembled from: models, batches, planners as agents."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mbpo_jax import replay
from mbpo_jax.config import Config
from mbpo_jax.envs.termination import rule_of
from mbpo_jax.models.learned import make_learned_model
from mbpo_jax.models.oracle import make_oracle
from mbpo_jax.types import (
    Agent,
    DynamicsModel,
    Env,
    EnvState,
    Experience,
    Point,
    PyTree,
    Transition,
)


def make_model(env: Env, config: Config) -> DynamicsModel:
    """Build the model that the configuration asks for: the ensemble, or the true system."""
    if config.model == "oracle":
        return make_oracle(env)
    return make_learned_model(env.spec, config, rule_of(env, config.env.termination))


def point_of(model: DynamicsModel, env: EnvState) -> Point:
    """Return where an environment is, as one row of model rollouts."""
    return model.start(env.observation[None], jax.tree.map(lambda x: x[None], env.simulator))


def planning_agent(
    begin: Callable[[], PyTree], act: Callable[..., tuple[jax.Array, PyTree]]
) -> Agent:
    """Make an agent that plans through the model and has nothing to learn itself."""
    return Agent(
        init=lambda key: (),
        begin=begin,
        act=act,
        update=lambda key, state, view, batch: (state, {}),
        updates_per_step=0,
        batch_size=1,
    )


def without_refresh(sample) -> Experience:
    """Make an experience that draws from the replay buffer and carries nothing."""
    return Experience(
        init=lambda: (),
        refresh=lambda key, state, view, real, policy, env_steps: (state, {}),
        sample=lambda key, state, real, shape: sample(key, real, shape),
    )


def replay_experience() -> Experience:
    """Feed updates from the replay buffer alone."""

    def sample(key: jax.Array, real: replay.ReplayState, shape) -> Transition:
        # Split as in `mixed_batch`, so that a real ratio of 1 is SAC, number for number.
        real_key, _ = jax.random.split(key)
        return replay.sample(real_key, real, shape)

    return without_refresh(sample)


def mixed_batch(
    key: jax.Array,
    real: replay.ReplayState,
    model: replay.ReplayState,
    shape: tuple[int, ...],
    real_ratio: jax.Array | float,
) -> Transition:
    """Draw batches whose first `floor(real_ratio * B)` rows are real and the others the model's.

    Args:
      key: a key, used up.
      real: real transitions.
      model: model transitions.
      shape: `[..., B]`.
      real_ratio: share of real rows; may be traced.
    """
    real_key, model_key = jax.random.split(key)
    # The factor, two units in the last place, undoes the rounding of, for example, 0.29 * 100.
    num_real = jnp.floor(real_ratio * shape[-1] * (1.0 + 2.4e-7))
    # Without a finite prediction yet, there are no model transitions to draw.
    is_real = (jnp.arange(shape[-1]) < num_real) | (model.size == 0)
    model_batch = replay.sample(model_key, model, shape)
    real_batch = replay.sample(real_key, real, shape)._replace(log_prob=())
    if not jax.tree.leaves(model_batch.simulator):
        real_batch = real_batch._replace(simulator=())

    def mix(a: jax.Array, b: jax.Array) -> jax.Array:
        axes = (*range(len(shape) - 1), *range(len(shape), a.ndim))
        return jnp.where(jnp.expand_dims(is_real, axes), a, b)

    return jax.tree.map(mix, real_batch, model_batch)

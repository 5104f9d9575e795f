"""Model-based policy optimization (Janner et al. 2019, arXiv:1906.08253, algorithm 2).

SAC whose batches mix real transitions with those of short model rollouts branched from them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mbpo_jax import replay
from mbpo_jax.agents.sac import make_sac
from mbpo_jax.config import Config
from mbpo_jax.envs.termination import termination_fn
from mbpo_jax.models import diagnostics, fit, rollout
from mbpo_jax.models.ensemble import EnsembleState, make_ensemble
from mbpo_jax.replay import ReplayState
from mbpo_jax.types import Algorithm, EnvSpec, Experience, Policy, Transition


class BranchedState(NamedTuple):
    """What model experience carries.

    Attributes:
      model: the ensemble.
      buffer: model transitions.
    """

    model: EnsembleState
    buffer: ReplayState


def mixed_batch(
    key: jax.Array,
    real: ReplayState,
    model: ReplayState,
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
    batches = replay.sample(real_key, real, shape), replay.sample(model_key, model, shape)

    def mix(a: jax.Array, b: jax.Array) -> jax.Array:
        axes = (*range(len(shape) - 1), *range(len(shape), a.ndim))
        return jnp.where(jnp.expand_dims(is_real, axes), a, b)

    return jax.tree.map(mix, *batches)


def model_buffer_capacity(config: Config) -> int:
    """Return how many model transitions are retained when rollouts are longest."""
    return int(
        rollout.model_buffer_limit(config.rollout.max_length, config.rollout, config.epoch_length)
    )


def branched_experience(spec: EnvSpec, config: Config) -> Experience:
    """Feed updates from replay mixed with branched rollouts of a learned ensemble."""
    known = termination_fn(spec.name, config.env.termination, config.env.backend)
    optimizer = optax.adam(config.fit.learning_rate)
    ensemble = make_ensemble(spec, config.ensemble, optimizer, learned_termination=known is None)

    def init(key: jax.Array) -> BranchedState:
        rows = model_buffer_capacity(config)
        buffer = replay.init(rows, spec.observation_size, spec.action_size)
        return BranchedState(ensemble.init(key), buffer)

    def refresh(key: jax.Array, state: BranchedState, real: ReplayState, policy: Policy, env_steps):
        fit_key, rollout_key = jax.random.split(key)
        # The buffer's size bounds the loops of a fit. Under `vmap` it must not be one number a run,
        # though all are equal: else each gradient step copies the parameters of every run.
        size = jnp.minimum(env_steps, replay.capacity(real))
        model, fit_metrics = fit.fit(
            fit_key,
            state.model,
            real._replace(size=size),
            ensemble,
            optimizer,
            config.fit,
            bound_penalty_weight=config.ensemble.bound_penalty,
            normalize_targets=config.ensemble.normalize_targets,
        )
        epoch = (env_steps - config.random_steps) // config.epoch_length
        length = rollout.rollout_length(epoch, config.rollout)
        buffer, rollout_metrics = rollout.branch(
            rollout_key,
            ensemble,
            model,
            known,
            policy,
            real,
            state.buffer,
            num_rollouts=config.rollout.rollouts_per_step * config.steps_per_fit,
            length=length,
            max_size=rollout.model_buffer_limit(length, config.rollout, config.epoch_length),
        )
        return BranchedState(model, buffer), fit_metrics | rollout_metrics

    def sample(key: jax.Array, state: BranchedState, real: ReplayState, shape) -> Transition:
        return mixed_batch(key, real, state.buffer, shape, config.rollout.real_ratio)

    def diagnose(state: BranchedState, real: ReplayState):
        return diagnostics.diagnose(
            ensemble,
            state.model,
            known,
            real,
            num_rows=config.steps_per_fit,
            length=config.rollout.diagnostic_length,
        )

    return Experience(init, refresh, sample, diagnose)


def make_mbpo(spec: EnvSpec, config: Config) -> Algorithm:
    """Assemble MBPO: branched model experience, SAC."""
    return Algorithm(branched_experience(spec, config), make_sac(spec, config.sac))

"""Ensemble of probabilistic networks (Chua et al. 2018, arXiv:1805.12114; Janner et al. 2019).

Each member maps a scaled (observation, action) to mean and log-variance of `D = 1 + O` targets: the
reward first, then the change of the observation (or the next observation itself).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mbpo_jax.config import EnsembleConfig
from mbpo_jax.nets import networks
from mbpo_jax.nets.normalizer import Scaler, identity_scaler, scale
from mbpo_jax.types import EnvSpec, PyTree, Transition


class EnsembleParams(NamedTuple):
    """What gradient descent changes.

    Attributes:
      members: network parameters, stacked on axis `E`; beside them, where noise is homoscedastic,
        the collection `noise` of log-variances `[E, D]`, not bounded yet.
      min_log_variance: `[D]`, shared by the members.
      max_log_variance: `[D]`, shared by the members.
    """

    members: PyTree
    min_log_variance: jax.Array
    max_log_variance: jax.Array


class EnsembleState(NamedTuple):
    """A fitted ensemble.

    Attributes:
      params: trained parameters.
      optimizer: Adam's moments; they live on from fit to fit.
      input_scaler: of the concatenated observation and action, `[O + A]`.
      target_scaler: of the targets, `[D]`; the identity unless targets are normalised.
      elites: `[num_elites]` int32, the members with the lowest hold-out error.
    """

    params: EnsembleParams
    optimizer: PyTree
    input_scaler: Scaler
    target_scaler: Scaler
    elites: jax.Array


class Outputs(NamedTuple):
    """What the networks predict, in the units of the scaled targets.

    Attributes:
      mean: `[E, B, D]`.
      log_variance: `[E, B, D]`, within its bounds.
      termination_logit: `[E, B]`; None without a learned termination head.
    """

    mean: jax.Array
    log_variance: jax.Array
    termination_logit: jax.Array | None


class Outcome(NamedTuple):
    """Predicted moments of what follows, in the environment's units.

    Attributes:
      mean: `[E, B, D]`, reward first, then next observation.
      std: `[E, B, D]`.
      termination_logit: `[E, B]` or None.
    """

    mean: jax.Array
    std: jax.Array
    termination_logit: jax.Array | None


class Ensemble(NamedTuple):
    """The ensemble as pure functions.

    Attributes:
      init: `key -> EnsembleState`.
      bounds: `EnsembleParams -> (low [D], high [D])` of the log-variance; they pass no gradient if
        they are fixed.
      outputs: `(EnsembleParams, scaled input [E, B, O + A], key=None) -> Outputs`; a key, which is
        used up, leaves units out as in training.
      predict: `(EnsembleState, observation [E, B, O], action [E, B, A]) -> Outcome`. `E` may be a
        subset: the parameters decide.
      inputs: `(observation [..., O], action [..., A]) -> [..., O + A]`, not scaled.
      targets: `Transition [...] -> [..., D]`, not scaled.
    """

    init: Callable[[jax.Array], EnsembleState]
    bounds: Callable[[EnsembleParams], tuple[jax.Array, jax.Array]]
    outputs: Callable[..., Outputs]
    predict: Callable[[EnsembleState, jax.Array, jax.Array], Outcome]
    inputs: Callable[[jax.Array, jax.Array], jax.Array]
    targets: Callable[[Transition], jax.Array]


def soft_clamp(x: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """Bound x by softplus, first from above, then from below (arXiv:1805.12114, app. A.1).

    The two of them are one logarithm, `log(e^low + e^high sigmoid(x - high))`, which takes XLA a
    small part of the time. Float32 holds it while the bounds are less than 60 apart.
    """
    return low + jnp.log1p(jnp.exp(high - low) * jax.nn.sigmoid(x - high))


def gaussian_nll(mean: jax.Array, log_variance: jax.Array, target: jax.Array) -> jax.Array:
    """Return (mean - target)^2 exp(-log_variance) + log_variance, elementwise.

    Twice the negative log-likelihood without its constant, as in arXiv:1805.12114, eq. 1.
    """
    return jnp.square(mean - target) * jnp.exp(-log_variance) + log_variance


def weight_decay(kernels: list[jax.Array], decays: tuple[float, ...]) -> jax.Array:
    """Return the sum over layers of decay times half the squared norm of the layer's kernel."""
    terms = [decay * 0.5 * jnp.sum(jnp.square(w)) for w, decay in zip(kernels, decays, strict=True)]
    return jnp.sum(jnp.stack(terms))


def bound_penalty(low: jax.Array, high: jax.Array) -> jax.Array:
    """Return the sum of the upper minus the sum of the lower bounds `[D]` of the log-variance."""
    return jnp.sum(high) - jnp.sum(low)


def make_ensemble(
    spec: EnvSpec,
    config: EnsembleConfig,
    optimizer: optax.GradientTransformation,
    *,
    learned_termination: bool,
) -> Ensemble:
    """Build the ensemble for an environment's sizes.

    Args:
      spec: sizes.
      config: architecture and targets.
      optimizer: what trains it; `init` prepares its state.
      learned_termination: add a head that predicts the logit of termination.
    """
    target_size = 1 + spec.observation_size
    homoscedastic = config.noise == "homoscedastic"
    network = networks.ensemble_of(
        networks.make_mlp(
            spec.observation_size + spec.action_size,
            config.hidden_sizes,
            (1 if homoscedastic else 2) * target_size + learned_termination,
            activation=jax.nn.swish,
            kernel_init=networks.truncated_normal_fan_in,
            layer_norm=config.layer_norm,
            spectral_norm=config.spectral_norm,
            dropout=config.dropout,
        ),
        config.num_members,
    )

    def init(key: jax.Array) -> EnsembleState:
        members = network.init(key)
        if homoscedastic:
            log_variance = jnp.zeros((config.num_members, target_size))
            members = {**members, "noise": {"log_variance": log_variance}}
        params = EnsembleParams(
            members=members,
            min_log_variance=jnp.full(target_size, config.min_log_variance, jnp.float32),
            max_log_variance=jnp.full(target_size, config.max_log_variance, jnp.float32),
        )
        return EnsembleState(
            params=params,
            optimizer=optimizer.init(params),
            input_scaler=identity_scaler(spec.observation_size + spec.action_size),
            target_scaler=identity_scaler(target_size),
            elites=jnp.arange(config.num_elites),
        )

    def bounds(params: EnsembleParams) -> tuple[jax.Array, jax.Array]:
        low, high = params.min_log_variance, params.max_log_variance
        return jax.lax.stop_gradient((low, high)) if config.bounds == "fixed" else (low, high)

    def outputs(params: EnsembleParams, x: jax.Array, key: jax.Array | None = None) -> Outputs:
        raw = network.apply(params.members, x, key)
        mean, log_variance = raw[..., :target_size], raw[..., target_size : 2 * target_size]
        if homoscedastic:
            log_variance = jnp.broadcast_to(
                params.members["noise"]["log_variance"][:, None], mean.shape
            )
        low, high = (jnp.expand_dims(b, (0, 1)) for b in bounds(params))
        logit = raw[..., -1] if learned_termination else None
        return Outputs(mean, soft_clamp(log_variance, low, high), logit)

    def predict(state: EnsembleState, observation: jax.Array, action: jax.Array) -> Outcome:
        out = outputs(state.params, scale(state.input_scaler, inputs(observation, action)))
        scaler = jax.tree.map(lambda x: jnp.expand_dims(x, (0, 1)), state.target_scaler)
        mean = out.mean * scaler.std + scaler.mean
        std = jnp.exp(0.5 * out.log_variance) * scaler.std
        if config.target == "delta":
            mean = mean.at[..., 1:].add(observation)
        return Outcome(mean, std, out.termination_logit)

    def inputs(observation: jax.Array, action: jax.Array) -> jax.Array:
        return jnp.concatenate([observation, action], axis=-1)

    def targets(transition: Transition) -> jax.Array:
        following = transition.next_observation
        if config.target == "delta":
            following = following - transition.observation
        return jnp.concatenate([transition.reward[..., None], following], axis=-1)

    return Ensemble(init, bounds, outputs, predict, inputs, targets)


def select_members(state: EnsembleState, members: jax.Array) -> EnsembleState:
    """Return a state whose member axis holds these members `[M]` int32, in this order."""
    chosen = jax.tree.map(lambda x: x[members], state.params.members)
    return state._replace(params=state.params._replace(members=chosen))

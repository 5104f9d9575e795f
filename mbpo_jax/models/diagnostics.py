"""How good the model is on real transitions that it was not fitted to."""

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri

from mbpo_jax import replay
from mbpo_jax.models.ensemble import Ensemble, EnsembleState, Outcome, select_members
from mbpo_jax.nets import networks
from mbpo_jax.replay import ReplayState
from mbpo_jax.types import Metrics, TerminationFn, Transition

COVERAGES = (0.5, 0.9)
"""Central intervals of the predicted Gaussians whose coverage is measured."""


def predict_all(
    ensemble: Ensemble, state: EnsembleState, observation: jax.Array, action: jax.Array
) -> Outcome:
    """Predict the same rows `[B, ...]` with every member of a state; fields are `[E, B, ...]`."""
    rows = [networks.for_all(state.params.members, x) for x in (observation, action)]
    return ensemble.predict(state, *rows)


def weighted_mean(x: jax.Array, valid: jax.Array) -> jax.Array:
    """Average `x [..., B]` over the rows where `valid [B]`, and over the leading axes."""
    return jnp.mean(jnp.sum(jnp.where(valid, x, 0.0), axis=-1)) / jnp.sum(valid)


def calibration(outcome: Outcome, actual: jax.Array, valid: jax.Array) -> Metrics:
    """Report the share of real outcomes within the central intervals that each elite predicts.

    A calibrated model has 0.5 in its 50 % intervals and 0.9 in its 90 % intervals.

    Args:
      outcome: predictions `[E, B, D]`.
      actual: `[B, D]`.
      valid: `[B]` bool.
    """
    deviation = jnp.abs(actual[None] - outcome.mean) / outcome.std
    metrics = {}
    for coverage in COVERAGES:
        inside = jnp.mean(deviation <= ndtri(0.5 + 0.5 * coverage), axis=-1)
        metrics[f"model/coverage_{round(100 * coverage)}"] = weighted_mean(inside, valid)
    return metrics


def disagreement(mean: jax.Array, scale: jax.Array, valid: jax.Array) -> jax.Array:
    """Return the std over elites of predictions `mean [E, B, O]`, in units of `scale [O]`."""
    spread = jnp.std(mean, axis=0) / scale[None]
    return weighted_mean(jnp.mean(spread, axis=-1), valid)


def termination_agreement(
    known: TerminationFn | None, outcome: Outcome, batch: Transition, valid: jax.Array
) -> jax.Array:
    """Return the share of real transitions whose termination is told correctly.

    The known rule is asked about the real next observation, the learned head about its prediction.
    """
    if known is not None:
        told = known(batch.next_observation)[None]
    else:
        assert outcome.termination_logit is not None
        told = outcome.termination_logit > 0.0
    return weighted_mean((told == (batch.discount == 0.0)[None]).astype(jnp.float32), valid)


def k_step_errors(
    ensemble: Ensemble,
    elites: EnsembleState,
    batch: Transition,
    valid: jax.Array,
    scale: jax.Array,
    length: int,
) -> jax.Array:
    """Return the error of open-loop predictions along recorded actions, for 1 to `length` steps.

    Each elite predicts on from its own mean; the root mean square over elites, rows and components
    is in units of `scale [O]`. Two rows follow each other if the first one's next observation is
    the second one's observation; predictions do not reach across the end of an episode.

    Returns:
      `[length]` float32; NaN where no trajectory is that long.
    """
    num_rows, members = batch.reward.shape[0], elites.params.members
    follows = jnp.all(batch.next_observation[:-1] == batch.observation[1:], axis=-1)
    follows = jnp.append(follows, False)
    start = networks.for_all(members, batch.observation)

    def step(carry, i):
        predicted, connected = carry
        row = jnp.minimum(jnp.arange(num_rows) + i, num_rows - 1)
        action = networks.for_all(members, batch.action[row])
        predicted = ensemble.predict(elites, predicted, action).mean[..., 1:]
        error = jnp.square((predicted - batch.next_observation[row][None]) / scale[None, None])
        error = jnp.sqrt(weighted_mean(jnp.mean(error, axis=-1), connected))
        return (predicted, connected & follows[row]), error

    return jax.lax.scan(step, (start, valid), jnp.arange(length))[1]


def diagnose(
    ensemble: Ensemble,
    model: EnsembleState,
    known: TerminationFn | None,
    real: ReplayState,
    *,
    num_rows: int,
    length: int,
) -> Metrics:
    """Report `model/*` metrics on the newest real transitions, which the model has not seen.

    Errors and disagreement of observations are in standard deviations of the training data.

    Args:
      ensemble: its functions.
      model: fitted before these transitions were made.
      known: the environment's termination rule; None for the learned head.
      real: real transitions.
      num_rows: newest transitions to look at.
      length: most steps of the open-loop predictions.
    """
    batch, valid = replay.newest(real, num_rows)
    elites = select_members(model, model.elites)
    outcome = predict_all(ensemble, elites, batch.observation, batch.action)
    actual = jnp.concatenate([batch.reward[:, None], batch.next_observation], axis=-1)
    # Of all the data, not of the newest rows: where a good policy hardly moves, those shrink.
    scale = model.input_scaler.std[: batch.observation.shape[-1]]
    errors = k_step_errors(ensemble, elites, batch, valid, scale, length)
    reward_error = jnp.square(outcome.mean[..., 0] - batch.reward[None])
    return {
        "model/disagreement": disagreement(outcome.mean[..., 1:], scale, valid),
        "model/reward_rmse": jnp.sqrt(weighted_mean(reward_error, valid)),
        "model/termination_agreement": termination_agreement(known, outcome, batch, valid),
        **calibration(outcome, actual, valid),
        **{f"model/k_step_error_{k + 1}": errors[k] for k in range(length)},
    }

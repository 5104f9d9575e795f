"""Where branched rollouts end because the members of the ensemble do not agree.

M2AC (Pan et al. 2020, arXiv:2010.04893) keeps the least uncertain share of the rows of each step.
MACURA (Frauenknecht et al. 2024, arXiv:2405.19014) goes on as long as a row's uncertainty is below
a threshold that follows the uncertainty where rollouts start. Infoprop (Frauenknecht et al. 2025,
arXiv:2501.16918) goes on as long as a rollout has not lost much more information than is lost on
real transitions.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mbpo_jax.config import RolloutConfig
from mbpo_jax.errors import ConfigError
from mbpo_jax.models.fusion import fuse
from mbpo_jax.types import DynamicsModel, Metrics, Point, Prediction, PyTree, Transition

CELL = 1e-6
"""Width of the cells in which information is counted (Frauenknecht et al. 2025, published code)."""


class Verdict(NamedTuple):
    """What is to become of the next step of each rollout.

    Attributes:
      stored: `[B]` bool, its transition is kept.
      goes_on: `[B]` bool, the rollout goes on after it.
      penalty: `[B]`, to be taken off its reward.
    """

    stored: jax.Array
    goes_on: jax.Array
    penalty: jax.Array


class Truncation(NamedTuple):
    """A rule for the steps of branched rollouts.

    Attributes:
      init: `() -> memory`, what it remembers from one batch of rollouts to the next.
      judge: `(key, state, view, point [B], action [B, A], alive [B], i, evidence) -> (state,
        Verdict)`, of step i from there; `alive` are the rollouts that have come so far.
      report: `state -> Metrics`, at the end of a batch.
      begin: `(memory, view, starts) -> state`, at the beginning of a batch that starts at the
        observations of these real transitions `[B]`.
      end: `state -> memory`, at its end.
      step: `(key, view, point [B], action [B, A]) -> (Point, Prediction, evidence)`, how steps are
        made; by one member each if None, and there is no evidence then.
    """

    init: Callable[[], PyTree]
    judge: Callable[..., tuple[PyTree, Verdict]]
    report: Callable[[PyTree], Metrics]
    begin: Callable[[PyTree, PyTree, Transition], PyTree] = lambda memory, view, starts: memory
    end: Callable[[PyTree], PyTree] = lambda state: state
    step: Callable[..., tuple[Point, Prediction, PyTree]] | None = None


Accept = Callable[[jax.Array, PyTree, Point, jax.Array], jax.Array]
"""`(key, view, Point [B], action [B, A]) -> bool [B]`, whether a model is to be believed there."""


class Threshold(NamedTuple):
    """The mean of the bounds that the batches of rollouts so far have set.

    Attributes:
      total: float32, their sum.
      batches: float32, their number.
    """

    total: jax.Array
    batches: jax.Array


class Losses(NamedTuple):
    """Information that rollouts may lose, and have lost, in bits.

    Attributes:
      per_step: `[D]`, at most in one step.
      in_all: `[D]`, at most since they started.
      lost: `[B, D]`, since they started.
    """

    per_step: jax.Array
    in_all: jax.Array
    lost: jax.Array


def pairwise_divergence(mean: jax.Array, std: jax.Array) -> jax.Array:
    """Return the mean geometric Jensen-Shannon divergence between members, in nats.

    Of two Gaussians it is `1/2 sum_d [(m1 - m2)^2 / (2 (v1 + v2)) + ln((v1 + v2) / (2 sqrt(v1
    v2)))]`, the mean divergence of their normalised geometric mean from each of them, and the mean
    is over all pairs (Frauenknecht et al. 2024, published code).

    Args:
      mean: `[E, B, D]`, of at least two members.
      std: `[E, B, D]`.

    Returns:
      `[B]`, not negative.
    """
    num_members = mean.shape[0]
    first, second = jnp.triu_indices(num_members, 1)
    variance, log_variance = jnp.square(std), 2.0 * jnp.log(std)

    def pair(total: jax.Array, members: tuple[jax.Array, jax.Array]):
        a, b = members
        both = variance[a] + variance[b]
        shift = jnp.square(mean[a] - mean[b]) / (2.0 * both)
        spread = jnp.log(0.5 * both) - 0.5 * (log_variance[a] + log_variance[b])
        return total + 0.5 * jnp.sum(shift + spread, axis=-1), None

    total, _ = jax.lax.scan(pair, jnp.zeros(mean.shape[1]), (first, second))
    return total / first.shape[0]


def one_against_rest(mean: jax.Array, std: jax.Array) -> jax.Array:
    """Return the mean divergence of a member from the others taken together, in nats.

    `KL(N_e || N_rest)`, the rest being one Gaussian with the moments of their mixture (Pan et al.
    2020), and the mean over all members, where theirs is the member that made the step.

    Args:
      mean: `[E, B, D]`, of at least two members.
      std: `[E, B, D]`.

    Returns:
      `[B]`, not negative.
    """
    others = mean.shape[0] - 1
    variance = jnp.square(std)

    def rest(x: jax.Array) -> jax.Array:
        return (jnp.sum(x, axis=0, keepdims=True) - x) / others

    rest_mean = rest(mean)
    # About the members' mean, where the square of a mean does not cancel.
    centre = jnp.mean(mean, axis=0, keepdims=True)
    spread = rest(jnp.square(mean - centre)) - jnp.square(rest_mean - centre)
    rest_variance = rest(variance) + jnp.maximum(spread, 0.0)
    divergence = 0.5 * (
        (variance + jnp.square(mean - rest_mean)) / rest_variance
        - 1.0
        + jnp.log(rest_variance)
        - jnp.log(variance)
    )
    return jnp.mean(jnp.sum(divergence, axis=-1), axis=0)


def accepting(accept: Accept) -> Truncation:
    """Make a rule of a function: a rollout ends before a step that is not accepted."""

    def judge(key, state, view, point, action, alive, i, evidence):
        del alive, i, evidence
        fine = accept(key, view, point, action)
        return state, Verdict(fine, fine, jnp.zeros(fine.shape))

    return Truncation(lambda: (), judge, lambda state: {})


def below_threshold(
    model: DynamicsModel, scale: jax.Array | float, quantile: jax.Array | float
) -> Truncation:
    """End rollouts where the members' divergence is not below a threshold (MACURA).

    At the first step of each batch of rollouts a bound is set, `scale` times a quantile of the
    divergence of all rows; the threshold is the mean of all bounds so far. A step that is not
    believed is not stored, and is no termination.
    """
    outcomes = model.outcomes
    assert outcomes is not None

    def judge(key, state: Threshold, view, point, action, alive, i, evidence):
        del key, alive, evidence
        u = pairwise_divergence(*outcomes(view, point, action))

        def follow(state: Threshold) -> Threshold:
            bound = scale * jnp.nanquantile(jnp.where(jnp.isfinite(u), u, jnp.nan), quantile)
            known = jnp.isfinite(bound)
            return Threshold(state.total + jnp.where(known, bound, 0.0), state.batches + known)

        state = jax.lax.cond(i == 0, follow, lambda state: state, state)
        fine = u < state.total / jnp.maximum(state.batches, 1.0)
        return state, Verdict(fine, fine, jnp.zeros(u.shape))

    return Truncation(
        init=lambda: Threshold(jnp.float32(0), jnp.float32(0)),
        judge=judge,
        report=lambda state: {"rollout/threshold": state.total / jnp.maximum(state.batches, 1.0)},
    )


def least_uncertain(
    model: DynamicsModel, length: jax.Array | int, penalty: jax.Array | float
) -> Truncation:
    """Store the rows in which the members agree most, fewer at each step (M2AC).

    Of B rollouts of H steps the `B (H - i) / (2 (H + 1))` least uncertain steps i are stored, from
    nearly a half of the first to `B / (2 (H + 1))` of the last; the others go on unseen. Rewards
    are lowered by the uncertainty.
    """
    outcomes = model.outcomes
    assert outcomes is not None

    def judge(key, state, view, point, action, alive, i, evidence):
        del key, evidence
        u = one_against_rest(*outcomes(view, point, action))
        rank = jnp.argsort(jnp.argsort(jnp.where(alive, u, jnp.inf)))
        share = (length - i) / (2.0 * (length + 1.0))
        stored = rank < jnp.floor(u.shape[0] * share)
        return state, Verdict(stored, jnp.ones_like(stored), penalty * u)

    return Truncation(lambda: (), judge, lambda state: {})


def lost_bits(variance: jax.Array) -> jax.Array:
    """Return the entropy of a Gaussian of this variance in cells of width 1e-6; at least 0."""
    entropy = 0.5 * jnp.log2(2.0 * jnp.pi * jnp.e * variance)
    return jnp.maximum(entropy - jnp.log2(CELL), 0.0)


def within_losses(
    model: DynamicsModel,
    length: jax.Array | int,
    step_quantile: jax.Array | float,
    total_quantile: jax.Array | float,
) -> Truncation:
    """End rollouts where more information is lost than on real transitions (Infoprop).

    Members make each step together, and the entropy that a sample of one of them leaves is lost, in
    each component by itself. No component may lose more in a step than a high quantile of what
    it loses on the real transitions where the batch starts, nor more in all than `length` times a
    low one. A step that loses more is not stored, and is no termination.
    """
    outcomes = model.outcomes
    assert outcomes is not None

    def begin(memory: PyTree, view: PyTree, starts: Transition) -> Losses:
        del memory
        point = model.start(starts.observation, starts.simulator)
        lost = lost_bits(fuse(*outcomes(view, point, starts.action)).conditional_variance)
        known = jnp.where(jnp.isfinite(lost), lost, jnp.nan)
        quantiles = jnp.stack([jnp.asarray(step_quantile), jnp.asarray(total_quantile)])
        per_step, usual = jnp.nanquantile(known, quantiles, axis=0)
        return Losses(per_step, length * usual, jnp.zeros_like(lost))

    def judge(key, state: Losses, view, point, action, alive, i, evidence):
        del key, view, point, action, alive, i
        now = lost_bits(evidence)
        lost = state.lost + now
        fine = jnp.all((now <= state.per_step[None]) & (lost <= state.in_all[None]), axis=-1)
        return state._replace(lost=lost), Verdict(fine, fine, jnp.zeros(fine.shape))

    def report(state: Losses) -> Metrics:
        return {
            "rollout/bits_per_step": jnp.mean(state.per_step),
            "rollout/bits_in_all": jnp.mean(state.in_all),
        }

    return Truncation(lambda: (), judge, report, begin, lambda state: (), model.fused)


def truncation_of(
    model: DynamicsModel, config: RolloutConfig, length: jax.Array | int
) -> Truncation | None:
    """Return the rule that the settings ask for, for rollouts of a length; None for none.

    Raises:
      ConfigError: the model cannot tell what its members say.
    """
    if config.truncation != "none" and model.outcomes is None:
        raise ConfigError(
            f"rollout.truncation: {config.truncation} asks each member of the model, and this one "
            "has no outcomes; leave it out"
        )
    if config.truncation == "threshold":
        return below_threshold(model, config.threshold_scale, config.threshold_quantile)
    if config.truncation == "ranking":
        return least_uncertain(model, length, config.uncertainty_penalty)
    if config.truncation == "information":
        if model.fused is None:
            raise ConfigError(
                "rollout.truncation: information has all members make a step together, which this "
                "model cannot (it has no fused); use threshold or ranking"
            )
        return within_losses(model, length, config.step_quantile, config.total_quantile)
    return None

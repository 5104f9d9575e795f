"""The estimators that have names; what is known of each stands in `config.estimators`."""

import jax.numpy as jnp

from mbpo_jax.laboratory.estimators import likelihood_ratio, pathwise, perturbation, propagation
from mbpo_jax.laboratory.estimators.batches import (
    alpha_order,
    averaged,
    averaged_differences,
    direction,
    mixed,
    scored,
    scored_against_others,
    scored_at_states,
    unless_discontinuous,
    weighted,
    weighted_by_halves,
    weighted_by_past,
    with_critic,
)
from mbpo_jax.laboratory.estimators.estimator import Estimate, Estimator
from mbpo_jax.laboratory.problems.problem import draw, to_go


def make_lr() -> Estimator:
    """Score rewards to go against the batch's others."""
    return Estimator(scored_against_others(to_go))


def make_lr_total() -> Estimator:
    """Score the whole return."""
    return Estimator(scored(lambda c, p, made, critic: likelihood_ratio.total_return(p, made)))


def make_lr_loo() -> Estimator:
    """Score the whole return against the batch's others."""
    return Estimator(scored_against_others(likelihood_ratio.total_return))


def make_lr_to_go() -> Estimator:
    """Score rewards to go."""
    return Estimator(scored(lambda c, p, made, critic: to_go(p, made)))


def make_lr_value() -> Estimator:
    """Score rewards to go less values."""
    return Estimator(
        scored(lambda c, p, made, critic: to_go(p, made) - likelihood_ratio.values(critic, made))
    )


def make_lr_gae() -> Estimator:
    """Score generalised advantages."""
    return Estimator(
        scored(
            lambda config, problem, made, critic: likelihood_ratio.generalised_advantage(
                problem, made, critic, config.gae_decay
            )
        )
    )


def make_lr_advantage() -> Estimator:
    """Score the critic's advantages."""
    return Estimator(
        scored(lambda c, p, made, critic: likelihood_ratio.exact_advantage(p, made, critic))
    )


def make_lr_state() -> Estimator:
    """Score outcomes."""
    return Estimator(scored_at_states)


def make_rp() -> Estimator:
    """Differentiate the return."""
    return Estimator(averaged(lambda config, *rest: pathwise.whole(*rest)))


def make_rp_truncated() -> Estimator:
    """Differentiate the return in pieces."""
    return Estimator(
        averaged(lambda config, *rest: pathwise.truncated(*rest, window=config.truncation))
    )


def make_rp_clipped() -> Estimator:
    """Differentiate the return within limits."""
    return Estimator(
        averaged(lambda config, *rest: pathwise.clipped(*rest, max_norm=config.max_cotangent_norm))
    )


def make_svg() -> Estimator:
    """Differentiate the first steps and the value after them."""

    def valued(config, params, problem, critic, noise):
        value, made = pathwise.expanded(params, problem, critic, noise, config.window)
        # A trajectory that was cut short is not what the policy does in all steps.
        whole = config.window >= noise.action.shape[0]
        return value, made if whole else None

    return Estimator(with_critic(valued))


def make_svg_tiled() -> Estimator:
    """Differentiate windows and the values after them."""
    return Estimator(with_critic(lambda config, *rest: pathwise.tiled(*rest, window=config.window)))


def make_q() -> Estimator:
    """Differentiate action values."""
    return Estimator(with_critic(lambda config, *rest: pathwise.action_values(*rest)))


def make_es() -> Estimator:
    """Compare antithetic perturbations."""
    return Estimator(
        averaged_differences(
            lambda config, params, problem, noise: perturbation.evolution_strategy(
                params, problem, noise, noise.own, config.perturbation_std
            )
        ),
        draw=direction,
    )


def make_fd() -> Estimator:
    """Compare neighbours along every parameter."""
    return Estimator(
        averaged_differences(
            lambda config, *rest: perturbation.finite_differences(*rest, width=config.difference)
        )
    )


def make_mvd() -> Estimator:
    """Compare coupled trajectories."""
    return Estimator(
        averaged(
            lambda config, params, problem, noise: perturbation.measure_valued(
                params, problem, noise, noise.own
            )
        ),
        draw=perturbation.draw_couplings,
    )


def make_mix() -> Estimator:
    """Weight by a constant."""
    return Estimator(mixed)


def make_ivw() -> Estimator:
    """Weight by variances."""
    return Estimator(weighted(covariance=False))


def make_ivw_split() -> Estimator:
    """Weight by variances of the other half."""
    return Estimator(weighted_by_halves)


def make_ivw_average() -> Estimator:
    """Weight by variances of the past."""
    return Estimator(weighted_by_past)


def make_ivw_covariance() -> Estimator:
    """Weight by variances and the covariance."""
    return Estimator(weighted(covariance=True))


def make_aobg() -> Estimator:
    """Weight by agreement."""
    return Estimator(alpha_order)


def make_ddcg() -> Estimator:
    """Weight by variances unless a discontinuity is detected."""
    return Estimator(unless_discontinuous, draw=draw)


def make_tp() -> Estimator:
    """Weight by variances at every step back in time."""

    def estimate(config, params, problem, noise) -> Estimate:
        found = propagation.propagated(params, problem, noise)
        return Estimate(found.gradient, found.made)

    return Estimator(estimate, step_weights=lambda *of: propagation.propagated(*of).weights)


def make_ivw_h() -> Estimator:
    """Weight by variances of every step and component of the action."""

    def estimate(config, params, problem, noise) -> Estimate:
        found = propagation.weighted_by_action(params, problem, noise)
        return Estimate(found.gradient, found.made)

    return Estimator(
        estimate,
        # Over components of the action, of the weights for the policy's mean.
        step_weights=lambda *of: jnp.mean(
            propagation.weighted_by_action(*of).weights.mean, axis=-1
        ),
    )

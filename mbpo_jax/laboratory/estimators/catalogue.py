"""Every estimator by its name: what it estimates, what it needs, and how; see `config.gradients`.

An estimator is a pure function of parameters, problem and noise. It takes a batch of trajectories
and returns one gradient; `estimate_batches` repeats it on independent batches.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax

from mbpo_jax.config import EstimatorConfig
from mbpo_jax.laboratory.estimators import likelihood_ratio, pathwise, perturbation, propagation
from mbpo_jax.laboratory.estimators.batches import (
    alpha_order,
    averaged,
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
from mbpo_jax.laboratory.problems.problem import Noise, Problem, draw, to_go
from mbpo_jax.types import PyTree

Need = Literal[
    "critic",
    "noisy system",
    "derivatives",
    "batch of 2",
    "batch of 4",
    "few parameters",
    "few actions",
]


class Estimator(NamedTuple):
    """A gradient estimator.

    Attributes:
      estimate: `(config, params [P], problem, noise [B]) -> gradient [P]`.
      estimand: whose gradient it has in the mean: of the whole "return", of the first "window" and
        the critic's value after it, or of the return "smoothed" over the parameters.
      biased: why its mean is another than its estimand's gradient; "" if it is not.
      differentiates: whether it takes derivatives of the system, which has to have them.
      needs: what else a problem or batch has to have.
      draw: `(key, problem, horizon) -> own noise` of one trajectory; None if it has none.
    """

    estimate: Callable[[EstimatorConfig, jax.Array, Problem, Noise], jax.Array]
    estimand: str = "return"
    biased: str = ""
    differentiates: bool = False
    needs: tuple[Need, ...] = ()
    draw: Callable[[jax.Array, Problem, int], PyTree] | None = None


_SAME_BATCH = "the weights come from the batch they weigh"
ESTIMATORS: dict[str, Estimator] = {
    "lr": Estimator(
        scored_against_others(to_go),
        needs=("batch of 2",),
    ),
    "lr_total": Estimator(
        scored(lambda config, problem, made, critic: likelihood_ratio.total_return(problem, made)),
    ),
    "lr_loo": Estimator(
        scored_against_others(likelihood_ratio.total_return),
        needs=("batch of 2",),
    ),
    "lr_to_go": Estimator(
        scored(lambda config, problem, made, critic: to_go(problem, made)),
    ),
    "lr_value": Estimator(
        scored(
            lambda config, problem, made, critic: (
                to_go(problem, made) - likelihood_ratio.values(critic, made)
            )
        ),
        needs=("critic",),
    ),
    "lr_gae": Estimator(
        scored(
            lambda config, problem, made, critic: likelihood_ratio.generalised_advantage(
                problem, made, critic, config.gae_decay
            )
        ),
        biased="as far as the critic is wrong",
        needs=("critic",),
    ),
    "lr_advantage": Estimator(
        scored(
            lambda config, problem, made, critic: likelihood_ratio.exact_advantage(made, critic)
        ),
        biased="as far as the critic is wrong",
        needs=("critic",),
    ),
    "lr_state": Estimator(
        scored_at_states,
        differentiates=True,
        needs=("noisy system", "batch of 2"),
    ),
    "rp": Estimator(
        averaged(lambda config, params, problem, noise: pathwise.whole(params, problem, noise)),
        differentiates=True,
    ),
    "rp_truncated": Estimator(
        averaged(
            lambda config, params, problem, noise: pathwise.truncated(
                params, problem, noise, config.truncation
            )
        ),
        biased="what an action does to rewards beyond the cut is left out",
        differentiates=True,
    ),
    "rp_clipped": Estimator(
        averaged(
            lambda config, params, problem, noise: pathwise.clipped(
                params, problem, noise, config.max_cotangent_norm
            )
        ),
        biased="long gradients are shortened",
        differentiates=True,
    ),
    "svg": Estimator(
        with_critic(
            lambda config, params, problem, critic, noise: pathwise.expanded(
                params, problem, critic, noise, config.window
            )
        ),
        estimand="window",
        differentiates=True,
        needs=("critic",),
    ),
    "svg_tiled": Estimator(
        with_critic(
            lambda config, params, problem, critic, noise: pathwise.tiled(
                params, problem, critic, noise, config.window
            )
        ),
        biased="as far as the critic is wrong",
        differentiates=True,
        needs=("critic",),
    ),
    "q": Estimator(
        with_critic(
            lambda config, params, problem, critic, noise: pathwise.action_value_gradient(
                params, problem, critic, noise
            )
        ),
        biased="as far as the critic is wrong",
        needs=("critic",),
    ),
    "es": Estimator(
        averaged(
            lambda config, params, problem, noise: perturbation.evolution_strategy(
                params, problem, noise, noise.own, config.perturbation_std
            )
        ),
        estimand="smoothed",
        draw=direction,
    ),
    "fd": Estimator(
        averaged(
            lambda config, params, problem, noise: perturbation.finite_differences(
                params, problem, noise, config.difference
            )
        ),
        biased="of the order of the squared difference",
        needs=("few parameters",),
    ),
    "mvd": Estimator(
        averaged(
            lambda config, params, problem, noise: perturbation.measure_valued(
                params, problem, noise, noise.own
            )
        ),
        needs=("few actions",),
        draw=perturbation.draw_couplings,
    ),
    "mix": Estimator(
        mixed,
        differentiates=True,
        needs=("batch of 2",),
    ),
    "ivw": Estimator(
        weighted(covariance=False),
        biased=_SAME_BATCH,
        differentiates=True,
        needs=("batch of 2",),
    ),
    "ivw_split": Estimator(
        weighted_by_halves,
        differentiates=True,
        needs=("batch of 4",),
    ),
    "ivw_average": Estimator(
        weighted_by_past,
        differentiates=True,
        needs=("batch of 2",),
    ),
    "ivw_covariance": Estimator(
        weighted(covariance=True),
        biased=_SAME_BATCH,
        differentiates=True,
        needs=("batch of 2",),
    ),
    "aobg": Estimator(
        alpha_order,
        biased=_SAME_BATCH,
        differentiates=True,
        needs=("batch of 4",),
    ),
    "ddcg": Estimator(
        unless_discontinuous,
        biased=_SAME_BATCH,
        differentiates=True,
        needs=("batch of 2",),
        draw=draw,
    ),
    "tp": Estimator(
        lambda config, params, problem, noise: propagation.total_propagation(
            params, problem, noise
        ),
        biased=_SAME_BATCH,
        differentiates=True,
        needs=("batch of 2",),
    ),
    "ivw_h": Estimator(
        lambda config, params, problem, noise: propagation.weighted_actions(params, problem, noise),
        biased=_SAME_BATCH,
        differentiates=True,
        needs=("batch of 2",),
    ),
}

ROWS_AT_ONCE = 4096
"""Trajectories that are held in memory side by side, if batches allow it."""

OVER_BATCHES = {"ivw_average"}
"""Those whose function takes all batches `[M, B]` and returns `[M, P]`."""


def draw_batches(
    key: jax.Array, name: str, problem: Problem, horizon: int, batches: int, batch_size: int
) -> Noise:
    """Draw noise `[M, B]`; of the same key, all estimators get the same trajectories."""
    keys = jax.random.split(key, (batches, batch_size))
    own = ESTIMATORS[name].draw

    def one(key: jax.Array) -> Noise:
        key, own_key = jax.random.split(key)
        noise = draw(key, problem, horizon)
        return noise._replace(own=own(own_key, problem, horizon)) if own else noise

    return jax.vmap(jax.vmap(one))(keys)


def estimate_batches(
    name: str, config: EstimatorConfig, params: jax.Array, problem: Problem, noise: Noise
) -> jax.Array:
    """Return the gradient `[M, P]` of each of M batches of noise `[M, B]`."""
    estimate = ESTIMATORS[name].estimate
    if name in OVER_BATCHES:
        return estimate(config, params, problem, noise)
    # Small batches are run side by side, large ones one after the other to save memory.
    together = max(1, ROWS_AT_ONCE // noise.action.shape[1])
    return jax.lax.map(
        lambda noise: estimate(config, params, problem, noise), noise, batch_size=together
    )

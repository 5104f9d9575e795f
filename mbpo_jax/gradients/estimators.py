"""Every estimator by its name: what it estimates, what it needs, and how.

An estimator is a pure function of parameters, problem and noise. It takes a batch of trajectories
and returns one gradient; `estimate_batches` repeats it on independent batches.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax

from mbpo_jax.fields import Checked, Fraction, Positive, Rate
from mbpo_jax.gradients import likelihood_ratio, pathwise, perturbation, propagation
from mbpo_jax.gradients.batches import (
    alpha_order,
    averaged,
    direction,
    mixed,
    scored,
    scored_against_others,
    unless_discontinuous,
    weighted,
    weighted_by_halves,
    weighted_by_past,
    with_critic,
)
from mbpo_jax.gradients.problem import Noise, Problem, draw, to_go
from mbpo_jax.types import PyTree


@dataclasses.dataclass(frozen=True)
class EstimatorConfig(Checked):
    """Settings of the estimators that have any."""

    window: Positive = 3
    """`svg`, `svg_tiled`: steps before the critic's value (h)."""
    truncation: Positive = 5
    """`rp_truncated`: steps after which the gradient is cut."""
    max_cotangent_norm: Rate = 1.0
    """`rp_clipped`: longest gradient that is passed from a state to the one before it."""
    gae_decay: Fraction = 0.95
    """`lr_gae`: lambda of Schulman et al. 2016."""
    perturbation_std: Rate = 0.05
    """`es`: standard deviation of the parameters' perturbation."""
    difference: Rate = 1e-4
    """`fd`: half the distance between the parameters of a pair."""
    mix: Fraction = 0.1
    """`mix`: weight of the likelihood ratio."""
    average_decay: Fraction = 0.9
    """`ivw_average`: decay of the running average of variances."""
    tolerance: Rate = 1.0
    """`aobg`: how far the result may be from the likelihood ratio (gamma of Suh et al. 2022)."""
    bound: Rate = 1.0
    """`aobg`: bound on the norm of a likelihood-ratio gradient (L of the same)."""
    slack: Fraction = 0.3
    """`ddcg`: excess variance of returns that is not taken for a discontinuity (c)."""


Need = Literal[
    "critic", "noisy system", "batch of 2", "batch of 4", "few parameters", "few actions"
]


class Estimator(NamedTuple):
    """A gradient estimator.

    Attributes:
      summary: what it does, in a line.
      source: paper.
      estimate: `(config, params [P], problem, noise [B]) -> gradient [P]`.
      estimand: whose gradient it has in the mean: of the whole "return", of the first "window" and
        the critic's value after it, or of the return "smoothed" over the parameters.
      biased: why its mean is another than its estimand's gradient; "" if it is not.
      differentiates: whether it takes derivatives of the system.
      needs: what a problem or batch has to have.
      draw: `(key, problem, horizon) -> own noise` of one trajectory; None if it has none.
    """

    summary: str
    source: str
    estimate: Callable[[EstimatorConfig, jax.Array, Problem, Noise], jax.Array]
    estimand: str = "return"
    biased: str = ""
    differentiates: bool = False
    needs: tuple[Need, ...] = ()
    draw: Callable[[jax.Array, Problem, int], PyTree] | None = None


_SAME_BATCH = "the weights come from the batch they weigh"
_ARXIV = {
    "pipps": "Parmas et al. 2018, arXiv:1902.01240",
    "suh": "Suh et al. 2022, arXiv:2202.00817",
    "onoda": "Onoda et al. 2026, arXiv:2604.18161",
    "svg": "Heess et al. 2015, arXiv:1510.09142",
}

ESTIMATORS: dict[str, Estimator] = {
    "lr": Estimator(
        "likelihood ratio at the actions: rewards to go, less the batch's others",
        "Williams 1992",
        scored_against_others(to_go),
        needs=("batch of 2",),
    ),
    "lr_total": Estimator(
        "likelihood ratio of the whole return, without a baseline",
        "Williams 1992",
        scored(lambda config, problem, made, critic: likelihood_ratio.total_return(problem, made)),
    ),
    "lr_loo": Estimator(
        "likelihood ratio of the whole return, less the mean of the batch's others",
        "Williams 1992",
        scored_against_others(likelihood_ratio.total_return),
        needs=("batch of 2",),
    ),
    "lr_to_go": Estimator(
        "likelihood ratio of rewards to go, without a baseline",
        "Williams 1992",
        scored(lambda config, problem, made, critic: to_go(problem, made)),
    ),
    "lr_value": Estimator(
        "likelihood ratio of rewards to go, less the critic's value of the state",
        "Williams 1992",
        scored(
            lambda config, problem, made, critic: (
                to_go(problem, made) - likelihood_ratio.values(critic, made)
            )
        ),
        needs=("critic",),
    ),
    "lr_gae": Estimator(
        "likelihood ratio of generalised advantage estimates",
        "Schulman et al. 2016, arXiv:1506.02438",
        scored(
            lambda config, problem, made, critic: likelihood_ratio.generalised_advantage(
                problem, made, critic, config.gae_decay
            )
        ),
        biased="as far as the critic is wrong",
        needs=("critic",),
    ),
    "lr_advantage": Estimator(
        "likelihood ratio of the critic's advantage",
        "Sutton et al. 2000",
        scored(
            lambda config, problem, made, critic: likelihood_ratio.exact_advantage(made, critic)
        ),
        biased="as far as the critic is wrong",
        needs=("critic",),
    ),
    "lr_state": Estimator(
        "likelihood ratio at the outcomes of a noisy system",
        _ARXIV["pipps"],
        averaged(
            lambda config, params, problem, noise: likelihood_ratio.at_states(
                params, problem, noise
            )
        ),
        differentiates=True,
        needs=("noisy system",),
    ),
    "rp": Estimator(
        "pathwise: backpropagation through all steps",
        "see Mohamed et al. 2020, arXiv:1906.10652",
        averaged(lambda config, params, problem, noise: pathwise.whole(params, problem, noise)),
        differentiates=True,
    ),
    "rp_truncated": Estimator(
        "pathwise, cut every few steps",
        "Williams and Peng 1990",
        averaged(
            lambda config, params, problem, noise: pathwise.truncated(
                params, problem, noise, config.truncation
            )
        ),
        biased="what an action does to rewards beyond the cut is left out",
        differentiates=True,
    ),
    "rp_clipped": Estimator(
        "pathwise, with a limit on what a state passes back",
        "see Pascanu et al. 2013, arXiv:1211.5063",
        averaged(
            lambda config, params, problem, noise: pathwise.clipped(
                params, problem, noise, config.max_cotangent_norm
            )
        ),
        biased="long gradients are shortened",
        differentiates=True,
    ),
    "svg": Estimator(
        "pathwise through the first h steps, then the critic",
        _ARXIV["svg"],
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
        "the same for every window along the trajectory",
        _ARXIV["svg"],
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
        "the critic's gradient at the policy's actions along the trajectory",
        "Silver et al. 2014",
        with_critic(
            lambda config, params, problem, critic, noise: pathwise.action_value_gradient(
                params, problem, critic, noise
            )
        ),
        biased="as far as the critic is wrong",
        needs=("critic",),
    ),
    "es": Estimator(
        "evolution strategy: antithetic perturbations of the parameters",
        "Salimans et al. 2017, arXiv:1703.03864",
        averaged(
            lambda config, params, problem, noise: perturbation.evolution_strategy(
                params, problem, noise, noise.own, config.perturbation_std
            )
        ),
        estimand="smoothed",
        draw=direction,
    ),
    "fd": Estimator(
        "central differences with common noise",
        "Glasserman 2003, chapter 7",
        averaged(
            lambda config, params, problem, noise: perturbation.finite_differences(
                params, problem, noise, config.difference
            )
        ),
        biased="of the order of the squared difference",
        needs=("few parameters",),
    ),
    "mvd": Estimator(
        "measure-valued: coupled trajectories for every component of every action",
        "Mohamed et al. 2020, arXiv:1906.10652",
        averaged(
            lambda config, params, problem, noise: perturbation.measure_valued(
                params, problem, noise, noise.own
            )
        ),
        needs=("few actions",),
        draw=perturbation.draw_couplings,
    ),
    "mix": Estimator(
        "lr and rp with a fixed weight",
        "Hafner et al. 2021, arXiv:2010.02193",
        mixed,
        differentiates=True,
        needs=("batch of 2",),
    ),
    "ivw": Estimator(
        "lr and rp, weighted by inverse variance",
        _ARXIV["pipps"],
        weighted(covariance=False),
        biased=_SAME_BATCH,
        differentiates=True,
        needs=("batch of 2",),
    ),
    "ivw_split": Estimator(
        "the same, with weights from the other half of the batch",
        _ARXIV["pipps"],
        weighted_by_halves,
        differentiates=True,
        needs=("batch of 4",),
    ),
    "ivw_average": Estimator(
        "the same, with weights from a running average over past batches",
        _ARXIV["pipps"],
        weighted_by_past,
        differentiates=True,
        needs=("batch of 2",),
    ),
    "ivw_covariance": Estimator(
        "the same with weights from the batch itself that mind the covariance",
        _ARXIV["pipps"],
        weighted(covariance=True),
        biased=_SAME_BATCH,
        differentiates=True,
        needs=("batch of 2",),
    ),
    "aobg": Estimator(
        "rp as far as it agrees with lr, which comes from other trajectories",
        _ARXIV["suh"],
        alpha_order,
        biased=_SAME_BATCH,
        differentiates=True,
        needs=("batch of 4",),
    ),
    "ddcg": Estimator(
        "ivw, or lr alone where returns vary more than their gradients explain",
        _ARXIV["onoda"],
        unless_discontinuous,
        biased=_SAME_BATCH,
        differentiates=True,
        needs=("batch of 2",),
        draw=draw,
    ),
    "tp": Estimator(
        "total propagation: lr and rp, weighted anew at every step back in time",
        _ARXIV["pipps"],
        lambda config, params, problem, noise: propagation.total_propagation(
            params, problem, noise
        ),
        biased=_SAME_BATCH,
        differentiates=True,
        needs=("batch of 2",),
    ),
    "ivw_h": Estimator(
        "lr and rp, weighted for every step and every component of the action",
        _ARXIV["onoda"],
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

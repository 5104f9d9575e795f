"""Settings of the gradient laboratory."""

import dataclasses
from typing import Annotated, Literal

from annotated_types import Ge

from mbpo_jax.fields import Checked, Fraction, NonNegative, Positive, Rate

EstimatorName = Literal[
    "all",
    "lr",
    "lr_total",
    "lr_loo",
    "lr_to_go",
    "lr_value",
    "lr_gae",
    "lr_advantage",
    "lr_state",
    "rp",
    "rp_truncated",
    "rp_clipped",
    "svg",
    "svg_tiled",
    "q",
    "es",
    "fd",
    "mvd",
    "mix",
    "ivw",
    "ivw_split",
    "ivw_average",
    "ivw_covariance",
    "aobg",
    "ddcg",
    "tp",
    "ivw_h",
]
"""An estimator, or all that suit a problem."""

ESTIMATOR_SUMMARIES: dict[str, tuple[str, str]] = {
    "lr": (
        "likelihood ratio at the actions: rewards to go, less the batch's others",
        "Williams 1992",
    ),
    "lr_total": (
        "likelihood ratio of the whole return, without a baseline",
        "Williams 1992",
    ),
    "lr_loo": (
        "likelihood ratio of the whole return, less the mean of the batch's others",
        "Williams 1992",
    ),
    "lr_to_go": (
        "likelihood ratio of rewards to go, without a baseline",
        "Williams 1992",
    ),
    "lr_value": (
        "likelihood ratio of rewards to go, less the critic's value of the state",
        "Williams 1992",
    ),
    "lr_gae": (
        "likelihood ratio of generalised advantage estimates",
        "Schulman et al. 2016, arXiv:1506.02438",
    ),
    "lr_advantage": (
        "likelihood ratio of the critic's advantage",
        "Sutton et al. 2000",
    ),
    "lr_state": (
        "likelihood ratio at the outcomes of a noisy system",
        "Parmas et al. 2018, arXiv:1902.01240",
    ),
    "rp": (
        "pathwise: backpropagation through all steps",
        "see Mohamed et al. 2020, arXiv:1906.10652",
    ),
    "rp_truncated": (
        "pathwise, cut every few steps",
        "Williams and Peng 1990",
    ),
    "rp_clipped": (
        "pathwise, with a limit on what a state passes back",
        "see Pascanu et al. 2013, arXiv:1211.5063",
    ),
    "svg": (
        "pathwise through the first h steps, then the critic",
        "Heess et al. 2015, arXiv:1510.09142",
    ),
    "svg_tiled": (
        "the same for every window along the trajectory",
        "Heess et al. 2015, arXiv:1510.09142",
    ),
    "q": (
        "the critic's gradient at the policy's actions along the trajectory",
        "Silver et al. 2014",
    ),
    "es": (
        "evolution strategy: antithetic perturbations of the parameters",
        "Salimans et al. 2017, arXiv:1703.03864",
    ),
    "fd": (
        "central differences with common noise",
        "Glasserman 2003, chapter 7",
    ),
    "mvd": (
        "measure-valued: coupled trajectories for every component of every action",
        "Mohamed et al. 2020, arXiv:1906.10652",
    ),
    "mix": (
        "lr and rp with a fixed weight",
        "Hafner et al. 2021, arXiv:2010.02193",
    ),
    "ivw": (
        "lr and rp, weighted by inverse variance",
        "Parmas et al. 2018, arXiv:1902.01240",
    ),
    "ivw_split": (
        "the same, with weights from the other half of the batch",
        "Parmas et al. 2018, arXiv:1902.01240",
    ),
    "ivw_average": (
        "the same, with weights from a running average over past batches",
        "Parmas et al. 2018, arXiv:1902.01240",
    ),
    "ivw_covariance": (
        "the same with weights from the batch itself that mind the covariance",
        "Parmas et al. 2018, arXiv:1902.01240",
    ),
    "aobg": (
        "rp as far as it agrees with lr, which comes from other trajectories",
        "Suh et al. 2022, arXiv:2202.00817",
    ),
    "ddcg": (
        "ivw, or lr alone where returns vary more than their gradients explain",
        "Onoda et al. 2026, arXiv:2604.18161",
    ),
    "tp": (
        "total propagation: lr and rp, weighted anew at every step back in time",
        "Parmas et al. 2018, arXiv:1902.01240",
    ),
    "ivw_h": (
        "lr and rp, weighted for every step and every component of the action",
        "Onoda et al. 2026, arXiv:2604.18161",
    ),
}
"""What each does, and its source."""


PROBLEM_SUMMARIES: dict[str, str] = {
    "quadratic": "one step, the square of a normal variable",
    "cosine": "one step, as good as chaotic at high frequency",
    "heaviside": "one step, as steep as its width is small",
    "lq": "a scalar linear system with quadratic costs",
    "lq_noisy": "the same with a noisy system",
    "lq_3d": "a noisy linear system of 3 states and 2 controls",
    "chaotic_rnn": "two neurons, chaotic from a gain beta of about 3",
    "pendulum": "swing-up under a small network",
    "cartpole": "swing-up of a pole on a cart, under a network",
    "double_pendulum": "swing-up of two links under a network",
    "double_pendulum_fall": "chaotic fall of two links from a random state",
    "pushing": "a block pushed through a stiff spring",
}
"""Problems of the gradient laboratory by name."""


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


@dataclasses.dataclass(frozen=True)
class StudyConfig(Checked):
    """What is measured, and with how many trajectories."""

    estimators: tuple[EstimatorName, ...] = ("rp", "lr")
    """Which ones."""
    horizons: tuple[Positive, ...] = (1, 2, 5, 10, 20)
    """Steps of a trajectory (H)."""
    batch_sizes: tuple[Positive, ...] = (16,)
    """Trajectories of an estimate (B)."""
    batches: Annotated[int, Ge(2)] = 256
    """Independent estimates (M)."""
    reference_batches: Annotated[int, Ge(2)] = 256
    """Independent estimates that make the reference where the gradient is not known exactly."""
    reference_batch_size: Positive = 64
    """Trajectories of each."""
    resamples: Positive = 1000
    """Of the bootstrap."""
    seed: NonNegative = 0
    """Of all noise."""


@dataclasses.dataclass(frozen=True)
class TrackingConfig(Checked):
    """What `track_gradients` measures: estimates in the run's model against the true gradient."""

    estimators: tuple[EstimatorName, ...] = ("rp", "lr_value", "svg", "q")
    """Which ones."""
    horizon: Positive = 5
    """Steps of a trajectory (H)."""
    batch_size: Positive = 16
    """Trajectories of an estimate (B)."""
    batches: Annotated[int, Ge(32)] = 64
    """Independent estimates (M)."""
    reference_batches: Annotated[int, Ge(2)] = 64
    """Independent estimates of the true gradient, of as many trajectories each."""
    start_states: Annotated[int, Ge(8)] = 256
    """States from which trajectories start: those that the policy visits in eight environments,
    evenly spaced over an episode; a multiple of 8."""

    def _rule_errors(self) -> list[str]:
        if self.start_states % 8:
            return [f"start_states: {self.start_states} is no multiple of 8; use one"]
        return []

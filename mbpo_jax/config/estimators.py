"""The gradient estimators: one record of each, from which help, checks and tables follow."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from mbpo_jax.fields import Checked, Fraction, Positive, Rate
from mbpo_jax.import_paths import is_import_path, name_problem


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


Estimand = Literal["return", "window", "smoothed"]
"""Whose gradient it is: of the whole return, of the first steps and the critic's value after them,
or of the return smoothed over the parameters."""

Need = Literal[
    "critic",
    "slope of the action value",
    "noisy system",
    "derivatives",
    "batch of 2",
    "batch of 4",
    "few parameters",
    "few actions",
]


@dataclasses.dataclass(frozen=True)
class EstimatorRecord:
    """What is known of an estimator without loading it.

    Attributes:
      summary: what it does, in a line.
      source: where it was published.
      maker: import path of the function `() -> Estimator` that makes it; "" for one of one's own,
        whose name is the path.
      estimand: whose gradient it has in the mean.
      biased: why its mean is another than its estimand's gradient; "" if it is not.
      differentiates: it takes derivatives of the system, which has to have them.
      needs: what else a problem or batch has to have.
      uses: the settings of `EstimatorConfig` that it reads.
      moves_parameters: it compares returns under other parameters, whose every step they change.
      over_batches: it takes all batches at once, which are then not independent.
    """

    summary: str
    source: str
    maker: str = ""
    estimand: Estimand = "return"
    biased: str = ""
    differentiates: bool = False
    needs: tuple[Need, ...] = ()
    uses: tuple[str, ...] = ()
    moves_parameters: bool = False
    over_batches: bool = False

    @property
    def all_needs(self) -> tuple[Need, ...]:
        """All that a problem or batch has to have."""
        return (*self.needs, "derivatives") if self.differentiates else self.needs


_MAKERS = "mbpo_jax.laboratory.estimators.named"
_CRITIC = "as far as the critic is wrong"
_SAME_BATCH = "the weights come from the batch they weigh"

ESTIMATORS: Mapping[str, EstimatorRecord] = {
    "lr": EstimatorRecord(
        "likelihood ratio at the actions: rewards to go, less the batch's others",
        "Williams 1992",
        f"{_MAKERS}:make_lr",
        needs=("batch of 2",),
    ),
    "lr_total": EstimatorRecord(
        "likelihood ratio of the whole return, without a baseline",
        "Williams 1992",
        f"{_MAKERS}:make_lr_total",
    ),
    "lr_loo": EstimatorRecord(
        "likelihood ratio of the whole return, less the mean of the batch's others",
        "Williams 1992",
        f"{_MAKERS}:make_lr_loo",
        needs=("batch of 2",),
    ),
    "lr_to_go": EstimatorRecord(
        "likelihood ratio of rewards to go, without a baseline",
        "Williams 1992",
        f"{_MAKERS}:make_lr_to_go",
    ),
    "lr_value": EstimatorRecord(
        "likelihood ratio of rewards to go, less the critic's value of the state",
        "Williams 1992",
        f"{_MAKERS}:make_lr_value",
        needs=("critic",),
    ),
    "lr_gae": EstimatorRecord(
        "likelihood ratio of generalised advantage estimates",
        "Schulman et al. 2016, arXiv:1506.02438",
        f"{_MAKERS}:make_lr_gae",
        biased=_CRITIC,
        needs=("critic",),
        uses=("gae_decay",),
    ),
    "lr_advantage": EstimatorRecord(
        "likelihood ratio of the critic's advantage",
        "Sutton et al. 2000",
        f"{_MAKERS}:make_lr_advantage",
        biased=_CRITIC,
        needs=("critic",),
    ),
    "lr_state": EstimatorRecord(
        "likelihood ratio at the outcomes of a noisy system",
        "Parmas et al. 2018, arXiv:1902.01240",
        f"{_MAKERS}:make_lr_state",
        differentiates=True,
        needs=("noisy system", "batch of 2"),
    ),
    "rp": EstimatorRecord(
        "pathwise: backpropagation through all steps",
        "see Mohamed et al. 2020, arXiv:1906.10652",
        f"{_MAKERS}:make_rp",
        differentiates=True,
    ),
    "rp_truncated": EstimatorRecord(
        "pathwise, cut every few steps",
        "Williams and Peng 1990",
        f"{_MAKERS}:make_rp_truncated",
        biased="what an action does to rewards beyond the cut is left out",
        differentiates=True,
        uses=("truncation",),
    ),
    "rp_clipped": EstimatorRecord(
        "pathwise, with a limit on what a state passes back",
        "see Pascanu et al. 2013, arXiv:1211.5063",
        f"{_MAKERS}:make_rp_clipped",
        biased="long gradients are shortened",
        differentiates=True,
        uses=("max_cotangent_norm",),
    ),
    "svg": EstimatorRecord(
        "pathwise through the first h steps, then the critic",
        "Heess et al. 2015, arXiv:1510.09142",
        f"{_MAKERS}:make_svg",
        estimand="window",
        differentiates=True,
        needs=("critic",),
        uses=("window",),
    ),
    "svg_tiled": EstimatorRecord(
        "the same for every window along the trajectory",
        "Heess et al. 2015, arXiv:1510.09142",
        f"{_MAKERS}:make_svg_tiled",
        biased=_CRITIC,
        differentiates=True,
        needs=("critic",),
        uses=("window",),
    ),
    "q": EstimatorRecord(
        "the critic's gradient at the policy's actions along the trajectory",
        "Silver et al. 2014",
        f"{_MAKERS}:make_q",
        biased=_CRITIC,
        needs=("critic", "slope of the action value"),
    ),
    "es": EstimatorRecord(
        "evolution strategy: antithetic perturbations of the parameters",
        "Salimans et al. 2017, arXiv:1703.03864",
        f"{_MAKERS}:make_es",
        estimand="smoothed",
        uses=("perturbation_std",),
        moves_parameters=True,
    ),
    "fd": EstimatorRecord(
        "central differences with common noise",
        "Glasserman 2003, chapter 7",
        f"{_MAKERS}:make_fd",
        biased="of the order of the squared difference",
        needs=("few parameters",),
        uses=("difference",),
        moves_parameters=True,
    ),
    "mvd": EstimatorRecord(
        "measure-valued: coupled trajectories for every component of every action",
        "Mohamed et al. 2020, arXiv:1906.10652",
        f"{_MAKERS}:make_mvd",
        needs=("few actions",),
    ),
    "mix": EstimatorRecord(
        "lr and rp with a fixed weight",
        "Hafner et al. 2021, arXiv:2010.02193",
        f"{_MAKERS}:make_mix",
        differentiates=True,
        needs=("batch of 2",),
        uses=("mix",),
    ),
    "ivw": EstimatorRecord(
        "lr and rp, weighted by inverse variance",
        "Parmas et al. 2018, arXiv:1902.01240",
        f"{_MAKERS}:make_ivw",
        biased=_SAME_BATCH,
        differentiates=True,
        needs=("batch of 2",),
    ),
    "ivw_split": EstimatorRecord(
        "the same, with weights from the other half of the batch",
        "Parmas et al. 2018, arXiv:1902.01240",
        f"{_MAKERS}:make_ivw_split",
        differentiates=True,
        needs=("batch of 4",),
    ),
    "ivw_average": EstimatorRecord(
        "the same, with weights from a running average over past batches",
        "Parmas et al. 2018, arXiv:1902.01240",
        f"{_MAKERS}:make_ivw_average",
        differentiates=True,
        needs=("batch of 2",),
        uses=("average_decay",),
        over_batches=True,
    ),
    "ivw_covariance": EstimatorRecord(
        "the same with weights from the batch itself that mind the covariance",
        "Parmas et al. 2018, arXiv:1902.01240",
        f"{_MAKERS}:make_ivw_covariance",
        biased=_SAME_BATCH,
        differentiates=True,
        needs=("batch of 2",),
    ),
    "aobg": EstimatorRecord(
        "rp as far as it agrees with lr, which comes from other trajectories",
        "Suh et al. 2022, arXiv:2202.00817",
        f"{_MAKERS}:make_aobg",
        biased=_SAME_BATCH,
        differentiates=True,
        needs=("batch of 4",),
        uses=("tolerance", "bound"),
    ),
    "ddcg": EstimatorRecord(
        "ivw, or lr alone where returns vary more than their gradients explain",
        "Onoda et al. 2026, arXiv:2604.18161",
        f"{_MAKERS}:make_ddcg",
        biased=_SAME_BATCH,
        differentiates=True,
        needs=("batch of 2",),
        uses=("slack",),
    ),
    "tp": EstimatorRecord(
        "total propagation: lr and rp, weighted anew at every step back in time",
        "Parmas et al. 2018, arXiv:1902.01240",
        f"{_MAKERS}:make_tp",
        biased=_SAME_BATCH,
        differentiates=True,
        needs=("batch of 2",),
    ),
    "ivw_h": EstimatorRecord(
        "lr and rp, weighted for every step and every component of the action",
        "Onoda et al. 2026, arXiv:2604.18161",
        f"{_MAKERS}:make_ivw_h",
        biased=_SAME_BATCH,
        differentiates=True,
        needs=("batch of 2",),
    ),
}


def estimator_uses(name: str) -> tuple[str, ...]:
    """Return the settings that an estimator reads; one of one's own may read all."""
    if is_import_path(name):
        return tuple(field.name for field in dataclasses.fields(EstimatorConfig))
    return ESTIMATORS[name].uses


def estimator_readers(setting: str) -> list[str]:
    """Return the estimators that read a setting of `EstimatorConfig`."""
    return [name for name, record in ESTIMATORS.items() if setting in record.uses]


def named(estimators: Iterable[str]) -> list[str]:
    """Return the estimators that names stand for, each once; "all" is every one with a record."""
    return list(ESTIMATORS) if "all" in estimators else list(dict.fromkeys(estimators))


def estimator_errors(field: str, names: Sequence[str]) -> list[str]:
    """Return what is wrong with the names of estimators that a field holds."""
    problems = ((i, name_problem(name, [*ESTIMATORS, "all"])) for i, name in enumerate(names))
    return [f"{field}[{i}]: {problem}" for i, problem in problems if problem]


def unread_setting(setting: str, estimators: Iterable[str]) -> str | None:
    """Return why no chosen estimator reads a setting of `EstimatorConfig`, or None if one does."""
    names = named(estimators)
    if any(setting in estimator_uses(name) for name in names):
        return None
    who = f"none of {', '.join(names)} reads" if len(names) > 1 else f"{names[0]} does not read"
    readers = ", ".join(estimator_readers(setting))
    return f"{who} it; leave it out, or use one that does: {readers}"


def unread_settings(settings: EstimatorConfig, estimators: Iterable[str]) -> list[str]:
    """Return a problem for each setting that was changed though no chosen estimator reads it."""
    fields = dataclasses.fields(EstimatorConfig)
    changed = [f.name for f in fields if getattr(settings, f.name) != f.default]
    reasons = {name: unread_setting(name, list(estimators)) for name in changed}
    return [f"estimator.{name}: {reason}" for name, reason in reasons.items() if reason]

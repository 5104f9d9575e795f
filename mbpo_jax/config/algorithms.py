"""The algorithms: one record of each, from which help, checks and tables follow."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping

from mbpo_jax.import_paths import is_import_path


@dataclasses.dataclass(frozen=True)
class AlgorithmRecord:
    """What is known of an algorithm without loading it.

    Attributes:
      title: its name in a figure.
      summary: what it does, in a line.
      source: where it was published.
      maker: import path of the function `(Env, Config) -> Algorithm` that assembles it.
      uses: the settings that it reads besides those that every run reads; single ones, or groups.
      differentiates_model: it takes derivatives of the model.
      preset: with its published numbers, where they are not those of the environment's own.
    """

    title: str
    summary: str
    source: str
    maker: str
    uses: tuple[str, ...]
    differentiates_model: bool = False
    preset: str | None = None

    @property
    def has_model(self) -> bool:
        """Whether it has a dynamics model, learned or the true system in its place."""
        return "model" in self.uses

    @property
    def is_actor_critic(self) -> bool:
        """Whether it trains SAC's policy and critics."""
        return "sac" in self.uses

    @property
    def branches(self) -> bool:
        """Whether it keeps model transitions of branched rollouts."""
        return "rollout.rollouts_per_step" in self.uses

    @property
    def is_tabular(self) -> bool:
        """Whether it needs numbered states and moves."""
        return any(path.partition(".")[0] == "tabular" for path in self.uses)


_LEARNED = ("ensemble", "fit", "env.termination", "rollout.diagnostic_length")
"""Read where the model is learned, whatever it serves."""

_SAC = ("sac", "track_gradients", "tracking", "estimator")

_BRANCHES = (
    "epoch_length",
    *(
        f"rollout.{name}"
        for name in (
            *("rollouts_per_step", "min_length", "max_length", "start_epoch", "end_epoch"),
            *("refreshes_per_fit", "retain_epochs", "real_ratio", "truncation"),
            *("threshold_scale", "threshold_quantile", "uncertainty_penalty"),
            *("step_quantile", "total_quantile"),
        )
    ),
)

_TABULAR = tuple(f"tabular.{name}" for name in ("planning_steps", "step_size", "epsilon", "gamma"))

ALGORITHMS: Mapping[str, AlgorithmRecord] = {
    "sac": AlgorithmRecord(
        "SAC",
        "soft actor-critic on replay alone",
        "Haarnoja et al. 2018, arXiv:1812.05905",
        "mbpo_jax.algorithms.sac:make_sac_baseline",
        _SAC,
    ),
    "mbpo": AlgorithmRecord(
        "MBPO",
        "SAC on short model rollouts branched anywhere",
        "Janner et al. 2019, arXiv:1906.08253",
        "mbpo_jax.algorithms.mbpo:make_mbpo",
        ("model", *_SAC, *_BRANCHES),
    ),
    "dyna": AlgorithmRecord(
        "Dyna",
        "real updates, then model updates, at each step",
        "Sutton 1990, generalised",
        "mbpo_jax.algorithms.dyna:make_dyna",
        ("model", *_SAC, *_BRANCHES, "dyna"),
    ),
    "mba": AlgorithmRecord(
        "MBA",
        "SAC on model rollouts from recent states",
        "Gu et al. 2016, arXiv:1603.00748",
        "mbpo_jax.algorithms.mba:make_mba",
        ("model", *_SAC, *_BRANCHES, "rollout.recent_steps"),
    ),
    "mve": AlgorithmRecord(
        "MVE",
        "critics on values expanded by H model steps",
        "Feinberg et al. 2018, arXiv:1803.00101",
        "mbpo_jax.algorithms.mve:make_mve",
        ("model", *_SAC, "expansion.horizon", "expansion.propagation", "expansion.td_k"),
    ),
    "steve": AlgorithmRecord(
        "STEVE",
        "MVE's depths weighted by their agreement",
        "Buckman et al. 2018, arXiv:1807.01675",
        "mbpo_jax.algorithms.steve:make_steve",
        ("model", *_SAC, "expansion.horizon", "expansion.covariance"),
    ),
    "svg": AlgorithmRecord(
        "SVG",
        "policy improved through H model steps",
        "Heess et al. 2015, arXiv:1510.09142; Amos et al. 2021, arXiv:2008.12775",
        "mbpo_jax.algorithms.svg:make_svg",
        (
            *("model", *_SAC, "expansion.horizon", "expansion.propagation"),
            *("expansion.critic", "expansion.td_k", "expansion.max_cotangent_norm"),
        ),
        differentiates_model=True,
    ),
    "dhmbpo": AlgorithmRecord(
        "DHMBPO",
        "policy and critics on short rollouts from where long ones led",
        "Kubo, Parmas and Ishii 2025, arXiv:2512.15439",
        "mbpo_jax.algorithms.dhmbpo:make_dhmbpo",
        (
            *("model", *_SAC, *_BRANCHES, "expansion.horizon", "expansion.propagation"),
            "expansion.max_cotangent_norm",
        ),
        differentiates_model=True,
        preset="dhmbpo",
    ),
    "retrace": AlgorithmRecord(
        "Retrace",
        "critics on returns of replay sequences",
        "Munos et al. 2016, arXiv:1606.02647",
        "mbpo_jax.algorithms.retrace:make_retrace",
        (*_SAC, "retrace"),
    ),
    "policy_search": AlgorithmRecord(
        "Policy search",
        "a policy climbs in the model, by an estimator of choice",
        "Williams 1992; Heess et al. 2015, arXiv:1510.09142",
        "mbpo_jax.algorithms.policy_search:make_policy_search",
        ("model", "policy_search", "estimator"),
    ),
    "mpc": AlgorithmRecord(
        "MPC",
        "replanning by CEM, iCEM, MPPI or random shooting",
        "Chua et al. 2018, arXiv:1805.12114",
        "mbpo_jax.algorithms.mpc:make_mpc",
        ("model", "planner"),
    ),
    "ilqr": AlgorithmRecord(
        "iLQR",
        "iterative LQR with time-varying linear feedback",
        "Li and Todorov 2004",
        "mbpo_jax.algorithms.ilqr:make_ilqr",
        ("model", "ilqr"),
        differentiates_model=True,
    ),
    "dyna_q": AlgorithmRecord(
        "Dyna-Q",
        "tabular Q-learning and planning steps",
        "Sutton and Barto 2018, section 8.2",
        "mbpo_jax.algorithms.tabular:make_tabular",
        _TABULAR,
    ),
    "dyna_q_plus": AlgorithmRecord(
        "Dyna-Q+",
        "Dyna-Q with a bonus for what was long not tried",
        "Sutton and Barto 2018, section 8.3",
        "mbpo_jax.algorithms.tabular:make_tabular",
        (*_TABULAR, "tabular.bonus"),
    ),
    "prioritized_sweeping": AlgorithmRecord(
        "Prioritized sweeping",
        "planning where values change most",
        "Moore and Atkeson 1993",
        "mbpo_jax.algorithms.tabular:make_tabular",
        (*_TABULAR, "tabular.threshold"),
    ),
}


@functools.cache
def _settings_of_some() -> tuple[str, ...]:
    """Return all that one algorithm or another reads, and not every one."""
    own = (path for record in ALGORITHMS.values() for path in record.uses)
    return tuple(dict.fromkeys((*own, *_LEARNED)))


def algorithm_record(name: str) -> AlgorithmRecord:
    """Return what is known of an algorithm; one of one's own may use every setting."""
    if is_import_path(name):
        title = name.rpartition(":")[2].removeprefix("make_")
        return AlgorithmRecord(title, "of one's own", name, name, _settings_of_some())
    return ALGORITHMS[name]


def actor_critics() -> list[str]:
    """Return the algorithms that train SAC's policy and critics."""
    return [name for name, record in ALGORITHMS.items() if record.is_actor_critic]


@functools.cache
def reads(algorithm: str, model: str, path: str) -> bool:
    """Say whether an algorithm ever reads a setting.

    Args:
      algorithm: its name.
      model: learned or oracle.
      path: of the setting, such as `sac.gamma`.
    """
    record = algorithm_record(algorithm)
    if not _covered(path, _settings_of_some()):
        return True
    learned = _LEARNED if record.has_model and model != "oracle" else ()
    return _covered(path, (*record.uses, *learned))


def readers(path: str) -> list[str]:
    """Return the algorithms that read a setting, where they have a learned model."""
    return [name for name in ALGORITHMS if reads(name, "learned", path)]


def _covered(path: str, settings: Iterable[str]) -> bool:
    """Say whether a path is one of the settings, or in a group of them, or such a group itself."""
    return any(f"{path}.".startswith(f"{known}.") for known in settings)

"""Settings of what one algorithm, or a few, do in their own way."""

import dataclasses
from typing import Annotated, Literal

from annotated_types import Ge

from mbpo_jax.config.estimators import ESTIMATORS
from mbpo_jax.fields import (
    Checked,
    Fraction,
    NonNegative,
    Positive,
    Rate,
)
from mbpo_jax.import_paths import name_problem

Propagation = Literal["step", "trajectory", "mean"]
"""How a model rollout meets the ensemble: a random elite at each step (TS1 of Chua et al. 2018),
the same one throughout (TS-infinity), or the mean of all of them, without noise. The true system
has no members, but may be asked for its mean."""


@dataclasses.dataclass(frozen=True)
class DynaConfig(Checked):
    """Generalised Dyna (Sutton 1990), for `dyna`: at each step real updates, then model updates."""

    model_updates: NonNegative = 20
    """Updates per environment step on batches mixed by `rollout.real_ratio` (K), after the
    `sac.utd_ratio` updates on real ones. With 0, Dyna is SAC."""
    actions: Literal["policy", "replay", "random"] = "policy"
    """First action of a model rollout: the policy's, the one stored with the start, or random."""
    keep_model_data: bool = True
    """Keep model transitions at a new fit, for `rollout.retain_epochs`, or drop them all."""


@dataclasses.dataclass(frozen=True)
class ExpansionConfig(Checked):
    """Value expansion through the model, for `mve`, `steve`, `svg` and `dhmbpo`."""

    horizon: NonNegative = 3
    """Model steps (H); with 0 the algorithm is SAC, but for the critics' mixture of `steve`, and
    `dhmbpo` is MBPO."""
    propagation: Propagation = "step"
    """How rollouts meet the ensemble, but for those of `steve`, which asks each elite."""
    td_k: bool = True
    """`mve`, and `svg` with its target: train the critics on every depth of the rollout, not only
    on the real transition."""
    covariance: bool = False
    """`steve`: weight depths by their covariance matrix, not by their variances alone."""
    critic: Literal["td0", "mve"] = "td0"
    """`svg`: what its critics regress to, one step or MVE's target."""
    max_cotangent_norm: Rate | None = None
    """`svg`, `dhmbpo`: longest gradient that a row passes from a model state to the one before."""


@dataclasses.dataclass(frozen=True)
class RetraceConfig(Checked):
    """Returns from replay sequences, for `retrace` (Munos et al. 2016, arXiv:1606.02647)."""

    length: Positive = 5
    """Transitions in a sequence (n)."""
    decay: Fraction = 1.0
    """Decay of the traces (lambda); with 0 the target is TD(0)."""
    correction: Literal["retrace", "none"] = "retrace"
    """Cut traces by truncated importance weights, or not at all: with decay 1, n-step returns."""


@dataclasses.dataclass(frozen=True)
class PolicySearchConfig(Checked):
    """Policy improvement on long model rollouts from initial states, for `policy_search`."""

    gradient: str = "rp"
    """Estimator of the gradient, of the list that `variance --help` shows, or `module:function`;
    those that need a critic get a learned baseline, which regresses to lambda-returns
    (`estimator.gae_decay`)."""
    horizon: Positive | None = None
    """Steps of a model rollout; those of an episode if unset."""
    num_rollouts: Positive = 32
    """Model rollouts per update; rounded up to equal shares of the elites, each of which makes a
    gradient of its own."""
    utd_ratio: Positive = 1
    """Updates per environment step."""
    hidden_sizes: tuple[Positive, ...] = (64, 64)
    """Widths of the hidden layers of policy and baseline."""
    learning_rate: Rate = 1e-3
    """Adam step size."""
    gamma: Fraction = 0.99
    """Discount factor per action."""
    entropy_weight: Annotated[float, Ge(0)] = 1e-3
    """Reward for a nat of the policy's entropy."""
    max_gradient_norm: Rate | None = None
    """Longest gradient of an update; a longer one is scaled down."""
    propagation: Propagation = "trajectory"
    """How rollouts meet the ensemble; but for `trajectory` all elites are asked for every row."""

    def _rule_errors(self) -> list[str]:
        able = [name for name, record in ESTIMATORS.items() if not record.over_batches]
        if ESTIMATORS.get(self.gradient) and self.gradient not in able:
            return [
                f"gradient: {self.gradient} takes many batches at once, and an update has one; use "
                f"one of: {', '.join(able)}"
            ]
        problem = name_problem(self.gradient, able)
        return [f"gradient: {problem}"] if problem else []


@dataclasses.dataclass(frozen=True)
class PlannerConfig(Checked):
    """Planning of action sequences through the model, for `mpc`."""

    method: Literal["random", "cem", "icem", "mppi"] = "cem"
    """Random shooting, the cross-entropy method, CEM with coloured noise and kept elites
    (Pinneri et al. 2020, arXiv:2008.06389), or MPPI (Williams et al. 2015, arXiv:1509.01149)."""
    horizon: Positive = 15
    """Actions in a plan."""
    population: Positive = 200
    """Action sequences per iteration."""
    iterations: Positive = 5
    """Rounds of sampling and refitting; random shooting makes one."""
    num_elites: Positive = 20
    """Best sequences, to which CEM fits its next distribution."""
    smoothing: Fraction = 0.1
    """Weight of the old mean and standard deviation in the next ones, but for random shooting."""
    initial_std: Rate = 0.5
    """Standard deviation of the first round's actions."""
    min_std: Annotated[float, Ge(0)] = 0.02
    """Standard deviations do not fall below it."""
    temperature: Rate = 0.1
    """MPPI: sequences are weighted by exp(return / temperature), returns scaled by how far the best
    lies above the median."""
    noise_exponent: Annotated[float, Ge(0)] = 2.0
    """iCEM: the noise's power falls as frequency to the minus this."""
    keep_fraction: Fraction = 0.3
    """iCEM: share of elites that stay in the next round's population."""
    num_particles: Positive = 5
    """Rollouts that judge each sequence."""
    propagation: Propagation = "trajectory"
    """How rollouts meet the ensemble."""
    gamma: Fraction = 1.0
    """Discount factor per action."""
    open_loop: bool = False
    """Carry a plan out to its end before the next, instead of replanning at every step."""

    def _rule_errors(self) -> list[str]:
        if self.method in ("cem", "icem") and self.num_elites > self.population:
            return [
                f"num_elites: {self.num_elites} exceeds population ({self.population}); lower it, "
                "or raise population"
            ]
        return []


@dataclasses.dataclass(frozen=True)
class ILQRConfig(Checked):
    """Iterative linear-quadratic regulation through the model, for `ilqr` (Li and Todorov 2004)."""

    horizon: Positive = 30
    """Actions in a plan."""
    iterations: Positive = 10
    """Rounds of linearising, solving and line search."""
    replan_every: Positive = 10
    """Actions of a plan that are carried out before the next."""
    feedback: bool = True
    """Correct the plan's actions by its time-varying linear feedback."""
    regularization: Rate = 1e-3
    """First, and least, lower bound of the actions' curvature; it grows while rounds fail."""
    exploration_std: Annotated[float, Ge(0)] = 0.1
    """Standard deviation of what is added to actions, but not when evaluating."""

    def _rule_errors(self) -> list[str]:
        if self.replan_every > self.horizon:
            return [
                f"replan_every: {self.replan_every} exceeds horizon ({self.horizon}); lower it, or "
                "raise horizon"
            ]
        return []


@dataclasses.dataclass(frozen=True)
class TabularConfig(Checked):
    """Tabular algorithms (Sutton and Barto 2018, chapter 8)."""

    planning_steps: NonNegative = 5
    """Updates from the model per real step (n)."""
    step_size: Rate = 0.1
    """Step size of the action values (alpha)."""
    epsilon: Fraction = 0.1
    """Probability of a random action."""
    gamma: Fraction = 0.95
    """Discount factor."""
    bonus: Annotated[float, Ge(0)] = 1e-3
    """`dyna_q_plus`: weight of the root of the time since a pair was tried (kappa)."""
    threshold: Annotated[float, Ge(0)] = 1e-4
    """`prioritized_sweeping`: least change that puts a pair into the queue (theta)."""

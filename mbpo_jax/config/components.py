"""Settings of the parts that several algorithms share."""

import dataclasses
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from mbpo_jax.fields import (
    DATA,
    STRUCTURAL,
    Checked,
    Fraction,
    LogVariance,
    NonNegative,
    Positive,
    Rate,
)


@dataclasses.dataclass(frozen=True)
class EnvConfig(Checked):
    """The environment."""

    name: str = "inverted_pendulum"
    """Environment, one of `mbpo-jax envs`, or `module:function`, which makes one of your own."""
    backend: Literal["generalized", "positional", "spring", "mjx", "analytic", "mujoco", "own"] = (
        "generalized"
    )
    """Physics backend: one of Brax's; `analytic` for the systems known in closed form, `mujoco` for
    Gymnasium's tasks, `mjx` for those of DeepMind Control, `own` for an environment of your own."""
    options: tuple[str, ...] = ()
    """Options of a Gymnasium task, each NAME=VALUE with a value in JSON, as healthy_reward=0.5. The
    function that makes an environment of your own reads them itself."""
    episode_length: Positive = 1000
    """Time limit in simulator steps. It does not terminate: the value beyond it is bootstrapped."""
    action_repeat: Positive = 1
    """Simulator steps per action; their rewards are summed."""
    termination: Literal["known", "learned", "none"] = "known"
    """How model rollouts end: the environment's known rule, a learned head, or never."""


@dataclasses.dataclass(frozen=True)
class SACConfig(Checked):
    """Soft actor-critic (Haarnoja et al. 2018, arXiv:1812.05905)."""

    utd_ratio: Positive = 20
    """Gradient updates per environment step (G)."""
    batch_size: Positive = 256
    """Transitions per update."""
    hidden_sizes: tuple[Positive, ...] = (256, 256)
    """Widths of the hidden layers of policy and critics."""
    activation: Literal["relu", "swish"] = "relu"
    """Of the hidden layers of policy and critics."""
    num_critics: Positive = 2
    """Critics, whose minimum is the value estimate."""
    num_target_critics: Positive | None = None
    """So many of them, drawn anew at each update, make its targets (Chen et al. 2021,
    arXiv:2101.05982); all if unset."""
    policy_value: Literal["min", "mean"] = "min"
    """What the policy climbs: the critics' minimum or their mean."""
    critic_layer_norm: bool = False
    """Layer normalisation in the critics."""
    scale_observations: bool = False
    """Let policy and critics see observations at zero mean and unit variance, by those in the
    replay buffer at the time of the last fit."""
    value_range: Literal["free", "rewards"] = "free"
    """Let critics say anything, or scale what they say to the values that the most and the least
    rewarded hundredth of steps would have if it went on so, and clip targets to them. Where every
    step is rewarded, a state that is about to terminate is worth less than the range allows."""
    critic_updates: NonNegative = 0
    """Updates of the critics alone after each fit."""
    catches_up: bool = False
    """Make the updates that belong to the random steps before the policy acts, rounded up to those
    of `steps_per_fit` steps."""
    learning_rate: Rate = 3e-4
    """Adam step size of policy, critics and temperature."""
    gamma: Fraction = 0.99
    """Discount factor per action."""
    tau: Fraction = 0.005
    """Polyak step of the target critics, at every update."""
    initial_alpha: Rate = 1.0
    """Temperature at the start."""
    target_entropy: float | None = None
    """Entropy the temperature steers to, in nats; minus the number of action components if None."""
    exploration_noise: Annotated[float, Gt(0)] | None = None
    """Act with noise of this standard deviation before the tanh; learn without any, nor with a
    temperature, much as DDPG (Lillicrap et al. 2016, arXiv:1509.02971), but for the traces of
    `retrace`, which are of the policy with its noise. Explore as the policy learns to, if None."""

    def _rule_errors(self) -> list[str]:
        errors, chosen = [], self.num_target_critics
        if chosen is not None and chosen > self.num_critics:
            errors.append(f"num_target_critics: {chosen} exceeds num_critics ({self.num_critics})")
        # While JAX traces, it is an array, which cannot be compared.
        if self.value_range == "rewards" and isinstance(self.gamma, float) and self.gamma == 1.0:
            errors.append(
                "value_range: rewards that go on for ever have no value at a gamma of 1; lower "
                "gamma, or use value_range=free"
            )
        return errors


@dataclasses.dataclass(frozen=True)
class EnsembleConfig(Checked):
    """Probabilistic dynamics ensemble (Chua et al. 2018, arXiv:1805.12114)."""

    num_members: Positive = 7
    """Networks in the ensemble (E)."""
    num_elites: Positive = 5
    """Members with the lowest hold-out error, which rollouts use."""
    hidden_sizes: tuple[Positive, ...] = (200, 200, 200, 200)
    """Widths of the hidden layers."""
    layer_norm: bool = False
    """Layer normalisation after every hidden layer."""
    dropout: Annotated[float, Ge(0), Lt(1), STRUCTURAL] = 0.0
    """Share of each hidden layer's units that a gradient step leaves out."""
    noise: Literal["heteroscedastic", "homoscedastic"] = "heteroscedastic"
    """Whether a log-variance is an output of the network, or a number for each member and target
    that is trained with it."""
    bounds: Literal["learned", "fixed"] = "learned"
    """Whether the bounds of the log-variance are trained or stay at their initial values."""
    min_log_variance: LogVariance = -10.0
    """(Initial) lower bound of the log-variance."""
    max_log_variance: LogVariance = 0.5
    """(Initial) upper bound of the log-variance."""
    bound_penalty: Annotated[float, Ge(0)] = 0.01
    """Weight of the penalty that pulls learned bounds together."""
    target: Literal["delta", "absolute"] = "delta"
    """Predict the change of the observation or the next observation itself."""
    normalize_targets: bool = False
    """Scale targets to zero mean and unit variance on the training split."""
    spectral_norm: bool = False
    """Divide every kernel by its largest singular value where that exceeds 1 (Zhang et al. 2023,
    NeurIPS), so that gradients through many model steps do not explode."""

    def _rule_errors(self) -> list[str]:
        errors = []
        if self.num_elites > self.num_members:
            errors.append(f"num_elites: {self.num_elites} exceeds num_members ({self.num_members})")
        low, high = self.min_log_variance, self.max_log_variance
        # While JAX traces, these are arrays, which cannot be compared.
        if isinstance(low, float) and isinstance(high, float) and low >= high:
            errors.append(f"min_log_variance: {low} is not below max_log_variance ({high})")
        return errors


@dataclasses.dataclass(frozen=True)
class FitConfig(Checked):
    """How the ensemble is fitted to the replay buffer."""

    learning_rate: Rate = 1e-3
    """Adam step size."""
    batch_size: Positive = 256
    """Transitions per member and gradient step."""
    weight_decays: tuple[Annotated[float, Ge(0)], ...] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)
    """Weight of half the squared norm of each layer's kernel, first to last."""
    holdout_ratio: Annotated[float, Gt(0), Le(0.9), STRUCTURAL] = 0.2
    """Share of the data that is held out of training, redrawn at each fit."""
    max_holdout: Positive = 5000
    """Most transitions to hold out."""
    bootstrap: bool = True
    """Each member trains on its own resample of the training split, drawn with replacement."""
    stopping: Literal["early", "budget"] = "early"
    """Make epochs until no member improves any more, or as many gradient steps as `num_steps` says,
    on minibatches that are drawn anew from all training rows."""
    patience: NonNegative = 5
    """Stop once more than this many epochs in a row brought no member an improvement."""
    min_improvement: Annotated[float, Ge(0), Lt(1)] = 0.01
    """Relative fall of a member's hold-out error that counts as an improvement."""
    min_steps: NonNegative = 0
    """Gradient steps that early stopping waits for. The reference waits for none; but with few
    transitions an epoch is a few gradient steps, so that its patience is soon over."""
    max_epochs: Positive | None = None
    """Most epochs in a fit with early stopping; no limit if unset."""
    report_all_outputs: bool = False
    """Report the hold-out error of each of the model's outputs even where they are many."""
    num_steps: Positive = 250
    """Gradient steps in a fit by a budget."""
    cold_factor: Positive = 10
    """How many times `num_steps` a model that was never fitted is given by a budget."""


@dataclasses.dataclass(frozen=True)
class RolloutConfig(Checked):
    """Branched model rollouts (Janner et al. 2019, arXiv:1906.08253)."""

    rollouts_per_step: Positive = 400
    """Rollouts started per environment step; `steps_per_fit` times as many between two fits."""
    refreshes_per_fit: Positive = 1
    """How often rollouts are started between two fits, at even distances, by the policy of then."""
    min_length: Annotated[Positive, DATA] = 1
    """Rollout length k up to `start_epoch`."""
    max_length: Annotated[Positive, DATA] = 1
    """Rollout length k from `end_epoch` on; linear in between, rounded down."""
    start_epoch: Annotated[NonNegative, DATA] = 1
    """Epoch in which k starts to grow."""
    end_epoch: Annotated[NonNegative, DATA] = 15
    """Epoch in which k reaches `max_length`."""
    retain_epochs: Positive = 1
    """Epochs for which model transitions are kept."""
    real_ratio: Fraction = 0.05
    """Share of every batch that comes from the environment; the rest comes from the model."""
    truncation: Literal["none", "threshold", "ranking", "information"] = "none"
    """End rollouts where the members disagree: never; where their divergence is not below a
    threshold (MACURA, Frauenknecht et al. 2024, arXiv:2405.19014); store at each step the rows
    that they agree most on, fewer from step to step (M2AC, Pan et al. 2020, arXiv:2010.04893); or
    let them step together, until more information is lost than on real transitions (Infoprop,
    Frauenknecht et al. 2025, arXiv:2501.16918)."""
    threshold_scale: Annotated[float, Gt(0)] = 1.0
    """Threshold, in units of a quantile of the divergence where rollouts start (xi)."""
    threshold_quantile: Fraction = 0.95
    """That quantile (zeta)."""
    uncertainty_penalty: Annotated[float, Ge(0)] = 0.001
    """Reward that is taken off a stored step for a nat of uncertainty."""
    step_quantile: Fraction = 0.9999
    """Quantile of the information that real transitions lose, which no step may exceed."""
    total_quantile: Fraction = 0.01
    """Quantile of it, of which a rollout may lose k times as much in all."""
    diagnostic_length: Positive = 10
    """Steps of the open-loop predictions that are compared with real trajectories."""
    recent_steps: Positive = 250
    """Newest transitions from which `mba` branches."""

    @property
    def longest(self) -> int:
        """Return the longest rollout for which there is room: its own, if it shares no program."""
        return self.max_length

    def shared(self, longest: int) -> "SharedRolloutConfig":
        """Return the same, of a run that shares a program with runs of longer rollouts."""
        return SharedRolloutConfig(**{**vars(self), "longest": longest})

    def _rule_errors(self) -> list[str]:
        errors = []
        if not isinstance(self.max_length, int):  # while JAX traces, these are arrays
            return errors
        if self.max_length < self.min_length:
            errors.append(f"max_length: {self.max_length} is below min_length ({self.min_length})")
        if self.end_epoch < self.start_epoch:
            errors.append(f"end_epoch: {self.end_epoch} is below start_epoch ({self.start_epoch})")
        return errors


@dataclasses.dataclass(frozen=True)
class SharedRolloutConfig(RolloutConfig):
    """Rollouts of runs that share a program, whose lengths are no numbers any more as JAX traces.

    What there is room for shapes the program, though it is no setting: it follows from the
    settings of all of them.
    """

    longest: int = 1  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    """Greatest `max_length` of these runs."""

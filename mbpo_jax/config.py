"""Configuration as frozen dataclasses, validated on construction.

A `float` field is *data*: inside the compiled step it is a traced array, so it can differ between
runs of one program. Every other field, and a float marked `Structural`, is *structure*: it decides
shapes and loop bounds, and a change of it compiles anew. `register_pytrees` tells JAX so.

This module does not import JAX, because `mbpo-jax --help` has to answer at once.
"""

import dataclasses
import difflib
import functools
import math
import typing
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from mbpo_jax.errors import UserError

STRUCTURAL = "structural"
"""Marks a float that decides loop bounds and therefore cannot differ between runs."""

MEMORY_FIELDS = (
    "replay_capacity or, for mbpo, rollout.retain_epochs, rollout.max_length or "
    "rollout.rollouts_per_step"
)
"""What makes a run smaller, besides fewer seeds; for messages."""

Positive = Annotated[int, Ge(1), Le(2**31 - 1)]
NonNegative = Annotated[int, Ge(0), Le(2**31 - 1)]
Rate = Annotated[float, Gt(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
LogVariance = Annotated[float, Ge(-30), Le(30)]
"""Standard deviations from 3e-7 to 3e6: what the arithmetic of float32 can tell apart."""


class ConfigError(UserError, ValueError):
    """A configuration that cannot be used; every argument is a problem and says what to do."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return advice that names the known names nearest to a misspelt one, or else all of them."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    nearest = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)
    if nearest:
        return f"did you mean {' or '.join(by_lower[match] for match in nearest)}?"
    return f"use one of: {', '.join(by_lower.values())}"


def field_types(cls: type) -> dict[str, Any]:
    """Return the resolved annotation of every field of a dataclass, with `Annotated` metadata."""
    return _field_types(cls).copy()


@functools.cache
def _field_types(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def is_data(annotation: Any) -> bool:
    """Say whether a field with this annotation is traced data (True) or structure (False)."""
    if STRUCTURAL in getattr(annotation, "__metadata__", ()):
        return False
    base = annotation.__origin__ if typing.get_origin(annotation) is Annotated else annotation
    arguments = typing.get_args(base)
    return (
        base is float
        or dataclasses.is_dataclass(base)
        or (bool(arguments) and is_data(arguments[0]))
    )


def field_error(name: str, value: Any, annotation: Any) -> str | None:
    """Return what is wrong with a value that its annotation does not allow, or None.

    Only text, numbers and tuples of them are looked at: while JAX traces, a field holds an array.
    """
    if isinstance(value, str) and typing.get_origin(annotation) is Literal:
        allowed = typing.get_args(annotation)
        return None if value in allowed else f"{name}: {value!r}; {suggestion(value, allowed)}"
    if isinstance(value, tuple) and typing.get_origin(annotation) is tuple:
        element = typing.get_args(annotation)[0]
        errors = [field_error(f"{name}[{i}]", part, element) for i, part in enumerate(value)]
        return next(filter(None, errors), None)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not math.isfinite(value):
        return f"{name}: {value} is not a finite number"
    for limit in getattr(annotation, "__metadata__", ()):
        if isinstance(limit, Ge) and not value >= typing.cast(float, limit.ge):
            return f"{name}: {value} is too small; use a value >= {limit.ge}"
        if isinstance(limit, Gt) and not value > typing.cast(float, limit.gt):
            return f"{name}: {value} is too small; use a value > {limit.gt}"
        if isinstance(limit, Lt) and not value < typing.cast(float, limit.lt):
            return f"{name}: {value} is too large; use a value < {limit.lt}"
        if isinstance(limit, Le) and not value <= typing.cast(float, limit.le):
            return f"{name}: {value} is too large; use a value <= {limit.le}"
    return None


class _Checked:
    """Checks every number against its annotated range, then the rules between fields."""

    def __post_init__(self) -> None:
        errors = [
            error
            for name, annotation in _field_types(type(self)).items()
            if (error := field_error(name, getattr(self, name), annotation))
        ]
        errors = errors or self._rule_errors()
        if errors:
            raise ConfigError(*errors)

    def _rule_errors(self) -> list[str]:
        return []


@dataclasses.dataclass(frozen=True)
class EnvConfig(_Checked):
    """The environment."""

    name: str = "inverted_pendulum"
    """Environment, one of `mbpo-jax envs`."""
    backend: Literal["generalized", "positional", "spring", "mjx"] = "generalized"
    """Physics backend of Brax."""
    episode_length: Positive = 1000
    """Time limit in simulator steps. It does not terminate: the value beyond it is bootstrapped."""
    action_repeat: Positive = 1
    """Simulator steps per action; their rewards are summed."""
    termination: Literal["known", "learned", "none"] = "known"
    """How model rollouts end: the environment's known rule, a learned head, or never."""


@dataclasses.dataclass(frozen=True)
class SACConfig(_Checked):
    """Soft actor-critic (Haarnoja et al. 2018, arXiv:1812.05905)."""

    utd_ratio: Positive = 20
    """Gradient updates per environment step (G)."""
    batch_size: Positive = 256
    """Transitions per update."""
    hidden_sizes: tuple[Positive, ...] = (256, 256)
    """Widths of the hidden layers of policy and critics."""
    num_critics: Positive = 2
    """Critics whose minimum is the value estimate."""
    critic_layer_norm: bool = False
    """Layer normalisation in the critics."""
    learning_rate: Rate = 3e-4
    """Adam step size of policy, critics and temperature."""
    gamma: Fraction = 0.99
    """Discount factor per action."""
    tau: Fraction = 0.005
    """Polyak step of the target critics, at every update."""
    initial_alpha: Rate = 1.0
    """Temperature at the start."""
    target_entropy: float = -1.0
    """Entropy the temperature steers to, in nats."""


@dataclasses.dataclass(frozen=True)
class EnsembleConfig(_Checked):
    """Probabilistic dynamics ensemble (Chua et al. 2018, arXiv:1805.12114)."""

    num_members: Positive = 7
    """Networks in the ensemble (E)."""
    num_elites: Positive = 5
    """Members with the lowest hold-out error, which rollouts use."""
    hidden_sizes: tuple[Positive, ...] = (200, 200, 200, 200)
    """Widths of the hidden layers."""
    layer_norm: bool = False
    """Layer normalisation after every hidden layer."""
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
class FitConfig(_Checked):
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
    stopping: Literal["early", "fixed"] = "early"
    """Stop when no member improves any more, or after `num_steps` gradient steps."""
    patience: NonNegative = 5
    """Stop once more than this many epochs in a row brought no member an improvement."""
    min_improvement: Annotated[float, Ge(0), Lt(1)] = 0.01
    """Relative fall of a member's hold-out error that counts as an improvement."""
    max_epochs: Positive | None = None
    """Most epochs in a fit with early stopping; no limit if unset."""
    num_steps: Positive = 2000
    """Gradient steps in a fit with a fixed budget."""


@dataclasses.dataclass(frozen=True)
class RolloutConfig(_Checked):
    """Branched model rollouts (Janner et al. 2019, arXiv:1906.08253)."""

    rollouts_per_step: Positive = 400
    """Rollouts started per environment step; a fit starts `steps_per_fit` times as many."""
    min_length: Positive = 1
    """Rollout length k up to `start_epoch`."""
    max_length: Positive = 1
    """Rollout length k from `end_epoch` on; linear in between, rounded down."""
    start_epoch: NonNegative = 1
    """Epoch in which k starts to grow."""
    end_epoch: NonNegative = 15
    """Epoch in which k reaches `max_length`."""
    retain_epochs: Positive = 1
    """Epochs for which model transitions are kept."""
    real_ratio: Fraction = 0.05
    """Share of every batch that comes from the environment; the rest comes from the model."""
    diagnostic_length: Positive = 10
    """Steps of the open-loop predictions that are compared with real trajectories."""

    def _rule_errors(self) -> list[str]:
        errors = []
        if self.max_length < self.min_length:
            errors.append(f"max_length: {self.max_length} is below min_length ({self.min_length})")
        if self.end_epoch < self.start_epoch:
            errors.append(f"end_epoch: {self.end_epoch} is below start_epoch ({self.start_epoch})")
        return errors


@dataclasses.dataclass(frozen=True)
class Config(_Checked):
    """Everything that decides a training run."""

    algorithm: Literal["mbpo", "sac"] = "mbpo"
    """What is trained. `sac` ignores `ensemble`, `fit` and `rollout`."""
    seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 0
    """Seed of the first run; run i has seed + i, modulo 2^32."""
    num_seeds: Positive = 1
    """Runs in one program."""
    total_env_steps: Positive = 5000
    """Environment steps of a run, the random ones included."""
    random_steps: Positive = 500
    """Steps with uniformly random actions before anything is trained."""
    steps_per_fit: Positive = 250
    """Environment steps between two fits of the model (F); one call of the compiled step."""
    epoch_length: Positive = 250
    """Environment steps in an epoch, the unit of the rollout schedule."""
    replay_capacity: Positive = 1_000_000
    """Most environment transitions to keep; never more than `total_env_steps` are allocated."""
    eval_every: Positive = 250
    """Environment steps between evaluations."""
    eval_episodes: Positive = 10
    """Episodes in an evaluation, played with the deterministic policy."""
    checkpoint_every: Positive = 1000
    """Environment steps between checkpoints."""
    stop_at_return: Annotated[float, STRUCTURAL] | None = None
    """End early once every run reached this mean return in two evaluations in a row."""
    env: EnvConfig = EnvConfig()
    sac: SACConfig = SACConfig()
    ensemble: EnsembleConfig = EnsembleConfig()
    fit: FitConfig = FitConfig()
    rollout: RolloutConfig = RolloutConfig()

    def _rule_errors(self) -> list[str]:
        errors = []
        if self.total_env_steps <= self.random_steps:
            errors.append(
                f"total_env_steps: {self.total_env_steps} leaves nothing to train on after "
                f"random_steps ({self.random_steps}); raise it, or lower random_steps"
            )
        if self.replay_capacity < self.steps_per_fit:
            errors.append(
                f"replay_capacity: {self.replay_capacity} is below steps_per_fit "
                f"({self.steps_per_fit}), so transitions would be lost before they are used"
            )
        for name in ("eval_every", "checkpoint_every"):
            if getattr(self, name) % self.steps_per_fit:
                errors.append(
                    f"{name}: {getattr(self, name)} is no multiple of steps_per_fit "
                    f"({self.steps_per_fit}), after which the host first sees the run again"
                )
        if self.algorithm == "mbpo":
            errors += self._model_errors()
        return errors

    def _model_errors(self) -> list[str]:
        errors = []
        layers, decays = len(self.ensemble.hidden_sizes) + 1, len(self.fit.weight_decays)
        if layers != decays:
            errors.append(
                f"fit.weight_decays: {decays} values for {layers} layers (hidden layers and output)"
            )
        rollouts = self.rollout.rollouts_per_step * self.steps_per_fit
        if rollouts % self.ensemble.num_elites:
            elites = self.ensemble.num_elites
            errors.append(
                f"rollout.rollouts_per_step: {rollouts} rollouts per fit cannot be shared equally "
                f"by {elites} elites; use a multiple of {elites}"
            )
        if self.steps_per_fit > self.rollout.retain_epochs * self.epoch_length:
            errors.append(
                f"rollout.retain_epochs: {self.rollout.retain_epochs} epochs of "
                f"{self.epoch_length} steps hold less than the rollouts of one fit "
                f"({self.steps_per_fit} steps); raise it, or epoch_length"
            )
        if self.random_steps < 2:
            errors.append(
                "random_steps: a model needs at least 2 transitions, one of them held out"
            )
        return errors


CONFIG_CLASSES = (EnvConfig, SACConfig, EnsembleConfig, FitConfig, RolloutConfig, Config)


def register_pytrees() -> None:
    """Register every config class with JAX: data fields are leaves, structure is static."""
    import jax

    for cls in CONFIG_CLASSES:
        types = _field_types(cls)
        data = [name for name in types if is_data(types[name])]
        structure = [name for name in types if not is_data(types[name])]
        jax.tree_util.register_dataclass(cls, data, structure)

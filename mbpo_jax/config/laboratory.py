"""Settings of the gradient laboratory."""

import dataclasses
from typing import Annotated

from annotated_types import Ge

from mbpo_jax.config.estimators import estimator_errors
from mbpo_jax.fields import MOST, Checked, NonNegative, Positive


@dataclasses.dataclass(frozen=True)
class StudyConfig(Checked):
    """What is measured, and with how many trajectories."""

    estimators: tuple[str, ...] = ("rp", "lr")
    """Which ones; all that suit the problem if one is called all."""
    horizons: tuple[Positive, ...] = (1, 2, 5, 10, 20)
    """Steps of a trajectory (H)."""
    batch_sizes: tuple[Positive, ...] = (16,)
    """Trajectories of an estimate (B)."""
    batches: Annotated[int, Ge(2), MOST] = 256
    """Independent estimates (M)."""
    reference_batches: Annotated[int, Ge(2), MOST] = 256
    """Independent estimates that make the reference where the gradient is not known exactly."""
    reference_batch_size: Positive = 64
    """Trajectories of each."""
    resamples: Positive = 1000
    """Of the bootstrap."""
    seed: NonNegative = 0
    """Of all noise."""

    def _rule_errors(self) -> list[str]:
        return estimator_errors("estimators", self.estimators)


@dataclasses.dataclass(frozen=True)
class TrackingConfig(Checked):
    """What `track_gradients` measures: estimates in the run's model against the true gradient."""

    estimators: tuple[str, ...] = ("rp", "lr_value", "svg", "q")
    """Which ones, of the list that `variance --help` shows; all that suit the run if one is called
    all."""
    horizon: Positive = 5
    """Steps of a trajectory (H)."""
    batch_size: Positive = 16
    """Trajectories of an estimate (B)."""
    batches: Annotated[int, Ge(32), MOST] = 64
    """Independent estimates (M)."""
    reference_batches: Annotated[int, Ge(2), MOST] = 64
    """Independent estimates of the true gradient, of as many trajectories each."""
    start_states: Annotated[int, Ge(8), MOST] = 256
    """States from which trajectories start: those that the policy visits in eight environments,
    evenly spaced over an episode; a multiple of 8."""

    def _rule_errors(self) -> list[str]:
        errors = estimator_errors("estimators", self.estimators)
        if self.start_states % 8:
            errors.append(f"start_states: {self.start_states} is no multiple of 8; use one")
        return errors

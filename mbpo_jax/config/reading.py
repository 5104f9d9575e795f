"""Which settings are read: by an algorithm, and as other settings are set."""

import dataclasses
import functools
import operator
from collections.abc import Iterable, Mapping
from typing import Any

from mbpo_jax.config.algorithms import ALGORITHMS, readers, reads
from mbpo_jax.config.estimators import ESTIMATORS, unread_setting
from mbpo_jax.config.run import Config
from mbpo_jax.errors import ConfigError
from mbpo_jax.import_paths import name_problem


def flatten(config: Config) -> dict[str, Any]:
    """Return the values of a configuration by dotted path."""
    return {path: value_of(config) for path, value_of in _paths(Config())}


@functools.cache  # because sweeps ask it of every run
def _paths(config: Any, prefix: str = "") -> tuple[tuple[str, operator.attrgetter], ...]:
    """Return the dotted path of every setting, and what gets its value."""
    found: list[tuple[str, operator.attrgetter]] = []
    for name, value in vars(config).items():
        path = prefix + name
        nested = dataclasses.is_dataclass(value)
        found += _paths(value, f"{path}.") if nested else [(path, operator.attrgetter(path))]
    return tuple(found)


@functools.cache
def defaults() -> Mapping[str, Any]:
    """Return the default of every setting by dotted path."""
    return flatten(Config())


def read_settings(config: Config) -> dict[str, Any]:
    """Return the values of the settings that a run reads, as they are set, by dotted path."""
    algorithm, model = config.algorithm, config.model
    return {
        path: value
        for path, value in flatten(config).items()
        if not (unread(algorithm, model, path) or unread_as_set(config, path))
    }


def unread(algorithm: str, model: str, path: str) -> str | None:
    """Return why an algorithm never reads a setting, and what to do; None where it does.

    What is no algorithm's name or no setting's path is left to other checks.
    """
    if (
        name_problem(algorithm, ALGORITHMS)
        or path not in defaults()
        or reads(algorithm, model, path)
    ):
        return None
    if reads(algorithm, "learned", path):
        return f"{algorithm} does not read it with model={model}; leave it out"
    who = ", ".join(readers(path))
    return f"{algorithm} does not read it; leave it out, or use one that does: {who}"


def refuse_unread(config: Config, asked_for: Iterable[str]) -> None:
    """Refuse settings that were asked for though nothing reads them.

    Args:
      config: all settings.
      asked_for: their dotted paths.

    Raises:
      ConfigError: there are such settings; one problem each.
    """
    algorithm, model = config.algorithm, config.model
    reasons = (
        (path, unread(algorithm, model, path) or unread_as_set(config, path)) for path in asked_for
    )
    problems = [f"{path}: {reason}" for path, reason in reasons if reason]
    if problems:
        raise ConfigError(*problems)


OF_TEMPERATURE = ("sac.initial_alpha", "sac.target_entropy")
_ROUNDS = ("iterations", "smoothing", "initial_std", "min_std")
CHOICES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "fit.stopping": {
        "early": ("bootstrap", "patience", "min_improvement", "min_steps", "max_epochs"),
        "budget": ("num_steps", "cold_factor"),
    },
    "rollout.truncation": {
        "threshold": ("threshold_scale", "threshold_quantile"),
        "ranking": ("uncertainty_penalty",),
        "information": ("step_quantile", "total_quantile"),
    },
    "ensemble.bounds": {"learned": ("bound_penalty",)},
    "expansion.critic": {"mve": ("td_k",)},
    "planner.method": {
        "cem": (*_ROUNDS, "num_elites"),
        "icem": (*_ROUNDS, "num_elites", "noise_exponent", "keep_fraction"),
        "mppi": (*_ROUNDS, "temperature"),
    },
}
"""Settings that are read, in the group of one that chooses, as it has one value or another."""


def chosen_by(path: str) -> tuple[str, list[str]] | None:
    """Return which setting decides whether another one is read, and with which of its values."""
    group, _, name = path.partition(".")
    for choice, read_with in CHOICES.items():
        values = [value for value, names in read_with.items() if name in names]
        if choice.partition(".")[0] == group and values:
            return choice, values
    return None


def unread_as_set(config: Config, path: str) -> str | None:
    """Return why nothing reads a setting that the algorithm may read, as others are set, or None.

    Args:
      config: all settings.
      path: of the one that is asked about.
    """
    group, _, name = path.partition(".")
    found = chosen_by(path)
    if found and config.algorithm in readers(found[0]):  # one of one's own may read all
        choice, values = found
        if (chosen := operator.attrgetter(choice)(config)) not in values:
            return (
                f"it is not read with {choice}={chosen}; leave it out, or set {choice} to "
                f"{' or '.join(values)}"
            )
    if path in OF_TEMPERATURE and config.sac.exploration_noise is not None:
        return "there is no temperature with sac.exploration_noise; leave one of them out"
    tracked = config.track_gradients > 0
    if group == "tracking" and not tracked:
        return "nothing is tracked; set track_gradients, or leave it out"
    if group != "estimator":
        return None
    estimators = list(config.tracking.estimators) if tracked else []
    if config.algorithm == "policy_search":
        gradient = config.policy_search.gradient
        record = ESTIMATORS.get(gradient)
        # Whatever needs a critic has a baseline that regresses to lambda-returns.
        baseline = ["lr_gae"] if record and "critic" in record.needs else []
        estimators += [gradient, *baseline]
    if not estimators:
        return "nothing is tracked; set track_gradients, or leave it out"
    return unread_setting(name, estimators)

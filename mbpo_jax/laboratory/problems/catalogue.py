"""Every problem by the name that the user writes, with its settings."""

import inspect
import math
from collections.abc import Callable

from mbpo_jax.config import PROBLEMS
from mbpo_jax.errors import ConfigError, suggestion
from mbpo_jax.import_paths import load_function, name_problem
from mbpo_jax.laboratory.problems.problem import Problem

POSITIVE = ("width", "stiffness")
"""Settings that have to be above 0."""


def maker_of(name: str) -> Callable[..., Problem]:
    """Return the function that makes a problem.

    Raises:
      ConfigError: there is no such problem.
    """
    if problem := name_problem(name, PROBLEMS):
        raise ConfigError(f"problem: {problem}")
    return load_function(PROBLEMS[name].maker if name in PROBLEMS else name, "problem")


def settings_of(name: str) -> dict[str, float]:
    """Return the settings of a problem and their defaults."""
    return {p.name: p.default for p in inspect.signature(maker_of(name)).parameters.values()}


def make_problem(name: str, **settings: float) -> Problem:
    """Build a problem.

    Args:
      name: one that has a record, or an import path.
      **settings: those that are not to have their defaults.

    Raises:
      ConfigError: if there is no such problem or setting, or a setting cannot have this value.
    """
    known = settings_of(name)
    unknown = [setting for setting in settings if setting not in known]
    if unknown and not known:
        raise ConfigError(f"{name} has no settings; leave out {', '.join(unknown)}")
    if unknown:
        raise ConfigError(
            *(f"{name} has no setting {u!r}; {suggestion(u, known)}" for u in unknown)
        )
    wrong = {
        k: v for k, v in settings.items() if not math.isfinite(v) or (k in POSITIVE and v <= 0.0)
    }
    if wrong:
        needed = "a finite number above 0" if set(wrong) & set(POSITIVE) else "a finite number"
        raise ConfigError(*(f"{k}: {v} cannot be; use {needed}" for k, v in wrong.items()))
    problem = maker_of(name)(**settings)
    if not isinstance(problem, Problem):
        raise ConfigError(
            f"problem: {name} returned {type(problem).__name__} where a "
            "mbpo_jax.laboratory.problems.problem.Problem is needed"
        )
    return problem

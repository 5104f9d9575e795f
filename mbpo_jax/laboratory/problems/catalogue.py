"""Every problem by the name that the user writes, with its settings."""

import inspect
import math
from collections.abc import Callable

from mbpo_jax.errors import ConfigError, suggestion
from mbpo_jax.laboratory.problems import closed_form, systems
from mbpo_jax.laboratory.problems.problem import Problem

MAKERS: dict[str, Callable[..., Problem]] = {
    "quadratic": closed_form.make_quadratic_problem,
    "cosine": closed_form.make_cosine_problem,
    "heaviside": closed_form.make_heaviside_problem,
    "lq": closed_form.make_scalar_lq_problem,
    "lq_noisy": closed_form.make_noisy_scalar_lq_problem,
    "lq_3d": closed_form.make_lq_3d_problem,
    "chaotic_rnn": closed_form.make_chaotic_rnn_problem,
    "pendulum": systems.make_pendulum_problem,
    "cartpole": systems.make_cartpole_problem,
    "double_pendulum": systems.make_double_pendulum_problem,
    "double_pendulum_fall": systems.make_double_pendulum_fall_problem,
    "pushing": systems.make_pushing_problem,
}
"""Each takes its settings, all of them numbers with defaults, by name."""


def settings_of(name: str) -> dict[str, float]:
    """Return the settings of a problem and their defaults."""
    return {p.name: p.default for p in inspect.signature(MAKERS[name]).parameters.values()}


POSITIVE = ("width", "stiffness")
"""Settings that have to be above 0."""


def make_problem(name: str, **settings: float) -> Problem:
    """Build a problem.

    Args:
      name: one of `MAKERS`.
      **settings: those that are not to have their defaults.

    Raises:
      ConfigError: if there is no such problem or setting, or a setting cannot have this value.
    """
    if name not in MAKERS:
        raise ConfigError(f"no problem is called {name!r}; {suggestion(name, MAKERS)}")
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
    return MAKERS[name](**settings)

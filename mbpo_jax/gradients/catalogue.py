"""Every problem by the name that the user writes, with its settings."""

import inspect
import math
from collections.abc import Callable
from typing import NamedTuple

from mbpo_jax.errors import ConfigError, suggestion
from mbpo_jax.gradients import problems, systems
from mbpo_jax.gradients.problem import Problem


class Entry(NamedTuple):
    """A problem that can be made.

    Attributes:
      summary: what it is, in a line.
      make: takes its settings, all of them numbers with defaults, by name.
    """

    summary: str
    make: Callable[..., Problem]

    @property
    def settings(self) -> dict[str, float]:
        """Return the settings and their defaults."""
        return {p.name: p.default for p in inspect.signature(self.make).parameters.values()}


PROBLEMS: dict[str, Entry] = {
    "quadratic": Entry("one step, the square of a normal variable", problems.make_quadratic),
    "cosine": Entry("one step, as good as chaotic at high frequency", problems.make_cosine),
    "heaviside": Entry("one step, as steep as its width is small", problems.make_heaviside),
    "lq": Entry("a scalar linear system with quadratic costs", problems.make_scalar_lq),
    "lq_noisy": Entry("the same with a noisy system", problems.make_noisy_scalar_lq),
    "lq_3d": Entry("a noisy linear system of 3 states and 2 controls", problems.make_lq_3d),
    "chaotic_rnn": Entry(
        "two neurons, chaotic from a gain beta of about 3", problems.make_chaotic_rnn
    ),
    "pendulum": Entry("swing-up under a small network", systems.make_pendulum),
    "cartpole": Entry("swing-up of a pole on a cart, under a network", systems.make_cartpole),
    "double_pendulum": Entry("swing-up of two links under a network", systems.make_double_pendulum),
    "double_pendulum_fall": Entry(
        "chaotic fall of two links from a random state", systems.make_double_pendulum_fall
    ),
    "pushing": Entry("a block pushed through a stiff spring", systems.make_pushing),
}


POSITIVE = ("width", "stiffness")
"""Settings that have to be above 0."""


def make_problem(name: str, **settings: float) -> Problem:
    """Build a problem.

    Args:
      name: one of `PROBLEMS`.
      **settings: those that are not to have their defaults.

    Raises:
      ConfigError: if there is no such problem or setting, or a setting cannot have this value.
    """
    if name not in PROBLEMS:
        raise ConfigError(f"no problem is called {name!r}; {suggestion(name, PROBLEMS)}")
    entry = PROBLEMS[name]
    unknown = [setting for setting in settings if setting not in entry.settings]
    if unknown and not entry.settings:
        raise ConfigError(f"{name} has no settings; leave out {', '.join(unknown)}")
    if unknown:
        raise ConfigError(
            *(f"{name} has no setting {u!r}; {suggestion(u, entry.settings)}" for u in unknown)
        )
    wrong = {
        k: v for k, v in settings.items() if not math.isfinite(v) or (k in POSITIVE and v <= 0.0)
    }
    if wrong:
        needed = "a finite number above 0" if set(wrong) & set(POSITIVE) else "a finite number"
        raise ConfigError(*(f"{k}: {v} cannot be; use {needed}" for k, v in wrong.items()))
    return entry.make(**settings)

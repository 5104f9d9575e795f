"""The compiled programs of a study: some that draw noise, and one for each estimator given noise.

A short study spends most of its time on compiling, and would spend most of that on random numbers,
which all estimators need. So noise is drawn by programs of its own, which are shared, and are not
optimised, as they run once.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from mbpo_jax.compiling import run_once
from mbpo_jax.config import EstimatorConfig
from mbpo_jax.laboratory.estimators.catalogue import (
    draw_batches,
    estimate_batches,
    load_estimator,
)
from mbpo_jax.laboratory.problems.problem import Noise, Problem, draw


class Programs(NamedTuple):
    """What is run of a problem, compiled when it is first needed, and once.

    Attributes:
      problem: what gradients are estimated of.
      settings: of the estimators.
      draw: `(key, name, horizon, batches, batch_size) -> noise [M, B]` of an estimator; estimators
        that draw nothing for themselves share it.
      compiled: `(name, noise [M, B]) -> (noise [M, B] -> estimates [M, P])`, for noise of these
        shapes.
    """

    problem: Problem
    settings: EstimatorConfig
    draw: Callable[[jax.Array, str, int, int, int], Noise]
    compiled: Callable[[str, Noise], Callable[[Noise], jax.Array]]

    def estimates(
        self, key: jax.Array, name: str, horizon: int, batches: int, batch_size: int
    ) -> jax.Array:
        """Return M independent estimates `[M, P]`."""
        noise = self.draw(key, name, horizon, batches, batch_size)
        return self.compiled(name, noise)(noise)


def make_programs(problem: Problem, settings: EstimatorConfig) -> Programs:
    """Return the programs of a problem; none of them is compiled yet."""
    kept: dict[tuple, Callable[[Noise], jax.Array]] = {}
    drawing = run_once(
        lambda key, name, *sizes: draw_batches(key, name, problem, *sizes), static=(1, 2, 3, 4)
    )
    sharing = {}

    def draw(key: jax.Array, name: str, horizon: int, batches: int, batch_size: int) -> Noise:
        own = load_estimator(name).draw
        name = sharing.setdefault(own, name)
        return drawing(key, name, horizon, batches, batch_size)

    def compiled(name: str, noise: Noise) -> Callable[[Noise], jax.Array]:
        which = name, noise.action.shape
        if which not in kept:
            # The noise is an argument, and no constant in the program.
            function = jax.jit(
                lambda noise: estimate_batches(name, settings, problem.params, problem, noise)
            )
            kept[which] = function.lower(noise).compile()
        return kept[which]

    return Programs(problem, settings, draw, compiled)


def trajectories(key: jax.Array, problem: Problem, horizon: int, number: int) -> Noise:
    """Draw the noise of so many trajectories `[N]`."""
    keys = jax.random.split(key, number)
    return run_once(jax.vmap(lambda key: draw(key, problem, horizon)))(keys)

"""Estimators by name: loaded, given what they need, and repeated on independent batches."""

import dataclasses
import functools
import typing

import jax

from mbpo_jax.config import ESTIMATORS, EstimatorConfig
from mbpo_jax.config.estimators import Need
from mbpo_jax.errors import ConfigError, suggestion
from mbpo_jax.import_paths import load_function
from mbpo_jax.laboratory.estimators.estimator import Estimate, Estimator
from mbpo_jax.laboratory.problems.problem import Noise, Problem, draw

MOST_PARAMETERS = 1000
"""For estimators that ask for a pair of trajectories for every parameter."""
MOST_ACTIONS = 64
"""Steps times components of the action, for estimators that ask for trajectories for each."""
ROWS_AT_ONCE = 4096
"""Trajectories that are held in memory side by side, if batches allow it."""


@functools.cache
def load_estimator(name: str) -> Estimator:
    """Return an estimator by its name, or one of one's own by its import path.

    Raises:
      ConfigError: one of one's own cannot be loaded, or is none.
    """
    known = ESTIMATORS.get(name)
    path = known.maker if known else name
    estimator = load_function(path, "estimator")()
    if not isinstance(estimator, Estimator):
        raise ConfigError(
            f"estimator: {path} returned {type(estimator).__name__} where an "
            "mbpo_jax.laboratory.estimators.estimator.Estimator is needed"
        )
    return _own(estimator, path) if known is None else estimator._replace(record=known)


def _own(estimator: Estimator, path: str) -> Estimator:
    """Return an estimator of one's own, whose record and results are looked at.

    Raises:
      ConfigError: its record names what there is not.
    """
    record = dataclasses.replace(estimator.record, maker=path)
    names = {
        "needs": (record.needs, typing.get_args(Need)),
        "uses": (record.uses, [field.name for field in dataclasses.fields(EstimatorConfig)]),
    }
    problems = [
        f"estimator: the record of {path} has {kind}={name!r}; {suggestion(name, allowed)}"
        for kind, (said, allowed) in names.items()
        for name in said
        if name not in allowed
    ]
    if problems:
        raise ConfigError(*problems)

    def estimate(config: EstimatorConfig, params: jax.Array, problem: Problem, noise: Noise):
        found = estimator.estimate(config, params, problem, noise)
        lead = noise.action.shape[:1] if record.over_batches else ()
        shape = getattr(getattr(found, "gradient", None), "shape", None)
        if not isinstance(found, Estimate) or shape != (*lead, *params.shape):
            raise ConfigError(
                f"estimator: {path} estimates {shape or type(found).__name__} where an Estimate "
                f"with a gradient {(*lead, *params.shape)} is needed"
            )
        return found

    return estimator._replace(record=record, estimate=estimate)


def lacking(name: str, problem: Problem, horizon: int, batch_size: int) -> str | None:
    """Return what an estimator needs and does not get, or None."""
    size, actions = problem.params.size, horizon * problem.action_size
    met = {
        "critic": problem.critic is not None,
        "slope of the action value": problem.differentiable_action_value,
        "noisy system": problem.outcome is not None,
        "batch of 2": batch_size >= 2,
        "batch of 4": batch_size >= 4,
        "few parameters": size <= MOST_PARAMETERS,
        "few actions": actions <= MOST_ACTIONS,
        "derivatives": problem.differentiable,
    }
    reasons = {
        "critic": f"a critic, which the problem {problem.name!r} has not",
        "slope of the action value": "an action value that can be differentiated, which "
        f"{problem.name!r} has not",
        "noisy system": f"a system with noise, which the problem {problem.name!r} has not",
        "batch of 2": f"a batch size of 2 or more, not {batch_size}",
        "batch of 4": f"a batch size of 4 or more, not {batch_size}",
        "few parameters": f"at most {MOST_PARAMETERS:,} parameters, not {size:,}",
        "derivatives": f"a system that can be differentiated, which {problem.name!r} is not",
        "few actions": f"at most {MOST_ACTIONS} steps times action components, not {actions}",
    }
    needs = load_estimator(name).record.all_needs
    return "; ".join(reasons[need] for need in needs if not met[need]) or None


def draw_one(key: jax.Array, name: str, problem: Problem, horizon: int) -> Noise:
    """Draw the noise of one trajectory; of the same key, all estimators get the same trajectory."""
    own = load_estimator(name).draw
    key, own_key = jax.random.split(key)
    noise = draw(key, problem, horizon)
    return noise._replace(own=own(own_key, problem, horizon)) if own else noise


def draw_batches(
    key: jax.Array, name: str, problem: Problem, horizon: int, batches: int, batch_size: int
) -> Noise:
    """Draw noise `[M, B]`."""
    keys = jax.random.split(key, (batches, batch_size))
    return jax.vmap(jax.vmap(lambda key: draw_one(key, name, problem, horizon)))(keys)


def estimate_batches(
    name: str, config: EstimatorConfig, params: jax.Array, problem: Problem, noise: Noise
) -> jax.Array:
    """Return the gradient `[M, P]` of each of M batches of noise `[M, B]`."""
    estimator = load_estimator(name)
    if estimator.record.over_batches:
        return estimator.estimate(config, params, problem, noise).gradient
    # Small batches are run side by side, large ones one after the other to save memory.
    together = max(1, ROWS_AT_ONCE // noise.action.shape[1])
    return jax.lax.map(
        lambda noise: estimator.estimate(config, params, problem, noise).gradient,
        noise,
        batch_size=together,
    )

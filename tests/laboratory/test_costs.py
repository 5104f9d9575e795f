"""Counts in closed form, and that counting changes nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.config import ESTIMATORS, EstimatorConfig
from mbpo_jax.laboratory.estimators.catalogue import (
    draw_batches,
    estimate_batches,
    load_estimator,
)
from mbpo_jax.laboratory.measures.costs import Cost, cost, counted, marked
from mbpo_jax.laboratory.problems.catalogue import make_problem
from mbpo_jax.laboratory.problems.problem import Noise, Problem
from tests.choice import mostly_exhaustive

HORIZON, ROWS = 3, 8
CONFIG = EstimatorConfig(window=2)


def estimate(name: str, problem: Problem, noise: Noise) -> jax.Array:
    return estimate_batches(name, CONFIG, problem.params, problem, noise)


def some_noise(name: str, problem: Problem, horizon: int = HORIZON) -> Noise:
    """Return the noise of one estimate."""
    return draw_batches(jax.random.key(0), name, problem, horizon, 1, ROWS)


def counts(name: str, problem: Problem) -> tuple[float, float]:
    """Return evaluations and pullbacks of an estimate per step of its trajectories."""
    noise = jax.eval_shape(lambda: some_noise(name, problem))
    found = cost(lambda noise: estimate(name, counted(problem), noise), noise)
    return found.model_evaluations / (ROWS * HORIZON), found.vjps / (ROWS * HORIZON)


EXPECTED = {
    **dict.fromkeys(
        ["lr", "lr_total", "lr_loo", "lr_to_go", "lr_value", "lr_gae", "lr_advantage", "q"], (1, 0)
    ),
    # The trajectory, and the law of its outcomes once more, now with its slope.
    "lr_state": (2, 1),
    **dict.fromkeys(["rp", "rp_truncated", "rp_clipped", "svg_tiled"], (1, 1)),
    "svg": (2 / 3, 2 / 3),
    "es": (2, 0),
    "fd": (2, 0),
    # The standard deviation is no parameter, so that two trajectories a step do.
    "mvd": (2 * HORIZON + 1, 0),
    **dict.fromkeys(["mix", "ivw", "ivw_split", "ivw_average", "ivw_covariance"], (2, 1)),
    "aobg": (1, 0.5),
    # Both gradients, and slopes of as many pairs of trajectories.
    "ddcg": (4, 3),
    # What a linear step passes back does not depend on where it was.
    "tp": (1, 1),
    "ivw_h": (2, 1),
}


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_calls_of_the_model_in_the_linear_quadratic_problem(name):
    assert counts(name, make_problem("lq_noisy")) == EXPECTED[name]
    assert ESTIMATORS[name].differentiates == (EXPECTED[name][1] > 0)


@pytest.mark.parametrize(
    ("problem", "name", "expected"),
    [
        ("lq", "rp", (1, 1)),
        ("lq_3d", "fd", (2 * 6, 0)),
        ("quadratic", "mvd", (4 * HORIZON, 0)),
        ("quadratic", "rp", (1, 1)),
        ("cartpole", "rp", (1, 1)),
        # Where it is curved, the step is made again, as no slopes were kept.
        ("cartpole", "tp", (2, 1)),
        ("cartpole", "ivw_h", (2, 1)),
    ],
)
def test_calls_of_the_model_elsewhere(problem, name, expected):
    assert counts(name, make_problem(problem)) == expected


@functools.cache
def drawn(problem: str, draws_like: str) -> Noise:
    made = make_problem(problem)
    return jax.jit(lambda: some_noise(draws_like, made))()


def counted_and_plain(name: str, problem_name: str) -> tuple[jax.Array, jax.Array]:
    problem = make_problem(problem_name)
    # Most draw nothing of their own, and can do with one another's noise.
    noise = drawn(problem_name, name if load_estimator(name).draw else "rp")
    both = [jax.jit(lambda n, p=p: estimate(name, p, n)) for p in (counted(problem), problem)]
    return both[0](noise), both[1](noise)


WAYS = ["lr", "es", "mvd", "lr_state", "rp", "rp_truncated", "rp_clipped", "svg", "svg_tiled"]
WAYS += ["ddcg", "tp", "ivw_h"]
"""Those that call or differentiate the model in a way of their own; others are made of them."""


@pytest.mark.parametrize("name", mostly_exhaustive(WAYS, ("lr", "es", "rp", "tp").__contains__))
def test_counting_changes_no_gradient(name):
    np.testing.assert_array_equal(*counted_and_plain(name, "lq_noisy"))


@pytest.mark.slow
def test_counting_changes_no_gradient_of_a_curved_model():
    found, plain = counted_and_plain("rp", "double_pendulum")
    np.testing.assert_allclose(found, plain, rtol=1e-12, atol=1e-15)


def clocked(state: dict[str, jax.Array], action: jax.Array) -> dict[str, jax.Array]:
    """Return the next of a state that holds an integer; its numbers are used for the slopes."""
    x = jnp.sin(state["x"]) * action * state["time"]
    return {"x": x, "time": state["time"] + 1}


@pytest.mark.parametrize("mapped", [jax.vmap, lambda f: lambda x: jax.lax.map(f, x, batch_size=2)])
def test_integers_in_the_state(mapped):
    model = marked(clocked)

    def gradient(model):
        def value(x: jax.Array) -> jax.Array:
            start = {"x": x, "time": jnp.int32(1)}
            end, _ = jax.lax.scan(lambda state, _: (model(state, x), None), start, None, 4)
            return jnp.sum(end["x"])

        return mapped(jax.grad(value))

    x = jnp.linspace(0.1, 2.0, 10).reshape(5, 2)
    np.testing.assert_array_equal(gradient(model)(x), gradient(clocked)(x))
    found = cost(gradient(model), x)
    assert found.model_evaluations == found.vjps == 5 * 4


def test_rows_that_share_a_cotangent_are_counted():
    slopes = jax.vmap(jax.grad(marked(lambda x: 3.0 * x)))
    assert cost(slopes, jnp.ones(7)).vjps == 7


def test_operations():
    a, x = jnp.ones((3, 4)), jnp.ones((4, 5))

    def repeated(a, x):
        return jax.lax.scan(lambda x, _: (jnp.eye(4, 3) @ (a @ x), None), x, None, 6)[0]

    # Numbers other than floating-point ones, which make the unit matrix, are free.
    assert cost(repeated, a, x) == Cost(flops=6 * 2 * (2 * 3 * 4 * 5))
    assert cost(lambda x: jnp.sum(jnp.exp(x.T)), x).flops == 20 + 20
    assert cost(lambda x: (a @ x, jnp.exp(x))[1], x).flops == 20
    assert cost(lambda x: x.at[0].add(x[1]), x).flops == 5
    assert cost(lambda i: i * i + 1, jnp.arange(5)).flops == 0


def test_branches_and_loops():
    def branch(x):
        return jax.lax.cond(x[0] > 0.0, lambda x: jnp.exp(x), lambda x: jnp.exp(jnp.exp(x)), x)

    assert cost(branch, jnp.ones(5)).flops == 1 + 10

    def halve(x):
        return jax.lax.while_loop(lambda x: x > 1.0, lambda x: 0.5 * x, x)

    assert cost(halve, jnp.float64(3.0)).flops == 1 + 1
    rematerialised = jax.grad(lambda x: jax.checkpoint(lambda x: jnp.sin(jnp.sin(x)))(x))
    assert cost(rematerialised, jnp.float64(3.0)).flops > cost(jnp.sin, jnp.float64(3.0)).flops

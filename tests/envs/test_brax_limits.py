"""Forces of joint limits: against least squares by SciPy, and against Brax's own steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from scipy.optimize import nnls

from mbpo_jax.envs.brax import load
from mbpo_jax.envs.brax_limits import nonnegative_least_squares

pytestmark = pytest.mark.brax

FEW_CONSTRAINTS = ("inverted_pendulum", "inverted_double_pendulum", "reacher")


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_least_squares_are_those_of_scipy(size):
    """Of positive definite systems, of which every third constraint is not there."""
    random = np.random.default_rng(size)
    roots = random.normal(size=(200, size, size))
    matrices = roots @ roots.swapaxes(1, 2) + 0.1 * np.eye(size)
    there = random.random((200, size)) > 1 / 3
    matrices *= there[:, :, None] & there[:, None, :]
    offsets = random.normal(size=(200, size)) * there
    found = jax.jit(jax.vmap(nonnegative_least_squares))(
        matrices.astype(np.float32), offsets.astype(np.float32)
    )
    pushing = np.zeros(size + 1, int)
    for matrix, offset, own in zip(matrices, offsets, found, strict=True):
        expected, residual = nnls(matrix, -offset)
        pushing[np.count_nonzero(expected)] += 1
        assert np.all(own >= 0)
        assert np.linalg.norm(matrix @ np.asarray(own, np.float64) + offset) <= residual + 1e-3
        np.testing.assert_allclose(own, expected, rtol=1e-2, atol=1e-3)
    assert np.all(pushing > 0)


def test_the_derivative_is_that_of_the_solution():
    """One constraint's force is `-b / a` while it pushes, and 0 where it would pull."""
    slopes = jax.grad(lambda a, b: nonnegative_least_squares(a[None, None], b[None])[0], (0, 1))
    a, b = jnp.float32(2.0), jnp.float32(-3.0)
    np.testing.assert_allclose(slopes(a, b), (-3.0 / 4, -1 / 2), rtol=1e-6)
    assert slopes(a, -b) == (0.0, 0.0)
    assert slopes(jnp.float32(0.0), jnp.float32(0.0)) == (0.0, 0.0)


def test_two_constraints_that_touch_share_the_load():
    """By hand: alone the first would push with 2; the second, which it drives, takes part of it."""
    matrix, offset = jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.array([-4.0, -3.5])
    np.testing.assert_allclose(nonnegative_least_squares(matrix, offset), (1.5, 1.0), rtol=1e-5)
    away = jnp.array([-4.0, -0.5])  # the second would have to pull: both rows are fitted by one
    np.testing.assert_allclose(nonnegative_least_squares(matrix, away), (8.5 / 5, 0.0), rtol=1e-5)


def brax_pipeline():
    from brax.generalized import pipeline

    return pipeline


def some_states(simulator, beyond, size=64):
    """Return positions and velocities `[B, V]` and controls `[B, A]`.

    Args:
      simulator: whose they are.
      beyond: whether the first joint that has a limit is past it, or none. (Of the target of
        `reacher`, which never moves, Brax's descent finds a third of the force, or none.)
      size: number of rows.
    """
    random = np.random.default_rng(0)
    joints = simulator.sys.qd_size()
    positions = random.uniform(-0.2, 0.2, (size, joints))
    if beyond:
        limits = np.asarray(simulator.sys.dof.limit[1])
        joint = np.flatnonzero(np.isfinite(limits))[0]
        side = random.choice([-1, 1], size)
        positions[:, joint] = side * (limits[joint] + random.uniform(0, 0.05, size))
    velocities = random.uniform(-1, 1, (size, joints))
    controls = random.uniform(-1, 1, (size, simulator.action_size))
    return [jnp.asarray(array, jnp.float32) for array in (positions, velocities, controls)]


def moved(simulator, pipeline):
    """Return a function that makes one step of rows of states, and gives velocities `[B, V]`."""

    def step(positions, velocities, controls):
        state = pipeline.init(simulator.sys, positions, velocities)
        return pipeline.step(simulator.sys, state, controls).qd

    return jax.jit(jax.vmap(step))


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW_CONSTRAINTS)
def test_steps_are_those_of_brax(name):
    """To rounding while no limit is violated, and to a thousandth of what it does where one is."""
    simulator = load(name, "generalized")
    own, theirs = moved(simulator, simulator._pipeline), moved(simulator, brax_pipeline())
    within = some_states(simulator, beyond=False)
    np.testing.assert_allclose(own(*within), theirs(*within), rtol=1e-6, atol=1e-6)
    beyond = some_states(simulator, beyond=True)
    expected = theirs(*beyond)
    pushed = np.max(np.abs(expected - beyond[1]))
    assert pushed > 0.1
    np.testing.assert_allclose(own(*beyond), expected, atol=1e-3 * pushed)


def loops(jaxpr):
    """Yield the lengths of the loops of a program, and infinity for those without."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("scan", "while"):
            yield equation.params.get("length", np.inf)
        for inner in jaxprs_in_params(equation.params):
            yield from loops(inner)


def program(simulator):
    """Return what one step of a simulator is traced to."""
    state = jax.eval_shape(simulator.reset, jax.random.key_data(jax.random.key(0)))
    action = jax.ShapeDtypeStruct((simulator.action_size,), jnp.float32)
    return jax.make_jaxpr(simulator.step)(state, action).jaxpr


def longest_loop(simulator):
    return max(loops(program(simulator)))


@pytest.mark.parametrize("name", FEW_CONSTRAINTS)
def test_few_constraints_need_no_turns(name):
    simulator = load(name, "generalized")
    assert longest_loop(simulator) <= simulator.sys.matrix_inv_iterations
    simulator._pipeline = brax_pipeline()
    assert longest_loop(simulator) == simulator.sys.solver_iterations - 1


def test_a_registered_environment_keeps_its_physics(monkeypatch):
    """Under a name of its own, and under that of a task of Brax's."""
    load("reacher", "generalized")
    from brax import envs

    class Mine(envs.inverted_pendulum.InvertedPendulum):
        """Registered from here, so it is not Brax's own."""

    for name in ("mine", "inverted_pendulum"):
        monkeypatch.setitem(envs._envs, name, Mine)
        assert load(name, "generalized")._pipeline is brax_pipeline()


@pytest.mark.slow
def test_many_constraints_are_solved_for_by_brax():
    simulator = load("hopper", "generalized")
    with_ours = str(program(simulator))
    simulator._pipeline = brax_pipeline()
    assert str(program(simulator)) == with_ours

"""Problems made of a run: its policy in its ensemble and in the true system."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.config import EstimatorConfig
from mbpo_jax.envs import make_env
from mbpo_jax.laboratory.estimators.catalogue import draw_batches, estimate_batches
from mbpo_jax.laboratory.measures.stability import jacobians, stability
from mbpo_jax.laboratory.problems import trained
from mbpo_jax.laboratory.problems.problem import draw, roll_out
from mbpo_jax.presets import environment_preset


@pytest.fixture(autouse=True)
def _double_precision():
    """Stay in the precision in which runs are trained."""
    with jax.enable_x64(False):
        yield


CONFIG = environment_preset("pendulum", "debug")
ENV = make_env(CONFIG.env)


@functools.cache
def untrained():
    """Return algorithm, agent, model, and states that the policy visits."""
    algorithm = make_algorithm(ENV, CONFIG)
    assert algorithm.model is not None
    agent = algorithm.agent.init(jax.random.key(0))
    model = algorithm.model.init(jax.random.key(1))
    points = trained.visited(jax.random.key(2), ENV, CONFIG, agent, 64)
    return algorithm, agent, model, points


@functools.cache
def problems():
    _, agent, model, points = untrained()
    return {
        "learned": trained.make_learned_problem(ENV, CONFIG, agent, model, points),
        "true": trained.make_true_problem(ENV, CONFIG, agent, points),
    }


def test_a_step_of_the_true_problem_is_one_of_the_environment():
    problem = problems()["true"]
    state = problem.start(jax.random.key(0))
    action = jnp.array([0.3])
    after = jax.jit(problem.advance)(state, action, jnp.zeros(0))
    found = state.simulator
    speed = found[1] + 0.05 * (15.0 * jnp.sin(found[0]) + 6.0 * 0.3)
    np.testing.assert_allclose(after.simulator[1], jnp.clip(speed, -8.0, 8.0), rtol=1e-5)
    paid = -(((found[0] + jnp.pi) % (2 * jnp.pi) - jnp.pi) ** 2) - 0.1 * found[1] ** 2
    np.testing.assert_allclose(after.paid, paid - 0.001 * 0.36, rtol=1e-4)


def test_the_learned_problem_predicts_as_one_member_of_the_model_does():
    algorithm, agent, model, points = untrained()
    problem = trained.make_learned_problem(ENV, CONFIG, agent, model, points)
    state = problem.start(jax.random.key(3))
    assert problem.outcome is not None
    law = problem.outcome(state, jnp.array([0.2]))
    elites = algorithm.model.ready(model)
    num = algorithm.model.num_members
    rows = algorithm.model.start(jnp.tile(state.observation, (num, 1)), ())
    actions = jnp.full((num, 1), 0.2)
    after, prediction = algorithm.model.step(jax.random.key(0), elites, rows, actions, "members")
    member = int(state.member)
    np.testing.assert_allclose(law.mean[0], prediction.reward[member], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(law.mean[1:], after.observation[member], rtol=1e-4, atol=1e-5)
    assert np.all(np.asarray(law.std) > 0.0)


@pytest.mark.parametrize("name", ["learned", "true"])
def test_nothing_is_paid_after_a_termination(name):
    problem = problems()[name]
    state = problem.start(jax.random.key(0))._replace(alive=jnp.bool_(False))
    after = problem.advance(state, jnp.zeros(1), jnp.zeros(problem.outcome_size))
    assert problem.reward(state, jnp.zeros(1), after) == 0.0
    assert problem.terminal(after) == 0.0
    assert not after.alive


def test_both_problems_start_in_the_same_states_under_the_same_key():
    found = problems()
    noise = {n: draw(jax.random.key(7), p, 3) for n, p in found.items()}
    np.testing.assert_array_equal(
        noise["learned"].start.observation, noise["true"].start.observation
    )
    np.testing.assert_array_equal(noise["learned"].action, noise["true"].action)


@pytest.mark.parametrize("system", ["learned", "true"])
def test_pathwise_gradients_and_likelihood_ratios_agree(system):
    """The critic's terminal value is part of the return, so it bounds what a state is worth."""
    problem = problems()[system]
    settings = EstimatorConfig()
    found = {}
    for name in ("rp", "lr_value"):
        noise = draw_batches(jax.random.key(5), name, problem, 2, 64, 64)
        found[name] = np.asarray(
            jax.jit(
                lambda noise, name=name: estimate_batches(
                    name, settings, problem.params, problem, noise
                )
            )(noise),
            np.float64,
        )
    # Along the direction of the pathwise mean, so that one number is compared.
    direction = found["rp"].mean(axis=0)
    along = {name: rows @ direction / np.linalg.norm(direction) for name, rows in found.items()}
    error = np.sqrt(sum(x.var(ddof=1) / len(x) for x in along.values()))
    assert abs(along["rp"].mean() - along["lr_value"].mean()) < 4.0 * error


def test_rollouts_are_finite():
    for problem in problems().values():
        made = jax.jit(lambda key, p=problem: roll_out(p.params, p, draw(key, p, 5)))(
            jax.random.key(0)
        )
        assert np.all(np.isfinite(np.asarray(made.reward)))


def test_the_jacobians_of_the_learned_system_are_those_of_its_observations():
    problem = problems()["learned"]

    @jax.jit
    def of_one_trajectory(key: jax.Array):
        noise = jax.tree.map(lambda x: x[None], draw(key, problem, 4))
        return stability(problem.params, problem, noise)

    found = of_one_trajectory(jax.random.key(0))
    size = ENV.spec.observation_size
    each = jax.eval_shape(
        lambda key: jacobians(problem.params, problem, draw(key, problem, 4)), jax.random.key(0)
    )
    assert each.shape == (4, size, size)
    assert np.all(np.asarray(found.smallest) > 0.0)

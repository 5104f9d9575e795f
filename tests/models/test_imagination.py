"""Imagined rollouts of linear systems, and the gradients through them, in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.models.imagination import cut_gradient, imagine, limit_cotangent
from mbpo_jax.types import Point
from tests.probe_environments import linear_dynamics, linear_model

HORIZON = 6
START = np.array([[0.7], [-1.5], [0.2], [1.0]])

# The scalar system x' = DRIFT x + PUSH a, r = STATE x + ACTION a, driven by a = k x.
DRIFT, PUSH, STATE, ACTION = 0.9, 0.5, 1.5, -0.4


def roll_out(key, model, start, act, horizon, propagation="step", **options):
    dynamics, view = model
    point = Point(jnp.asarray(start, jnp.float32))
    return imagine(
        key, dynamics, view, point, act, horizon=horizon, propagation=propagation, **options
    )


def scalar_model():
    """Return three members that agree, so that all propagations are the same."""
    weight = [[STATE, ACTION], [DRIFT, PUSH]]
    return linear_dynamics(linear_model(weight, [[0.0, 0.0]] * 3, 0.0)[1])


def test_a_mistyped_propagation_is_refused(key):
    with pytest.raises(ValueError, match="'trajectry'; use one of: step, trajectory"):
        roll_out(key, scalar_model(), START, lambda key, x: (x, ()), HORIZON, "trajectry")


@pytest.mark.parametrize("propagation", ["step", "trajectory", "mean"])
def test_steps_are_those_of_hand_iterated_dynamics(key, propagation):
    dynamics, control = np.array([[0.9, 0.2], [-0.1, 0.8]]), np.array([[0.5], [0.2]])
    gain, cost = np.array([[0.3, -0.4]]), np.array([1.0, -1.0, 0.5])
    weight = np.vstack([cost, np.hstack([dynamics, control])])
    bias = [[2.0, 0.1, -0.3]] * 3
    state = linear_model(weight, bias, 0.0)[1]
    model = linear_dynamics(state, lambda x: x[..., 0] > 0.8)

    def act(key, observation):
        return -observation @ jnp.asarray(gain.T, jnp.float32), {"sum": jnp.sum(observation, -1)}

    start = np.array([[0.7, -0.3], [-1.0, 0.4], [0.6, 1.0], [0.0, 0.0]])
    steps, end = jax.jit(lambda key: roll_out(key, model, start, act, HORIZON, propagation))(key)
    x, alive = start, np.full(4, True)
    for t in range(HORIZON):
        action = -x @ gain.T
        following = x @ dynamics.T + action @ control.T + [0.1, -0.3]
        reward = np.hstack([x, action]) @ cost + 2.0
        np.testing.assert_allclose(steps.observation[t], x, atol=1e-5)
        np.testing.assert_allclose(steps.action[t], action, atol=1e-5)
        np.testing.assert_allclose(steps.aside["sum"][t], x.sum(axis=1), atol=1e-5)
        # Also after a termination: whoever sums rewards multiplies by the discounts.
        np.testing.assert_allclose(steps.reward[t], reward, atol=1e-5)
        alive = alive & (following[:, 0] <= 0.8)
        np.testing.assert_array_equal(steps.discount[t], alive)
        x = np.where(alive[:, None], following, x)
    assert 0 < alive.sum() < 4
    np.testing.assert_allclose(end.observation, x, atol=1e-5)


def test_without_steps_a_rollout_ends_where_it_starts(key):
    def act(key, observation):
        return observation, jnp.sum(observation, axis=-1)

    steps, end = roll_out(key, scalar_model(), START, act, 0)
    np.testing.assert_array_equal(end.observation, np.float32(START))
    shapes = [x.shape for x in jax.tree.leaves(steps)]
    assert shapes == [(0, 4, 1), (0, 4, 1), (0, 4), (0, 4), (0, 4)]


def test_actor_and_model_draw_afresh_at_every_step(key):
    state = linear_model([[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0]] * 2, 1.0)[1]

    def act(key, observation):
        return jax.random.normal(key, observation.shape), ()

    model = linear_dynamics(state)
    steps, end = jax.jit(lambda key: roll_out(key, model, START, act, HORIZON))(key)
    draws = [steps.action, steps.reward, steps.observation[1:], end.observation]
    assert np.unique(np.concatenate([np.ravel(x) for x in draws])).size == 3 * 4 * HORIZON


# Gradients


def sum_of_rewards(key, gain, weight=None, **options):
    """Return the rewards of all rows, summed with a weight for each."""

    def act(key, observation):
        return gain * observation, ()

    steps, _ = roll_out(key, scalar_model(), START, act, HORIZON, **options)
    return jnp.sum(steps.reward if weight is None else steps.reward * weight[None])


def slope(key, gain, **options) -> float:
    return float(jax.jit(jax.grad(lambda k: sum_of_rewards(key, k, **options)))(gain))


def exact_slope(gain: float, truncation: int) -> float:
    """Differentiate `sum_t (STATE + ACTION k) x_t` with respect to k.

    `x_t = f^(t - s) x_s` with `f = DRIFT + PUSH k`, where x_s, at the latest cut, is a number.
    """
    factor, pay = DRIFT + PUSH * gain, STATE + ACTION * gain
    x = np.array([factor**t * START.sum() for t in range(HORIZON)])
    total = 0.0
    for t in range(HORIZON):
        since = t % truncation
        total += ACTION * x[t]
        if since:
            total += pay * since * PUSH * factor ** (since - 1) * x[t - since]
    return total


@pytest.mark.parametrize("propagation", ["step", "trajectory", "mean"])
def test_the_gradient_equals_the_closed_form(key, propagation):
    expected = exact_slope(-0.6, HORIZON)
    assert slope(key, -0.6, propagation=propagation) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("truncation", [1, 2, 4, 5, HORIZON, 100])
def test_a_truncated_gradient_forgets_what_led_to_the_latest_cut(key, truncation):
    expected = exact_slope(-0.6, truncation)
    assert slope(key, -0.6, truncation=truncation) == pytest.approx(expected, rel=1e-5)


def test_with_a_cut_at_every_step_only_the_direct_term_is_left(key):
    """An action then counts for its own reward alone: the sum of ACTION x_t."""
    x = START.sum() * (DRIFT + PUSH * -0.6) ** np.arange(HORIZON)
    assert slope(key, -0.6, truncation=1) == pytest.approx(ACTION * x.sum(), rel=1e-5)


def limited_slope(gain: float, weight: np.ndarray, bound: float) -> float:
    """Backpropagate row by row and cut every gradient of a state to the bound."""
    factor, pay = DRIFT + PUSH * gain, STATE + ACTION * gain
    total = 0.0
    for start, w in zip(START[:, 0], weight, strict=True):
        passed = 0.0
        for t in reversed(range(HORIZON)):
            total += factor**t * start * (ACTION * w + PUSH * passed)
            passed = np.clip(pay * w + factor * passed, -bound, bound)
    return total


@pytest.mark.parametrize("bound", [0.3, 2.0, 1e6])
def test_limited_gradients_equal_backpropagation_by_hand(key, bound):
    """Rows are limited one by one: their gradients are as different as their weights."""
    weight = np.array([1.0, -0.1, 5.0, 0.4])
    actual = slope(key, -0.6, weight=jnp.float32(weight), max_cotangent_norm=bound)
    assert actual == pytest.approx(limited_slope(-0.6, weight, bound), rel=1e-5)
    unlimited = limited_slope(-0.6, weight, np.inf)
    assert (abs(actual - unlimited) < 1e-4 * abs(unlimited)) == (bound == 1e6)


def test_limits_and_cuts_change_no_number_of_the_rollout(key):
    def act(key, observation):
        return -0.6 * observation, ()

    def run(**options):
        return roll_out(jax.random.clone(key), scalar_model(), START, act, HORIZON, **options)

    jax.tree.map(
        np.testing.assert_array_equal,
        jax.jit(lambda: run())(),
        jax.jit(lambda: run(max_cotangent_norm=1e-3, truncation=2))(),
    )


# The operators alone


def random_tree(rng: np.random.Generator, num_rows: int):
    """Return leaves `[B, ...]` of several ranks, one of them of whole numbers."""
    shapes = {"x": (2,), "y": (3, 2), "z": ()}
    tree = {
        name: jnp.float32(rng.normal(size=(num_rows, *shape))) for name, shape in shapes.items()
    }
    return tree | {"n": jnp.arange(num_rows), "b": jnp.arange(num_rows) > 1}


def row_norms(tree) -> np.ndarray:
    parts = [np.asarray(tree[name]) for name in "xyz"]
    return np.sqrt(sum(np.sum(np.square(x.reshape(len(x), -1)), axis=1) for x in parts))


def pull_back(fn, tree, cotangent):
    """Return the gradient of `sum(cotangent * fn(tree))` with respect to the floats of a tree."""

    def total(floats):
        made = fn(tree | floats)
        jax.tree.map(
            np.testing.assert_array_equal,
            jax.tree.map(jnp.shape, made),
            jax.tree.map(jnp.shape, tree),
        )
        return sum(jnp.sum(cotangent[name] * made[name]) for name in "xyz")

    return jax.grad(total)({name: tree[name] for name in "xyz"})


def test_gradients_are_scaled_to_the_bound_over_all_leaves_of_a_row():
    rng = np.random.default_rng(0)
    tree, cotangent = random_tree(rng, 5), random_tree(rng, 5)
    size = np.array([0.1, 0.5, 1.0, 2.0, 100.0])
    factor = jnp.float32(size / row_norms(cotangent))
    for name in "xyz":
        x = cotangent[name]
        cotangent[name] = x * jnp.expand_dims(factor, tuple(range(1, x.ndim)))
    bound = 0.7
    same = limit_cotangent(tree, bound)
    jax.tree.map(np.testing.assert_array_equal, same, tree)
    limited = jax.jit(
        lambda bound: pull_back(lambda x: limit_cotangent(x, bound), tree, cotangent)
    )(bound)
    np.testing.assert_allclose(row_norms(limited), np.minimum(size, bound), rtol=1e-5)
    for name in "xyz":
        scale = np.minimum(1.0, bound / size).reshape(-1, *[1] * (cotangent[name].ndim - 1))
        np.testing.assert_allclose(limited[name], scale * cotangent[name], rtol=1e-5)
        np.testing.assert_array_equal(limited[name][:2], cotangent[name][:2])


def test_limits_differ_between_mapped_runs_and_no_gradient_stays_none():
    tree = {"x": jnp.ones((3, 2))}
    cotangent = jnp.array([[3.0, 4.0], [0.0, 0.0], [0.3, 0.4]])

    def slopes(bound):
        return jax.grad(lambda x: jnp.sum(cotangent * limit_cotangent(x, bound)["x"]))(tree)["x"]

    limited = jax.vmap(slopes)(jnp.array([1.0, 0.1]))
    expected = [[[0.6, 0.8], [0.0, 0.0], [0.3, 0.4]], [[0.06, 0.08], [0.0, 0.0], [0.06, 0.08]]]
    np.testing.assert_allclose(limited, expected, rtol=1e-6)


@pytest.mark.parametrize("cut", [True, False])
def test_a_cut_passes_numbers_but_no_gradient(cut):
    rng = np.random.default_rng(0)
    tree, cotangent = random_tree(rng, 3), random_tree(rng, 3)
    same = cut_gradient(tree, jnp.bool_(cut))
    jax.tree.map(np.testing.assert_array_equal, same, tree)
    passed = jax.jit(lambda cut: pull_back(lambda x: cut_gradient(x, cut), tree, cotangent))(cut)
    for name in "xyz":
        np.testing.assert_array_equal(passed[name], np.where(cut, 0.0, cotangent[name]))


def test_whole_numbers_may_be_all_there_is():
    """A simulator's counters have no gradient, with a limit or without."""

    def total(scale):
        point = limit_cotangent({"n": jnp.arange(3)}, 1.0)
        return scale * jnp.sum(point["n"])

    assert jax.grad(total)(2.0) == 3.0

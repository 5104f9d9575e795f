"""Targets against hand-computed sequences, limits of each other, and fixed points."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.agents import targets


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def sequence(generator, length=5, batch=(4, 3)):
    """Return reward, discount and value `[T, ...]`, and a term between transitions."""
    reward, value = generator.normal(size=(2, length, *batch)).astype(np.float32)
    discount = generator.integers(0, 4, size=(length, *batch)).clip(0, 1).astype(np.float32)
    between = generator.normal(size=(length - 1, *batch)).astype(np.float32)
    return reward, discount, value, between


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_td0_is_reward_plus_discounted_value_of_the_successor(generator, gamma):
    reward, discount, value, _ = sequence(generator)
    target = targets.td0(jnp.asarray(reward), jnp.asarray(discount), jnp.asarray(value), gamma)
    expected = np.where(discount == 0, reward, reward + gamma * value)
    np.testing.assert_allclose(target, expected, rtol=1e-6)


@pytest.mark.parametrize("shapes", [((3,), (3,), (3, 1)), ((3,), (), (3,)), ((1,), (3,), (3,))])
def test_shapes_that_would_broadcast_are_refused(shapes):
    with pytest.raises(AssertionError):
        targets.td0(*(jnp.ones(shape) for shape in shapes), 0.9)


@pytest.mark.parametrize("function", [targets.lambda_return, targets.retrace])
@pytest.mark.parametrize("shape", [(4, 2), (3, 1), (3,)])
def test_a_term_between_transitions_of_another_shape_is_refused(function, shape):
    rows, term = (jnp.ones((4, 2)),) * 3, jnp.ones(shape)
    with pytest.raises(AssertionError):
        if function is targets.lambda_return:
            function(*rows, term, 0.9, 0.5)
        else:
            function(*rows, term, term, 0.9)


# Returns and their reductions.


def expansion(reward, discount, value, bonus, gamma, start, stop):
    """Return the sum of a value expansion of rows `start` to `stop - 1`, in plain NumPy."""
    total, weight = np.zeros(reward.shape[1:]), np.ones(reward.shape[1:])
    for t in range(start, stop):
        total = total + weight * reward[t]
        weight = weight * gamma * discount[t]
        total = total + weight * (value[t] if t == stop - 1 else bonus[t])
    return total


def test_with_decay_one_every_target_is_the_expansion_to_the_end(generator):
    """The TD-k trick: one pass gives the expansions of all depths (arXiv:1803.00101)."""
    rows = sequence(generator)
    target = targets.lambda_return(*map(jnp.asarray, rows), 0.9, 1.0)
    expected = [expansion(*rows, 0.9, t, 5) for t in range(5)]
    np.testing.assert_allclose(target, expected, rtol=1e-5, atol=1e-6)


def test_decay_that_stops_after_h_rows_gives_the_expansion_by_h_steps(generator):
    reward, discount, value, bonus = map(jnp.asarray, sequence(generator))
    for h in range(1, 6):
        decay = jnp.broadcast_to((jnp.arange(4) < h - 1)[:, None, None], bonus.shape) * 1.0
        stopped = targets.lambda_return(reward, discount, value, bonus, 0.9, decay)[0]
        shorter = targets.lambda_return(
            reward[:h], discount[:h], value[:h], bonus[: h - 1], 0.9, 1.0
        )
        np.testing.assert_allclose(stopped, shorter[0], rtol=1e-5, atol=1e-6)


def test_the_lambda_return_is_the_geometric_mixture_of_expansions(generator):
    rows, decay = sequence(generator), 0.7
    depths = [expansion(*rows, 0.9, 0, stop) for stop in range(1, 6)]
    shares = [(1 - decay) * decay**i for i in range(4)] + [decay**4]
    expected = sum(share * depth for share, depth in zip(shares, depths, strict=True))
    target = targets.lambda_return(*map(jnp.asarray, rows), 0.9, decay)
    np.testing.assert_allclose(target[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("length", [1, 5])
def test_without_decay_or_trace_every_target_is_td0(generator, length):
    *rows, between = map(jnp.asarray, sequence(generator, length))
    expected = targets.td0(*rows, 0.9)
    none = jnp.zeros_like(between)
    returns = targets.lambda_return(*rows, between, 0.9, 0.0)
    np.testing.assert_allclose(returns, expected, rtol=1e-5, atol=1e-6)
    returns = targets.retrace(*rows, between, none, 0.9)
    np.testing.assert_allclose(returns, expected, rtol=1e-5, atol=1e-6)


def test_one_transition_is_td0_for_any_decay(generator):
    *rows, between = map(jnp.asarray, sequence(generator, 1))
    expected = targets.td0(*rows, 0.9)
    np.testing.assert_array_equal(targets.lambda_return(*rows, between, 0.9, 1.0), expected)
    np.testing.assert_array_equal(targets.retrace(*rows, between, between, 0.9), expected)


@pytest.mark.parametrize("decay", [0.3, 1.0])
def test_retrace_with_values_for_its_action_values_is_the_lambda_return(generator, decay):
    """Where `Q(s, a) = V(s) - b`, a trace of c is a decay of c; with c = 1, all are expansions."""
    *rows, bonus = map(jnp.asarray, sequence(generator))
    trace, next_q = jnp.full_like(bonus, decay), rows[2][:-1] - bonus
    np.testing.assert_allclose(
        targets.retrace(*rows, next_q, trace, 0.9),
        targets.lambda_return(*rows, bonus, 0.9, decay),
        rtol=1e-5,
        atol=1e-6,
    )


REWARD = jnp.array([1.0, 2.0, 3.0, 4.0])
TERMINATED_SECOND = jnp.array([1.0, 0.0, 1.0, 1.0])
VALUE = jnp.array([10.0, 20.0, 30.0, 40.0])
# The second transition ends its episode; a time limit, after which values go on, ends the third.
CONNECTED = jnp.array([1.0, 0.0, 0.0])


@pytest.mark.parametrize(("decay", "first"), [(1.0, 3.0), (0.5, 4.5), (0.0, 6.0)])
def test_returns_over_a_termination_and_a_time_limit(decay, first):
    """By hand: G_3 = 4 + 40/2, G_2 = 3 + 30/2, G_1 = 2, G_0 = 1 + [(1-c) 10 + c (2 + 2)]/2."""
    bonus = jnp.array([2.0, 4.0, 6.0])
    target = targets.lambda_return(REWARD, TERMINATED_SECOND, VALUE, bonus, 0.5, decay * CONNECTED)
    np.testing.assert_array_equal(target, [first, 2.0, 18.0, 24.0])


@pytest.mark.parametrize(("trace", "first"), [(1.0, 4.0), (0.5, 5.0), (0.0, 6.0)])
def test_retrace_over_a_termination_and_a_time_limit(trace, first):
    """By hand: G_0 = 1 + [10 + c (2 - 6)]/2, the others as for returns."""
    next_q = jnp.array([6.0, 7.0, 8.0])
    target = targets.retrace(REWARD, TERMINATED_SECOND, VALUE, next_q, trace * CONNECTED, 0.5)
    np.testing.assert_array_equal(target, [first, 2.0, 18.0, 24.0])


def test_a_termination_cuts_a_return_even_if_its_trace_goes_on():
    rows = REWARD, TERMINATED_SECOND, VALUE
    target = targets.lambda_return(*rows, jnp.zeros(3), 0.5, 1.0)
    np.testing.assert_array_equal(target[:2], [2.0, 2.0])


def test_trace_coefficients_are_truncated_importance_weights():
    log_ratio = jnp.log(jnp.array([0.25, 1.0, 4.0]))
    behaviour = jnp.array([-3.0, 0.5, 200.0])
    coefficient = targets.retrace_coefficient(behaviour + log_ratio, behaviour, 0.5)
    np.testing.assert_allclose(coefficient, [0.125, 0.5, 0.5], rtol=1e-4)
    connected = jnp.array([0.0, 0.5, 1.0])
    coefficient = targets.retrace_coefficient(behaviour + log_ratio, behaviour, connected)
    np.testing.assert_allclose(coefficient, [0.0, 0.5, 1.0], rtol=1e-4)


# Fixed points: with the exact critic, the expected target is the critic.

GAMMA, ALPHA = 0.8, 0.3
MOVES = np.array([[[0.7, 0.3], [0.2, 0.8]], [[0.5, 0.5], [0.9, 0.1]]])
REWARDS = np.array([[1.0, -0.5], [0.3, 2.0]])
# Moving from state 1 by action 1 ends the episode.
DISCOUNTS = np.array([[1.0, 1.0], [1.0, 0.0]])
TARGET_POLICY = np.array([[0.6, 0.4], [0.1, 0.9]])
BEHAVIOUR = np.array([[0.3, 0.7], [0.5, 0.5]])


def soft_fixed_point():
    """Return Q and V, solving `Q = r + gamma d P V`, `V = E_pi[Q - alpha log pi]`."""
    value, entropy = np.zeros(2), -np.sum(TARGET_POLICY * np.log(TARGET_POLICY), axis=1)
    for _ in range(300):
        q = REWARDS + GAMMA * DISCOUNTS * (MOVES @ value)
        value = np.sum(TARGET_POLICY * q, axis=1) + ALPHA * entropy
    return q, value


def all_paths(policy, length=3):
    """Return states `[T + 1, n]`, actions `[T, n]` and probabilities of all paths from (0, 0)."""
    choices = itertools.product([0, 1], repeat=2 * length - 1)
    states, actions, probabilities = [], [], []
    for choice in choices:
        state, action = [0, *choice[:length]], [0, *choice[length:]]
        steps = [MOVES[state[t], action[t], state[t + 1]] for t in range(length)]
        draws = [policy[state[t], action[t]] for t in range(1, length)]
        states.append(state)
        actions.append(action)
        probabilities.append(np.prod(steps + draws))
    return np.array(states).T, np.array(actions).T, np.array(probabilities)


def rows_of(states, actions, value):
    arrays = REWARDS[states[:-1], actions], DISCOUNTS[states[:-1], actions], value[states[1:]]
    return [jnp.asarray(array, jnp.float32) for array in arrays]


@pytest.mark.parametrize("decay", [0.0, 0.6, 1.0])
def test_expected_retrace_targets_of_foreign_paths_are_the_critic(decay):
    q, value = soft_fixed_point()
    states, actions, probability = all_paths(BEHAVIOUR)
    taken = states[1:-1], actions[1:]
    logs = (jnp.asarray(np.log(p[taken]), jnp.float32) for p in (TARGET_POLICY, BEHAVIOUR))
    trace = targets.retrace_coefficient(*logs, decay)
    rows, next_q = rows_of(states, actions, value), jnp.asarray(q[taken], jnp.float32)
    target = targets.retrace(*rows, next_q, trace, GAMMA)
    assert np.sum(probability * target[0]) == pytest.approx(q[0, 0], rel=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.6, 1.0])
def test_expected_returns_of_the_policys_own_paths_are_the_critic(decay):
    q, value = soft_fixed_point()
    states, actions, probability = all_paths(TARGET_POLICY)
    bonus = jnp.asarray(-ALPHA * np.log(TARGET_POLICY[states[1:-1], actions[1:]]), jnp.float32)
    target = targets.lambda_return(*rows_of(states, actions, value), bonus, GAMMA, decay)
    assert np.sum(probability * target[0]) == pytest.approx(q[0, 0], rel=1e-5)


# Mixtures over depths.


def test_weights_are_proportional_to_inverse_variances(generator):
    spread = np.array([0.1, 3.0, 0.5, 20.0])[:, None, None]
    rows = (5.0 + spread * generator.normal(size=(4, 6, 7))).astype(np.float32)
    precision = 1.0 / np.var(rows.astype(np.float64), axis=1)
    weights = targets.inverse_variance_weights(jnp.asarray(rows))
    np.testing.assert_allclose(weights, precision / precision.sum(axis=0), rtol=1e-4)
    np.testing.assert_allclose(np.sum(weights, axis=0), 1.0, rtol=1e-6)


def test_one_noisy_depth_has_the_weight_that_the_formula_gives():
    """Variances 1, 1, 9 give shares 9/19, 9/19, 1/19; candidates that agree, all the weight."""
    signs = jnp.array([-1.0, 1.0, 1.0, -1.0])
    rows = 100.0 + jnp.stack([signs, -signs, 3.0 * signs])
    weights = targets.inverse_variance_weights(rows)
    np.testing.assert_allclose(weights, [9 / 19, 9 / 19, 1 / 19], rtol=1e-5)
    rows = rows.at[1].set(100.0)
    np.testing.assert_allclose(targets.inverse_variance_weights(rows), [0, 1, 0], atol=1e-9)


@pytest.mark.parametrize("size", [0.0, 1e-30, 0.1, 1e6])
def test_without_any_variance_depths_share_equally(size):
    """Also where the mean of seven equal numbers is not exactly that number."""
    rows = size * jnp.broadcast_to(jnp.array([1.0, 0.7, 0.3])[:, None], (3, 7))
    np.testing.assert_array_equal(targets.inverse_variance_weights(rows), jnp.full(3, 1 / 3))
    np.testing.assert_allclose(targets.covariance_weights(rows), 1 / 3, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_inverse_variance_weights_do_not_depend_on_the_units_of_reward(generator, scale):
    rows = jnp.asarray(generator.normal(size=(3, 5, 2)), jnp.float32)
    np.testing.assert_allclose(
        targets.inverse_variance_weights(scale * rows),
        targets.inverse_variance_weights(rows),
        rtol=1e-4,
    )


def test_repeated_candidates_change_no_weight(generator):
    rows = jnp.asarray(generator.normal(size=(3, 4)), jnp.float32)
    for weigh in (targets.inverse_variance_weights, targets.covariance_weights):
        np.testing.assert_allclose(weigh(jnp.tile(rows, (1, 3))), weigh(rows), rtol=1e-4)


def test_of_independent_depths_the_mixture_has_the_least_variance():
    """The variance of the mixture is then one over the sum of the inverse variances."""
    columns = np.array(list(itertools.product([-1.0, 1.0], repeat=3))).T
    rows = jnp.asarray(np.array([1.0, 2.0, 0.5])[:, None] * columns, jnp.float32)
    weights = targets.inverse_variance_weights(rows)
    mixture = jnp.sum(weights[:, None] * rows, axis=0)
    assert float(jnp.var(mixture)) == pytest.approx(1 / (1 + 1 / 4 + 4), rel=1e-5)
    # The covariance matrix is diagonal, and the ridge small beside it.
    np.testing.assert_allclose(targets.covariance_weights(rows), weights, atol=2e-3)


def test_covariance_weights_solve_the_ridged_system(generator):
    mixing = np.array([[1.0, 0.0, 0.0], [0.9, 0.3, 0.0], [0.8, 0.5, 0.6]])
    rows = np.einsum("ij,jnb->inb", mixing, generator.normal(size=(3, 8, 4)))
    weights = targets.covariance_weights(jnp.asarray(rows, jnp.float32))
    for b in range(4):
        solution = np.linalg.solve(np.cov(rows[..., b], bias=True) + 1e-3 * np.eye(3), np.ones(3))
        np.testing.assert_allclose(weights[:, b], solution / solution.sum(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [1.0, 1e3, 1e6])
def test_covariance_weights_of_depths_that_vary_as_one_are_finite_and_equal(size):
    rows = jnp.broadcast_to(size * jnp.array([-1.0, 0.5, 2.0, -1.5]), (4, 4))
    np.testing.assert_allclose(targets.covariance_weights(rows), 0.25, atol=0.01)


def test_the_steve_target_is_the_weighted_sum_of_the_depths_means(generator):
    rows = generator.normal(size=(3, 5, 2)).astype(np.float32)
    weights = np.array([[0.2, 0.5], [0.3, 0.5], [0.5, 0.0]], np.float32)
    target = targets.steve_target(jnp.asarray(rows), jnp.asarray(weights))
    np.testing.assert_allclose(target, (weights * rows.mean(axis=1)).sum(axis=0), rtol=1e-5)
    with pytest.raises(AssertionError):
        targets.steve_target(jnp.asarray(rows), jnp.asarray(weights[:, :1]))

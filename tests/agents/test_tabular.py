"""Tabular learners against hand-computed updates, re-derivations and value iteration."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mbpo_jax.algorithms  # noqa: F401 - makes configurations arguments of compiled functions
from mbpo_jax.agents import tabular
from mbpo_jax.agents.tabular import make_tabular_agent
from mbpo_jax.config import TabularConfig
from mbpo_jax.types import EnvSpec, EnvState, Transition

STATES, MOVES = 5, 2
SPEC = EnvSpec("table", STATES, MOVES, episode_length=9, action_repeat=1, dt=1.0, tabular=True)


def one_step(state, move, reward, discount, next_state) -> Transition:
    """Return a batch of one transition; the move is the largest of an action's numbers."""
    rest = jnp.linspace(-1.0, 0.5, MOVES)
    return Transition(
        observation=jax.nn.one_hot(state, STATES)[None],
        action=rest.at[move].set(0.9)[None],
        reward=jnp.full(1, reward),
        discount=jnp.full(1, discount),
        next_observation=jax.nn.one_hot(next_state, STATES)[None],
    )


@functools.partial(jax.jit, static_argnums=0)
def update(method, config, key, state, batch):
    return make_tabular_agent(SPEC, config, method).update(key, state, (), batch)


def learn(method, config, steps, key):
    """Return the state after some transitions, given as arguments of `one_step`, and metrics."""
    init_key, *keys = jax.random.split(key, len(steps) + 1)
    state, metrics = make_tabular_agent(SPEC, config, method).init(init_key), []
    for key, step in zip(keys, steps, strict=True):
        state, row = update(method, config, key, state, one_step(*step))
        metrics.append(row)
    return state, metrics


def random_table(seed=0):
    """Return rewards, discounts and successors `[S, A]` of a deterministic system."""
    generator = np.random.default_rng(seed)
    shape = (STATES, MOVES)
    discount = (generator.random(shape) > 0.2).astype(np.float32)
    following = generator.integers(0, STATES, shape)
    return generator.normal(size=shape).astype(np.float32), discount, following


def random_steps(number, seed=0):
    """Return transitions of random pairs of the table."""
    reward, discount, following = random_table()
    pairs = np.random.default_rng(seed).integers(0, [STATES, MOVES], (number, 2))
    return [(s, a, reward[s, a], discount[s, a], following[s, a]) for s, a in pairs.tolist()]


# Acting.


@pytest.mark.parametrize(
    ("q", "epsilon", "expected"),
    [
        ([1.0, 3.0, 2.0, 0.0], 0.0, [0.0, 1.0, 0.0, 0.0]),
        ([1.0, 3.0, 2.0, 0.0], 0.2, [0.05, 0.85, 0.05, 0.05]),
        ([0.0, 2.0, 2.0, -1.0], 0.2, [0.05, 0.45, 0.45, 0.05]),
        ([0.0, 0.0, 0.0, 0.0], 0.1, [0.25, 0.25, 0.25, 0.25]),
        ([1.0, 3.0, 2.0, 0.0], 1.0, [0.25, 0.25, 0.25, 0.25]),
    ],
)
def test_a_move_is_random_with_probability_epsilon_or_one_of_the_best(q, epsilon, expected):
    probability = tabular.epsilon_greedy(jnp.array(q), epsilon)
    np.testing.assert_allclose(probability, expected, rtol=1e-6)


@pytest.mark.parametrize(("explore", "shares"), [(True, [0.1, 0.45, 0.45]), (False, [0, 0.5, 0.5])])
def test_moves_are_drawn_with_these_probabilities_and_named_by_the_largest_number(
    key, explore, shares
):
    spec = SPEC._replace(action_size=3)
    agent = make_tabular_agent(spec, TabularConfig(epsilon=0.3), "dyna_q")
    init_key, act_key = jax.random.split(key)
    state = agent.init(init_key)
    state = state._replace(q=state.q.at[2].set(jnp.array([0.0, 1.0, 1.0])))
    env = EnvState((), jax.nn.one_hot(2, STATES), jnp.int32(0), jnp.bool_(False))

    def act(key):
        return agent.act(key, state, (), agent.begin(), env, explore)[0]

    action = np.asarray(jax.vmap(act)(jax.random.split(act_key, 4000)))
    assert np.all(np.abs(action) <= 1.0)
    drawn = np.bincount(action.argmax(axis=1), minlength=3) / 4000
    # Four standard deviations of a share.
    np.testing.assert_allclose(drawn, shares, atol=4 * np.sqrt(0.25 / 4000))
    assert explore or drawn[0] == 0


# Q-learning and Dyna-Q.


@pytest.mark.parametrize("method", ["dyna_q", "dyna_q_plus"])
def test_without_planning_an_update_is_one_step_of_q_learning(key, method):
    """By hand, with step size 1/2 and gamma 0.8: 1/2 * 2, then 1/2 (3 + 0.8 * 1)."""
    config = TabularConfig(planning_steps=0, step_size=0.5, gamma=0.8)
    steps = [(1, 0, 2.0, 1.0, 2), (3, 1, 3.0, 1.0, 1)]
    state, metrics = learn(method, config, steps, key)
    np.testing.assert_allclose(state.q[1, 0], 1.0)
    np.testing.assert_allclose(state.q[3, 1], 1.9, rtol=1e-6)
    assert np.count_nonzero(state.q) == 2
    np.testing.assert_allclose([row["tabular/td_error"] for row in metrics], [2.0, 3.8], rtol=1e-6)
    np.testing.assert_array_equal([row["tabular/updates"] for row in metrics], 1.0)
    assert int(state.time) == 2


@pytest.mark.parametrize("method", tabular.METHODS)
def test_nothing_is_worth_anything_after_a_termination(key, method):
    config = TabularConfig(planning_steps=1, step_size=1.0)
    steps = [(1, 0, 5.0, 0.0, 2), (0, 0, 2.0, 0.0, 1)]
    state, _ = learn(method, config, steps, key)
    assert float(state.q[0, 0]) == 2.0


def test_planning_repeats_what_happened(key):
    """From n + 1 steps on one outcome r that terminates follows `r (1 - (1 - alpha)^(n + 1))`."""
    config = TabularConfig(planning_steps=6, step_size=0.3)
    state, _ = learn("dyna_q", config, [(1, 0, 2.0, 0.0, 3)], key)
    np.testing.assert_allclose(state.q[1, 0], 2.0 * (1 - 0.7**7), rtol=1e-5)
    assert np.count_nonzero(state.q) == 1


def test_pairs_are_drawn_uniformly_from_those_allowed(key):
    allowed = jnp.zeros((STATES, MOVES), bool).at[jnp.array([0, 2, 2, 4]), jnp.array([1, 0, 1, 0])]
    states, moves = tabular.sample_pairs(key, allowed.set(True), 4000)
    count = np.zeros((STATES, MOVES))
    np.add.at(count, (np.asarray(states), np.asarray(moves)), 1)
    expected = np.zeros((STATES, MOVES))
    expected[[0, 2, 2, 4], [1, 0, 1, 0]] = 0.25
    np.testing.assert_allclose(count / 4000, expected, atol=4 * np.sqrt(0.1875 / 4000))
    assert np.all(count[expected == 0] == 0)


def test_dyna_q_is_that_of_the_book(key):
    """A re-derivation in plain NumPy, on the pairs that were drawn."""
    config = TabularConfig(planning_steps=4, step_size=0.4, gamma=0.9)
    steps = random_steps(12)
    keys = jax.random.split(jax.random.clone(key), len(steps) + 1)[1:]
    state, _ = learn("dyna_q", config, steps, key)
    q, model = np.zeros((STATES, MOVES)), {}

    def step(pair):
        reward, discount, following = model[pair]
        q[pair] += 0.4 * (reward + 0.9 * discount * q[following].max() - q[pair])

    for one_key, (s, a, *outcome) in zip(keys, steps, strict=True):
        model[s, a] = outcome
        step((s, a))
        tried = np.zeros((STATES, MOVES), bool)
        tried[tuple(zip(*model, strict=True))] = True
        drawn = tabular.sample_pairs(one_key, jnp.asarray(tried), 4)
        for pair in zip(*(x.tolist() for x in drawn), strict=True):
            step(pair)
    np.testing.assert_allclose(state.q, q, rtol=1e-5, atol=1e-6)


# Dyna-Q+.


def test_the_bonus_grows_with_the_root_of_the_time_and_reaches_moves_never_tried(key):
    """With gamma 0 and step size 1 a value is the reward with which planning last saw the pair.

    After four steps, pair (0, 0) was last tried in step 1, (1, 1) in step 4, the others of these
    states never; state 2 was only seen. All pairs are planned with, but for a chance of 1e-24.
    """
    config = TabularConfig(planning_steps=200, step_size=1.0, gamma=0.0, bonus=0.5)
    steps = [(0, 0, 3.0, 1.0, 1), *[(1, 1, 1.0, 1.0, 2)] * 3]
    state, _ = learn("dyna_q_plus", config, steps, key)
    expected = np.zeros((STATES, MOVES))
    expected[0] = [3.0 + 0.5 * np.sqrt(3), 0.5 * np.sqrt(4)]
    expected[1] = [0.5 * np.sqrt(4), 1.0]
    np.testing.assert_allclose(state.q, expected, rtol=1e-6)


def test_a_move_never_tried_is_believed_to_lead_nowhere(key):
    """With step size 1 its value is gamma times that of the state it leads back to."""
    config = TabularConfig(planning_steps=200, step_size=1.0, gamma=0.5, bonus=0.0)
    state, _ = learn("dyna_q_plus", config, [(3, 1, 4.0, 0.0, 2)], key)
    np.testing.assert_allclose(state.q[3], [2.0, 4.0])
    assert np.count_nonzero(state.q) == 2


def test_without_a_bonus_and_once_all_was_tried_dyna_q_plus_is_dyna_q(key):
    config = TabularConfig(planning_steps=5, bonus=0.0)
    reward, discount, following = random_table()
    steps = [(s, a, reward[s, a], discount[s, a], following[s, a]) for s in (1, 4) for a in (0, 1)]
    start, _ = learn("dyna_q", config, steps, jax.random.clone(key))
    batch = one_step(*steps[0])
    ends = [
        update(method, config, jax.random.clone(key), start, batch)[0]
        for method in ("dyna_q", "dyna_q_plus")
    ]
    jax.tree.map(np.testing.assert_array_equal, *ends)


# Prioritized sweeping.


@pytest.mark.parametrize(("planning_steps", "reached"), [(2, 2), (3, 3), (9, 4)])
def test_a_reward_sweeps_back_along_the_way_to_it(key, planning_steps, reached):
    """The pair k steps before the last one of a chain becomes `alpha (alpha gamma)^k`.

    Before the goal is reached, there is nothing to update, and after four updates nothing is left.
    """
    alpha, gamma = 0.8, 0.9
    config = TabularConfig(planning_steps=planning_steps, step_size=alpha, gamma=gamma)
    steps = [(s, 0, 0.0, 1.0, s + 1) for s in range(3)] + [(3, 0, 1.0, 0.0, 4)]
    state, metrics = learn("prioritized_sweeping", config, steps, key)
    distance = np.arange(3, -1, -1)
    expected = np.where(distance < reached, alpha * (alpha * gamma) ** distance, 0.0)
    np.testing.assert_allclose(state.q[:4, 0], expected, rtol=1e-5)
    np.testing.assert_array_equal([row["tabular/updates"] for row in metrics], [0, 0, 0, reached])
    assert np.count_nonzero(state.priority) == (reached < 4)


def test_changes_up_to_the_threshold_are_left_alone(key):
    """The error of the pair k steps before the goal is gamma alpha (alpha gamma)^(k - 1)."""
    config = TabularConfig(planning_steps=9, step_size=0.5, gamma=0.8, threshold=0.15)
    steps = [(s, 0, 0.0, 1.0, s + 1) for s in range(3)] + [(3, 0, 1.0, 0.0, 4)]
    state, _ = learn("prioritized_sweeping", config, steps, key)
    # Errors are 1, 0.4, 0.16, 0.064.
    np.testing.assert_allclose(state.q[:4, 0], [0.0, 0.08, 0.2, 0.5], rtol=1e-6)
    np.testing.assert_array_equal(state.priority, 0.0)


def test_prioritized_sweeping_is_that_of_the_book(key):
    """A re-derivation in plain NumPy with a queue that two updates a step rarely empty."""
    config = TabularConfig(planning_steps=2, step_size=0.6, gamma=0.9, threshold=0.05)
    steps = random_steps(25, seed=3)
    state, metrics = learn("prioritized_sweeping", config, steps, key)
    q, model, queue, served = np.zeros((STATES, MOVES)), {}, {}, []

    def error(pair):
        reward, discount, following = model[pair]
        return reward + 0.9 * discount * q[following].max() - q[pair]

    def insert(pair):
        if abs(error(pair)) > 0.05:
            queue[pair] = max(abs(error(pair)), queue.get(pair, 0.0))

    for s, a, *outcome in steps:
        model[s, a] = outcome
        insert((s, a))
        served.append(0)
        while queue and served[-1] < 2:
            first = max(queue, key=queue.get)
            del queue[first]
            q[first] += 0.6 * error(first)
            served[-1] += 1
            for pair, (_, _, following) in model.items():
                if following == first[0]:
                    insert(pair)
    np.testing.assert_allclose(state.q, q, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal([row["tabular/updates"] for row in metrics], served)
    waiting = {pair: float(state.priority[pair]) for pair in queue}
    assert waiting == pytest.approx(queue, rel=1e-4)
    assert np.count_nonzero(state.priority) == len(queue)


# All of them.


def optimal_values(gamma):
    reward, discount, following = random_table()
    q = np.zeros((STATES, MOVES))
    for _ in range(400):
        q = reward + gamma * discount * q[following].max(axis=-1)
    return q


@pytest.mark.parametrize("method", tabular.METHODS)
def test_values_approach_those_of_value_iteration(key, method):
    """Every pair is tried again and again; changes that sweeping ignores add up to little."""
    config = TabularConfig(planning_steps=10, step_size=0.5, gamma=0.8, bonus=0.0, threshold=1e-5)
    agent = make_tabular_agent(SPEC, config, method)
    rows = [one_step(*step) for step in random_steps(150)]
    batches = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
    init_key, scan_key = jax.random.split(key)

    @jax.jit
    def train(state, keys):
        def step(state, inputs):
            return agent.update(inputs[0], state, (), inputs[1])[0], None

        return jax.lax.scan(step, state, (keys, batches))[0]

    state = train(agent.init(init_key), jax.random.split(scan_key, len(rows)))
    np.testing.assert_allclose(state.q, optimal_values(0.8), atol=1e-3)
    assert bool(jnp.all(state.model.tried))


@pytest.mark.parametrize("method", tabular.METHODS)
def test_runs_with_different_rates_under_vmap_are_those_of_a_loop(key, method):
    start, _ = learn(method, TabularConfig(), random_steps(8), key)
    configs = [
        TabularConfig(planning_steps=3, step_size=0.2, gamma=0.5, bonus=0.1, threshold=0.1),
        TabularConfig(planning_steps=3, step_size=0.9, gamma=0.9, bonus=0.2, threshold=0.5),
    ]
    stacked = jax.tree.map(lambda *rates: jnp.array(rates), *configs)
    keys, batch = jax.random.split(jax.random.clone(key)), one_step(1, 0, 2.0, 1.0, 1)

    def run(config, key):
        return update(method, config, key, start, batch)[0]

    together = jax.vmap(run)(stacked, jax.random.clone(keys))
    for i, config in enumerate(configs):
        alone = run(config, keys[i])
        jax.tree.map(
            lambda both, one, i=i: np.testing.assert_allclose(both[i], one, rtol=1e-5),
            together,
            alone,
        )

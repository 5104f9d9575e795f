"""The compiled step, on a linear system small enough to check every number of."""

import dataclasses
import functools

import chex
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mbpo_jax import replay
from mbpo_jax.training import loop, runs_axis
from mbpo_jax.training.state import learned
from mbpo_jax.trees import all_finite
from tests.probe_environments import (
    CONTROL,
    COST,
    DYNAMICS,
    LIMIT,
    PROBES,
    linear_gaussian,
    tiny_config,
)
from tests.programs import collected

NUM_RUNS = 3
EPISODE_LENGTH = 5
CONFIG = tiny_config()
# Without noise, every transition can be checked against the equations of motion.
PROGRAM = loop.make_program(linear_gaussian(noise=0.0, episode_length=EPISODE_LENGTH))


def fresh(state):
    """Copy a state, keys included, so that the copy can be donated and its key used."""
    return jax.tree.map(
        lambda x: jax.random.clone(x) if is_key(x) else jnp.copy(x),
        state,
    )


def is_key(x):
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def numbers(tree):
    """Return arrays of plain numbers, typed keys included."""
    return jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if is_key(x) else x), tree)


def stack(states):
    """Return a copy of the states of several runs, along an axis of runs."""
    return fresh(jax.tree.map(lambda *x: jnp.stack(x), *map(fresh, states)))


def run_of(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


def assert_close(actual, expected):
    check = functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=1e-4, equal_nan=True)
    jax.tree.map(check, numbers(actual), numbers(expected))


def assert_equal(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, numbers(actual), numbers(expected))


def configs(**changes):
    """Return the configuration as arrays `[R]`, with `section__field` changed."""
    batched = jax.tree.map(lambda x: jnp.full(NUM_RUNS, x, jnp.float32), CONFIG)
    for name, value in changes.items():
        section, field = name.split("__")
        part = dataclasses.replace(getattr(batched, section), **{field: jnp.asarray(value)})
        batched = dataclasses.replace(batched, **{section: part})
    return batched


def env_steps(chunk):
    """Return the environment steps before a chunk."""
    return jnp.int32(CONFIG.random_steps + chunk * CONFIG.steps_per_fit)


@pytest.fixture(scope="module")
def starts():
    """Return the state of each run after the random steps."""
    start = jax.jit(lambda key: collected(PROGRAM, CONFIG, key))
    return [start(jax.random.key(seed)) for seed in range(NUM_RUNS)]


@pytest.fixture(scope="module")
def single_step():
    """Return the step of one run, which refuses to be traced a second time."""
    # Chex counts by place and name, and a worker that steals tests may set this up again.
    chex.clear_trace_counter()

    @chex.assert_max_traces(n=1)
    def step(env_steps, state):
        return PROGRAM.step(CONFIG, env_steps, state)

    return jax.jit(step, donate_argnums=1)


@pytest.fixture(scope="module")
def histories(starts, single_step):
    """Return for each run its states and metrics after every chunk, made run by run."""
    every_run = []
    for start in starts:
        state, history = start, []
        for chunk in range(3):
            state, metrics = single_step(env_steps(chunk), fresh(state))
            history.append((state, metrics))
        every_run.append(history)
    return every_run


@pytest.fixture(scope="module")
def batched_step():
    """Return the step of all runs at once, as on an accelerator."""
    step = jax.jit(jax.vmap(PROGRAM.step, in_axes=(0, None, 0)))

    def run(*arguments):
        # Under `vmap` JAX takes the first half of a split key for the whole of it.
        with jax.debug_key_reuse(False):
            return step(*arguments)

    return run


@pytest.mark.slow
def test_rollouts_grow_without_another_trace(histories):
    """The fixture's step raises if it is traced twice, whatever the length and the run."""
    for history in histories:
        lengths = [float(metrics["rollout/length"]) for _, metrics in history]
        assert lengths == [1.0, 2.0, 3.0]
        for state, metrics in history:
            assert bool(state.healthy)
            assert metrics["train/healthy"] == 1.0


@pytest.mark.slow
def test_a_batch_of_runs_has_the_numbers_of_a_loop_over_runs(starts, histories, batched_step):
    state = stack(starts)
    for chunk in range(2):
        state, metrics = batched_step(configs(), env_steps(chunk), state)
        for i, history in enumerate(histories):
            assert_close((run_of(state, i), run_of(metrics, i)), history[chunk])


def loops(jaxpr, depth=0):
    """Yield every `while` of a program with the number of such loops around it."""
    for equation in jaxpr.eqns:
        is_loop = equation.primitive.name == "while"
        if is_loop:
            yield depth, equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from loops(inner, depth + is_loop)


def test_the_gradient_steps_of_a_batch_of_runs_are_counted_once_for_all(starts):
    """A count for each run would have `vmap` copy all parameters at each step to hold some back."""
    with jax.debug_key_reuse(False):
        step = jax.vmap(PROGRAM.step, in_axes=(0, None, 0))
        jaxpr = jax.make_jaxpr(step)(configs(), env_steps(0), stack(starts))
    nested = [loop for depth, loop in loops(jaxpr.jaxpr) if depth > 0]
    # Gradient steps on a CPU and chunks of them elsewhere, blocks of the hold-out.
    assert len(nested) == 3
    for equation in nested:
        assert equation.params["cond_jaxpr"].out_avals[0].shape == ()


@pytest.mark.slow
def test_runs_mapped_one_after_the_other_have_the_numbers_of_a_loop(starts, histories):
    mapped = runs_axis.map_runs(
        lambda steps, config, state: PROGRAM.step(config, steps, state),
        runs_axis.run_mesh(NUM_RUNS),
    )
    state = stack(starts)
    state, metrics = jax.jit(mapped)(env_steps(0), configs(), state)
    for i, history in enumerate(histories):
        assert_close((run_of(state, i), run_of(metrics, i)), history[0])


def test_random_steps_fill_the_replay_buffer_and_train_nothing(starts):
    key = jax.random.key(0)
    before = jax.jit(lambda key: PROGRAM.init(CONFIG, key))(key)
    assert int(before.replay.size) == 0
    assert replay.capacity(before.replay) == CONFIG.total_env_steps
    assert int(starts[0].replay.size) == CONFIG.random_steps
    assert_equal(starts[0].agent, before.agent)
    assert_equal(starts[0].model, before.model)
    assert_equal(starts[0].experience, before.experience)
    assert not np.array_equal(numbers(starts[0].key), numbers(before.key))


def test_every_step_draws_afresh(histories):
    """A key that comes back would make each step explore, restart and sample as the one before."""
    for history in histories:
        keys = {jax.random.key_data(state.key).tobytes() for state, _ in history}
        assert len(keys) == len(history)


@pytest.mark.slow
def test_the_buffers_grow_by_what_a_step_makes(histories):
    for history in histories:
        sizes = [int(state.replay.size) for state, _ in history]
        assert sizes == [18, 26, 34]
        for state, metrics in history:
            assert float(metrics["rollout/buffer_size"]) == int(state.experience.size)
        # 16 rollouts of one step, of which none ends before it is stored.
        assert int(history[0][0].experience.size) == 16


@pytest.mark.slow
def test_every_transition_obeys_the_equations_of_motion_up_to_the_end_of_an_episode(histories):
    """The successor stored is the true one, not the first observation of the next episode."""
    ends = []
    for history in histories:
        rows, valid = replay.newest(history[-1][0].replay, 34)
        rows = jax.tree.map(np.asarray, rows)
        assert valid.all()
        successor = rows.observation @ DYNAMICS.T + rows.action @ CONTROL.T
        np.testing.assert_allclose(rows.next_observation, successor, atol=1e-6)
        np.testing.assert_allclose(rows.reward, 1.0 + successor @ COST, atol=1e-6)
        terminated = np.abs(rows.next_observation[:, 0]) > LIMIT
        np.testing.assert_array_equal(rows.discount, np.where(terminated, 0.0, 1.0))
        ended, steps = episode_ends(rows)
        # The next episode starts elsewhere, and nothing else is skipped.
        continues = np.all(rows.next_observation[:-1] == rows.observation[1:], axis=-1)
        np.testing.assert_array_equal(continues, ~ended[:-1])
        ends += [(bool(t), int(s)) for t, s in zip(terminated[ended], steps[ended], strict=True)]
    assert (False, EPISODE_LENGTH) in ends, "no episode reached the time limit"
    assert any(terminated for terminated, _ in ends), "no episode terminated"


def episode_ends(rows):
    """Return which rows end an episode, and the number of each row's step in its episode."""
    ended, steps = [], []
    for discount in rows.discount:
        steps.append(1 if not ended or ended[-1] else steps[-1] + 1)
        ended.append(discount == 0.0 or steps[-1] == EPISODE_LENGTH)
    return np.array(ended), np.array(steps)


@pytest.mark.slow
def test_episode_returns_are_sums_of_rewards(histories):
    for history in histories:
        rows, _ = replay.newest(history[-1][0].replay, 34)
        rows = jax.tree.map(np.asarray, rows)
        ended, _ = episode_ends(rows)
        running, returns = 0.0, []
        for reward, end in zip(rows.reward, ended, strict=True):
            running += reward
            returns.append(running)
            running = 0.0 if end else running
        for chunk, (state, metrics) in enumerate(history):
            first = CONFIG.random_steps + chunk * CONFIG.steps_per_fit
            last = first + CONFIG.steps_per_fit
            finished = [returns[i] for i in range(first, last) if ended[i]]
            assert finished
            np.testing.assert_allclose(
                metrics["train/episode_return"], np.mean(finished), rtol=1e-4
            )
            unfinished = 0.0 if ended[last - 1] else returns[last - 1]
            np.testing.assert_allclose(state.episode_return, unfinished, atol=1e-5)


@pytest.mark.slow
def test_the_given_state_is_donated(starts, single_step):
    state = fresh(starts[0])
    single_step(env_steps(0), state)
    kept = [x.shape for x in jax.tree.leaves(state) if not is_key(x) and not x.is_deleted()]
    assert not kept


@pytest.mark.slow
def test_a_run_that_diverges_is_frozen_for_good_and_its_neighbours_go_on(starts, batched_step):
    """Run 1 loses its agent and run 2 its model, in the first chunk; then their causes are gone."""
    start = stack(starts)
    nan = float("nan")
    poisoned = configs(sac__learning_rate=[3e-4, nan, 3e-4], fit__learning_rate=[1e-3, 1e-3, nan])
    good, bad = fresh(start), fresh(start)
    for chunk in range(2):
        good, _ = batched_step(configs(), env_steps(chunk), good)
        config = configs() if chunk else poisoned
        bad, metrics = batched_step(config, env_steps(chunk), bad)
        np.testing.assert_array_equal(bad.healthy, [True, False, False])
        np.testing.assert_array_equal(metrics["train/healthy"], [1.0, 0.0, 0.0])
        for i in (1, 2):
            assert_equal(run_of(bad.agent, i), starts[i].agent)
            assert_equal(run_of(bad.model, i), starts[i].model)
        assert_equal(run_of(bad, 0), run_of(good, 0))
        assert bool(all_finite(learned(bad)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_all_finite_finds_a_single_bad_number(value, place):
    tree = {"a": jnp.zeros(3), "b": [jnp.zeros((2, 2)), jnp.arange(2)]}
    assert bool(all_finite(tree))
    tree["a" if place else "b"] = jnp.zeros((2, 2)).at[1, 0].set(value)
    assert not bool(all_finite(tree))


@pytest.mark.slow
def test_looking_at_a_run_does_not_change_it(starts, histories, single_step):
    """An evaluation neither uses up the key of the state nor reads it."""
    evaluate = jax.jit(functools.partial(PROGRAM.evaluate, CONFIG))
    state = fresh(starts[0])
    first = evaluate(jax.random.key(7), state)
    other_key = state._replace(key=jax.random.key(123))
    assert_equal(evaluate(jax.random.key(7), other_key), first)
    assert not np.array_equal(evaluate(jax.random.key(8), state)[0], first[0])
    assert_equal(single_step(env_steps(0), state), histories[0][0])


@pytest.mark.parametrize(
    ("name", "value", "length"), [("constant", 1.0, 1), ("delayed", 1.0, 2), ("endless", 4.0, 4)]
)
def test_an_evaluation_plays_whole_episodes_and_no_more(key, name, value, length):
    config = dataclasses.replace(CONFIG, algorithm="sac")
    program = loop.make_program(PROBES[name])
    init_key, play_key = jax.random.split(key)
    state = program.init(config, init_key)
    with jax.debug_key_reuse(False):
        returns, lengths = program.evaluate(config, play_key, state)
    np.testing.assert_array_equal(returns, [value] * config.eval_episodes)
    np.testing.assert_array_equal(lengths, [length] * config.eval_episodes)


# Model data between two fits, and updates before the first action.


def count_of(optimizer_state) -> int:
    return int(optax.tree_utils.tree_get(optimizer_state, "count"))


@pytest.mark.slow
def test_rollouts_may_start_several_times_between_two_fits(key):
    """As many in all, at even distances; one time more, before, where critics are updated."""
    config = dataclasses.replace(
        CONFIG,
        sac=dataclasses.replace(CONFIG.sac, learning_rate=0.1),
        rollout=dataclasses.replace(
            CONFIG.rollout, refreshes_per_fit=2, min_length=1, max_length=1, retain_epochs=4
        ),
    )
    once = dataclasses.replace(
        config, rollout=dataclasses.replace(config.rollout, refreshes_per_fit=1)
    )

    @functools.partial(jax.jit, static_argnums=0)
    def train(config, key):
        state = collected(PROGRAM, config, key)
        return PROGRAM.step(config, env_steps(0), state)

    several, metrics = train(config, jax.random.clone(key))
    single, _ = train(once, jax.random.clone(key))
    settle = dataclasses.replace(config, sac=dataclasses.replace(config.sac, critic_updates=1))
    settled, _ = train(settle, key)
    per_span = config.rollout.rollouts_per_step * config.steps_per_fit // 2
    assert int(several.experience.position) == 2 * per_span
    assert int(single.experience.position) == 2 * per_span
    assert int(settled.experience.position) == 3 * per_span
    assert metrics["rollout/length_mean"] == 1.0
    assert count_of(several.agent.policy_optimizer) == count_of(single.agent.policy_optimizer)


def test_random_steps_in_parts_are_the_same_steps(key):
    whole = jax.jit(lambda key: collected(PROGRAM, CONFIG, key))
    init, collect = (
        jax.jit(functools.partial(function, CONFIG)) for function in (PROGRAM.init, PROGRAM.collect)
    )
    expected = whole(jax.random.clone(key))
    state, first = init(key), CONFIG.random_steps // 3
    for num_steps in (first, 0, CONFIG.random_steps - first):
        state = collect(state, num_steps)
    assert int(state.replay.size) == CONFIG.random_steps
    assert_equal(state, expected)


@pytest.mark.slow
def test_an_agent_may_catch_up_on_the_updates_of_the_random_steps(key):
    config = dataclasses.replace(
        CONFIG, sac=dataclasses.replace(CONFIG.sac, catches_up=True, critic_updates=3)
    )
    begun = jax.jit(lambda key: collected(PROGRAM, config, key))
    caught_up = jax.jit(functools.partial(PROGRAM.catch_up, config))
    stepped = jax.jit(functools.partial(PROGRAM.step, config))

    start = begun(key)
    assert count_of(start.agent.policy_optimizer) == count_of(start.model.optimizer) == 0
    first, fitting = caught_up(jnp.int32(0), start)
    updates = config.steps_per_fit * config.sac.utd_ratio
    assert fitting == count_of(first.model.optimizer) > 0
    assert count_of(first.agent.policy_optimizer) == updates
    assert count_of(first.agent.critic_optimizer) == updates + 3
    assert_equal(first.replay, start.replay)
    second, fitting = caught_up(jnp.int32(1), first)
    assert fitting == 0
    assert_equal(second.model, first.model)
    assert count_of(second.agent.policy_optimizer) == 2 * updates
    assert count_of(second.agent.critic_optimizer) == 2 * updates + 3
    assert first.experience.position < second.experience.position
    after, _ = stepped(env_steps(0), second)
    assert count_of(after.agent.policy_optimizer) == 3 * updates
    assert count_of(after.agent.critic_optimizer) == 3 * updates + 6

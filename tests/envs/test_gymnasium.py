"""Gymnasium's tasks in the compiled step against Gymnasium itself, bit for bit."""

import concurrent.futures
import dataclasses
import functools
import subprocess
import sys
import textwrap
import warnings
from types import SimpleNamespace

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.config import Config, EnvConfig, ExpansionConfig
from mbpo_jax.envs import ENVIRONMENTS, make_env
from mbpo_jax.envs import gymnasium as adapter
from mbpo_jax.envs.base import random_action, step_or_reset
from mbpo_jax.envs.gymnasium import MOST_BYTES, TASKS, on_host, seed_of
from mbpo_jax.envs.gymnasium_rows import READ_BEFORE_A_STEP, Simulator, read_options
from mbpo_jax.errors import ConfigError
from mbpo_jax.models.oracle import make_oracle
from mbpo_jax.presets import environment_preset
from mbpo_jax.types import Env, Point
from tests.choice import mostly_exhaustive

pytestmark = pytest.mark.smoke

NUM_STEPS = 1000
ONE_OF_EACH = ("HalfCheetah-v5", "Hopper-v4", "Hopper-v5", "Humanoid-v5", "Reacher-v4")
"""Healthy always or not, of either version, with what is observed computed after a step or not."""
LIMITS = {"Reacher": 50, "Pusher": 100}
"""Of Gymnasium, where they are not 1000."""


def adapted(task: str, **settings) -> Env:
    limit = LIMITS.get(task.split("-")[0], 1000)
    settings = {"episode_length": limit} | settings
    return make_env(EnvConfig(name=f"gym/{task}", backend="mujoco", **settings))


def original(task: str) -> gymnasium.Env:
    options = read_options(task, TASKS[task].options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that version 4 is not the newest
        return gymnasium.make(task, **options)


@functools.cache
def played(task: str):
    """Return actions, keys of resets, states and transitions of random play with resets."""
    env = adapted(task)
    first_key, steps_key = jax.random.split(jax.random.key(1))

    def step(state, key):
        action_key, env_key = jax.random.split(key)
        action = random_action(action_key, env.spec.action_size)
        following, transition = step_or_reset(env, env_key, state, action)
        reset_key = jax.random.split(jax.random.clone(env_key))[1]
        return following, (following, transition, jax.random.key_data(reset_key))

    start = jax.jit(env.reset)(first_key)
    keys = jax.random.split(steps_key, NUM_STEPS)
    _, outcome = jax.jit(lambda start, keys: jax.lax.scan(step, start, keys))(start, keys)
    return jax.device_get((jax.random.key_data(first_key), start, *outcome))


def physics(env: gymnasium.Env, task: str) -> np.ndarray:
    """Return what a row has to hold, read off Gymnasium's own environment."""
    data = env.unwrapped.data  # pyright: ignore[reportAttributeAccessIssue]
    parts = [data.qpos, data.qvel, data.qacc_warmstart]
    if name := READ_BEFORE_A_STEP.get(task):
        parts.append(getattr(data, name).ravel())
    return np.concatenate(parts)


@pytest.mark.parametrize("task", mostly_exhaustive(TASKS, ONE_OF_EACH.__contains__))
def test_the_compiled_environment_is_gymnasiums_bit_for_bit(task):
    """1,000 random actions with resets: full states in float64, what is observed in float32."""
    first, start, states, transitions, reset_keys = played(task)
    env, size = original(task), ENVIRONMENTS[f"gym/{task}"].observation_size
    scale = env.action_space.high  # pyright: ignore[reportAttributeAccessIssue]
    observation, _ = env.reset(seed=seed_of(first))
    np.testing.assert_array_equal(start.simulator.view(np.float64), physics(env, task))
    for i in range(NUM_STEPS):
        assert np.array_equal(transitions.observation[i], np.float32(observation[:size]))
        action = transitions.action[i] * scale
        observation, reward, terminated, truncated, _ = env.step(action)
        assert np.array_equal(transitions.next_observation[i], np.float32(observation[:size]))
        assert transitions.reward[i] == np.float32(reward)
        assert transitions.discount[i] == 1.0 - terminated
        assert states.done[i] == (terminated or truncated)
        if states.done[i]:
            observation, _ = env.reset(seed=seed_of(reset_keys[i]))
        assert np.array_equal(states.simulator[i].view(np.float64), physics(env, task))
    assert states.done.any()


@pytest.mark.parametrize("task", mostly_exhaustive(TASKS, ONE_OF_EACH.__contains__))
def test_rows_are_stepped_as_gymnasium_does_in_float64_whatever_was_stepped_before(task):
    env, options = original(task), read_options(task, TASKS[task].options)
    simulators = [Simulator(task, options) for _ in range(2)]
    random = np.random.default_rng(0)
    scale = env.action_space.high  # pyright: ignore[reportAttributeAccessIssue]
    observation, _ = env.reset(seed=0)
    row, found = simulators[0].reset(0)
    resets, steps = 0, 0
    for _ in range(NUM_STEPS):
        np.testing.assert_array_equal(found, observation)
        action = random.uniform(-1, 1, scale.shape).astype(np.float32)
        observation, reward, terminated, truncated, _ = env.step(action * scale)
        simulator = simulators[random.integers(2)]
        if random.random() < 0.2:  # traces of other rows, healthy or not
            simulator.step(row + random.normal(0.0, 0.1, row.shape), action)
            simulator.step(row * np.nan, action)
        row, found, paid, ended = simulator.step(row, action)
        assert (paid, ended) == (reward, terminated)
        steps += 1
        assert truncated == (steps == LIMITS.get(task.split("-")[0], 1000))
        if terminated or truncated:
            resets, steps = resets + 1, 0
            observation, _ = env.reset(seed=resets)
            row, found = simulator.reset(resets)
    assert resets >= 1


@pytest.mark.parametrize("task", TASKS)
def test_the_known_rule_tells_every_termination(task):
    _, _, _, transitions, _ = played(task)
    rule = adapted(task).terminated
    np.testing.assert_array_equal(rule(transitions.next_observation), transitions.discount == 0)


@pytest.mark.parametrize("task", TASKS)
def test_the_tables_sizes_are_those_of_the_task(task):
    env = adapted(task)
    info = ENVIRONMENTS[f"gym/{task}"]
    assert (env.spec.observation_size, env.spec.action_size) == info[2:]
    assert env.spec.dt == pytest.approx(original(task).unwrapped.dt)  # pyright: ignore
    assert environment_preset(f"gym/{task}").env.episode_length == LIMITS.get(
        task.split("-")[0], 1000
    )
    observed = original(task).observation_space.shape
    assert TASKS[task].truncated == (observed != (info.observation_size,))


def rows_to_step(env: Env, count: int):
    """Return distinct states `[count]` some steps after a reset, and actions for them."""
    keys = jax.random.split(jax.random.key(3), count)
    actions = jax.random.uniform(jax.random.key(4), (count, env.spec.action_size), minval=-1.0)
    states = jax.jit(jax.vmap(env.reset))(keys)
    for key in jax.random.split(jax.random.key(5), 3):
        step = jax.jit(jax.vmap(env.step, in_axes=(None, 0, 0)))
        states, _ = step(key, states, actions)
    return states, actions


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def test_mapped_in_every_way_the_numbers_are_those_of_one_row_at_a_time():
    env, key = adapted("Hopper-v5"), jax.random.key(0)
    states, actions = rows_to_step(env, 6)

    def step(pair):
        return env.step(jax.random.clone(key), *pair)

    alone = [step(jax.tree.map(lambda x, i=i: x[i], (states, actions))) for i in range(6)]
    expected = jax.tree.map(lambda *x: jnp.stack(x), *alone)
    assert_equal(jax.jit(jax.vmap(step))((states, actions)), expected)
    assert_equal(jax.jit(lambda x: jax.lax.map(step, x))((states, actions)), expected)
    nested = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), (states, actions))
    twice = jax.jit(jax.vmap(jax.vmap(step)))(nested)
    assert_equal(jax.tree.map(lambda x: x.reshape(6, *x.shape[2:]), twice), expected)
    over = jax.jit(lambda x: jax.lax.map(jax.vmap(step), x))(nested)
    assert_equal(jax.tree.map(lambda x: x.reshape(6, *x.shape[2:]), over), expected)


ON_TWO_DEVICES = """
    import sys

    import jax

    jax.config.update("jax_num_cpu_devices", 2)
    import numpy as np

    from mbpo_jax.training import runs_axis
    from tests.envs.test_gymnasium import MOST_BYTES, adapted, rows_to_step

    env = adapted("HalfCheetah-v5")
    rows, actions = rows_to_step(env, 1000)
    assert rows.simulator.nbytes > 2 * MOST_BYTES
    mesh = runs_axis.run_mesh(4)
    assert mesh.size == 2
    halves = jax.tree.map(lambda x: np.asarray(x).reshape(4, 250, *x.shape[1:]), (rows, actions))
    key = jax.random.key(0)

    def rollout(_, states, actions):
        def step(states, _):
            states, made = jax.vmap(env.step, in_axes=(None, 0, 0))(key, states, actions)
            return states, made.reward

        return jax.lax.scan(step, states, None, 20)

    mapped = jax.jit(runs_axis.map_runs(rollout, mesh))(None, *halves)
    for run in range(4):
        alone = jax.jit(rollout)(None, *jax.tree.map(lambda x: x[run], halves))
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[run], b), mapped, alone)
    print("equal")
"""


@pytest.mark.slow
def test_on_two_devices_the_numbers_are_those_of_one(request):
    """With many more rows than a callback gets at once, on both devices at the same time."""
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ON_TWO_DEVICES)],
        cwd=request.config.rootpath,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.stdout == "equal\n", finished.stderr


def callbacks(jaxpr) -> list:
    """Return the callbacks in a program, those in loops and branches, too."""
    found = [eqn for eqn in jaxpr.eqns if "callback" in eqn.primitive.name]
    for eqn in jaxpr.eqns:
        for value in jax.tree.leaves(eqn.params, is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(inner := getattr(value, "jaxpr", value), "eqns"):
                found += callbacks(inner)
    return found


@pytest.mark.parametrize("rows", [1, 600, 5000])
def test_no_callback_gets_more_than_is_safe(rows):
    env = adapted("Ant-v5")
    state = jax.eval_shape(env.reset, jax.random.key(0))
    states, actions = (
        jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape), x.dtype), tree)
        for tree in (state, jax.ShapeDtypeStruct((8,), jnp.float32))
    )
    step = jax.vmap(lambda state, action: env.step(jax.random.key(0), state, action))
    calls = callbacks(jax.make_jaxpr(step)(states, actions).jaxpr)
    assert len(calls) >= 1
    for call in calls:
        for value in (*call.invars, *call.outvars):
            assert value.aval.size * value.aval.dtype.itemsize <= MOST_BYTES


def test_a_function_of_the_host_is_mapped_by_calls_with_many_rows():
    sizes = []

    def double(words):
        sizes.append(len(words))
        return 2 * words

    fn = on_host(double, 2)
    words = jnp.arange(60_000, dtype=jnp.uint32).reshape(30_000, 2)
    np.testing.assert_array_equal(jax.jit(jax.vmap(fn))(words), 2 * words)
    assert max(sizes) == MOST_BYTES // 8
    assert sum(sizes) == 30_000
    np.testing.assert_array_equal(fn(words[7]), 2 * words[7])


def test_threads_that_step_at_once_get_simulators_of_their_own():
    """XLA calls back on whatever thread it has."""
    env = adapted("Walker2d-v5")
    states, actions = rows_to_step(env, 40)
    step = jax.jit(env.step)
    pairs = [jax.tree.map(lambda x, i=i: x[i], (states, actions)) for i in range(40)]
    expected = [step(jax.random.key(0), *pair) for pair in pairs]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            found = list(pool.map(lambda pair: step(jax.random.key(0), *pair), pairs))
            assert_equal(found, expected)


def test_the_oracle_goes_on_from_a_replayed_state_as_reality_did():
    """Several rows at once, for as long as their episodes lasted."""
    _, start, states, transitions, _ = played("Hopper-v5")
    env, length = adapted("Hopper-v5"), 5
    began = np.concatenate([[True], states.done])[:-1]
    simulators = np.concatenate([start.simulator[None], states.simulator])[:-1]
    rows = np.array([i for i in range(900) if not began[i + 1 : i + length].any()][:200])
    assert began[rows].any()
    oracle = make_oracle(env)
    step = jax.jit(lambda key, point, action: oracle.step(key, (), point, action, "trajectory"))
    point = oracle.start(transitions.observation[rows], simulators[rows])
    for i in range(length):
        point, prediction = step(jax.random.key(i), point, transitions.action[rows + i])
        np.testing.assert_array_equal(point.observation, transitions.next_observation[rows + i])
        np.testing.assert_array_equal(prediction.reward, transitions.reward[rows + i])
        np.testing.assert_array_equal(prediction.discount, transitions.discount[rows + i])
        # What follows an end is the next episode's.
    assert isinstance(point, Point)


def broken(row: np.ndarray, nq: int) -> np.ndarray:
    """Return a row with speeds that no simulator keeps up with; without the warm start it has."""
    row = row.copy()
    row[nq : nq + nq - 1] = 1e9
    return row


@pytest.mark.parametrize("task", ["Hopper-v5", "Ant-v5", "Humanoid-v5"])
def test_a_row_that_blows_up_gives_nothing_that_looks_healthy(task, capfd, tmp_path):
    simulator = Simulator(task, read_options(task, TASKS[task].options))
    row, _ = simulator.reset(0)
    action = np.zeros_like(simulator.action_scale)
    expected = simulator.step(row, action)
    for bad_row, bad_action in (
        (broken(row, simulator.env.model.nq), action),
        (np.full_like(row, np.nan), action),
        (row, np.full_like(action, np.nan)),
        (row, np.full_like(action, np.inf)),
    ):
        found = simulator.step(bad_row, bad_action, repeat=2)
        assert np.isnan(found.row).all()
        assert np.isnan(found.observation).all()
        assert np.isnan(found.reward)
        assert not found.terminated
    assert_equal(simulator.step(row, action), expected)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []  # MuJoCo's log


def test_a_blown_up_row_is_seen_as_not_finite_in_the_program():
    env = adapted("Hopper-v5")
    state = env.reset(jax.random.key(0))
    row = np.asarray(state.simulator).view(np.float64)
    bad = state._replace(simulator=jnp.asarray(broken(row, 6).view(np.uint32)))
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), state, bad)
    _, made = jax.vmap(env.step, in_axes=(None, 0, None))(jax.random.key(1), both, jnp.zeros(3))
    assert np.isfinite(made.reward).tolist() == [True, False]
    assert np.isfinite(made.next_observation).all(axis=1).tolist() == [True, False]


def test_repeated_actions_sum_rewards_and_stop_at_a_termination():
    env, thrice = adapted("InvertedPendulum-v5"), adapted("InvertedPendulum-v5", action_repeat=3)
    assert thrice.spec.dt == pytest.approx(3 * env.spec.dt)
    one, three, push = jax.jit(env.step), jax.jit(thrice.step), jnp.ones(1)
    key = jax.random.key(0)
    state = repeated = env.reset(key)
    while True:
        total = 0.0
        for _ in range(3):
            state, made = one(jax.random.key(1), state, push)
            total += float(made.reward)
            if made.discount == 0:
                break
        repeated, summed = three(jax.random.key(1), repeated, push)
        assert float(summed.reward) == total
        assert_equal(summed.next_observation, made.next_observation)
        if made.discount == 0:
            break
    assert bool(repeated.done)


def test_options_reach_the_task_and_its_rule():
    options = ("healthy_z_range=[1.2, 2.0]", "healthy_reward=0.5", "ctrl_cost_weight=0")
    env = adapted("Hopper-v5", options=options)
    high, low = jnp.zeros(11).at[0].set(1.25), jnp.zeros(11).at[0].set(1.1)
    assert not env.terminated(high)
    assert env.terminated(low)
    assert not adapted("Hopper-v5").terminated(low)
    positions = adapted("Hopper-v5", options=("exclude_current_positions_from_observation=false",))
    assert positions.spec.observation_size == 12
    assert positions.terminated(jnp.zeros(12).at[1].set(0.5))
    assert not positions.terminated(jnp.zeros(12).at[1].set(1.25))
    never = adapted("Hopper-v5", options=("terminate_when_unhealthy=false",))
    assert not never.terminated(jnp.zeros(11))
    whole = ("exclude_current_positions_from_observation=false",)
    assert adapted("Humanoid-v4", options=whole).spec.observation_size == 47
    # The task's own default can be undone.
    assert adapted("Ant-v5", options=("include_cfrc_ext_in_observation=true",)).spec[1] == 105


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("healthy_rewrad=1", r"Hopper-v5 has no option 'healthy_rewrad'; did you mean healthy_rew"),
        ("healthy_reward", r"'healthy_reward': write healthy_reward=VALUE as in .*=1.0"),
        ("healthy_reward=much", r"write healthy_reward=VALUE"),
        ("healthy_reward=true", r"write healthy_reward=VALUE"),
        ("terminate_when_unhealthy=1", r"terminate_when_unhealthy=true"),
        ("frame_skip=0", r"cannot be made with \['frame_skip=0'\]: ZeroDivisionError"),
        ("frame_skip=-1", r"a step would take -0.002 s"),
        ("reset_noise_scale=-1", r"cannot be made with .*Error"),
        ("healthy_reward=NaN", r"its first step is not finite"),
        ("xml_file=nope.xml", r"nope.xml does not exist"),
        ("healthy_z_range=[1]", r"healthy_z_range=\[0.7, Infinity\]"),
        ("render_mode=human", r"no option 'render_mode'"),
    ],
)
def test_a_wrong_option_is_named(option, message):
    with pytest.raises(ConfigError, match=message):
        adapted("Hopper-v5", options=(option,))


def test_only_gymnasiums_tasks_have_options():
    with pytest.raises(ConfigError, match=r"env.options: pendulum has none"):
        make_env(EnvConfig(name="pendulum", backend="analytic", options=("mass=2",)))


@pytest.mark.parametrize("algorithm", ["svg", "policy_search", "ilqr"])
def test_gradients_through_mujoco_are_refused(algorithm):
    config = Config(algorithm=algorithm, model="oracle")
    with pytest.raises(ConfigError, match=r"model: .* JAX has none of gym/Hopper-v5"):
        make_algorithm(adapted("Hopper-v5"), config)


@pytest.mark.slow
def test_values_are_expanded_through_the_true_mujoco():
    """MVE's targets need no gradient of the model, so the oracle serves."""
    config = environment_preset("gym/Hopper-v5", "debug")
    config = dataclasses.replace(
        config, algorithm="mve", model="oracle", expansion=ExpansionConfig(horizon=2)
    )
    from mbpo_jax.training.loop import make_program

    program = make_program(make_env(config.env))
    state = jax.jit(functools.partial(program.init, config))(jax.random.key(0))
    state = jax.jit(program.collect)(config, state)
    state, metrics = jax.jit(program.step)(config, config.random_steps, state)
    assert bool(state.healthy)
    assert np.isfinite(metrics["sac/critic_loss"])


def test_without_a_cpu_nothing_is_started(monkeypatch):
    told = SimpleNamespace(config=SimpleNamespace(jax_platforms="cuda"))
    monkeypatch.setattr(adapter, "jax", told)
    with pytest.raises(ConfigError, match="use JAX_PLATFORMS=cuda,cpu"):
        adapter.make_gymnasium_env("Hopper-v5", (), 1000, 1)

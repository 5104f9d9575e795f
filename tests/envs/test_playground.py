"""DeepMind Control's tasks against MuJoCo Playground itself, where the extra `dmc` is installed.

Compiling takes most of the time, half a minute for each task with contacts.
"""

import dataclasses
import functools
import itertools
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

pytest.importorskip("mujoco_playground", reason="the extra dmc is not installed")

from mujoco_playground import dm_control_suite

from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.config import EnvConfig
from mbpo_jax.envs import ENVIRONMENTS, make_env
from mbpo_jax.envs.base import step_or_reset
from mbpo_jax.envs.playground import TASKS, Row, load, names_of
from mbpo_jax.envs.termination import never
from mbpo_jax.errors import ConfigError
from mbpo_jax.models.oracle import make_oracle
from mbpo_jax.presets import environment_preset
from mbpo_jax.trees import all_finite
from mbpo_jax.types import Env, EnvState, Transition
from tests.choice import mostly_exhaustive

pytestmark = [
    # MJX promotes ranks.
    pytest.mark.brax,
    pytest.mark.slow,
    # Of Playground's model of the cheetah.
    pytest.mark.filterwarnings("ignore:.*settotalmass:UserWarning"),
]

PLAYED = (
    *("CartpoleSwingup", "CheetahRun", "HopperStand", "PendulumSwingup", "ReacherEasy"),
    "WalkerWalk",
)
NUM_STEPS = 50
ROUNDING = {"rtol": 1e-4, "atol": 1e-4}
"""Of two programs that compute the same; speeds at a contact reach tens of radians a second."""


NAMED = (
    *("AcrobotSwingup", "BallInCup", "CartpoleSwingup", "CheetahRun", "FingerSpin"),
    *("FingerTurnEasy", "FishSwim", "HopperStand", "HumanoidRun", "PendulumSwingup"),
    *("PointMass", "ReacherEasy", "SwimmerSwimmer6", "WalkerWalk"),
)
"""A task of each kind of observation."""


def meant(name: str, model: mujoco.MjModel, data: mujoco.MjData) -> float:
    """Return what a name says, of MuJoCo's own data by MuJoCo's own names."""

    def sensor(of: str) -> np.ndarray:
        return data.sensor(of).data

    def place(of: str) -> np.ndarray:
        known = {model.geom(i).name for i in range(model.ngeom)}
        return data.geom(of).xpos if of in known else data.body(of).xpos

    def frame(of: str) -> np.ndarray:
        return data.body(of).xmat.reshape(3, 3)

    joints = {model.joint(i).name.replace("_", " "): model.joint(i) for i in range(model.njnt)}
    bodies = {model.body(i).name.replace("_", " ") for i in range(model.nbody)}
    task_own = {
        "head z": lambda: data.body("head").xpos[2],
        "torso upright": lambda: frame("torso")[2, 2],
        "distance to target": lambda: (
            np.linalg.norm(sensor("target") - sensor("tip")) - model.site("target").size[0]
        ),
    }
    if name in task_own:
        return task_own[name]()
    if name in joints:
        return data.qpos[joints[name].qposadr[0]]
    *start, last = name.split()
    what = " ".join(start)
    axis = {"x": 0, "y": 1, "z": 2}.get(last, 0)
    if start[0] in ("sin", "cos"):  # of a turn around y
        return frame("_".join(name.split()[1:]))[0, 2 if start[0] == "sin" else 0]
    if start[0] == "touch":
        return np.log1p(sensor(f"touch{last}" if last in ("top", "bottom") else f"touch_{last}")[0])
    if what == "torso upright":  # how much each axis of the torso points up
        return frame("torso")[2, axis]
    if what.endswith("mouth"):  # in the mouth's frame, the head's, the world's
        return ((place("target") - place("mouth")) @ data.geom("mouth").xmat.reshape(3, 3))[axis]
    if what.endswith("nose"):
        return ((place("target") - place("nose")) @ frame("head"))[axis]
    if what.endswith("spinner"):
        return (sensor(what.split()[0]) - sensor("spinner"))[axis]
    if what.endswith("finger"):
        return (place("target") - place("finger"))[axis]
    if what in ("left hand", "left foot", "right hand", "right foot"):
        away = place(what.replace(" ", "_")) - place("torso")
        return (away @ frame("torso"))[axis]
    if what.startswith("center of mass"):
        return sensor("torso_subtreelinvel")["xyz".index(what[-1])]
    if what.endswith(" spin"):
        if (body := what.removesuffix(" spin")) in joints:
            return data.qvel[joints[body].dofadr[0] + 3 + axis]
        own = body.replace("segment ", "gyro_") if body != "head" else "head_gyro"
        return sensor(own)[axis]
    assert last == "speed", name
    if what in joints:
        return data.qvel[joints[what].dofadr[0]]
    of, direction = what.rsplit(maxsplit=1)
    if of in joints:  # a free one
        return data.qvel[joints[of].dofadr[0] + "xyz".index(direction)]
    assert of in bodies, name
    own = of.replace("segment ", "velocimeter_") if of != "head" else "head_vel"
    return sensor(own)["xyz".index(direction)]


@pytest.mark.parametrize("task", NAMED)
def test_every_component_is_what_its_name_says(task):
    """Asked of MuJoCo in C, whose data have the fields that Playground reads."""
    simulator = load(task)
    model, random = simulator.mj_model, np.random.default_rng(0)
    data = mujoco.MjData(model)
    data.qpos[:] += random.uniform(-0.5, 0.5, model.nq)
    data.qvel[:] = random.uniform(-1, 1, model.nv)
    mujoco.mj_forward(model, data)
    frames = {name: getattr(data, name).reshape(-1, 3, 3) for name in ("xmat", "geom_xmat")}
    names = ("qpos", "qvel", "xpos", "geom_xpos", "site_xpos", "sensordata")
    read = types.SimpleNamespace(**frames, **{name: getattr(data, name) for name in names})
    components = names_of(task, model)
    assert len(components) == len(set(components)) == TASKS[task].observation_size
    found = [meant(name, model, data) for name in components]
    np.testing.assert_allclose(found, simulator._get_obs(read, {}), rtol=1e-5, atol=1e-6)


@functools.cache
def adapted(task: str, **settings) -> Env:
    return make_env(EnvConfig(name=f"dmc/{task}", backend="mjx", **settings))


@functools.cache
def stepping(task: str):
    """Return the compiled functions of Playground and ours: reset, reset, step, step."""
    original, env = load(task), adapted(task)
    return tuple(map(jax.jit, (original.reset, env.reset, original.step, env.step)))


def row_of(data) -> Row:
    return Row(data.qpos, data.qvel, data.qacc_warmstart, data.mocap_pos)


class Played(NamedTuple):
    """Random play of Playground, and ours beside it, which starts each step where its own led."""

    actions: np.ndarray
    start: EnvState
    expected: list
    found: list[tuple[EnvState, Transition]]


@functools.cache
def played(task: str) -> Played:
    key = jax.random.key(1)
    reset, own_reset, step, own_step = stepping(task)
    state, start = reset(jax.random.key_data(key)), own_reset(key)
    size = ENVIRONMENTS[f"dmc/{task}"].action_size
    actions = jax.random.uniform(jax.random.key(2), (NUM_STEPS, size), minval=-1.0)
    own, expected, found = start, [state], []
    for action in actions:
        state = step(state, action)
        own, transition = own_step(jax.random.key(0), own, action)
        expected.append(state)
        found.append((own, transition))
    return Played(np.asarray(actions), start, expected, found)


@pytest.mark.parametrize("task", PLAYED)
def test_a_reset_is_playgrounds(task):
    start, state = played(task).start, played(task).expected[0]
    np.testing.assert_allclose(start.observation, state.obs, **ROUNDING)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **ROUNDING),
        start.simulator,
        row_of(state.data),
    )
    assert not start.done
    assert start.steps == 0


@pytest.mark.parametrize("task", PLAYED)
def test_steps_in_a_row_are_playgrounds(task):
    """What is observed, what is paid, and what is carried, though it is a part of theirs."""
    run = played(task)
    pairs = itertools.pairwise(run.expected)
    for i, ((before, after), (state, made)) in enumerate(zip(pairs, run.found, strict=True)):
        # Rounding grows from step to step where feet touch the ground.
        growing = {"rtol": 1e-4, "atol": 1e-4 * (1 + i)}
        np.testing.assert_allclose(made.observation, before.obs, **growing)
        np.testing.assert_allclose(made.next_observation, after.obs, **growing)
        np.testing.assert_allclose(made.reward, after.reward, **growing)
        np.testing.assert_allclose(state.simulator.qpos, after.data.qpos, **growing)
        np.testing.assert_array_equal(made.action, run.actions[i])
    full = sum(x.nbytes for x in jax.tree.leaves(run.expected[0]))
    assert sum(x.nbytes for x in jax.tree.leaves(run.start.simulator)) < full / 40


@pytest.mark.parametrize("task", PLAYED)
def test_a_step_from_any_state_of_playground_is_playgrounds(task):
    """So no error of an earlier step is hidden or adds up, and a row is all that a step reads."""
    run, (*_, own_step) = played(task), stepping(task)
    pairs = itertools.pairwise(run.expected)
    for (before, after), action in zip(pairs, run.actions, strict=True):
        state = EnvState(row_of(before.data), before.obs, jnp.int32(0), jnp.bool_(False))
        following, made = own_step(jax.random.key(0), state, action)
        np.testing.assert_allclose(made.next_observation, after.obs, **ROUNDING)
        np.testing.assert_allclose(made.reward, after.reward, **ROUNDING)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3),
            following.simulator._replace(qacc_warmstart=0),
            row_of(after.data)._replace(qacc_warmstart=0),
        )


@pytest.mark.parametrize("task", PLAYED)
def test_rewards_are_between_0_and_1_and_nothing_terminates(task):
    for (state, made), after in zip(played(task).found, played(task).expected[1:], strict=True):
        assert 0.0 <= made.reward <= 1.0
        assert made.discount == 1.0
        assert not state.done
        assert after.done == 0.0
    assert adapted(task).terminated is never


def test_all_of_playgrounds_tasks_are_in_the_table():
    assert set(TASKS) == set(dm_control_suite.ALL_ENVS)
    assert {name for name, info in ENVIRONMENTS.items() if info.suite == "dmc"} == {
        f"dmc/{task}" for task in TASKS
    }


@pytest.mark.parametrize("task", TASKS)
def test_the_table_holds_the_tasks_sizes_and_a_row_is_carried_by_a_loop(task, key):
    """What a row leaves out is not there: activations of actuators, and constraints to switch."""
    env, model = adapted(task), load(task).mj_model
    state = jax.eval_shape(env.reset, key)
    info = ENVIRONMENTS[f"dmc/{task}"]
    assert state.observation.shape == (info.observation_size,) == (env.spec.observation_size,)
    assert model.nu == info.action_size == env.spec.action_size
    np.testing.assert_array_equal(model.actuator_ctrlrange, [[-1, 1]] * model.nu)
    assert (model.na, model.neq, model.nplugin, model.nuserdata) == (0, 0, 0, 0)
    assert model.nmocap == len(state.simulator.mocap_pos) <= 1
    assert load(task)._config.episode_length == environment_preset(f"dmc/{task}").env.episode_length
    action = jax.ShapeDtypeStruct((env.spec.action_size,), jnp.float32)
    stepped, transition = jax.eval_shape(env.step, key, state, action)
    assert jax.tree.structure(state) == jax.tree.structure(stepped)
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(stepped), strict=True):
        assert (old.shape, old.dtype, old.weak_type) == (new.shape, new.dtype, new.weak_type)
    assert all(
        leaf.dtype == jnp.float32 and not leaf.weak_type for leaf in jax.tree.leaves(transition)
    )


def test_a_time_limit_terminates_nothing_and_resets_nothing(key):
    """Five steps of two: the third action goes over the limit."""
    env = adapted("PendulumSwingup", episode_length=5, action_repeat=2)
    endless = adapted("PendulumSwingup", action_repeat=2)
    assert env.spec.dt == endless.spec.dt == 0.04
    step, endless_step = jax.jit(env.step), jax.jit(endless.step)
    state = other = jax.jit(env.reset)(key)
    for i in range(5):
        following, made = step(key, state, jnp.ones(1))
        other, expected = endless_step(key, other, jnp.ones(1))
        assert following.done == (i >= 2)
        assert made.discount == 1.0
        assert following.steps == 2 * (i + 1)
        np.testing.assert_array_equal(following.observation, made.next_observation)
        np.testing.assert_array_equal(made.next_observation, expected.next_observation)
        state = following


def test_after_the_time_limit_another_episode_begins(key):
    env = adapted("ReacherEasy", episode_length=2)
    step = jax.jit(functools.partial(step_or_reset, env))
    keys = jax.random.split(key, 5)
    states = [jax.jit(env.reset)(keys[0])]
    for step_key in keys[1:]:
        state, made = step(step_key, states[-1], jnp.zeros(2))
        assert state.done == (len(states) % 2 == 0)
        jumped = np.any(state.observation != made.next_observation)
        assert jumped == state.done
        states.append(state)
    targets = np.stack([state.simulator.mocap_pos for state in states])
    np.testing.assert_array_equal(targets[1], targets[0])
    assert np.any(targets[2] != targets[0])


def test_a_repeated_action_is_paid_for_each_time(key):
    thrice = jax.jit(adapted("CartpoleSwingup", action_repeat=3).step)
    once = stepping("CartpoleSwingup")[-1]
    state, action = played("CartpoleSwingup").found[10][0], jnp.array([0.7])
    following, made = thrice(key, state, action)
    alone, rewards = state, []
    for _ in range(3):
        alone, single = once(key, alone, action)
        rewards.append(single.reward)
    np.testing.assert_allclose(made.reward, sum(rewards), rtol=1e-5)
    np.testing.assert_allclose(made.next_observation, alone.observation, **ROUNDING)
    np.testing.assert_array_equal(made.observation, state.observation)
    assert following.steps == state.steps + 3


@pytest.mark.parametrize("task", ["ReacherEasy", "HopperStand"])
def test_vmap_equals_a_loop(task, key):
    run, step = played(task), stepping(task)[-1]
    states = jax.tree.map(lambda *x: jnp.stack(x), *(state for state, _ in run.found[:4]))
    actions = run.actions[1:5]
    following, made = jax.jit(jax.vmap(adapted(task).step, (None, 0, 0)))(key, states, actions)
    for i, action in enumerate(actions):
        alone = step(key, jax.tree.map(lambda x, i=i: x[i], states), action)
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-3, atol=1e-3),
            (following._replace(simulator=following.simulator.qpos), made),
            (alone[0]._replace(simulator=alone[0].simulator.qpos), alone[1]),
        )


def test_what_is_not_a_number_is_seen_and_terminates_nothing(key):
    state, step = played("PendulumSwingup").start, stepping("PendulumSwingup")[-1]
    broken = state._replace(simulator=state.simulator._replace(qvel=jnp.full(1, jnp.nan)))
    _, made = step(key, broken, jnp.zeros(1))
    assert np.isnan(made.reward)
    assert made.discount == 1.0
    assert not all_finite(made)


def test_the_oracle_goes_on_from_replayed_states_as_reality_did():
    """The target of a Reacher's episode, which none of its numbers but the row's tell, too."""
    run, env = played("ReacherEasy"), adapted("ReacherEasy")
    oracle = make_oracle(env)
    states = jax.tree.map(lambda *x: jnp.stack(x), run.start, *(state for state, _ in run.found))
    step = jax.jit(lambda key, point, action: oracle.step(key, (), point, action, "trajectory"))
    rows = np.arange(40)
    observed = np.stack([made.observation for _, made in run.found])
    point = oracle.start(observed[rows], jax.tree.map(lambda x: x[rows], states.simulator))
    for i in range(5):
        point, prediction = step(jax.random.key(i), point, run.actions[rows + i])
        following = np.stack([run.found[row + i][1].next_observation for row in rows])
        rewards = np.stack([run.found[row + i][1].reward for row in rows])
        np.testing.assert_allclose(point.observation, following, **ROUNDING)
        np.testing.assert_allclose(prediction.reward, rewards, **ROUNDING)
        np.testing.assert_array_equal(prediction.discount, 1.0)


# Derivatives.


def paid_and_seen(env: Env, state: EnvState, actions: jax.Array) -> jax.Array:
    """Return the rewards of actions `[T, A]` and the mean of what is observed after them."""

    def step(state, action):
        state, made = env.step(jax.random.key(0), state, action)
        return state, made.reward

    state, rewards = jax.lax.scan(step, state, actions)
    return rewards.sum() + state.observation.mean()


def slopes(task: str, rows: int, steps: int) -> jax.Array:
    """Return derivatives in the actions `[B, T, A]` of play from many starts."""
    env = adapted(task)
    starts = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), rows))
    shape = rows, steps, env.spec.action_size
    actions = jax.random.uniform(jax.random.key(3), shape, minval=-1.0)
    derivative = jax.grad(functools.partial(paid_and_seen, env), argnums=1)
    return jax.jit(jax.vmap(derivative))(starts, actions)


@pytest.mark.parametrize("task", [task for task, info in TASKS.items() if info.differentiable])
def test_derivatives_are_finite_where_they_are_promised(task):
    assert adapted(task).differentiable
    found = slopes(task, rows=256, steps=20)
    assert np.all(np.isfinite(found))
    assert np.any(found != 0.0)


def test_derivatives_through_one_iteration_of_the_solver_are_not_always_finite():
    """If they are, one day, the table can promise more."""
    assert not adapted("PointMass").differentiable
    finite = np.isfinite(slopes("PointMass", rows=256, steps=20)).all(axis=(1, 2))
    assert 0 < finite.sum() < 256


@pytest.mark.parametrize(
    "task",
    mostly_exhaustive(["CheetahRun", "FingerSpin", "HopperStand", "WalkerWalk"], PLAYED.count),
)
def test_jax_has_no_derivative_of_more_iterations(task, key):
    env = adapted(task)
    assert not env.differentiable
    state = jax.eval_shape(env.reset, key)
    actions = jax.ShapeDtypeStruct((2, env.spec.action_size), jnp.float32)
    derivative = jax.grad(functools.partial(paid_and_seen, env), argnums=1)
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.eval_shape(derivative, state, actions)


def test_a_derivative_is_that_of_finite_differences(key):
    env = adapted("PendulumSwingup")
    value = functools.partial(paid_and_seen, env, jax.jit(env.reset)(key))
    actions = jax.random.uniform(jax.random.key(3), (10, 1), minval=-0.5, maxval=0.5)
    direction = jax.random.normal(jax.random.key(4), actions.shape)
    along = jax.jit(lambda size: value(actions + size * direction))
    expected = (along(0.05) - along(-0.05)) / 0.1
    found = jnp.vdot(jax.jit(jax.grad(value))(actions), direction)
    np.testing.assert_allclose(found, expected, rtol=0.02)


def test_an_algorithm_that_differentiates_the_true_system_is_refused_where_it_cannot():
    config = environment_preset("dmc/CheetahRun", "debug")
    config = dataclasses.replace(config, algorithm="svg", model="oracle")
    with pytest.raises(ConfigError, match="JAX has none of dmc/CheetahRun"):
        make_algorithm(adapted("CheetahRun"), config)


def test_a_picture_has_positions_and_targets_of_playgrounds_model():
    run, picture = played("ReacherEasy"), adapted("ReacherEasy").picture
    frames = np.stack([picture.frame(state) for state, _ in run.found])
    model, positions = picture.model(), picture.positions(frames)
    assert positions.shape == (NUM_STEPS, model.nq + 3 * model.nmocap)
    assert positions.dtype == np.float64
    last = run.expected[-1].data
    np.testing.assert_allclose(positions[-1, : model.nq], last.qpos, **ROUNDING)
    np.testing.assert_allclose(positions[-1, model.nq :], last.mocap_pos[0], **ROUNDING)

"""Names of observations: each is looked up in the simulator, and has the value that is observed."""

import json
import types

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.config import EnvConfig
from mbpo_jax.envs import brax
from mbpo_jax.envs.analytic import SYSTEMS, make_analytic_env
from mbpo_jax.envs.gymnasium import TASKS, names_of
from mbpo_jax.envs.gymnasium_rows import Simulator
from mbpo_jax.envs.own import make_own_env
from mbpo_jax.errors import ConfigError
from mbpo_jax.types import EnvSpec

AXES = {"x": 0, "y": 1, "z": 2}
PARTS = {"qw": 3, "qx": 4, "qy": 5, "qz": 6}


def meant(name: str, model, data) -> float:
    """Return what a name says, of MuJoCo's own data by MuJoCo's own names."""
    joints = {
        model.joint(i).name.removesuffix("_joint").replace("_", " "): model.joint(i)
        for i in range(model.njnt)
    }
    if name.endswith(" constraint force"):
        joint = joints[name.removesuffix(" constraint force")]
        return np.clip(data.qfrc_constraint[joint.dofadr[0]], -10, 10)
    if name in joints:
        return data.qpos[joints[name].qposadr[0]]
    if name.startswith(("cos ", "sin ")):
        function = np.cos if name.startswith("cos") else np.sin
        return function(data.qpos[joints[name[4:]].qposadr[0]])
    *start, last = name.split()
    body = " ".join(start)
    if last in PARTS:
        return data.qpos[joints[body].qposadr[0] + PARTS[last]]
    if last in AXES and body in joints:
        return data.qpos[joints[body].qposadr[0] + AXES[last]]
    if last in AXES and body.endswith(" spin"):
        return data.qvel[joints[body.removesuffix(" spin")].dofadr[0] + 3 + AXES[last]]
    if last in AXES and body == "target":  # a slide joint of its own
        return data.qpos[joints[f"target {last}"].qposadr[0]]
    if last in AXES:
        first, _, other = body.partition(" - ")
        places = [data.body(each.replace(" ", "_")).xpos for each in filter(None, (first, other))]
        return (places[0] - (places[1] if other else 0.0))[AXES[last]]
    assert last == "speed", name
    if body in joints:
        return data.qvel[joints[body].dofadr[0]]
    joint, axis = body.rsplit(maxsplit=1)
    return data.qvel[joints[joint].dofadr[0] + AXES[axis]]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_component_of_gymnasiums_tasks_is_what_its_name_says(task):
    info = TASKS[task]
    options = {name: json.loads(value) for name, value in (o.split("=") for o in info.options)}
    simulator = Simulator(task, options, truncated=info.truncated)
    simulator.reset(3)
    random = np.random.default_rng(0)
    row = simulator.row()
    for _ in range(3):  # away from the start, where numbers are alike
        row, observation, *_ = simulator.step(row, random.uniform(-1, 1, info.action_size))
    env = simulator.env
    names = names_of(task, env, simulator.observation_size)
    assert len(names) == len(set(names)) == info.observation_size
    found = [meant(name, env.model, env.data) for name in names]
    np.testing.assert_allclose(found, observation, rtol=1e-5, atol=1e-6)


@pytest.mark.brax
@pytest.mark.parametrize(
    "name", ["ant", "hopper", "halfcheetah", "swimmer", "inverted_double_pendulum"]
)
def test_the_joints_of_brax_are_observed_as_their_names_say(name):
    simulator = brax.load(name, "generalized")
    model, random = simulator.sys.mj_model, np.random.default_rng(0)
    q, qd = (random.uniform(-1, 1, size).astype(np.float32) for size in (model.nq, model.nv))
    names = brax.names_of(name, model)
    assert len(names) == len(set(names)) == brax.ENVIRONMENTS[name].observation_size
    # All that it reads; of bodies the height of the first alone.
    place = types.SimpleNamespace(pos=jnp.full((1, 3), 0.7))
    state = types.SimpleNamespace(q=jnp.asarray(q), qd=jnp.asarray(qd), x=place)
    observation = simulator._get_obs(state)
    data = types.SimpleNamespace(qpos=q, qvel=qd)
    expected = [0.7 if name == "torso z" else meant(name, model, data) for name in names]
    np.testing.assert_allclose(observation, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.brax
@pytest.mark.parametrize("name", ["humanoid", "reacher", "pusher"])
def test_what_brax_observes_of_bodies_has_a_name_each(name):
    names = brax.names_of(name, brax.load(name, "generalized").sys.mj_model)
    assert len(names) == len(set(names)) == brax.ENVIRONMENTS[name].observation_size


def test_what_options_add_to_an_observation_has_no_names():
    env = gymnasium.make("Ant-v5").unwrapped
    names = names_of("Ant-v5", env, env.observation_space.shape[0])
    assert len(names) == 27
    spec = EnvSpec("ant", 105, 8, 1000, 1, 0.05, observed=names)
    assert spec.components[26:28] == ["ankle 4 speed", "observation 27"]


@pytest.mark.parametrize("name", SYSTEMS)
def test_our_own_systems_name_all_or_nothing(name):
    spec = make_analytic_env(name, 10).spec
    assert len(spec.components) == spec.observation_size
    assert len(spec.observed) in (0, spec.observation_size)
    assert bool(spec.observed) == (name in ENVIRONMENTS_WITH_NAMES)


ENVIRONMENTS_WITH_NAMES = (
    *("cartpole", "chaotic_rnn", "double_pendulum", "lq", "maths_test", "pendulum"),
)
"""Mazes number their states, and probes have nothing to be named."""


def too_many(config):
    env = make_analytic_env("pendulum", config.episode_length)
    return env._replace(spec=env.spec._replace(observed=("a", "b", "c", "d")))


def test_an_environment_of_ones_own_has_no_more_names_than_components():
    config = EnvConfig(
        name=f"{__name__}:too_many", backend="own", episode_length=10, action_repeat=1
    )
    with pytest.raises(ConfigError, match="names 4 components of observations that have 3"):
        make_own_env(config)

"""Termination rules against hand-made observations and against falls recorded in the simulator."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.config import EnvConfig
from mbpo_jax.envs import ENVIRONMENTS, analytic, brax, make_env
from mbpo_jax.envs.brax import load
from mbpo_jax.envs.termination import (
    MJX_POSE_LAG,
    brax_rule,
    never,
    rule_of,
    tip_height,
)
from mbpo_jax.errors import ConfigError

DATA = Path(__file__).parent / "data"
TERMINATING = [name for name in brax.ENVIRONMENTS if brax_rule(name, "generalized") is not never]
SOFT_JOINTS = [("inverted_double_pendulum", "spring"), ("inverted_double_pendulum", "positional")]
JOINT_PLAY = 0.01  # metres by which the tip may be away from where the joint angles put it
RECORDED = [(name, backend) for name in TERMINATING for backend in ENVIRONMENTS[name].backends]


def observation(name, **entries):
    """Build an observation of zeros but for `_i=value` at index i."""
    array = np.zeros(ENVIRONMENTS[name].observation_size, np.float32)
    for index, value in entries.items():
        array[int(index[1:])] = value
    return jnp.asarray(array)


def double_pendulum(first, second):
    """Build the observation at two joint angles in degrees."""
    angles = np.radians([first, second])
    return jnp.asarray(np.r_[0.0, np.sin(angles), np.cos(angles), 0.0, 0.0, 0.0], jnp.float32)


@pytest.mark.parametrize("name", [*analytic.SYSTEMS, *brax.ENVIRONMENTS])
@pytest.mark.parametrize("leading", [(), (5,), (2, 3)])
def test_leading_axes_are_kept(name, leading):
    batch = jnp.zeros((*leading, ENVIRONMENTS[name].observation_size))
    own = analytic.SYSTEMS.get(name)
    terminated = (own.terminated if own else brax_rule(name, "generalized"))(batch)
    assert terminated.shape == leading
    assert terminated.dtype == bool


@pytest.mark.parametrize(
    ("name", "entries", "terminated"),
    [
        ("hopper", {"_0": 1.25}, False),
        ("hopper", {"_0": 0.7}, True),
        ("hopper", {"_0": 50.0}, False),
        ("hopper", {"_0": 1.25, "_1": 0.2}, True),
        ("hopper", {"_0": 1.25, "_1": -0.2}, True),
        ("hopper", {"_0": 1.25, "_1": -0.19}, False),
        ("hopper", {"_0": 1.25, "_4": 100.0}, True),
        ("hopper", {"_0": 1.25, "_10": -150.0}, True),
        ("hopper", {"_0": 1.25, "_10": -99.0}, False),
        ("walker2d", {"_0": 1.25}, False),
        ("walker2d", {"_0": 0.8}, True),
        ("walker2d", {"_0": 2.0}, True),
        ("walker2d", {"_0": 1.25, "_1": 1.0}, True),
        ("walker2d", {"_0": 1.25, "_1": -1.0}, True),
        ("walker2d", {"_0": 1.25, "_1": -0.99, "_9": 1e3}, False),
        ("ant", {"_0": 0.2}, False),
        ("ant", {"_0": 0.199}, True),
        ("ant", {"_0": 1.0}, False),
        ("ant", {"_0": 1.001}, True),
        ("humanoid", {"_0": 1.0}, False),
        ("humanoid", {"_0": 0.999}, True),
        ("humanoid", {"_0": 2.0}, False),
        ("humanoid", {"_0": 2.001}, True),
        ("inverted_pendulum", {"_0": 5.0, "_1": 0.2}, False),
        ("inverted_pendulum", {"_1": 0.201}, True),
        ("inverted_pendulum", {"_1": -0.201}, True),
    ],
)
def test_limits(name, entries, terminated):
    assert brax_rule(name, "generalized")(observation(name, **entries)) == terminated


@pytest.mark.parametrize(
    ("first", "second", "terminated"),
    [
        (0, 0, False),  # upright: 1.2 m
        (180, 0, True),
        (34, 0, True),  # 1.2 cos(34) = 0.995
        (33, 0, False),  # 1.2 cos(33) = 1.006
        (30, -30, False),  # the second link stands upright: 0.6 cos(30) + 0.6 = 1.120
        (30, 30, True),  # 0.6 cos(30) + 0.6 cos(60) = 0.820
        (-30, 30, False),
        (10, 45, True),  # 0.6 cos(10) + 0.6 cos(55) = 0.935; cos(45) alone would give 1.015
    ],
)
def test_tip_of_the_double_pendulum(first, second, terminated):
    rule = brax_rule("inverted_double_pendulum", "generalized")
    assert rule(double_pendulum(first, second)) == terminated


@pytest.mark.parametrize(("name", "velocity"), [("ant", "_15"), ("humanoid", "_24")])
def test_mjx_judges_the_height_one_physics_step_ago(name, velocity):
    lowest = {"ant": 0.2, "humanoid": 1.0}[name]
    falling = observation(name, _0=lowest - 0.001, **{velocity: -1.0})
    assert brax_rule(name, "generalized")(falling)
    assert not brax_rule(name, "mjx")(falling)
    assert brax_rule(name, "mjx")(falling.at[0].add(-MJX_POSE_LAG[name]))


@pytest.mark.brax
@pytest.mark.parametrize("name", MJX_POSE_LAG)
def test_mjx_lag_is_the_physics_step(name):
    assert float(load(name, "mjx").sys.opt.timestep) == pytest.approx(MJX_POSE_LAG[name])


@pytest.mark.parametrize(("name", "backend"), RECORDED)
def test_rule_agrees_with_recorded_falls(name, backend):
    with np.load(DATA / f"{name}_{backend}.npz") as recorded:
        observations, terminated = recorded["next_observation"], recorded["terminated"]
    assert terminated.sum() >= 20
    assert (~terminated).sum() >= 20
    predicted = brax_rule(name, backend)(jnp.asarray(observations))
    decided = np.ones(len(terminated), bool)
    if (name, backend) in SOFT_JOINTS:
        decided = np.abs(tip_height(jnp.asarray(observations)) - 1.0) > JOINT_PLAY
    assert decided.mean() > 0.5
    np.testing.assert_array_equal(predicted[decided], terminated[decided])


def test_mjx_lag_is_needed_to_agree_with_recorded_falls():
    with np.load(DATA / "inverted_double_pendulum_mjx.npz") as recorded:
        observations, terminated = recorded["next_observation"], recorded["terminated"]
    without_lag = brax_rule("inverted_double_pendulum", "generalized")(jnp.asarray(observations))
    assert np.any(without_lag != terminated)


def pendulum():
    return make_env(EnvConfig(name="probe_delayed", backend="analytic"))


def test_the_mode_chooses_between_the_environments_rule_and_none():
    env = pendulum()
    assert rule_of(env, "known") is env.terminated
    assert rule_of(env, "none") is never
    assert rule_of(env, "learned") is None


def test_missing_rule_names_the_way_out():
    env = pendulum()
    env = env._replace(spec=env.spec._replace(name="unicycle"), terminated=None)
    with pytest.raises(ConfigError, match=r"'unicycle'.*Env.terminated.*termination=learned.*none"):
        rule_of(env, "known")
    assert rule_of(env, "learned") is None

"""Names, backends and sizes of environments."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest

from mbpo_jax.config import EnvConfig
from mbpo_jax.envs import ENVIRONMENTS, analytic, brax, environment_names, make_env
from mbpo_jax.errors import ConfigError
from tests.choice import mostly_exhaustive


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("hoper", "hopper"),
        ("HalfCheetah", "halfcheetah"),
        ("Walker2D-v4", "gym/Walker2d-v4"),
        ("gym/Hoper-v5", "gym/Hopper-v5"),
        ("Ant", "ant"),
        ("cheetahrun", "dmc/CheetahRun"),
    ],
)
def test_misspelt_name_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(ConfigError, match=rf"'{name}' .* did you mean {nearest}\b"):
        make_env(EnvConfig(name=name))


def test_name_like_no_other_is_answered_with_all():
    with pytest.raises(ConfigError) as error:
        make_env(EnvConfig(name="zzz"))
    assert all(name in str(error.value) for name in environment_names())


def test_unsupported_backend_is_answered_with_the_supported():
    with pytest.raises(ConfigError, match=r"swimmer does not run on 'mjx'.*generalized"):
        make_env(EnvConfig(name="swimmer", backend="mjx"))
    with pytest.raises(ConfigError, match=r"pendulum does not run on 'spring'; .*: analytic"):
        make_env(EnvConfig(name="pendulum", backend="spring"))
    with pytest.raises(ConfigError, match=r"hopper does not run on 'analytic'; .*generalized"):
        make_env(EnvConfig(name="hopper", backend="analytic"))
    with pytest.raises(ConfigError, match=r"'warp'.*generalized"):
        EnvConfig(backend="warp")  # pyright: ignore[reportArgumentType]


def test_what_needs_a_package_that_is_missing_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco_playground", None)
    with pytest.raises(ConfigError, match=r"dmc/CheetahRun needs MuJoCo Playground.*\.\[dmc\]"):
        make_env(EnvConfig(name="dmc/CheetahRun", backend="mjx"))
    with pytest.raises(ConfigError, match=r"does not run on 'generalized'; use one of: mjx"):
        make_env(EnvConfig(name="dmc/CheetahRun"))


def test_names_need_neither_brax_nor_a_device():
    """A device is set up when it is first used, and only then is it too late to choose it."""
    program = (
        "import sys, mbpo_jax.envs; from jax._src import xla_bridge; "
        "simulators = {'brax', 'gymnasium', 'mujoco', 'mujoco_playground'}; "
        "sys.exit(bool(simulators & set(sys.modules)) or xla_bridge.backends_are_initialized())"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0


@pytest.mark.brax
@pytest.mark.parametrize(
    "name",
    mostly_exhaustive(sorted(brax.ENVIRONMENTS), "inverted_pendulum".__eq__),
)
def test_table_holds_the_simulators_sizes(name):
    """Only the humanoid is truncated, so the kept size is the simulator's for all others."""
    env = make_env(EnvConfig(name=name))
    state = jax.eval_shape(env.reset, jax.random.key(0))
    size = ENVIRONMENTS[name].observation_size
    simulated = state.simulator.obs.shape[0]
    assert env.spec.observation_size == state.observation.shape[0] == size
    assert simulated > size if name == "humanoid" else simulated == size
    assert env.spec.action_size == ENVIRONMENTS[name].action_size


@pytest.mark.parametrize("name", analytic.SYSTEMS)
def test_table_holds_the_sizes_of_the_equations(name):
    env = make_env(EnvConfig(name=name, backend="analytic", episode_length=7, action_repeat=2))
    state = jax.eval_shape(env.reset, jax.random.key(0))
    sizes = *state.observation.shape, env.spec.action_size
    assert ENVIRONMENTS[name] == ("analytic", ("analytic",), *sizes)
    assert env.spec.observation_size == ENVIRONMENTS[name].observation_size
    assert (env.spec.name, env.spec.episode_length, env.spec.action_repeat) == (name, 7, 2)
    assert env.spec.dt == 2 * analytic.SYSTEMS[name].dt
    assert env.spec.tabular == name.endswith("maze")

"""The environments with known equations, by name; they have one backend, `analytic`."""

from mbpo_jax.envs.exam import make_maths_test
from mbpo_jax.envs.finite_horizon import make_chaotic_rnn, make_scalar_lq
from mbpo_jax.envs.maze import make_blocking_maze, make_dyna_maze, make_shortcut_maze
from mbpo_jax.envs.mechanics import make_cartpole, make_double_pendulum, make_pendulum
from mbpo_jax.envs.probes import PROBES
from mbpo_jax.envs.system import System, make_system_env
from mbpo_jax.types import Env

BACKENDS = ("analytic",)

SYSTEMS: dict[str, System] = {
    "blocking_maze": make_blocking_maze(),
    "cartpole": make_cartpole(),
    "chaotic_rnn": make_chaotic_rnn(),
    "double_pendulum": make_double_pendulum(),
    "lq": make_scalar_lq(),
    "maths_test": make_maths_test(),
    "maze": make_dyna_maze(),
    "pendulum": make_pendulum(),
    "shortcut_maze": make_shortcut_maze(),
    **PROBES,
}


def make_analytic_env(name: str, episode_length: int, action_repeat: int = 1) -> Env:
    """Build one of `SYSTEMS` as an environment; see `make_system_env`."""
    return make_system_env(name, SYSTEMS[name], episode_length, action_repeat)

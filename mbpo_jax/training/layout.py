"""The runs of a group, laid side by side over devices."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mbpo_jax.config import Config
from mbpo_jax.envs import make_env
from mbpo_jax.errors import ConfigError
from mbpo_jax.training.group import Group, data_paths, structural_differences
from mbpo_jax.training.loop import Program, make_program
from mbpo_jax.training.runs_axis import map_runs, padded_size, run_mesh, run_sharding
from mbpo_jax.types import Env, PyTree


class Runs(NamedTuple):
    """What is fixed for all runs of one program; of one run, without the first axis.

    Attributes:
      config: with its data fields as arrays `[R]`.
      key: `[R]`, one key per run, from its seed; training starts from it.
      evaluation_key: `[R]`, kept apart, so that looking changes nothing.
    """

    config: Config
    key: jax.Array
    evaluation_key: jax.Array


class Setup(NamedTuple):
    """What a command makes of a group before anything is compiled, once.

    Attributes:
      env: the environment.
      group: the runs.
      program: functions of one run.
      mesh: devices that share the runs; where their number does not divide that of the runs, the
        last run is repeated, and what becomes of its copies is not looked at.
      runs: what is fixed for all runs.
      shapes: shapes, dtypes and shardings of all runs' `TrainState`.
    """

    env: Env
    group: Group
    program: Program
    mesh: Mesh
    runs: Runs
    shapes: PyTree


def stack(configs: Sequence[Config]) -> Config:
    """Lay the numbers of configurations side by side, so that `vmap` can map over them.

    Args:
      configs: R of them that differ in numbers alone; their seeds do not count.

    Returns:
      A configuration whose data fields are arrays `[R]`: float32, or int32 for whole numbers. All
      have room for the longest of their model rollouts.

    Raises:
      ConfigError: there are none, or they differ in what shapes the program; each such setting is
        named.
    """
    if not configs:
        raise ConfigError("there are no configurations to lay side by side; give one or more")
    first = configs[0]
    if problems := [line for other in configs[1:] for line in structural_differences(first, other)]:
        raise ConfigError(*dict.fromkeys(problems))
    longest = max(config.rollout.longest for config in configs)
    data = [
        replace(
            config,
            seed=first.seed,
            num_seeds=first.num_seeds,
            rollout=config.rollout.shared(longest),
        )
        for config in configs
    ]
    return jax.tree_util.tree_map_with_path(_stacked, *data)


def _stacked(path: tuple, *values: float) -> jax.Array:
    """Lay the values that runs have of a field side by side, `[R]`."""
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    kinds = data_paths()
    # A field may hold several, which are numbered.
    whole = kinds.get(name, float) is int
    return jnp.asarray(values, jnp.int32 if whole else jnp.float32)


def set_up(group: Group, env: Env | None = None) -> Setup:
    """Put together what the programs of a group are made from; nothing is computed.

    Args:
      group: the runs.
      env: their environment; the one that their configuration names if None.

    Raises:
      ConfigError: the environment is unknown, or does not go with the algorithm.
    """
    env = env or make_env(group.config.env)
    program, mesh = make_program(env), run_mesh(len(group.runs))
    runs, sharding = _laid_out(group.runs, mesh), run_sharding(mesh)
    initialize = map_runs(lambda _, run: program.init(run.config, run.key), mesh)
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        jax.eval_shape(initialize, None, runs),
    )
    return Setup(env, group, program, mesh, runs, shapes)


def _laid_out(configs: Sequence[Config], mesh: Mesh) -> Runs:
    """Lay runs out over the devices."""
    copies = padded_size(len(configs), mesh) - len(configs)
    configs = [*configs, *[configs[-1]] * copies]
    pairs = [tuple(jax.random.split(jax.random.key(config.seed))) for config in configs]
    keys, evaluation_keys = (jnp.stack(keys) for keys in zip(*pairs, strict=True))
    # Keys are all that comes of a seed, so programs for other seeds are the same ones.
    config = replace(stack(configs), seed=0, num_seeds=1)
    return jax.device_put(Runs(config, keys, evaluation_keys), run_sharding(mesh))

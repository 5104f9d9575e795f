"""The training program, mapped over runs and compiled."""

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mbpo_jax import replay
from mbpo_jax.config import Config
from mbpo_jax.envs import make_env
from mbpo_jax.training import checkpoint, run_directory
from mbpo_jax.training.devices import compiler_options
from mbpo_jax.training.group import Group, data_paths
from mbpo_jax.training.loop import Program, TrainState, make_program
from mbpo_jax.training.runs_axis import map_runs, padded_size, run_mesh, run_sharding
from mbpo_jax.training.tracking import Found
from mbpo_jax.types import Env, Metrics, PyTree


class Runs(NamedTuple):
    """What is fixed for all runs of one program.

    Attributes:
      config: with its data fields as arrays `[R]`.
      keys: `[R]`, one key per run, from its seed; training starts from it.
      evaluation_keys: `[R]`, kept apart, so that looking changes nothing.
      mesh: devices that share the runs; where their number does not divide that of the runs, the
        last run is repeated, and what becomes of its copies is not looked at.
    """

    config: Config
    keys: jax.Array
    evaluation_keys: jax.Array
    mesh: Mesh


class Setup(NamedTuple):
    """What a command makes of a group before anything is compiled, once.

    Attributes:
      env: the environment.
      group: the runs.
      program: functions of one run.
      runs: what is fixed for all runs.
      shapes: shapes, dtypes and shardings of all runs' `TrainState`.
    """

    env: Env
    group: Group
    program: Program
    runs: Runs
    shapes: PyTree


class Compiled(NamedTuple):
    """Compiled functions over all runs; each first axis is `R`.

    Attributes:
      start: `() -> TrainState`, after the random steps.
      step: `(env_steps, TrainState) -> (TrainState, Metrics)`; the state given is donated.
      evaluate: `(env_steps, TrainState) -> (returns, lengths)`, each `[R, eval_episodes]`.
      measure: `(env_steps, TrainState) -> inner products of gradients`; None if not asked for.
      seconds: how long each took to compile, by name.
    """

    start: Callable[[], TrainState]
    step: Callable[[int, TrainState], tuple[TrainState, Metrics]]
    evaluate: Callable[[int, TrainState], tuple[jax.Array, jax.Array]]
    measure: Callable[[int, TrainState], Found] | None
    seconds: dict[str, float]


def make_runs(group: Group) -> Runs:
    """Lay the runs of a group out over the devices."""
    mesh = run_mesh(len(group.runs))
    sharding = run_sharding(mesh)
    copies = padded_size(len(group.runs), mesh) - len(group.runs)
    runs = (*group.runs, *group.runs[-1:] * copies)
    pairs = [tuple(jax.random.split(jax.random.key(run.seed))) for run in runs]
    shared = group.config
    data = [replace(run, seed=shared.seed, num_seeds=shared.num_seeds) for run in runs]
    batched = jax.tree_util.tree_map_with_path(_stacked, *data)
    keys, evaluation_keys = (
        jax.device_put(jnp.stack(keys), sharding) for keys in zip(*pairs, strict=True)
    )
    return Runs(jax.device_put(batched, sharding), keys, evaluation_keys, mesh)


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
    program, runs = make_program(env), make_runs(group)
    longest = max(run.rollout.max_length for run in group.runs)
    program = program._replace(init=functools.partial(program.init, longest_rollout=longest))
    return Setup(env, group, program, runs, _state_shapes(program, runs))


def restore_runs(
    run_dir: Path, setup: Setup, *, set_aside: bool = False
) -> tuple[checkpoint.Restored | None, list[str]]:
    """Restore the newest good checkpoint of a run directory, as `checkpoint.restore_newest` does.

    Where the runs are to be longer than they were, their replay buffers have grown.
    """
    restored, problems = checkpoint.restore_newest(
        run_dir / run_directory.CHECKPOINTS,
        setup.shapes,
        len(setup.group.runs),
        set_aside=set_aside,
    )
    if restored and restored.capacity:
        rows, state = restored.capacity, restored.state
        buffer = jax.vmap(lambda buffer: replay.filled_up(buffer, rows))(state.replay)
        buffer = jax.device_put(buffer, run_sharding(setup.runs.mesh))
        restored = restored._replace(state=state._replace(replay=buffer))
    return restored, problems


def _state_shapes(program: Program, runs: Runs) -> PyTree:
    initialize = map_runs(lambda _, config, key: program.init(config, key), runs.mesh)
    sharding = run_sharding(runs.mesh)
    shapes = jax.eval_shape(initialize, None, runs.config, runs.keys)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)


def compile_program(setup: Setup, announce: Callable[[str], None] = lambda phase: None) -> Compiled:
    """Map the program over runs and compile it.

    Args:
      setup: from `set_up`.
      announce: told what is about to be compiled.
    """
    program, runs, seconds = setup.program, setup.runs, {}

    def compiled(phase: str, fn: Callable, *arguments: PyTree, donate: tuple[int, ...] = ()):
        announce(f"compiling {phase}")
        began = time.monotonic()
        function = jax.jit(map_runs(fn, runs.mesh), donate_argnums=donate)
        executable = function.lower(*arguments).compile(compiler_options())
        seconds[phase] = time.monotonic() - began
        return executable

    def start(_, config: Config, key: jax.Array) -> TrainState:
        return program.collect(config, program.init(config, key))

    def step(env_steps: jax.Array, config: Config, state: TrainState):
        return program.step(config, env_steps, state)

    def evaluate(env_steps: jax.Array, config: Config, key: jax.Array, state: TrainState):
        return program.evaluate(config, jax.random.fold_in(key, env_steps), state)

    def measure(env_steps: jax.Array, config: Config, key: jax.Array, state: TrainState):
        # Evaluations fold in the step alone.
        key = jax.random.fold_in(jax.random.fold_in(key, env_steps), 1)
        return program.measure(config, key, state)

    config, shapes = runs.config, setup.shapes
    step_fn = compiled("the training step", step, np.int32(0), config, shapes, donate=(2,))
    evaluate_fn = compiled(
        "the evaluation", evaluate, np.int32(0), config, runs.evaluation_keys, shapes
    )
    measure_fn = None
    if config.track_gradients:
        measure_fn = compiled(
            "the gradient estimators",
            measure,
            np.int32(0),
            config,
            runs.evaluation_keys,
            shapes,
        )
    return Compiled(
        # A run that is resumed does not need it.
        start=lambda: compiled("the random steps", start, None, config, runs.keys)(
            None, config, runs.keys
        ),
        step=lambda env_steps, state: step_fn(np.int32(env_steps), config, state),
        evaluate=lambda env_steps, state: evaluate_fn(
            np.int32(env_steps), config, runs.evaluation_keys, state
        ),
        measure=measure_fn
        and (
            lambda env_steps, state: measure_fn(
                np.int32(env_steps), config, runs.evaluation_keys, state
            )
        ),
        seconds=seconds,
    )

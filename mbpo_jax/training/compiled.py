"""The training program, mapped over runs and compiled."""

import contextlib
import functools
import itertools
import time
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr
from jax.sharding import Mesh

from mbpo_jax import config_io, replay
from mbpo_jax.config import Config
from mbpo_jax.envs import make_env
from mbpo_jax.errors import ConfigError
from mbpo_jax.import_paths import is_import_path
from mbpo_jax.models.rows import where_rows
from mbpo_jax.training import checkpoint, logs, run_directory
from mbpo_jax.training.compile_times import CompileTimes
from mbpo_jax.training.devices import compiler_options
from mbpo_jax.training.group import Group, data_paths, structural_differences
from mbpo_jax.training.loop import Program, make_program
from mbpo_jax.training.runs_axis import map_runs, padded_size, run_mesh, run_sharding
from mbpo_jax.training.state import Learned, TrainState, learned
from mbpo_jax.training.tracking import Found
from mbpo_jax.types import Env, Metrics, PyTree

PARTS = 20
"""Calls that make the random steps, so that one sees how far they are."""

BEST = "best"
"""Beside the state in a checkpoint: what each run had learned when it was evaluated best."""


KEPT = 4
"""Programs of so many structures are kept for later trainings of the same process."""
COMPILED: weakref.WeakSet[Jaxpr] = weakref.WeakSet()
"""Of which programs there is machine code in this process."""

FIRST = np.int32(0)
Announce = Callable[[str, str], None]


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


@jax.jit
def better_of(better: jax.Array, new: Learned, old: Learned) -> Learned:
    """Return what the runs have learned now where that is `better [R]`, else what they had."""
    return where_rows(better, new, old)


class Compiled(NamedTuple):
    """Compiled functions over all runs; each first axis is `R`.

    Attributes:
      start: `(told) -> TrainState`, after the random steps; told how many there are already, after
        each of `PARTS`.
      catch_up: compiles, when it is first asked, `(part, TrainState) -> (TrainState, the model's
        gradient steps [R])`, of agents that catch up; the state given is donated.
      step: `(env_steps, TrainState) -> (TrainState, Metrics)`; the state given is donated.
      evaluate: `(env_steps, TrainState) -> (returns, lengths)`, each `[R, eval_episodes]`.
      measure: `(env_steps, TrainState) -> inner products of gradients`; None if not asked for.
      seconds: how long each took to compile, by name.
      when: at which starts they are compiled, in words; empty where an earlier one has done so.
    """

    start: Callable[..., TrainState]
    catch_up: Callable[[], Callable[[int, TrainState], tuple[TrainState, jax.Array]]]
    step: Callable[[int, TrainState], tuple[TrainState, Metrics]]
    evaluate: Callable[[int, TrainState], tuple[jax.Array, jax.Array]]
    measure: Callable[[int, TrainState], Found] | None
    seconds: dict[str, float]
    when: str


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


def has_its_rows(run_dir: Path) -> bool:
    """Return whether a run's log is as at its newest checkpoint, without a row less or more."""
    host = checkpoint.newest_host(run_dir / run_directory.CHECKPOINTS)
    if host is None or "log" not in host:
        return True
    return _lost(run_dir, host) is None and not logs.goes_on_after(run_dir, host["log"])


def _lost(run_dir: Path, host: Mapping[str, Any]) -> str | None:
    return logs.damage(run_dir, host.get("log", logs.BEGINNING))


def restore_runs(
    run_dir: Path, setup: Setup, *, goes_on: bool = False
) -> tuple[checkpoint.Restored | None, list[str]]:
    """Restore the newest good checkpoint of a run directory, as `checkpoint.restore_newest` does.

    If the run `goes_on` in this process, its log has to be there as it was at that checkpoint, and
    others are set aside.

    Aside it has `BEST`, unless it comes from before that was kept or from before any evaluation.
    Where the runs are to be longer than they were, their replay buffers have grown.
    """
    restored, problems = checkpoint.restore_newest(
        run_dir / run_directory.CHECKPOINTS,
        setup.shapes,
        len(setup.group.runs),
        aside={BEST: learned(setup.shapes)},
        set_aside=goes_on,
        lost=functools.partial(_lost, run_dir) if goes_on else lambda _: None,
    )
    if restored and restored.capacity:
        rows, state = restored.capacity, restored.state
        buffer = jax.vmap(lambda buffer: replay.filled_up(buffer, rows))(state.replay)
        buffer = jax.device_put(buffer, run_sharding(setup.mesh))
        restored = restored._replace(state=state._replace(replay=buffer))
    return restored, problems


def spread(source: Learned, setup: Setup) -> dict[str, PyTree]:
    """Lay out what other runs have learned as a beginning of these ones.

    Args:
      source: of as many runs `[R, ...]`, or of one, from which all begin. What has no model leaves
        the model to begin anew.
      setup: of the runs that begin.

    Returns:
      Fields of `TrainState`.

    Raises:
      ConfigError: it has other shapes or another number of runs.
    """
    wanted, num_runs = learned(setup.shapes), len(setup.group.runs)
    places = {"agent": source.agent, "model": source.model}
    if not jax.tree.leaves(source.model) or not jax.tree.leaves(wanted.model):
        places.pop("model")
    rows = {leaf.shape[0] for leaf in jax.tree.leaves(places)}
    if rows - {1, num_runs}:
        raise ConfigError(
            f"init_from: it holds {max(rows)} runs, which cannot begin {num_runs}; use as many, or "
            "a run directory of one"
        )

    def check(name: str, found: PyTree, like: PyTree) -> None:
        shapes = [
            [(jax.tree_util.keystr(path), leaf.shape[1:]) for path, leaf in leaves]
            for leaves in map(jax.tree_util.tree_leaves_with_path, (found, like))
        ]
        differing = [pair for pair in itertools.zip_longest(*shapes) if pair[0] != pair[1]]
        if differing:
            was, needed = (
                f"{name}{pair[0]} {pair[1]}" if pair else "none" for pair in differing[0]
            )
            raise ConfigError(
                f"init_from: its {name} has other shapes ({was} where {needed} is needed); use a "
                "run with the same algorithm family, sizes of networks and environment"
            )

    def laid(found: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
        row = np.minimum(np.arange(like.shape[0]), found.shape[0] - 1)
        return jax.device_put(jax.device_get(found)[row], like.sharding)

    for name, tree in places.items():
        check(name, tree, getattr(wanted, name))
    return {name: jax.tree.map(laid, tree, getattr(wanted, name)) for name, tree in places.items()}


class Mapped(NamedTuple):
    """Functions of a `Program` over all runs, `(shared, Runs, *states)`, not yet compiled."""

    begin: Any
    collect: Any
    catch_up: Any
    step: Any
    evaluate: Any
    measure: Any


def map_program(program: Program, mesh: Mesh) -> Mapped:
    """Map the functions of one run over the runs of a mesh."""

    def begin(_, run: Runs) -> tuple[TrainState, jax.Array]:
        return program.begin(run.config, run.key)

    def collect(ends: jax.Array, run: Runs, state: TrainState, words: jax.Array) -> TrainState:
        return program.collect_some(run.config, ends, words, state)

    def catch_up(part: jax.Array, run: Runs, state: TrainState):
        return program.catch_up(run.config, part, state)

    def step(env_steps: jax.Array, run: Runs, state: TrainState):
        return program.step(run.config, env_steps, state)

    def evaluate(env_steps: jax.Array, run: Runs, state: TrainState):
        key = jax.random.fold_in(run.evaluation_key, env_steps)
        return program.evaluate(run.config, key, state)

    def measure(env_steps: jax.Array, run: Runs, state: TrainState):
        # Evaluations fold in the step alone.
        key = jax.random.fold_in(jax.random.fold_in(run.evaluation_key, env_steps), 1)
        return program.measure(run.config, key, state)

    return Mapped(
        begin=jax.jit(map_runs(begin, mesh)),
        # The state is the third argument; it is donated where the next one takes its place.
        collect=jax.jit(map_runs(collect, mesh), donate_argnums=2),
        catch_up=jax.jit(map_runs(catch_up, mesh), donate_argnums=2),
        step=jax.jit(map_runs(step, mesh), donate_argnums=2),
        evaluate=jax.jit(map_runs(evaluate, mesh)),
        measure=jax.jit(map_runs(measure, mesh)),
    )


@functools.lru_cache(maxsize=KEPT)
def kept_program(env: Env, mesh: Mesh, structure: Hashable) -> Mapped:
    """Return the same functions for the same structure, which JAX then compiles once a process."""
    del structure
    return map_program(make_program(env), mesh)


def mapped_program(setup: Setup) -> Mapped:
    """Return the functions of a group: those of an earlier training, where that is sure to do.

    What an import path names may have been read anew since then, and an environment that was handed
    over may hold what cannot be compared.
    """
    values = jax.tree.leaves(list(config_io.flatten(setup.group.config).values()))
    if not any(isinstance(value, str) and is_import_path(value) for value in values):
        with contextlib.suppress(TypeError):
            return kept_program(setup.env, setup.mesh, jax.tree.structure(setup.runs))
    return map_program(setup.program, setup.mesh)


def compile_program(setup: Setup, announce: Announce = lambda phase, note: None) -> Compiled:
    """Map the program over runs and compile it, unless this process has done so.

    Args:
      setup: from `set_up`.
      announce: told what is about to be compiled, and what is known of how long that takes.
    """
    mapped, config, seconds, when = mapped_program(setup), setup.group.config, {}, {}
    times = CompileTimes(setup.group, setup.mesh.size)

    def compiled(
        phase: str, function: Any, *states: PyTree, shared: np.ndarray | np.int32 = FIRST
    ) -> Callable:
        last = times.last(phase)
        announce(f"compiling {phase}", last)
        began = time.monotonic()
        traced = function.trace(shared, setup.runs, *states)
        is_new = traced.jaxpr.jaxpr not in COMPILED
        when[phase] = times.when(traced.jaxpr.jaxpr) if is_new else ""
        announce(f"compiling {phase}", "; ".join(filter(None, [last, when[phase]])))
        executable = traced.lower().compile(compiler_options())
        COMPILED.add(traced.jaxpr.jaxpr)
        # What is made of several programs counts as one.
        seconds[phase] = seconds.get(phase, 0.0) + time.monotonic() - began
        if is_new:
            times.keep(phase, seconds[phase])
        return lambda shared, *states: executable(np.asarray(shared, np.int32), setup.runs, *states)

    def start(told: Callable[[int], None] = lambda steps: None) -> TrainState:
        phase, number = "the random steps", config.random_steps
        state, words = compiled(phase, mapped.begin)(0)
        if number == 0:
            return state
        some = compiled(phase, mapped.collect, state, words, shared=np.zeros(2, np.int32))
        ends = np.linspace(0, number, min(PARTS, number) + 1).round().astype(int)
        told(0)
        for first, end in itertools.pairwise(ends):
            state = jax.block_until_ready(some((first, end), state, words))
            told(int(end))
        return state

    @functools.cache
    def catching_up() -> Callable:
        return compiled("the updates for the random steps", mapped.catch_up, setup.shapes)

    def measuring() -> Callable:
        return compiled("the gradient estimators", mapped.measure, setup.shapes)

    return Compiled(
        step=compiled("the training step", mapped.step, setup.shapes),
        evaluate=compiled("the evaluation", mapped.evaluate, setup.shapes),
        measure=measuring() if config.track_gradients > 0 else None,
        # A run that is resumed does not need these.
        start=start,
        catch_up=catching_up,
        seconds=seconds,
        when=when["the training step"],
    )

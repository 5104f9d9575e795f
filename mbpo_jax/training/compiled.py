"""The training program, mapped over runs and compiled."""

import contextlib
import functools
import itertools
import time
import weakref
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import Jaxpr
from jax.sharding import Mesh

from mbpo_jax import config_io
from mbpo_jax.import_paths import is_import_path
from mbpo_jax.models.rows import where_rows
from mbpo_jax.training.compile_times import CompileTimes
from mbpo_jax.training.devices import compiler_options
from mbpo_jax.training.layout import Runs, Setup
from mbpo_jax.training.loop import Program, make_program
from mbpo_jax.training.runs_axis import map_runs
from mbpo_jax.training.state import Learned, TrainState
from mbpo_jax.training.tracking import Found
from mbpo_jax.types import Env, Metrics, PyTree

PARTS = 20
"""Calls that make the random steps, so that one sees how far they are."""

KEPT = 4
"""Programs of so many structures are kept for later trainings of the same process."""
COMPILED: weakref.WeakSet[Jaxpr] = weakref.WeakSet()
"""Of which programs there is machine code in this process."""

FIRST = np.int32(0)
Announce = Callable[[str, str], None]


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


class Mapped(NamedTuple):
    """Functions of a `Program` over all runs, `(shared, Runs, *states)`, not yet compiled."""

    init: Any
    collect: Any
    catch_up: Any
    step: Any
    evaluate: Any
    measure: Any


def map_program(program: Program, mesh: Mesh) -> Mapped:
    """Map the functions of one run over the runs of a mesh."""

    def init(_, run: Runs) -> TrainState:
        return program.init(run.config, run.key)

    def collect(num_steps: jax.Array, run: Runs, state: TrainState) -> TrainState:
        return program.collect(run.config, state, num_steps)

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
        init=jax.jit(map_runs(init, mesh)),
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

    def compiled(phase: str, function: Any, *states: PyTree) -> Callable:
        last = times.last(phase)
        announce(f"compiling {phase}", last)
        began = time.monotonic()
        traced = function.trace(FIRST, setup.runs, *states)
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
        state = compiled(phase, mapped.init)(0)
        if number == 0:
            return state
        collect = compiled(phase, mapped.collect, state)
        ends = np.linspace(0, number, min(PARTS, number) + 1).round().astype(int)
        told(0)
        for first, end in itertools.pairwise(ends):
            state = jax.block_until_ready(collect(end - first, state))
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

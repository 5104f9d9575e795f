"""Count what a GPU would have to launch: `python -m benchmarks.gpu_launches`, one JSON line each.

The parts of training, at Hopper's sizes, are compiled for an H100 that need not be there, and the
program that XLA makes is read: kernels by kind, loops, copies. Small programs take as long as their
launches, two to three microseconds each, whatever their arithmetic. Where a loop's number of turns
is not known when it is compiled, the host is asked after each of them, too.

It needs `pip install -e ".[bench-gpu]"`: the compiler, none of CUDA's libraries, and no driver.
Without a device there is nothing to try kernels on, so products that cuBLAS might take are Triton's
here; counts change by that, a little.

Each line has, of one part for one number of runs side by side:
  kernels_per_unit    of an update, a gradient step, ..., loops within it turn by turn
  kinds               the same by kind of instruction, without the loops within
  loops               of the whole part: turns (null if not known), kernels, and the loops within
  copied_bytes        by instructions that do nothing but copy, within loops and outside of them
  temporary_bytes     that the program needs besides what goes in and out
  seconds             it took to compile
"""

import argparse
import dataclasses
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":  # JAX reads it as it is imported; of CUDA the compiler alone is there
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from benchmarks import workloads
from benchmarks.workloads import CONFIG, SPEC, filled_buffer
from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.envs.termination import never
from mbpo_jax.models import fit
from mbpo_jax.models.learned import make_learned_model
from mbpo_jax.training import loop
from mbpo_jax.types import RUNS_AXIS, Env, EnvState, Transition

H100 = Path(__file__).with_name("h100.txtpb")
RUNS = (1, 8, 64)
WITHOUT_LAUNCH = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("partition-id", "opt-barrier"),
}
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f64": 8, "s64": 8, "u64": 8}


class Part(NamedTuple):
    """A part of training.

    Attributes:
      unit: what is counted.
      depth: how many loops are around it.
      make: `() -> (pure function carry -> carry, what it starts from)`.
    """

    unit: str
    depth: int
    make: Callable[[], tuple[Callable[[Any], Any], Any]]


class Loop(NamedTuple):
    """A loop of a compiled program, or the program itself.

    Attributes:
      turns: how many are made; None if that is not known.
      kinds: number of launches in a turn by kind, without those of the loops within.
      copied_bytes: of a turn.
      loops: the loops within.
    """

    turns: int | None
    kinds: Counter[str]
    copied_bytes: int
    loops: list["Loop"]

    @property
    def kernels(self) -> int:
        """Return the launches of a turn, without those of the loops within."""
        return sum(self.kinds.values())

    @property
    def launches(self) -> int:
        """Return the launches of a turn; a loop within counts once where its turns are unknown."""
        return self.kernels + sum((each.turns or 1) * each.launches for each in self.loops)

    @property
    def depth(self) -> int:
        """Return how many loops are within each other here."""
        return max((1 + each.depth for each in self.loops), default=0)

    def as_json(self) -> dict[str, Any]:
        """Return what a line says of it."""
        inner = [each.as_json() for each in self.loops]
        return {"turns": self.turns, "kernels": self.kernels, **({"loops": inner} if inner else {})}


def workload(name: str) -> Callable[[], tuple[Callable[[Any], Any], Any]]:
    """Return a part that is timed, too."""

    def make():
        made = workloads.WORKLOADS[name]()
        return made.fn, made.carry

    return make


def budget_fit():
    """Return a whole fit by a budget."""
    config = dataclasses.replace(CONFIG, fit=dataclasses.replace(CONFIG.fit, stopping="budget"))
    model = make_learned_model(SPEC, config, never)

    def fn(carry):
        key, state, real, env_steps = carry
        key, fit_key = jax.random.split(key)
        state, _ = model.fit(fit_key, state, real, env_steps)
        return key, state, real, env_steps

    real = filled_buffer()
    return fn, (jax.random.key(0), model.init(jax.random.key(1)), real, real.size)


def holdout():
    """Return a look at the hold-out, as early stopping takes one after each epoch."""
    ensemble, state, dataset = workloads.ensemble_and_data()

    def fn(carry):
        params, dataset, _ = carry
        return params, dataset, fit.holdout_squared_error(params, ensemble, dataset)

    errors = jnp.zeros((CONFIG.ensemble.num_members, dataset.targets.shape[1]))
    return fn, (state.params, dataset, errors)


def environment():
    """Return environment steps without physics and without updates."""

    def reset(key: jax.Array) -> EnvState:
        del key
        observation = jnp.zeros(SPEC.observation_size)
        return EnvState((), observation, jnp.int32(0), jnp.bool_(False))

    def step(key: jax.Array, state: EnvState, action: jax.Array):
        del key
        steps = state.steps + 1
        done = steps >= SPEC.episode_length
        after = EnvState((), state.observation + 0.1 * action[0], steps, done)
        transition = Transition(
            state.observation, action, action[0], jnp.float32(1), after.observation
        )
        return after, transition

    env = Env(SPEC, reset, step)
    algorithm = make_algorithm(env, CONFIG)
    state = workloads.train_state(algorithm, reset(jax.random.key(0)))

    def fn(state: loop.TrainState) -> loop.TrainState:
        def turn(state: loop.TrainState, key: jax.Array):
            action_key, env_key = jax.random.split(key)
            state, action, log_prob = loop.act(algorithm, action_key, state, ())
            state, reward, finished = loop.interact(
                env, algorithm, env_key, state, action, log_prob
            )
            return state, (reward, finished)

        key, steps_key = jax.random.split(state.key)
        keys = jax.random.split(steps_key, CONFIG.steps_per_fit)
        return jax.lax.scan(turn, state._replace(key=key), keys)[0]

    return fn, state


PARTS = {
    "sac_update": Part("update", 1, workload("sac_update")),
    "ensemble_step": Part("gradient step", 2, workload("ensemble_step")),
    "budget_fit": Part("gradient step", 2, budget_fit),
    "holdout": Part("look", 0, holdout),
    "rollout": Part("step of all rollouts", 1, workload("rollout")),
    "environment": Part("environment step", 1, environment),
}


def compile_for_h100(fn: Callable[[Any], Any], carry: Any, runs: int):
    """Compile a function of one run, side by side for several, as training compiles it."""
    topology = topologies.get_topology_desc(
        "", platform="cuda", topology="1x1x1", target_config=H100.read_text()
    )
    sharding = SingleDeviceSharding(topology.devices[0])
    side_by_side = (runs,) if runs > 1 else ()
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(side_by_side + x.shape, x.dtype, sharding=sharding), carry
    )
    mapped = jax.vmap(fn, axis_name=RUNS_AXIS) if runs > 1 else fn
    traced = jax.jit(mapped, donate_argnums=0).trace(shapes)
    return traced.lower(lowering_platforms=("cuda",)).compile()


def read_program(text: str) -> Loop:
    """Read the loops of a program as XLA prints it."""
    computations: dict[str, list[str]] = {}
    entry = lines = None
    for line in text.splitlines():
        head = re.match(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if head:
            lines = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            lines = None
        elif lines is not None:
            lines.append(line.strip())
    assert entry is not None

    def read(names: Sequence[str], turns: int | None) -> Loop:
        kinds, copied, inner = Counter(), 0, []
        waiting = list(names)
        while waiting:
            for line in computations[waiting.pop()]:
                made = re.match(r"^(?:ROOT )?%?[\w.\-]+ = (\(.*?\)|\S+) ([\w\-]+)\(", line)
                if not made:
                    continue
                shape, kind = made.groups()
                if kind == "while":
                    known = re.search(r'known_trip_count":\{"n":"(\d+)', line)
                    inner.append(read([_called("body", line)], known and int(known[1])))
                elif kind == "call":
                    waiting.append(_called("to_apply", line))
                elif kind == "conditional":
                    # The host asks which branch is due; the longest counts.
                    branches = re.findall(r"%([\w.\-]+)", line.partition("computation")[2])
                    longest = max(
                        (read([name], 1) for name in branches if name in computations),
                        key=lambda each: each.launches,
                    )
                    kinds += longest.kinds + Counter({"conditional": 1})
                    copied += longest.copied_bytes
                    inner += longest.loops
                elif kind not in WITHOUT_LAUNCH:
                    kinds[_kind(kind, line)] += 1
                    copied += num_bytes(shape) if kind.startswith("copy") else 0
        return Loop(turns, kinds, copied, inner)

    return read([entry], 1)


def _called(name: str, line: str) -> str:
    found = re.search(rf"{name}=%?([\w.\-]+)", line)
    assert found is not None
    return found[1]


def _kind(kind: str, line: str) -> str:
    """Return what a launch is: a product, another fusion, a copy, a call of a library, ..."""
    if kind == "fusion":
        return "product" if "gemm" in line.split(" = ")[0] else "fusion"
    return "library" if kind == "custom-call" else kind


def num_bytes(shape: str) -> int:
    """Return the size of arrays as XLA prints their shapes."""
    total = 0
    for dtype, sizes in re.findall(r"(\w+)\[([\d,]*)\]", shape):
        count = 1
        for size in filter(None, sizes.split(",")):
            count *= int(size)
        total += BYTES.get(dtype, 4) * count
    return total


def busiest(program: Loop, depth: int) -> Loop:
    """Return the loop within so many loops that launches most in a turn."""
    if depth == 0:
        return program
    deep_enough = [each for each in program.loops if each.depth >= depth - 1]
    return max((busiest(each, depth - 1) for each in deep_enough), key=lambda each: each.launches)


def copied_in_loops(program: Loop) -> int:
    """Return the bytes copied in one turn of each loop."""
    return sum(each.copied_bytes + copied_in_loops(each) for each in program.loops)


def count(name: str, runs: int) -> dict[str, Any]:
    """Compile a part and return what its line says."""
    fn, carry = PARTS[name].make()
    began = time.perf_counter()
    compiled = compile_for_h100(fn, carry, runs)
    seconds = time.perf_counter() - began
    text = compiled.as_text()
    assert text is not None
    program = read_program(text)
    unit, memory = busiest(program, PARTS[name].depth), compiled.memory_analysis()
    return {
        "part": name,
        "unit": PARTS[name].unit,
        "runs": runs,
        "kernels_per_unit": unit.launches,
        "kinds": dict(unit.kinds),
        "loops": program.as_json(),
        "copied_bytes": {"outside": program.copied_bytes, "loops": copied_in_loops(program)},
        "temporary_bytes": memory.temp_size_in_bytes if memory else None,
        "seconds": round(seconds, 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_launches",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="parts; all if not given")
    parser.add_argument("--runs", type=int, nargs="+", default=RUNS, help="side by side")
    options = parser.parse_args(arguments)
    try:
        compile_for_h100(lambda x: x + 1, jnp.zeros(3), 1)
    except Exception as problem:
        parser.exit(
            1, f"cannot compile for a GPU ({problem}); install it: pip install -e '.[bench-gpu]'\n"
        )
    machine = {"jax": jax.__version__, "target": "NVIDIA H100 80GB HBM3", "sizes": SPEC.name}
    print(json.dumps(machine | {"date": time.strftime("%F")}), flush=True)
    for name in options.only or PARTS:
        for runs in options.runs:
            print(json.dumps(count(name, runs)), flush=True)


if __name__ == "__main__":
    main()

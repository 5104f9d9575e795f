"""Time a step of Brax's pendulums, forces in closed form beside Brax's: JSON lines.

`python -m benchmarks.joint_limits`: steps of many states at once on one device, and the same with
their derivatives with respect to all that goes in, in turns. To compile Brax's derivatives takes
minutes.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mbpo_jax.envs.brax import load
from mbpo_jax.training import devices

TASKS = ("inverted_pendulum", "inverted_double_pendulum")
ROWS = 576
"""Of nine runs, 64 each."""


def make_steps(task: str) -> dict[tuple[str, str], tuple[Callable, tuple]]:
    """Return compiled functions and their arguments, by whose forces and what is computed."""
    made = {}
    for name in ("closed form", "Brax's"):
        simulator = load(task, "generalized")
        if name == "Brax's":
            from brax.generalized import pipeline

            simulator._pipeline = pipeline
        keys = jax.random.split(jax.random.key(0), ROWS)
        starts = jax.vmap(simulator.reset)(jax.random.key_data(keys)).pipeline_state
        inputs = (starts.q, starts.qd, jnp.zeros((ROWS, simulator.action_size)))
        step = jax.vmap(lambda q, qd, action, own=simulator: moved(own, q, qd, action))
        for what, function in (("step", step), ("with derivatives", differentiated(step))):
            compiled = jax.jit(function).lower(*inputs).compile(devices.compiler_options())
            made[name, what] = compiled, inputs
    return made


def moved(simulator: Any, q: jax.Array, qd: jax.Array, action: jax.Array) -> jax.Array:
    """Return positions and velocities after one step of the environment."""
    state = simulator.pipeline_step(simulator.pipeline_init(q, qd), action)
    return jnp.concatenate([state.q, state.qd])


def differentiated(step: Callable) -> Callable:
    """Return the function's gradient of the sum of what it returns, and that sum."""
    return jax.value_and_grad(lambda *inputs: jnp.sum(step(*inputs)), (0, 1, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a step of Brax's pendulums.")
    parser.add_argument("--task", action="append", choices=TASKS)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    machine = {"jax": jax.__version__, "devices": devices.describe_devices()}
    for task in arguments.task or TASKS:
        steps = make_steps(task)
        times: dict[tuple[str, str], list[float]] = {which: [] for which in steps}
        for _ in range(arguments.rounds + 1):
            for which, (function, inputs) in steps.items():
                began = time.perf_counter()
                jax.block_until_ready(function(*inputs))
                times[which].append((time.perf_counter() - began) / ROWS * 1e6)
        for what in ("step", "with derivatives"):
            ours, theirs = times["closed form", what][1:], times["Brax's", what][1:]
            ratios = [other / own for own, other in zip(ours, theirs, strict=True)]
            row = {
                "task": task,
                "work": what,
                "microseconds": statistics.median(ours),
                "microseconds_brax": statistics.median(theirs),
                "ratio": statistics.median(ratios),
            }
            print(json.dumps(row | machine | {"date": time.strftime("%F")}), flush=True)


if __name__ == "__main__":
    main()

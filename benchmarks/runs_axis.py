"""Time ways to map the runs axis: `python -m benchmarks.runs_axis`, one JSON line each.

The work is SAC updates at Hopper's sizes for several runs; `vmap`, `lax.map`, and one host device
per core with `lax.map` inside (what `training.runs_axis` chooses on a CPU) take turns.
"""

import argparse
import json
import statistics
import time

import jax
import jax.numpy as jnp

from benchmarks.workloads import sac_update
from mbpo_jax.training import devices, runs_axis


def make_mappings(num_runs: int) -> dict:
    """Return compiled functions by name, and the state of all runs to call them with."""
    workload = sac_update()
    states = jax.tree.map(lambda x: jnp.stack([x] * num_runs), workload.carry)
    mesh = runs_axis.run_mesh(num_runs)
    sharded = jax.device_put(states, runs_axis.run_sharding(mesh))
    mappings = {
        "vmap": (jax.vmap(workload.fn), states),
        "lax.map": (lambda states: jax.lax.map(workload.fn, states), states),
        f"{mesh.size} host devices": (
            lambda states: runs_axis.map_runs(lambda _, s: workload.fn(s), mesh)(None, states),
            sharded,
        ),
    }
    return {
        name: (
            jax.jit(fn).lower(argument).compile(devices.compiler_options()),
            argument,
            workload.units,
        )
        for name, (fn, argument) in mappings.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time ways to map the runs axis.")
    parser.add_argument("--num-runs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    devices.use_host_devices(arguments.num_runs)
    mappings = make_mappings(arguments.num_runs)
    times: dict[str, list[float]] = {name: [] for name in mappings}
    for _ in range(arguments.rounds + 1):
        for name, (fn, argument, units) in mappings.items():
            began = time.perf_counter()
            for _ in range(3):
                jax.block_until_ready(fn(argument))
            elapsed = time.perf_counter() - began
            times[name].append(elapsed / (3 * units * arguments.num_runs))
    machine = {"jax": jax.__version__, "devices": devices.describe_devices()}
    for name, seconds in times.items():
        per_update = statistics.median(seconds[1:]) * 1e3
        row = {"mapping": name, "runs": arguments.num_runs, "ms_per_update_and_run": per_update}
        print(json.dumps(row | machine | {"date": time.strftime("%F")}))


if __name__ == "__main__":
    main()

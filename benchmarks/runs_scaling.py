"""Time per run of one program with more and more runs: `python -m benchmarks.runs_scaling`.

Each size is a group whose runs differ in seed and learning rate, in a process of its own, so that
its peak memory is told. Sizes take turns in every round; a row holds medians over rounds. On an
accelerator runs are mapped by `vmap`, on a CPU they are looped over on every core.

    python -m benchmarks.runs_scaling --work small          # a CPU: pendulum, small networks
    python -m benchmarks.runs_scaling --work hopper         # an accelerator: the Hopper preset
"""

import argparse
import dataclasses
import json
import resource
import statistics
import subprocess
import sys
import time

import jax

from mbpo_jax.config import Config
from mbpo_jax.presets import environment_preset
from mbpo_jax.training import devices, plan
from mbpo_jax.training.compiled import compile_program
from mbpo_jax.training.group import Group, make_group
from mbpo_jax.training.layout import set_up


def small() -> Config:
    """Return MBPO on the pendulum with networks that a core handles well."""
    base = environment_preset("pendulum", "debug")
    return dataclasses.replace(
        base,
        sac=dataclasses.replace(base.sac, utd_ratio=10, batch_size=64, hidden_sizes=(64, 64)),
        ensemble=dataclasses.replace(base.ensemble, hidden_sizes=(64, 64)),
    )


WORK = {"small": small, "hopper": lambda: environment_preset("hopper")}


def group_of_size(config: Config, size: int) -> Group:
    """Return runs that differ in seeds and learning rates."""
    rates = [config.sac.learning_rate * (1.0 + i / size) for i in range(size)]
    return make_group(
        [
            dataclasses.replace(
                config, seed=i, sac=dataclasses.replace(config.sac, learning_rate=rate)
            )
            for i, rate in enumerate(rates)
        ]
    )


def measure(config: Config, size: int, calls: int) -> dict:
    """Return how long one call of the compiled step takes, and what was held."""
    devices.use_host_devices(size)
    group = group_of_size(config, size)
    began = time.perf_counter()
    setup = set_up(group)
    compiled = compile_program(setup)
    compile_seconds = time.perf_counter() - began
    state, env_steps = compiled.start(), config.random_steps
    seconds = []
    for _ in range(calls + 1):  # the first call is not counted
        began = time.perf_counter()
        state, _ = compiled.step(env_steps, state)
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - began)
        env_steps += config.steps_per_fit
    # Of the device; on a CPU, which does not tell, of the process.
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {
        "seconds": statistics.median(seconds[1:]),
        "compile_seconds": compile_seconds,
        "peak_bytes": peak or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "estimated_bytes": plan.plan_memory(setup).bytes_per_device * setup.mesh.size,
        "devices": devices.describe_devices(),
        "mapped_over": setup.mesh.size,
        "jax": jax.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", choices=WORK, default="small")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=3)
    parser.add_argument("--worker", type=int, help="measure one size in this process")
    arguments = parser.parse_args()
    config = WORK[arguments.work]()
    if arguments.worker:
        print(json.dumps(measure(config, arguments.worker, arguments.calls)))
        return
    found: dict[int, list[dict]] = {size: [] for size in arguments.sizes}
    command = [sys.executable, "-m", "benchmarks.runs_scaling", "--work", arguments.work]
    for _ in range(arguments.rounds):
        for size in arguments.sizes:
            worker = [*command, "--calls", str(arguments.calls), "--worker", str(size)]
            done = subprocess.run(worker, stdout=subprocess.PIPE, text=True, check=True)
            found[size].append(json.loads(done.stdout.splitlines()[-1]))
    alone = statistics.median(row["seconds"] for row in found[arguments.sizes[0]])
    for size, rows in found.items():
        numbers = ("seconds", "compile_seconds", "peak_bytes")
        medians = {name: statistics.median(row[name] for row in rows) for name in numbers}
        per_run = medians["seconds"] / size
        row = {
            "work": arguments.work,
            "runs": size,
            "env_steps_per_call": config.steps_per_fit,
            **medians,
            "seconds_per_run": per_run,
            "share_of_a_run_alone": per_run / (alone / arguments.sizes[0]),
            "rounds": len(rows),
        }
        print(json.dumps(rows[0] | row | {"date": time.strftime("%F")}), flush=True)


if __name__ == "__main__":
    main()

"""Time the parts of training: `python -m benchmarks.components`, one JSON line each.

Beside each time stands the rate of its matrix products, as a fraction of what the machine reaches
in the same process on products of the same size (256 x 256 x 256, as in the hidden layers) and on
large ones (2048). The fractions say how much is left to gain.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.experimental.compilation_cache import compilation_cache

from benchmarks.workloads import WORKLOADS, Timer
from mbpo_jax.training.devices import describe_devices, use_compilation_cache

MATMUL_SIZES = (256, 2048)
UNITS = {"sac_update": "update", "ensemble_step": "gradient step", "rollout": "transition"}


def matmul_timer(size: int):
    """Return a function that multiplies square matrices for about 30 ms; and its operations."""
    chain = max(1, int(3e9 / size**3))

    @jax.jit
    def multiply(x, w):
        return jax.lax.scan(lambda x, _: (x @ w, None), x, None, chain)[0]

    # An orthogonal matrix keeps the product's size.
    w, _ = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (size, size)))
    jax.block_until_ready(multiply(w, w))

    def measure() -> float:
        began = time.perf_counter()
        jax.block_until_ready(multiply(w, w))
        return 2.0 * size**3 * chain / (time.perf_counter() - began)

    return measure


def compile_seconds(name: str) -> tuple[float, float]:
    """Return the seconds to compile a workload without and with the compilation cache."""
    with tempfile.TemporaryDirectory() as directory:
        use_compilation_cache(Path(directory))
        # JAX opens its cache once and would go on with the folder of the workload before.
        compilation_cache.reset_cache()
        cold = Timer(WORKLOADS[name]()).compile_seconds
        jax.clear_caches()
        warm = Timer(WORKLOADS[name]()).compile_seconds
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    return cold, warm


def measure(name: str, rounds: int, seconds: float) -> dict:
    """Return medians over rounds of a workload's time and of the machine's rate, taken in turn."""
    timer = Timer(WORKLOADS[name]())
    peak_timers = {size: matmul_timer(size) for size in MATMUL_SIZES}
    per_unit = timer(timer.workload.units)
    repeats = max(timer.workload.units, int(seconds / per_unit))
    times, peaks = [], {size: [] for size in MATMUL_SIZES}
    for _ in range(rounds):
        times.append(timer(repeats))
        for size, peak in peak_timers.items():
            peaks[size].append(peak())
    median = statistics.median(times)
    rate = timer.workload.flops / median
    row = {
        "component": name,
        "unit": UNITS[name],
        "microseconds": median * 1e6,
        "microseconds_range": [min(times) * 1e6, max(times) * 1e6],
        "gflops": rate / 1e9,
    }
    for size in MATMUL_SIZES:
        peak = statistics.median(peaks[size])
        row[f"matmul_{size}_gflops"] = peak / 1e9
        row[f"fraction_of_matmul_{size}"] = rate / peak
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the parts of training.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0, help="of work in a round")
    parser.add_argument("--only", choices=list(WORKLOADS), action="append")
    arguments = parser.parse_args()
    machine = {"jax": jax.__version__, "devices": describe_devices(), "date": time.strftime("%F")}
    print(json.dumps(machine), flush=True)
    for name in arguments.only or WORKLOADS:
        cold, warm = compile_seconds(name)
        row = measure(name, arguments.rounds, arguments.seconds)
        row |= {"compile_seconds_cold": cold, "compile_seconds_warm": warm}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

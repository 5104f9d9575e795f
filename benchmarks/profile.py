"""Show where a component's time goes: `python -m benchmarks.profile ensemble_step`.

Prints the operations of the compiled program by the time they take, in microseconds per unit of
work, as JAX's profiler traces them. On a CPU, operations can overlap, and one that XLA shares out
to other threads counts only until it was handed over.
"""

import argparse
import collections
import gzip
import json
import tempfile
from pathlib import Path

import jax

from benchmarks.workloads import WORKLOADS, Timer


def operations(directory: Path) -> collections.Counter[str]:
    """Return microseconds by operation of the trace in a directory."""
    (path,) = directory.rglob("*.trace.json.gz")
    with gzip.open(path) as file:
        events = json.load(file)["traceEvents"]
    totals = collections.Counter()
    for event in events:
        # What XLA executes has the name of its module; the rest is JAX's own and Python's.
        if event.get("ph") == "X" and "hlo_op" in event.get("args", {}):
            totals[event["name"]] += event["dur"]
    return totals


def main() -> None:
    parser = argparse.ArgumentParser(description="Show where a component's time goes.")
    parser.add_argument("component", choices=list(WORKLOADS))
    parser.add_argument("--top", type=int, default=30, help="operations to print")
    arguments = parser.parse_args()
    timer = Timer(WORKLOADS[arguments.component]())
    units = timer.workload.units
    timer(units)
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            seconds = timer(units)
        totals = operations(Path(directory))
    print(f"{seconds * 1e6:10.3f} us in all")
    for name, microseconds in totals.most_common(arguments.top):
        print(f"{microseconds / units:10.3f} us {name}")


if __name__ == "__main__":
    main()

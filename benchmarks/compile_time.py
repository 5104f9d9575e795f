"""Measure how long a run compiles: `python -m benchmarks.compile_time [--against DIR]`.

`mbpo-jax train`, with few steps, is started again and again in processes of its own: cold, where
nothing was compiled before, and warm, where the compilation cache holds all of it, in turns with
another checkout of this project, if one is given. Seconds of tracing, lowering and of XLA (or of
reading its cache) are those that JAX itself reports, summed over all programs of the run; `cpu` is
the processor time of the whole process, which other programs disturb least.

Prints one JSON line for the machine and one for each checkout, cold and warm: medians over rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.peers import machine

STEPS = ("--random-steps", "250", "--total-env-steps", "500")
WORKER = """
import json, sys, time
import jax
from mbpo_jax.cli import main
seconds = dict.fromkeys(("trace", "lower", "xla"), 0.0)
NAMES = {
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "xla",
}
def note(event, duration, **_):
    if event in NAMES:
        seconds[NAMES[event]] += duration
jax.monitoring.register_event_duration_secs_listener(note)
code = main(sys.argv[1:])
print(json.dumps({"code": code, "cpu": time.process_time(), **seconds}))
"""


def measure(checkout: Path, task: str, cache: Path) -> dict[str, float]:
    """Start a run in a process of its own and return what it took, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PYTHONPATH": str(checkout), "XDG_CACHE_HOME": str(cache)}
        command = [sys.executable, "-c", WORKER, "train", task, *STEPS]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode:
        sys.exit(f"{checkout}: the run failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    if found.pop("code"):
        sys.exit(f"{checkout}: the run failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="How long a run compiles.")
    parser.add_argument("--task", default="gym/Hopper-v5")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="another checkout")
    options = parser.parse_args()
    here = Path(__file__).parents[1]
    checkouts = [here, *([options.against.resolve()] if options.against else [])]
    found: dict[tuple[Path, str], list[dict[str, float]]] = {}
    print(json.dumps(machine() | {"task": options.task}), flush=True)
    for _ in range(options.rounds):
        for checkout in checkouts:
            with tempfile.TemporaryDirectory() as cache:
                for kind in ("cold", "warm"):
                    seconds = measure(checkout, options.task, Path(cache))
                    found.setdefault((checkout, kind), []).append(seconds)
    for (checkout, kind), rounds in found.items():
        row: dict[str, Any] = {"checkout": "here" if checkout == here else "against", "kind": kind}
        for name in rounds[0]:
            row[name] = round(statistics.median(each[name] for each in rounds), 2)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

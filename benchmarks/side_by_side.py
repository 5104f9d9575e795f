"""Time an update and a gradient step of several runs at once: `python -m benchmarks.side_by_side`.

For an accelerator: the runs are mapped by `vmap`, as training maps them there. With `--against DIR`
another checkout of this project takes turns, each turn in a process of its own, so that both meet
the same device in the same state. Prints one JSON line for each part and number of runs as soon as
it is measured: medians over rounds, in microseconds a unit of all runs together, and the ratio,
theirs over ours.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PARTS = ("sac_update", "ensemble_step")
WORKER = """
import json, sys, time
import jax
import jax.numpy as jnp
from benchmarks.workloads import WORKLOADS
from mbpo_jax.training.devices import compiler_options, describe_devices
from mbpo_jax.types import RUNS_AXIS
name, runs, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
work = WORKLOADS[name]()
axes = 0
if name == "ensemble_step":  # as in training, all runs have as many rows
    axes = (0, 0, 0, 0, None)
def repeat(axis, tree):
    return tree if axis is None else jax.tree.map(lambda x: jnp.repeat(x[None], runs, 0), tree)
fn = jax.vmap(work.fn, (axes,), axes, axis_name=RUNS_AXIS)
carry = repeat(0, work.carry) if axes == 0 else tuple(map(repeat, axes, work.carry))
compiled = jax.jit(fn, donate_argnums=0).lower(carry).compile(compiler_options())
carry = jax.block_until_ready(compiled(carry))
calls, began = 0, time.perf_counter()
while calls < 3 or time.perf_counter() - began < seconds:
    carry = jax.block_until_ready(compiled(carry))
    calls += 1
seconds = (time.perf_counter() - began) / calls / work.units
print(json.dumps({"seconds": seconds, "devices": describe_devices(), "jax": jax.__version__}))
"""


def measure(checkout: Path, name: str, runs: int, seconds: float) -> dict[str, Any]:
    """Return the seconds of a unit and where, measured in a process that has the device to itself.

    This one does not touch it: a process takes most of its memory. NaN if that failed.
    """
    done = subprocess.run(
        [sys.executable, "-c", WORKER, name, str(runs), str(seconds)],
        env=os.environ | {"PYTHONPATH": str(checkout)},
        cwd=checkout,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        return {"seconds": math.nan}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 16, 4, 64])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0, help="of measuring, in each turn")
    parser.add_argument("--against", type=Path, help="another checkout")
    options = parser.parse_args()
    checkouts = {"ours": Path(__file__).parents[1]}
    if options.against:
        checkouts["theirs"] = options.against.resolve()
    for runs in options.runs:
        for name in PARTS:
            found: dict[str, list[dict[str, Any]]] = {side: [] for side in checkouts}
            for _ in range(options.rounds):
                for side, checkout in checkouts.items():
                    found[side].append(measure(checkout, name, runs, options.seconds))
            medians = {
                side: statistics.median(each["seconds"] for each in rounds)
                for side, rounds in found.items()
            }
            row: dict[str, Any] = {
                side: None if math.isnan(seconds) else round(1e6 * seconds, 1)
                for side, seconds in medians.items()
            }
            if None not in row.values() and "theirs" in medians:
                row["ratio"] = round(medians["theirs"] / medians["ours"], 2)
            where = {key: found["ours"][0].get(key) for key in ("devices", "jax")}
            line = {"part": name, "runs": runs, **row, **where, "date": time.strftime("%F")}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

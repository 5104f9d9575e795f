"""Time the same work in mbpo_jax and in mbrl-lib and print ratios: `python -m benchmarks.peers`.

Both sides stay alive and are asked in turn, so that a change of the machine's speed meets both. The
peer runs in an environment of its own, built once with pip (whose settings decide where packages
come from). Run it on a quiet machine: PyTorch's threads spin while they wait, so that other
programs slow the peer down more than us and make the ratios look better than they are.

Prints one JSON line for the machine, then one for each component: medians over the rounds, in
seconds per unit (a SAC update, a gradient step of the whole ensemble, a rollout transition), and
the median and range of each round's ratio, mbrl-lib over ours.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.peer_environment import PeerEnvironment
from benchmarks.worker import NUM_ROLLOUTS, Worker, num_threads

# The peer's own pins are too old for current Pythons; this is what its MBPO and the tasks import.
MBRL_LIB = PeerEnvironment(
    "mbrl-lib",
    packages=(
        "gymnasium==1.4.0",
        "hydra-core==1.3.8",
        "imageio==2.38.1",
        "mujoco==4.0.0",
        "numpy==2.4.6",
        "packaging==26.3",
        "termcolor==3.3.0",
        "torch==2.13.0",
        "tqdm==4.70.1",
    ),
    alone=("mbrl==0.2.0",),
)
REPEATS = {"sac_update": 200, "ensemble_step": 320, "rollout": 5 * NUM_ROLLOUTS}  # units a request


def start_worker(python: str | Path, module: str) -> Worker:
    """Start one side; both compute on the CPU, whatever else the machine has."""
    return Worker((str(python), "-m", module), {"JAX_PLATFORMS": "cpu"})


def compare(ours: Worker, peer: Worker, component: str, rounds: int) -> dict[str, Any]:
    """Return medians of both sides in seconds per unit, and of the ratio peer/ours by round."""
    repeats = REPEATS[component]
    for side in (ours, peer):  # compile, and fill the caches
        side.measure(component, repeats)
    times = [
        (ours.measure(component, repeats), peer.measure(component, repeats)) for _ in range(rounds)
    ]
    ratios = [theirs / own for own, theirs in times]
    return {
        "component": component,
        "ours_seconds": statistics.median(own for own, _ in times),
        "mbrl_lib_seconds": statistics.median(theirs for _, theirs in times),
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "rounds": rounds,
        "repeats": repeats,
    }


def machine() -> dict[str, Any]:
    """Describe the machine; warn when other programs keep it busy."""
    load = os.getloadavg()[0]
    if load > 0.25 * num_threads():
        print(
            f"warning: the machine is busy (load {load:.1f}): ratios are distorted", file=sys.stderr
        )
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "threads": num_threads(),
        "load": load,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each side")
    parser.add_argument("--components", nargs="+", choices=REPEATS, default=list(REPEATS))
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {options.rounds}")
    about = machine()
    python = MBRL_LIB.python_or_exit()
    with (
        start_worker(sys.executable, "benchmarks.ours_worker") as ours,
        start_worker(python, "benchmarks.mbrl_lib_worker") as peer,
    ):
        print(json.dumps(about | {"ours": ours.description, "mbrl_lib": peer.description}))
        for component in options.components:
            print(json.dumps(compare(ours, peer, component, options.rounds)), flush=True)


if __name__ == "__main__":
    main()

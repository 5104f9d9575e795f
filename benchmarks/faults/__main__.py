"""Make faults and check what is promised: `python -m benchmarks.faults --minutes 10 --seed 0`.

Processes are killed, files damaged, disks filled, configurations drawn by chance. Whatever happens,
the same command ends as if nothing had been, or says in one clear message what is wrong. Prints
what was not so, with what repeats it, as JSON; the exit code is 1 if there is any of it.
"""

import argparse
import functools
import json
import os
import queue
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# Before JAX is loaded, and inherited by every process: much is compiled here, and little computed.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[2] / ".cache" / "faults")
)

from benchmarks.faults import damage, disks, extremes, kills
from benchmarks.faults.in_process import Worker, keep_programs
from benchmarks.faults.record import ACCEPTED, REFUSED, UNEXPECTED, Fault, rng_of
from benchmarks.faults.trainings import Workshop
from mbpo_jax.training.logs import environment_info

SHARES = {"kills": 0.6, "damage": 0.15, "configurations": 0.1, "disks": 0.1, "extremes": 0.05}
"""Of the time; next comes the part that is furthest behind its share."""
AT_ONCE = {"kills": 4, "damage": 2}
"""Faults that are made at the same time; lives mostly load, compile and wait for their moments."""
EXAMPLES = 1000
"""Configurations that are drawn under one number."""


class Campaign:
    """All faults: a function for each part, which makes the one of a number."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._keepers: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for _ in range(AT_ONCE["damage"]):
            self._keepers.put(Worker(keep_programs))
        self._other, self._making = Worker(), threading.Lock()
        self._subjects = functools.cache(damage.subjects_of)
        self.parts: dict[str, Callable[[int], Fault]] = {
            "kills": lambda number: kills.make(workshop, number),
            "damage": self._damaged,
            "configurations": lambda number: drawn(workshop.seed, number),
            "disks": self._full,
            "extremes": lambda number: self._other.make(
                extremes.make, workshop.seed, number, workshop.folder
            ),
        }
        self.counts = {part: Counter() for part in SHARES}
        self.unexpected: list[dict[str, Any]] = []

    def _kept(self, fault: Callable[..., Fault], number: int, subjects: Any) -> Fault:
        """Have a fault made by a process that keeps its programs, one at a time."""
        shop, worker = self._workshop, self._keepers.get()
        try:
            return worker.make(fault, shop.seed, number, shop.folder, subjects)
        finally:
            self._keepers.put(worker)

    def _damaged(self, number: int) -> Fault:
        with self._making:
            subjects = self._subjects(self._workshop)
        return self._kept(damage.make, number, subjects)

    def _full(self, number: int) -> Fault:
        trainings = [self._workshop.straight(name) for name in disks.NAMES]
        return self._kept(disks.make, number, trainings)

    def make(self, part: str, numbers: Sequence[int]) -> None:
        """Make faults at once, and note what came of each."""
        with ThreadPoolExecutor(len(numbers)) as pool:
            # What is made alone is made in the main thread, which some of it needs.
            each = pool.map if len(numbers) > 1 else map
            for number, fault in zip(numbers, each(self.parts[part], numbers), strict=True):
                self._note(part, number, fault)

    def _note(self, part: str, number: int, fault: Fault) -> None:
        self.counts[part].update(fault.ends)
        ends = ", ".join(f"{count} {end}" for end, count in fault.ends.items())
        print(f"{part} {number}: {fault.what}: {ends}", file=sys.stderr, flush=True)
        if fault.problems:
            repeat = f"--only {part} --seed {self._workshop.seed} --number {number}"
            note = {"repeat": repeat, **fault._asdict()}
            self.unexpected.append(note)
            print(json.dumps(note, indent=2), file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the processes that were kept."""
        for _ in range(AT_ONCE["damage"]):
            self._keepers.get().close()
        self._other.close()


def drawn(seed: int, number: int) -> Fault:
    """Draw configurations and sweep files by chance."""
    from benchmarks.faults import configurations

    found = configurations.try_files(rng_of(seed, "configurations", number), EXAMPLES)
    problems = [f"{kind}: {content!r}" for kind, content in found.unexpected.items()]
    made = {ACCEPTED: found.accepted, REFUSED: found.refused}
    made[UNEXPECTED] = EXAMPLES - sum(made.values())
    return Fault(
        f"{EXAMPLES} files", {end: count for end, count in made.items() if count}, problems
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=SHARES, help="make faults of these alone")
    parser.add_argument("--number", type=int, help="make this one fault of the one part, no other")
    parser.add_argument("--out", type=Path, help="write the JSON into this file, too")
    options = parser.parse_args()
    shares = {part: SHARES[part] for part in options.only or SHARES}
    if options.number is not None and len(shares) != 1:
        parser.error("--number goes with --only and one part")
    spent, made = dict.fromkeys(shares, 0.0), dict.fromkeys(shares, 0)
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
        campaign = Campaign(Workshop(Path(folder), options.seed))
        try:
            while sum(spent.values()) < 60.0 * options.minutes:
                part = min(shares, key=lambda each: spent[each] / shares[each])
                began, first = time.monotonic(), made[part]
                made[part] += AT_ONCE.get(part, 1)
                numbers = range(first, made[part]) if options.number is None else [options.number]
                campaign.make(part, numbers)
                spent[part] += time.monotonic() - began
                if options.number is not None:
                    break
        finally:
            campaign.close()
    summary = {
        "seed": options.seed,
        "minutes": {part: round(seconds / 60.0, 1) for part, seconds in spent.items()},
        "environment": {
            name: value
            for name, value in environment_info(sys.argv).items()
            if name in ("time", "python", "platform", "versions", "git_revision", "git_dirty")
        },
        "counts": {
            part: {"made": counts.total(), **counts} for part, counts in campaign.counts.items()
        },
        "unexpected": campaign.unexpected,
    }
    text = json.dumps(summary, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    return 1 if campaign.unexpected else 0


if __name__ == "__main__":
    sys.exit(main())

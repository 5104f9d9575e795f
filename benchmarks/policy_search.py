"""Time an update of `policy_search` beside that of an older version, which had `pg` and `bptt`.

`python -m benchmarks.policy_search --against DIR --out FILE`, where DIR holds a checkout that still
has them (the parent of the commit that made them settings). Either side is a process that compiles
its four updates once; then they take turns, so that what else the machine does meets both. A row is
one turn: seconds of an update, the least of three.
"""

import argparse
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from mbpo_jax.files import replace_rows

CASES = [(model, kind) for model in ("oracle", "learned") for kind in ("ratio", "path")]
WORKER = Path(__file__).with_name("policy_search_worker.py")


class Side:
    """A process that times updates on demand."""

    def __init__(self, name: str, checkout: Path) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            env={**os.environ, "PYTHONPATH": str(checkout)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *request: str) -> dict:
        """Have it do something, and return what it says."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(*request, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    sides = [
        Side("policy_search", Path(__file__).parents[1]),
        Side("pg and bptt", arguments.against),
    ]
    rows = []
    for turn in range(arguments.rounds):
        for model, kind in CASES:
            for side in sides if turn % 2 else sides[::-1]:
                found = side.ask(model, kind)
                head = {"side": side.name, "model": model, "gradient": kind, "turn": turn}
                rows.append({**head, **found, "date": datetime.now(UTC).isoformat()})
    for model, kind in CASES:
        one, other = (
            median(
                row["seconds"]
                for row in rows
                if (row["side"], row["model"], row["gradient"]) == (side.name, model, kind)
            )
            for side in sides
        )
        print(
            f"{model:>8} {kind:>6}: {1e3 * one:7.2f} ms, {1e3 * other:7.2f} ms, {one / other:.2f}"
        )
    for side in sides:
        side.process.communicate()  # which ends its requests, and so the process
    if arguments.out:
        replace_rows(arguments.out, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The process that reads a run directory while it grows, and tells a tracker what it says.

The rows are what is known of the runs, so nothing has to be handed over: who was cut off goes on
where it stopped, who comes late catches up, and whatever a tracker's library does, hanging and
crashing included, training does not notice.
"""

import contextlib
import fcntl
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

from mbpo_jax.files import Row, write_json_atomic
from mbpo_jax.signals import HANDLED
from mbpo_jax.training.logs import METRICS, ROW_FILES
from mbpo_jax.training.trackers import follower
from mbpo_jax.training.trackers.tracker import Session, TrackedRun, Tracker, make_by, scalars

LOOK_EVERY = 0.5
"""Seconds between looks at the rows."""


class Training:
    """The process that trains: its last word is the outcome; without one it has died."""

    def __init__(self, patience: int) -> None:
        """Listen; from the end of training on, this process has so many seconds left."""
        self.outcome, self._patience = "failed", patience
        self._over = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        self.outcome = sys.stdin.readline().strip() or "failed"
        signal.alarm(self._patience)  # ends a process that does not handle it, even one that hangs
        self._over.set()

    def is_over(self, wait: float = 0.0) -> bool:
        """Say whether training has ended, after so many seconds at the latest."""
        return self._over.wait(wait)


class Rows:
    """The rows of a run directory, behind those that were read already."""

    def __init__(self, directory: Path) -> None:
        self._paths = {name: directory / name for name in ROW_FILES}
        self._read: dict[str, int] = dict.fromkeys(ROW_FILES, 0)
        self._waiting: list[tuple[int, int, dict[str, float]]] = []

    def new(self, all_of_them: bool) -> Iterator[tuple[int, list[tuple[int, dict[str, float]]]]]:
        """Yield steps, in order, and for each the runs with their numbers.

        Args:
          all_of_them: the newest step, too, to which rows may be added otherwise.
        """
        # Metrics first: when those of a step are there, all that belongs to earlier ones is.
        self._read_on(METRICS)
        newest = max((step for step, *_ in self._waiting), default=-1)
        for name in ROW_FILES:
            self._read_on(name)
        by_step: dict[int, dict[int, dict[str, float]]] = {}
        for step, run, values in self._waiting:
            by_step.setdefault(step, {}).setdefault(run, {}).update(values)
        ready = sorted(step for step in by_step if all_of_them or step < newest)
        self._waiting = [row for row in self._waiting if row[0] not in ready]
        yield from ((step, sorted(by_step[step].items())) for step in ready)

    def _read_on(self, name: str) -> None:
        """Take what was appended to a row file, up to the last line that is whole."""
        with contextlib.suppress(FileNotFoundError), open(self._paths[name], "rb") as file:
            file.seek(self._read[name])
            *lines, torn = file.read().split(b"\n")
            self._read[name] = file.tell() - len(torn)
            rows: list[Row] = [json.loads(line) for line in lines]
            self._waiting += [(row["env_steps"], row["run"], scalars(name, row)) for row in rows]


def follow(tracker: Tracker, session: Session, folder: Path, training: Training) -> None:
    """Tell a tracker of all rows that it has not seen, until training ends, and then the figures.

    Args:
      tracker: who is told.
      session: what of.
      folder: where it is kept what was told.
      training: the process that trains.
    """
    told = follower.told_up_to(folder)
    rows, is_over = Rows(session.directory), False
    while not is_over:
        is_over = training.is_over(LOOK_EVERY)
        for step, runs in rows.new(all_of_them=is_over):
            if step <= told:
                continue
            # Ahead of it: who is killed in between leaves a step out and tells none twice.
            write_json_atomic(folder / follower.TOLD, {"env_steps": step})
            told = step
            for run, values in runs:
                tracker.log(run, step, values)
    for path in (session.directory / name for name in follower.FIGURES):
        if path.exists():
            tracker.show(max(told, 0), path.stem, path)
    tracker.close(training.outcome)


def main(name: str, directory: Path, patience: int) -> None:
    """Follow a run directory for a tracker until training ends.

    Args:
      name: of the tracker.
      directory: the run directory.
      patience: seconds that are left from then on.
    """
    for number in HANDLED:  # which ask those who train for an end; it will be told
        signal.signal(number, signal.SIG_IGN)
    training = Training(patience)
    folder = follower.folder_of(directory, name)
    with open(folder / follower.LOCK, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the one before may still be sending what it has
        facts = json.loads((folder / follower.SESSION).read_text())
        runs = [TrackedRun(**run) for run in facts.pop("runs")]
        session = Session(directory, **facts, runs=runs)
        follow(make_by(name)(session), session, folder, training)


if __name__ == "__main__":
    code = 0
    try:
        main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # whatever a library would still wait for

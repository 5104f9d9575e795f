"""Signals at random moments of trainings that the same command goes on with until they end."""

import contextlib
import json
import os
import random
import shutil
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.faults.record import Fault, judged, rng_of
from benchmarks.faults.trainings import (
    PATIENCE,
    TRAININGS,
    Workshop,
    differences,
    lay_out,
    left_over,
    processes_in,
    run_dirs,
    start,
)

MOST = 6
"""Signals in the life of one training."""
KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
WAYS = {(KILL,): 10, (TERM,): 4, (INT,): 2, (TERM, KILL): 3, (INT, INT): 1}
"""Signals in a row, and how often they are chosen."""
INTERRUPTED, BY_CTRL_C = 75, 130


def make(workshop: Workshop, number: int) -> Fault:
    """Lead one training through a life of a few signals, and compare what it comes to."""
    rng = rng_of(workshop.seed, "kills", number)
    weights = [training.weight for training in TRAININGS.values()]
    name = rng.choices(list(TRAININGS), weights)[0]
    straight = workshop.straight(name)
    folder = lay_out(workshop.folder / f"kills-{number}")
    life = _Life(rng, folder, workshop.seconds[name])
    planned = rng.randint(1, MOST)
    problems, output = [], folder / "output"
    while not problems and life.is_unfinished:
        output = folder / f"output-{life.starts}.txt"
        began, is_last = time.monotonic(), len(life.signals) >= planned
        process = start(straight.training, folder, output)
        ways = set() if is_last else life.disturb(process)
        process.join(PATIENCE)
        if is_last:
            seconds = time.monotonic() - began
            workshop.seconds[name] = min(seconds, workshop.seconds[name])
        problems = life.judge(process, ways, output)
    problems = (
        problems or left_over(folder, straight.folder) or differences(folder, straight.folder)
    )
    for pid in processes_in(folder) if problems else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, KILL)
    text = output.read_text(errors="replace")
    shutil.rmtree(folder, ignore_errors=True)
    what = f"{name}: {', '.join(life.signals) or 'ended before a signal'}"
    return judged(what, problems, text, made=len(life.signals))


class _Life:
    """A training from its first start to its end.

    Attributes:
      signals: what was sent, in words.
      starts: of its command.
      is_unfinished: the command has to be given once more.
    """

    def __init__(self, rng: random.Random, folder: Path, seconds: float) -> None:
        self._rng, self._folder, self._seconds = rng, folder, seconds
        self.signals: list[str] = []
        self.starts, self.is_unfinished = 0, True

    def disturb(self, process: BaseProcess) -> set[signal.Signals]:
        """Send signals at a random moment; return those after which the process has to end."""
        self._wait(process)
        victim, hit = self._victim(process), self._rng.choices(list(WAYS), list(WAYS.values()))[0]
        self._held = self._is_training(victim)
        sent: list[signal.Signals] = []
        for number in hit:
            if sent:
                time.sleep(self._rng.uniform(0.0, 0.5))
            if not process.is_alive():
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, number)
            sent.append(number)
        if not sent:
            return set()
        who = "" if victim == process.pid else " of a worker"
        self.signals.append("+".join(each.name for each in sent) + who)
        return set(sent) if victim == process.pid else set()

    def _wait(self, process: BaseProcess) -> None:
        """Wait for a moment: any of the process's life, or after so many rows that it writes."""
        end = time.monotonic() + self._rng.uniform(0.0, 0.8 * self._seconds)
        rows = self._rows() + self._rng.randint(1, 4) if self._rng.random() < 0.7 else None
        if rows is not None:
            end = time.monotonic() + 3 * self._seconds
        while process.is_alive() and time.monotonic() < end:
            if rows is not None and self._rows() >= rows:
                time.sleep(self._rng.uniform(0.0, 0.3))
                return
            time.sleep(0.002)

    def _rows(self) -> int:
        paths = [each / "metrics.jsonl" for each in run_dirs(self._folder)]
        return sum(path.read_bytes().count(b"\n") for path in paths if path.exists())

    def _victim(self, process: BaseProcess) -> int:
        """Return the process to hit: the one that was started, or one that it has started."""
        assert process.pid
        others = [pid for pid in processes_in(self._folder) if pid != process.pid]
        # Three that fail would give a group up, which is another promise.
        spared = sum("worker" in text for text in self.signals) >= 2
        return self._rng.choice([process.pid, *([] if spared else others)])

    def _is_training(self, pid: int) -> bool:
        """Return whether a process holds a run directory: from there on it saves before it ends."""
        for run_dir in run_dirs(self._folder):
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                if json.loads((run_dir / ".lock").read_text())["process"] == pid:
                    return not self._is_finished()
        return False

    def _is_finished(self) -> bool:
        states = []
        for run_dir in run_dirs(self._folder):
            with contextlib.suppress(OSError, ValueError, LookupError):
                states.append(json.loads((run_dir / "status.json").read_text())["state"])
        return set(states) == {"finished"}

    def judge(self, process: BaseProcess, hit: set[signal.Signals], output: Path) -> list[str]:
        """Return what the end of a process has broken of what is promised."""
        self.starts += 1
        code, text = process.exitcode, output.read_text(errors="replace")
        if code is None:
            process.kill()
            return [f"it did not end within {PATIENCE:.0f} s"]
        self.is_unfinished = code != 0
        allowed = {0}
        if TERM in hit:
            allowed |= {INTERRUPTED}
        if INT in hit:
            allowed |= {INTERRUPTED, BY_CTRL_C}
        if KILL in hit:
            allowed |= {-KILL}
        if hit and (not self._held or self._is_finished()):
            allowed |= {-number for number in hit}  # it had nothing to save, or has saved all
        problems = [] if code in allowed else [f"exit code {code}"]
        if "Traceback" in text:
            problems.append("there is a traceback in the output")
        if code == INTERRUPTED and "the same command" not in text:
            problems.append("it does not say how to go on")
        return problems

"""Trackers as those who train see them: begun, told of rows, and closed, and never in the way."""

import contextlib
import json
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mbpo_jax.config import file_name
from mbpo_jax.files import write_json_atomic
from mbpo_jax.training.trackers.tracker import (
    TENSORBOARD,
    Session,
    TrackedRun,
    Tracker,
    make_by,
    scalars,
)

FIGURES = ("curve.png", "model_error.png", "gradients.png")
SESSION = "session.json"
TOLD = "told.json"
OUTPUT = "output.txt"
"""What the tracker's library said, such as the address of a run."""
LOCK = ".lock"

PATIENCE = 120
"""Seconds that a tracker has after the end of training."""
TELL_AFTER = 3.0
"""Seconds of waiting after which it is said what is waited for."""
_LEFT: list[subprocess.Popen[bytes]] = []
"""Processes that go on by themselves; Python would warn of one that nobody holds any more."""


def folder_of(directory: Path, name: str) -> Path:
    """Return where in a run directory it is kept what a tracker was told."""
    return directory / "trackers" / file_name(name)


def told_up_to(folder: Path) -> int:
    """Return the newest step that a tracker was told of, -1 if there is none."""
    return _read(folder / TOLD).get("env_steps", -1)


class Trackers:
    """The trackers of one process. One that fails is named in a warning, once, and left out.

    TensorBoard's files are written here. All others have a process each, which reads the rows from
    the run directory; nobody waits for it before the end, and there for `PATIENCE` seconds.
    """

    def __init__(
        self,
        names: Sequence[str],
        directory: Path,
        group: str,
        facts: Sequence[Mapping[str, Any]],
        announce: Callable[[str], None],
    ) -> None:
        """Begin nothing yet.

        Args:
          names: of the trackers.
          directory: the run directory.
          group: see `Session`.
          facts: of each run: `name`, `tags` and `config` of a `TrackedRun`.
          announce: told what goes wrong, in lines.
        """
        self._names, self._directory, self._group = names, directory, group
        self._facts, self._announce = [dict(each) for each in facts], announce
        self._here: dict[str, Tracker] = {}
        self._processes: dict[str, subprocess.Popen] = {}

    def begin(self, env_steps: int) -> None:
        """Begin where the runs go on; -1 if they begin. The rows have been cut back to there."""
        for name in self._names:
            with self._surviving(name):
                if name == TENSORBOARD:
                    session = Session(self._directory, self._group, self._runs([]), env_steps)
                    self._here[name] = make_by(name)(session)
                else:
                    self._processes[name] = self._start(name, env_steps)

    def log(self, file: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Tell of rows that were appended to a row file."""
        for name, tracker in list(self._here.items()):
            with self._surviving(name):
                for row in rows:
                    tracker.log(int(row["run"]), int(row["env_steps"]), scalars(file, dict(row)))
        for name, process in list(self._processes.items()):
            if process.poll() is not None:
                self._lose(name, self._last_words(name))

    def close(self, outcome: str) -> None:
        """Say how training ended, and wait until everything has arrived, or for `PATIENCE`."""
        for name, tracker in list(self._here.items()):
            # What ended training, and is told, may be what ends this: a full disk.
            with contextlib.suppress(Exception) if outcome == "failed" else self._surviving(name):
                tracker.close(outcome)
        self._here.clear()
        for process in self._processes.values():
            _say_last(process, outcome)
        for name, process in list(self._processes.items()):
            if not _ends(process, TELL_AFTER):
                if outcome == "interrupted":  # a scheduler may not wait
                    self._announce(f"{name} has not sent everything yet, and goes on by itself")
                    _LEFT.append(process)
                    continue
                self._announce(f"{name} is given {PATIENCE} s for what it has not sent yet")
            # It has a clock of its own, too, in case nobody waits for it any more.
            if not _ends(process, PATIENCE + TELL_AFTER):
                process.kill()
                process.wait()
            if process.returncode in (-signal.SIGALRM, -signal.SIGKILL):
                self._lose(name, f"it had not ended after {PATIENCE} s")
            elif process.returncode < 0:
                died = signal.Signals(-process.returncode).name
                self._lose(name, f"{died}; {self._last_words(name)}")
            elif process.returncode:
                self._lose(name, self._last_words(name))
        self._processes.clear()

    @contextlib.contextmanager
    def _surviving(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as problem:  # whatever it is, it must not end hours of training
            self._lose(name, f"{type(problem).__name__}: {problem}")

    def _lose(self, name: str, reason: str) -> None:
        if tracker := self._here.pop(name, None):
            with contextlib.suppress(Exception):
                tracker.close("failed")
        process = self._processes.pop(name, None)
        if process and process.stdin:
            process.stdin.close()
        self._announce(f"warning: {name} failed, and training goes on without it: {reason}")

    def _last_words(self, name: str) -> str:
        path = folder_of(self._directory, name) / OUTPUT
        try:
            lines = path.read_text(errors="replace").split("\n")
        except OSError as problem:  # whoever took it away must not end hours of training
            return f"{path}: {problem.strerror}"
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return f"{last[:400]}; see {path}"

    def _runs(self, ids: Sequence[str]) -> list[TrackedRun]:
        ids = ids or [secrets.token_hex(4) for _ in self._facts]
        return [TrackedRun(id, **facts) for id, facts in zip(ids, self._facts, strict=True)]

    def _start(self, name: str, env_steps: int) -> subprocess.Popen:
        folder = folder_of(self._directory, name)
        folder.mkdir(parents=True, exist_ok=True)
        before = _read(folder / SESSION).get("runs", [])
        ids = [run.pop("id") for run in before]
        # Before the first checkpoint the settings may still change, and then these are other runs.
        others = env_steps < 0 and before != json.loads(json.dumps(self._facts))
        if len(ids) != len(self._facts) or others:
            ids = []
            (folder / TOLD).unlink(missing_ok=True)
        session = Session(self._directory, self._group, self._runs(ids), env_steps)
        facts = session._asdict() | {"runs": [run._asdict() for run in session.runs]}
        del facts["directory"]
        write_json_atomic(folder / SESSION, facts)
        command = [sys.executable, "-m", "mbpo_jax.training.trackers", name]
        with open(folder / OUTPUT, "wb") as output:
            return subprocess.Popen(
                [*command, str(self._directory), str(PATIENCE)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                bufsize=0,
                start_new_session=True,  # so that Ctrl-C does not reach it
            )


def _say_last(process: subprocess.Popen, word: str) -> None:
    """Write a line to a process, the last one."""
    assert process.stdin is not None
    with contextlib.suppress(OSError), process.stdin:  # it may have ended, which shows elsewhere
        process.stdin.write(f"{word}\n".encode())


def _ends(process: subprocess.Popen, seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

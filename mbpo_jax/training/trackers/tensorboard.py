"""TensorBoard events, below `tensorboard/` in the run directory. The only file that knows them.

They are written by tensorboardX's writer of records, not by its `SummaryWriter`, whose thread dies
where a disk is full; whoever adds an event after that waits for ever.
"""

import contextlib
import importlib
import socket
import time
from collections.abc import Mapping
from typing import Any

from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar

from mbpo_jax.training.trackers.tracker import Session, Tracker

# Generated at run time: a type checker sees no names in it.
_pb: Any = importlib.import_module("tensorboardX.proto.event_pb2")

FLUSH_EVERY = 30.0
"""Seconds; as often TensorBoard looks for new events."""


class _Events:
    """The file of events of one run."""

    def __init__(self, session: Session, run: int) -> None:
        directory = session.directory / "tensorboard" / f"run_{run}"
        directory.mkdir(parents=True, exist_ok=True)
        # Of whole seconds alone, names of a quick restart would be those of its forerunner.
        second, number = int(time.time()), len(list(directory.iterdir()))
        name = f"events.out.tfevents.{second}.{socket.gethostname()}.{number}"
        self._file = RecordWriter(str(directory / name))
        self._flushed = -FLUSH_EVERY  # the first ones are seen at once
        self.write(file_version="brain.Event:2")
        # Forget what comes after the beginning, which a process before this one wrote.
        start = _pb.SessionLog(status=_pb.SessionLog.START)
        self.write(step=session.env_steps + 1, session_log=start)

    def write(self, **event: Any) -> None:
        self._file.write(_pb.Event(wall_time=time.time(), **event).SerializeToString())
        if time.monotonic() - self._flushed >= FLUSH_EVERY:
            self._flushed = time.monotonic()
            self._file.flush()

    def close(self) -> None:
        self._file.close()


def make_tracker(session: Session) -> Tracker:
    """Write events of each run, and have TensorBoard forget those after the session's beginning.

    What its older files hold of them stays in the files. The figures lie beside them anyway.
    """
    files: dict[int, _Events] = {}

    def log(run: int, env_steps: int, values: Mapping[str, float]) -> None:
        if run not in files:
            files[run] = _Events(session, run)
        for name, value in values.items():
            files[run].write(step=env_steps, summary=scalar(name, value))

    def close(_: str) -> None:
        with contextlib.ExitStack() as stack:  # all of them, whatever one raises
            for file in files.values():
                stack.callback(file.close)
            files.clear()

    return Tracker(log, lambda *_: None, close)

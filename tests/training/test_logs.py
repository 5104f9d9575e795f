"""Logs of a run, and the position that a checkpoint keeps."""

import importlib
import json
import struct
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mbpo_jax.files import LogError, Row, read_rows
from mbpo_jax.training import logs
from mbpo_jax.training.trackers.follower import Trackers
from tests.disks import room_for

# Generated at run time: a type checker sees no names in it.
event_pb2: Any = importlib.import_module("tensorboardX.proto.event_pb2")


def _row(env_steps: int, run: int = 0, **values: object) -> Row:
    return {"env_steps": env_steps, "run": run, "seed": 7 + run, **values}


def _events(directory: Path) -> list[list[Any]]:
    """Return the events of each event file of a run, in the order in which TensorBoard reads."""
    files = []
    for path in sorted(directory.iterdir()):
        data, events = path.read_bytes(), []
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            # A record is its length, a checksum of 4 bytes, the event, and another checksum.
            events.append(event_pb2.Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
        files.append(events)
    return files


def _scalars(events: list[Any]) -> dict[tuple[str, int], float]:
    return {
        (value.tag, event.step): value.simple_value
        for event in events
        for value in event.summary.value
    }


def _told_to_tensorboard(directory: Path) -> logs.RunLog:
    facts = [{"name": str(run), "tags": [], "config": {}} for run in range(2)]
    return logs.RunLog(directory, Trackers(["tensorboard"], directory, "", facts, pytest.fail))


class TestRunLog:
    def test_rows_reach_their_files_and_tensorboard_by_run(self, tmp_path):
        with _told_to_tensorboard(tmp_path) as log:
            log.rewind(logs.BEGINNING)
            log.write_evals([_row(250, run, return_mean=10.0 + run) for run in range(2)])
            log.write_metrics([_row(250, 1, **{"sac/loss": 0.5, "model/error": float("nan")})])
        assert [row["return_mean"] for row in read_rows(tmp_path / logs.EVALS)] == [10, 11]
        assert read_rows(tmp_path / logs.METRICS)[0]["model/error"] is None
        (events,) = _events(tmp_path / "tensorboard" / "run_1")
        assert _scalars(events) == {("eval/return_mean", 250): 11.0, ("sac/loss", 250): 0.5}

    def test_killed_and_continued_run_has_the_files_of_an_uninterrupted_one(self, tmp_path):
        def write(log: logs.RunLog, steps: range) -> None:
            for step in steps:
                log.write_metrics([_row(step, a=step / 3)])
                log.write_evals([_row(step, return_mean=step / 7)])

        straight, broken = tmp_path / "straight", tmp_path / "broken"
        straight.mkdir()
        broken.mkdir()
        with logs.RunLog(straight) as log:
            write(log, range(1, 9))
        with logs.RunLog(broken) as log:
            write(log, range(1, 4))
            position = json.loads(json.dumps(log.position()))
            write(log, range(4, 6))
        with open(broken / logs.METRICS, "ab") as file:
            file.write(b'{"env_steps": 6, "ru')
        with logs.RunLog(broken) as log:
            log.rewind(position)
            assert log.position() == position
            write(log, range(4, 9))
        for name in (logs.EVALS, logs.METRICS):
            assert (broken / name).read_bytes() == (straight / name).read_bytes()

    def test_rewind_to_the_beginning_forgets_everything(self, tmp_path):
        with logs.RunLog(tmp_path) as log:
            assert log.position() == logs.BEGINNING
            log.write_metrics([_row(0, a=1.0)])
            log.rewind(logs.BEGINNING)
            assert read_rows(tmp_path / logs.METRICS) == []
            assert log.position() == logs.BEGINNING

    def test_tensorboard_is_told_to_purge_the_steps_after_the_position(self, tmp_path):
        with _told_to_tensorboard(tmp_path) as log:
            log.rewind(logs.BEGINNING)
            log.write_metrics([_row(250, a=1.0)])
            position = log.position()
            log.write_metrics([_row(500, a=2.0)])
        with _told_to_tensorboard(tmp_path) as log:
            log.rewind(position)
            log.write_metrics([_row(500, a=3.0)])
        old, new = _events(tmp_path / "tensorboard" / "run_0")
        assert _scalars(old) == {("a", 250): 1.0, ("a", 500): 2.0}
        assert _scalars(new) == {("a", 500): 3.0}
        starts = [
            event.step for event in new if event.session_log.status == event_pb2.SessionLog.START
        ]
        assert starts == [251]

    def test_trackers_are_told_who_was_asked_to_end_and_who_failed(self, tmp_path):
        told = []
        for error in (SystemExit, KeyboardInterrupt, ValueError):
            trackers = SimpleNamespace(close=told.append)
            with pytest.raises(error), logs.RunLog(tmp_path, trackers):
                raise error
        assert told == ["interrupted", "interrupted", "failed"]

    def test_missing_rows_are_an_error_and_nothing_is_cut(self, tmp_path):
        with logs.RunLog(tmp_path) as log:
            log.write_evals([_row(250, return_mean=1.0)])
            log.write_metrics([_row(250, a=1.0)])
            position = log.position()
            (tmp_path / logs.METRICS).write_bytes(b"")
            log.write_evals([_row(500, return_mean=2.0)])
            evals = (tmp_path / logs.EVALS).read_bytes()
            with pytest.raises(LogError, match=r"metrics\.jsonl: it is empty \(0 bytes; \d+ when"):
                log.rewind(position)
        assert (tmp_path / logs.EVALS).read_bytes() == evals

    @pytest.mark.parametrize("is_resumed", [False, True])
    @pytest.mark.parametrize(
        ("row", "before", "after"),
        [(2, b"0.25", b"0.75"), (3, b"{", b"\0"), (4, b"}\n", b"}}"), (6, b"}\n", b"}}")],
    )
    def test_a_row_that_was_changed_is_named_before_anything_else(
        self, tmp_path, is_resumed, row, before, after
    ):
        """Whether it is valid JSON or not, and whoever of several processes wrote it."""

        def write(log: logs.RunLog, steps: range) -> dict:
            for step in steps:
                log.write_metrics([_row(step, a=step / 8)])
            return json.loads(json.dumps(log.position()))

        with logs.RunLog(tmp_path) as log:
            position = write(log, range(1, 4 if is_resumed else 7))
        if is_resumed:
            with logs.RunLog(tmp_path) as log:
                log.rewind(position)
                position = write(log, range(4, 7))
        assert logs.damage(tmp_path, position) is None
        path = tmp_path / logs.METRICS
        lines = path.read_bytes().splitlines(keepends=True)
        assert before in lines[row - 1]
        lines[row - 1] = lines[row - 1].replace(before, after)
        path.write_bytes(b"".join(lines))
        named = f"{path}, row {row}: it is not as it was written"
        assert logs.damage(tmp_path, position) == named
        with logs.RunLog(tmp_path) as log, pytest.raises(LogError, match=f"row {row}:"):
            log.rewind(position)
        assert path.read_bytes() == b"".join(lines)
        del position[logs.CHECKS]  # of an earlier version
        assert logs.damage(tmp_path, position) is None

    def test_tensorboard_without_room_is_one_warning_and_nothing_waits_for_it(self, tmp_path):
        told: list[str] = []
        trackers = Trackers(
            ["tensorboard"], tmp_path, "", [{"name": "", "tags": [], "config": {}}], told.append
        )
        trackers.begin(-1)
        with room_for(2000):
            for step in range(200):  # more than any buffer or queue holds
                trackers.log(logs.METRICS, [_row(step, a=1.0)])
            trackers.close("finished")
        (line,) = told
        assert "tensorboard failed, and training goes on without it: OSError" in line


class TestEnvironmentInfo:
    def test_says_what_ran_and_on_what(self):
        info = logs.environment_info(["mbpo-jax", "train"], devices=["cpu:0"])
        assert info["command"] == ["mbpo-jax", "train"]
        assert info["devices"] == ["cpu:0"]
        assert None not in [
            info["versions"][name] for name in ("jax", "orbax-checkpoint", "mujoco")
        ]
        assert "gymnasium" in info["versions"], "None where it is not installed"
        assert info["time"].endswith("+00:00")
        assert json.loads(json.dumps(info)) == info

    def test_revision_is_the_working_trees_own(self, tmp_path):
        def git(*arguments: str) -> str:
            identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
            command = ["git", *identity, *arguments]
            return subprocess.run(
                command, cwd=tmp_path, capture_output=True, text=True, check=True
            ).stdout.strip()

        git("init")
        assert logs._git_revision(tmp_path) == (None, None), "no commit yet"
        (tmp_path / "inside").mkdir()
        (tmp_path / "code.py").write_text("1")
        git("add", "code.py")
        git("commit", "-m", "first")
        revision = git("rev-parse", "HEAD")
        assert logs._git_revision(tmp_path) == (revision, False)
        (tmp_path / "code.py").write_text("2")
        assert logs._git_revision(tmp_path) == (revision, True)
        assert logs._git_revision(tmp_path / "inside") == (None, None), "installed in a project"


def test_a_log_from_before_gradients_were_tracked_goes_on(tmp_path):
    with logs.RunLog(tmp_path) as log:
        log.write_evals([{"env_steps": 1, "run": 0, "seed": 0, "return_mean": 1.0}])
        position = log.position()
        del position[logs.GRADIENTS]
        log.rewind(position)
        assert log.position()[logs.EVALS] == position[logs.EVALS]

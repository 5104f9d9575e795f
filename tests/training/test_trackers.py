"""Trackers: what they are told, that none stands in training's way, and that no process stays."""

import contextlib
import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from mbpo_jax import cli
from mbpo_jax.config import Config
from mbpo_jax.errors import ConfigError
from mbpo_jax.training.group import group_of, make_group
from mbpo_jax.training.logs import BEGINNING, RunLog
from mbpo_jax.training.trackers import facts, follower, tracker
from mbpo_jax.training.trackers.follower import Trackers

RUN_DIR = Path("run")
FACTS = [{"name": f"run-seed={i}", "tags": ["sac"], "config": {"sac.gamma": 0.9}} for i in range(2)]

OWN = """
import json, os, sys, time
from pathlib import Path
from mbpo_jax.training.trackers.tracker import Tracker

def make_tracker(session):
    def note(*what):
        with open("notes.jsonl", "a") as file:
            file.write(json.dumps(what) + "\\n")
    note("begin", session.group, session.env_steps, [run.id for run in session.runs])
    return Tracker(
        lambda *log: note("log", *log),
        lambda step, name, path: note("show", step, name, Path(path).name),
        lambda outcome: note("close", outcome),
    )

def late(session):
    return make_tracker(session)

def no_init(session):
    raise OSError("no network")

def no_log(session):
    def log(*_):
        raise ValueError("no such metric")
    return make_tracker(session)._replace(log=log)

def no_close(session):
    def close(_):
        raise TimeoutError("server gone")
    return make_tracker(session)._replace(close=close)

def crash(session):
    os.abort()

def hang(session):
    print("connecting")
    time.sleep(1000)

def hang_log(session):
    return make_tracker(session)._replace(log=lambda *_: time.sleep(1000))

def hang_close(session):
    return make_tracker(session)._replace(close=lambda _: time.sleep(1000))
"""


@pytest.fixture(autouse=True)
def _own():
    Path("own.py").write_text(OWN)


def notes(kind: str) -> list[list]:
    with contextlib.suppress(FileNotFoundError):
        lines = Path("notes.jsonl").read_text().splitlines()
        return [row[1:] for row in map(json.loads, lines) if row[0] == kind]
    return []


def open_log(names, told, facts=FACTS) -> RunLog:
    RUN_DIR.mkdir(exist_ok=True)
    return RunLog(RUN_DIR, Trackers(names, RUN_DIR, "together", facts, told.append))


def write(log: RunLog, *steps: int) -> None:
    for step in steps:
        log.write_metrics(
            [{"env_steps": step, "run": run, "seed": 3, "sac/loss": step + run} for run in range(2)]
        )
        log.write_evals([{"env_steps": step, "run": 0, "seed": 3, "return_mean": -step}])


def told_of(run: int, step: int) -> dict[str, float]:
    """Return what a tracker is told of what `write` writes."""
    return {"sac/loss": step + run} | ({} if run else {"eval/return_mean": -step})


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(*pids: int) -> None:
    while any(map(is_there, pids)):  # the test's own time limit ends it
        time.sleep(0.1)


class TestNames:
    def test_text_and_lists_are_the_same(self):
        assert tracker.chosen("wandb, tensorboard,wandb") == ("wandb", "tensorboard")
        assert tracker.chosen(["wandb"]) == ("wandb",)
        assert tracker.chosen("none") == tracker.chosen([]) == ()

    def test_an_unknown_name_is_an_error_with_advice(self):
        with pytest.raises(ConfigError, match=r"log: 'wanbd' is not known.*did you mean wandb"):
            tracker.chosen("tensorboard,wanbd")

    def test_one_of_ones_own_has_to_be_there(self):
        tracker.check(["own:make_tracker"])
        with pytest.raises(ConfigError, match=r"log: own has no function 'mine'"):
            tracker.check(["own:mine"])

    @pytest.mark.parametrize("name", ["wandb", "trackio"])
    def test_a_missing_library_is_named_with_its_extra_before_anything_is_done(
        self, monkeypatch, capsys, name
    ):
        version = metadata.version

        def missing(distribution):
            if distribution == name:
                raise metadata.PackageNotFoundError
            return version(distribution)

        monkeypatch.setattr(metadata, "version", missing)
        assert cli.main(["train", "pendulum", "--log", f"tensorboard,{name}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{name} is not installed; pip install 'mbpo-jax[{name}]'" in line
        assert not Path("runs").exists()


class TestFacts:
    def test_only_settings_that_are_read_are_told(self):
        config = dataclasses.replace(Config(), algorithm="sac")
        (fact,) = facts.facts_of(group_of(config), Path("runs/mine"))
        assert fact["name"] == "mine"
        assert fact["tags"] == ["sac", config.env.name]
        assert {"sac.gamma", "seed", "total_env_steps"} <= fact["config"].keys()
        read = {path.partition(".")[0] for path in fact["config"]}
        assert not read & {"rollout", "fit", "planner", "num_seeds", "tracking"}

    def test_names_tell_runs_apart(self):
        rates = [dataclasses.replace(Config().sac, learning_rate=x) for x in (1e-3, 3e-4)]
        runs = [dataclasses.replace(Config(), sac=sac, seed=4) for sac in rates]
        told = facts.facts_of(make_group(runs), Path("a/unit"))
        assert [fact["name"] for fact in told] == [
            f"unit-seed=4-sac.learning_rate={rate}" for rate in (0.001, 0.0003)
        ]
        assert [fact["config"]["sac.learning_rate"] for fact in told] == [1e-3, 3e-4]


class TestFollowing:
    def test_a_tracker_is_told_everything_in_order_with_one_call_a_step_and_run(self):
        told: list[str] = []
        with open_log(["own:make_tracker"], told) as log:
            log.rewind(BEGINNING)
            log.write_evals([{"env_steps": 0, "run": 0, "seed": 3, "return_mean": None}])
            write(log, 250, 500)
            (RUN_DIR / "curve.png").touch()
            log.close("finished")
        assert told == []
        ((group, env_steps, ids),) = notes("begin")
        assert (group, env_steps, len(set(ids))) == ("together", -1, 2)
        assert notes("log") == [
            [0, 0, {}],
            *([run, step, told_of(run, step)] for step in (250, 500) for run in (0, 1)),
        ]
        assert notes("show") == [[500, "curve", "curve.png"]]
        assert notes("close") == [["finished"]]

    def test_a_rollback_repeats_nothing_and_a_late_tracker_catches_up(self):
        with open_log(["own:make_tracker"], told := []) as log:
            log.rewind(BEGINNING)
            write(log, 250)
            position = log.position()
            write(log, 500, 750)
        assert notes("close") == [["failed"]], "the context was left without an outcome"
        with open_log(["own:make_tracker", "own:late"], told) as log:
            log.rewind(position)
            write(log, 500, 750, 1000)
            log.close("interrupted")
        assert told == []
        told_to = [ids for *_, ids in notes("begin")]
        assert len({tuple(ids) for ids in told_to}) == 2, "resumed runs keep their ids"
        steps = [step for run, step, _ in notes("log") if run == 0]
        assert sorted(steps) == sorted([250, 500, 750, 1000] * 2)

    def test_other_settings_before_the_first_checkpoint_are_other_runs(self):
        ids = []
        for rate in (0.9, 0.9, 0.8):
            changed = [fact | {"config": {"sac.gamma": rate}} for fact in FACTS]
            with open_log(["own:make_tracker"], told := [], changed) as log:
                log.rewind(BEGINNING)
                write(log, 250)
            assert told == []
            ids.append(notes("begin")[-1][-1])
        assert ids[0] == ids[1] != ids[2]
        assert [step for run, step, _ in notes("log") if run == 0] == [250, 250]

    def test_a_killed_training_is_followed_to_its_last_row(self):
        script = (
            "import os, signal, time\n"
            "from tests.training.test_trackers import *\n"
            "log = open_log(['own:make_tracker'], [])\n"
            "log.rewind(BEGINNING)\n"
            "write(log, 250, 500)\n"
            "print(log._trackers._processes['own:make_tracker'].pid, flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        root = str(Path(__file__).parents[2])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert done.returncode == -signal.SIGKILL
        wait_until_gone(int(done.stdout))
        assert [step for run, step, _ in notes("log") if run == 0] == [250, 500]
        assert notes("close") == [["failed"]]


class TestFailing:
    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("no_init", "OSError: no network"),
            ("no_log", "ValueError: no such metric"),
            ("no_close", "TimeoutError: server gone"),
            ("crash", "SIGABRT|Aborted|said nothing"),
        ],
    )
    def test_a_failure_is_one_warning_and_no_more(self, name, reason):
        told: list[str] = []
        with open_log([f"own:{name}", "own:make_tracker", "tensorboard"], told) as log:
            log.rewind(BEGINNING)
            write(log, 250)
            process = log._trackers._processes.get(f"own:{name}")  # type: ignore[union-attr]
            if process and name in ("no_init", "crash"):
                process.wait()
            write(log, 500)
            log.close("finished")
        (line,) = told
        assert line.startswith(f"warning: own:{name} failed, and training goes on without it: ")
        assert any(text in line for text in reason.split("|")), line
        # Two that log at once do it in any order; the others fail before.
        logged = 2 if name == "no_close" else 1
        steps = sorted(step for run, step, _ in notes("log") if run == 1)
        assert steps == [250] * logged + [500] * logged
        assert list(RUN_DIR.glob("tensorboard/run_0/events*"))
        assert len((RUN_DIR / "metrics.jsonl").read_text().splitlines()) == 4

    @pytest.mark.parametrize("name", ["hang", "hang_log", "hang_close"])
    def test_who_hangs_is_waited_for_a_while_and_left_behind(self, monkeypatch, name):
        monkeypatch.setattr(follower, "PATIENCE", 1)
        monkeypatch.setattr(follower, "TELL_AFTER", 0.1)
        told: list[str] = []
        with open_log([f"own:{name}"], told) as log:
            log.rewind(BEGINNING)
            process = log._trackers._processes[f"own:{name}"]  # type: ignore[union-attr]
            write(log, 250, 500)
            log.close("finished")
        assert told == [
            f"own:{name} is given 1 s for what it has not sent yet",
            f"warning: own:{name} failed, and training goes on without it: "
            "it had not ended after 1 s",
        ]
        assert process.returncode < 0
        assert not is_there(process.pid)

    def test_after_an_interruption_nobody_is_waited_for(self, monkeypatch):
        monkeypatch.setattr(follower, "PATIENCE", 1)
        monkeypatch.setattr(follower, "TELL_AFTER", 0.1)
        told: list[str] = []
        with open_log(["own:hang_close"], told) as log:
            log.rewind(BEGINNING)
            process = log._trackers._processes["own:hang_close"]  # type: ignore[union-attr]
            write(log, 250)
            log.close("interrupted")
        assert told == ["own:hang_close has not sent everything yet, and goes on by itself"]
        assert process.wait() == -signal.SIGALRM  # by its own clock

    def test_tensorboard_may_fail_too(self):
        RUN_DIR.mkdir()
        (RUN_DIR / "tensorboard").write_text("in the way")
        with open_log(["tensorboard"], told := []) as log:
            log.rewind(BEGINNING)
            write(log, 250, 500)
        (line,) = told
        assert line.startswith("warning: tensorboard failed, and training goes on without it: ")


def wandb_rows(path: Path) -> list[Any]:
    """Return the records of an offline run: LevelDB's log format behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportMissingImports]

    data, place, whole, records = path.read_bytes(), 7, b"", []
    while place < len(data):
        if 2**15 - place % 2**15 < 7:  # no room for another record's beginning in this block
            place += 2**15 - place % 2**15
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # it is whole, or this was the last part of it
            records.append(Record.FromString(whole))
            whole = b""
    return records


def children_of(pid: int) -> list[int]:
    """Return wandb's service processes that belong to a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"--pid" in words and words[words.index(b"--pid") + 1] == str(pid).encode():
                found.append(int(path.parent.name))
    return found


@pytest.mark.slow
class TestWandb:
    @pytest.fixture(autouse=True)
    def _offline(self, monkeypatch):
        pytest.importorskip("wandb")
        monkeypatch.setenv("WANDB_MODE", "offline")
        monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
        monkeypatch.setenv("WANDB_PROJECT", "under-test")
        # As of a program that uses wandb itself and trains in between; nothing must come of it.
        monkeypatch.setenv("WANDB_SERVICE", "3-1-unix-/nowhere")

    def _train(self, *steps, position=BEGINNING, outcome="finished") -> dict[str, int]:
        with open_log(["wandb"], told := []) as log:
            log.rewind(position)
            process = log._trackers._processes["wandb"]  # type: ignore[union-attr]
            write(log, *steps)
            there = log.position()
            log.close(outcome)
        assert [line for line in told if "failed" in line] == []
        wait_until_gone(process.pid, *children_of(process.pid))
        return there

    def test_offline_runs_hold_what_was_told_and_go_on_under_their_ids(self):
        (RUN_DIR / "curve.png").parent.mkdir()
        from PIL import Image

        Image.new("RGB", (8, 8)).save(RUN_DIR / "curve.png")
        position = self._train(250, outcome="interrupted")
        self._train(500, 750, position=position)
        runs = json.loads((RUN_DIR / "trackers/wandb/session.json").read_text())["runs"]
        files = sorted(RUN_DIR.glob(f"wandb/offline-run-*-{runs[0]['id']}/*.wandb"))
        assert len(files) == 2
        assert len(list(RUN_DIR.glob(f"wandb/offline-run-*-{runs[1]['id']}/*.wandb"))) == 2
        history, ends = [], []
        for path in files:
            records = wandb_rows(path)
            (run,) = [r.run for r in records if r.HasField("run")][:1]
            assert (run.run_group, run.display_name, run.project) == (
                "together",
                "run-seed=0",
                "under-test",
            )
            assert list(run.tags) == ["sac"]
            assert {item.key: item.value_json for item in run.config.update}["sac.gamma"] == "0.9"
            for record in (r.history for r in records if r.HasField("history")):
                values = {".".join(i.nested_key) or i.key: i.value_json for i in record.item}
                history.append({key: json.loads(value) for key, value in values.items()})
            ends += [r.exit.exit_code for r in records if r.HasField("exit")]
        told = [(r["_step"], r["sac/loss"], r["eval/return_mean"]) for r in history]
        assert told == [(250, 250, -250), (500, 500, -500), (750, 750, -750)]
        assert [r["curve._type"] for r in history if "curve._type" in r] == ["image-file"] * 2
        assert ends == [75, 0]

    def test_without_a_key_online_there_is_one_warning(self, monkeypatch):
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nobody listens
        monkeypatch.setenv("HOME", str(Path.cwd()))
        monkeypatch.delenv("WANDB_API_KEY", raising=False)
        with open_log(["wandb"], told := []) as log:
            log.rewind(BEGINNING)
            process = log._trackers._processes["wandb"]  # type: ignore[union-attr]
            write(log, 250)
            log.close("finished")
        (line,) = [line for line in told if line.startswith("warning")]
        assert line.startswith("warning: wandb failed, and training goes on without it: wandb.")
        wait_until_gone(process.pid, *children_of(process.pid))

    def test_its_service_goes_with_a_process_that_is_killed(self):
        with open_log(["wandb"], []) as log:
            log.rewind(BEGINNING)
            process = log._trackers._processes["wandb"]  # type: ignore[union-attr]
            while not (services := children_of(process.pid)):
                time.sleep(0.1)
            process.kill()
            process.wait()
            wait_until_gone(*services)


@pytest.mark.slow
class TestTrackio:
    @pytest.fixture(autouse=True)
    def _local(self, monkeypatch):
        pytest.importorskip("trackio")
        monkeypatch.setenv("TRACKIO_DIR", str(Path("trackio").resolve()))
        monkeypatch.setenv("TRACKIO_PROJECT", "under-test")
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.delenv("TRACKIO_SPACE_ID", raising=False)

    def test_local_runs_hold_what_was_told_and_go_on(self):
        with open_log(["trackio"], told := []) as log:
            log.rewind(BEGINNING)
            write(log, 250)
            position = log.position()
            write(log, 500)
        with open_log(["trackio"], told) as log:
            log.rewind(position)
            write(log, 500, 750)
            log.close("finished")
        assert [line for line in told if "failed" in line] == []
        runs = json.loads((RUN_DIR / "trackers/trackio/session.json").read_text())["runs"]
        with contextlib.closing(sqlite3.connect("trackio/under-test.db")) as database:
            query = "select run_name, step, metrics from metrics order by run_name, step"
            rows = [(n, step, json.loads(m)) for n, step, m in database.execute(query)]
            configs = list(database.execute("select run_name, config from configs"))
        assert rows == [
            (
                f"run-seed={run}-{runs[run]['id']}",
                step,
                told_of(run, step),
            )
            for run in (0, 1)
            for step in (250, 500, 750)
        ]
        config = json.loads(dict(configs)[rows[0][0]])
        assert (config["sac.gamma"], config["tags"], config["_Group"]) == (0.9, ["sac"], "together")

    def test_a_store_that_cannot_be_written_is_one_warning(self):
        Path("trackio").write_text("in the way")
        with open_log(["trackio"], told := []) as log:
            log.rewind(BEGINNING)
            write(log, 250)
            log.close("finished")
        (line,) = [line for line in told if line.startswith("warning")]
        assert line.startswith("warning: trackio failed, and training goes on without it: ")

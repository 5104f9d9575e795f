"""Sweeps as a user starts them: real processes, killed and continued."""

import contextlib
import dataclasses
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbpo_jax.errors import ConfigError, DiskError
from mbpo_jax.exit_codes import OF_OUTCOME
from mbpo_jax.files import append_rows
from mbpo_jax.signals import HANDLED
from mbpo_jax.sweeps import local, manifest, process, store, worker
from mbpo_jax.sweeps.sweep import sweep
from mbpo_jax.training import devices, driver, pace, run_directory
from mbpo_jax.training.interruption import Interruption
from mbpo_jax.yaml_files import read_yaml
from tests.sweeps.processes import (
    LONGER,
    TINY,
    laid_out,
    returns,
    wait_for,
    wait_for_training,
    written,
)


def test_a_plan_names_what_is_new_and_keeps_what_is_there(tmp_path):
    runs = manifest.expand(TINY)
    plan = store.plan(tmp_path, runs)
    assert [len(unit.group.runs) for unit in plan.new] == [3]
    other = store.plan(tmp_path, runs[1:])  # of a second driver, at the same time
    assert store.create(tmp_path, plan, "seeds: 3")
    assert (tmp_path / store.SWEEP_FILE).read_text() == "seeds: 3"
    (unit,) = store.units_of(tmp_path)
    assert (unit.state, unit.group) == ("waiting", plan.new[0].group)
    assert not store.create(tmp_path, other, "seeds: [1, 2]")
    assert len(store.units_of(tmp_path)) == 1
    assert store.plan(tmp_path, runs[1:]).new == []
    larger = manifest.expand({**TINY, "seeds": [1, 2, 3, 4]})
    again = store.plan(tmp_path, larger)
    assert [run.seed for unit in again.new for run in unit.group.runs] == [3, 4]
    assert (again.known, again.dropped) == ([unit], [])  # two of its runs are asked for
    other = store.plan(tmp_path, manifest.expand({**TINY, "seeds": [7]}))
    assert (other.known, other.dropped) == ([], [unit])


def test_a_sweep_that_asks_for_more_steps_goes_on_with_the_runs_that_are_there(tmp_path):
    (unit,) = laid_out(tmp_path)
    run_directory.write_status(unit.path, "finished")
    (unit.path / run_directory.CHECKPOINTS / "0000000200").mkdir(parents=True)
    more = manifest.expand({**TINY, "settings": {**TINY["settings"], "total_env_steps": 900}})
    plan = store.plan(tmp_path, more)
    assert (plan.new, plan.dropped) == ([], [])
    assert [u.path for u in plan.longer] == [unit.path]
    assert store.create(tmp_path, plan, "")
    (longer,) = store.units_of(tmp_path)
    assert (longer.name, longer.state) == (unit.name, "interrupted")
    assert {run.total_env_steps for run in longer.group.runs} == {900}
    for changes in ({"total_env_steps": 950}, {"stop_at_return": -1.0, "total_env_steps": 900}):
        content = {**TINY, "settings": {**TINY["settings"], **changes}}
        plan = store.plan(tmp_path, manifest.expand(content))
        assert [u.path for u in plan.longer] == [unit.path]
        with (
            run_directory.opened(unit.path, longer.group),
            pytest.raises(ConfigError, match="while it is trained by process"),
        ):
            store.create(tmp_path, plan, "")
    # Fewer steps than there are ask for nothing.
    assert store.plan(tmp_path, manifest.expand(TINY)).longer == []


def test_a_unit_is_given_up_after_three_failures_until_it_is_forgiven(tmp_path):
    (unit,) = laid_out(tmp_path)
    for _ in range(store.MOST_FAILURES):
        assert unit.state == "waiting"
        unit.add_failure(reason="exit code 3")
    assert unit.state == "failed"
    unit.forgive()
    assert unit.state == "waiting"


def test_an_error_of_python_is_a_failure_though_it_ends_with_the_code_of_divergence(tmp_path):
    (unit,) = laid_out(tmp_path)
    (unit.path / store.OUTPUT).write_text("Traceback\nZeroDivisionError: division by zero\n")
    told = process.told_end(unit, OF_OUTCOME["diverged"])
    assert "failed (exit code 1) and is tried again" in told
    assert unit.failures[0]["last_line"] == "ZeroDivisionError: division by zero"
    run_directory.write_status(unit.path, "diverged")
    assert process.told_end(unit, OF_OUTCOME["diverged"]) == f"{unit.name}: diverged"


def test_what_was_asked_to_end_or_has_no_room_is_no_failure(tmp_path):
    (unit,) = laid_out(tmp_path)
    (unit.path / store.OUTPUT).write_text("each device needs about 9 GiB, but has 1 GiB: lower x\n")
    for code in (OF_OUTCOME["interrupted"], *(-number for number in HANDLED)):
        assert process.told_end(unit, code) == f"{unit.name}: interrupted"
    with pytest.raises(ConfigError, match=r"needs about 9 GiB, but has 1 GiB.*the same command"):
        process.told_end(unit, OF_OUTCOME["too large"])
    assert unit.failures == []


def test_a_disk_that_takes_nothing_is_no_failure_and_ends_the_sweep(tmp_path, monkeypatch, capsys):
    """Whether the group could still say so, or not."""
    (unit,) = laid_out(tmp_path)
    problem = DiskError(f"cannot write {unit.path}: Disk quota exceeded", errno.EDQUOT)

    def train(*_, **__):
        raise problem

    monkeypatch.setattr(driver, "train_group", train)
    code = OF_OUTCOME[worker.train_unit(tmp_path, unit.name)]
    told = capsys.readouterr().out
    (unit.path / store.OUTPUT).write_text(told)
    with pytest.raises(
        DiskError, match=rf"{unit.name}: cannot write .*: Disk quota exceeded; free"
    ):
        process.told_end(unit, code)
    (unit.path / store.OUTPUT).write_text("")
    with pytest.raises(DiskError, match=rf"{unit.name}: cannot write in .*: No space left"):
        process.told_end(unit, code)
    assert unit.failures == []


def test_a_group_that_does_not_fit_is_left_until_the_others_are_done(tmp_path, monkeypatch):
    units = laid_out(tmp_path, {**TINY, "algorithms": ["mbpo", "sac"]})
    tried, told = [], []

    def train(_, unit):
        tried.append(unit.name)
        if unit is units[0]:
            raise process.NoRoom("too large")
        run_directory.write_status(unit.path, "finished")

    monkeypatch.setattr(local, "_train", train)
    with Interruption() as interruption, pytest.raises(process.NoRoom):
        local.train_all(process.Work(tmp_path, units, interruption, print, told.append))
    assert tried == [unit.name for unit in units]
    assert told == ["too large"]


def test_a_group_that_does_not_fit_now_ends_with_a_code_of_its_own(tmp_path, monkeypatch, capsys):
    (unit,) = laid_out(tmp_path)
    monkeypatch.setattr(devices, "available_bytes", lambda _: 1)
    assert worker.train_unit(tmp_path, unit.name) == "too large"
    assert "each device needs" in capsys.readouterr().out
    with run_directory.opened(unit.path, unit.group):  # whoever trains it has the memory
        assert worker.train_unit(tmp_path, unit.name) == "busy"


def test_time_is_told_by_a_unit_of_the_same_work(tmp_path):
    (unit,) = laid_out(tmp_path / "mine")
    (other,) = laid_out(tmp_path / "other", {**TINY, "seeds": 6})
    (broken,) = laid_out(tmp_path / "broken")
    (larger,) = laid_out(
        tmp_path / "larger", {**TINY, "settings": {**TINY["settings"], "sac": {"batch_size": 64}}}
    )
    (broken.path / "evals.jsonl").write_text("no row\n")
    found = store.beside(tmp_path / "mine")
    assert set(found) == {unit.path, other.path, broken.path, larger.path}

    def told(group):
        return pace.expected_time(group, pace.read_paces(found))

    assert told(unit.group).startswith("not known")
    row = {"env_steps": 150, "run": 0, "seed": 0, "return_mean": 1.0, "wall_seconds": 900.0}
    append_rows(larger.path / "evals.jsonl", [row])
    assert told(unit.group).startswith("not known")
    append_rows(other.path / "evals.jsonl", [{**row, "env_steps": 0, "wall_seconds": 0.0}, row])
    # 50 more steps of half as many runs.
    assert told(unit.group).startswith("about 18 minutes, at the pace of")
    # The second evaluation was quicker than the first, before which everything was compiled.
    append_rows(other.path / "evals.jsonl", [{**row, "env_steps": 200, "wall_seconds": 940.0}])
    longer = unit.group.lengthened(
        dataclasses.replace(unit.group.config, total_env_steps=250, stop_at_return=None)
    )
    assert told(longer).startswith("about 16 minutes")


def test_a_plan_of_many_groups_is_told_on_a_screen(tmp_path, monkeypatch, capsys):
    content = {**TINY, "grid": {"sac.batch_size": list(range(20, 40))}}
    found = store.plan(tmp_path / "out", manifest.expand(content))
    known = worker.Planned(found, ["about 1.20 MiB on 1 device"] * 20, ["cpu:0 cpu"])
    monkeypatch.setattr(worker, "planned", lambda *_: known)
    assert sweep(content, tmp_path / "out", dry_run=True) == "finished"
    told = capsys.readouterr().out
    assert told.count("\n") <= 50
    assert "and 30 more lines, for which there is --dry-run --all" in told
    assert "3 runs of 200 steps; about 1.20 MiB on 1 device" in told
    assert "60 new runs in 20 groups" in told
    sweep(content, tmp_path / "out", dry_run=True, whole=True)
    assert capsys.readouterr().out.count("new: ") == 20


def test_groups_of_a_directory_are_not_divided_again(tmp_path):
    laid_out(tmp_path)
    with pytest.raises(ConfigError, match="it is for new ones"):
        sweep(tmp_path, runs_per_group=1)


@pytest.mark.parametrize("name", ["../groups", "nothing", ".."])
def test_a_group_is_asked_for_by_its_name_alone(tmp_path, name):
    laid_out(tmp_path)
    with pytest.raises(ConfigError, match="has no group"):
        store.find_unit(tmp_path, name)


def test_a_directory_that_is_held_says_by_whom(tmp_path):
    (unit,) = laid_out(tmp_path)
    assert run_directory.holder(unit.path) is None
    assert list(unit.path.glob(".lock")) == []  # who looks leaves nothing behind
    with run_directory.opened(unit.path, unit.group):
        assert f"process {os.getpid()} on " in run_directory.holder(unit.path)
        with (
            pytest.raises(run_directory.Busy, match=f"process {os.getpid()}"),
            run_directory.opened(unit.path, unit.group),
        ):
            pass
    assert run_directory.holder(unit.path) is None


@pytest.mark.slow
def test_a_sweep_may_be_asked_for_from_python(tmp_path, capsys):
    mbpo = {"algorithms": ["mbpo"], "grid": {"rollout.max_length": (1, 2)}}
    assert sweep({**TINY, **mbpo}, tmp_path, dry_run=True) == "finished"
    told = capsys.readouterr().out
    assert "6 new runs in 1 groups" in told
    assert "3 seeds, rollout.max_length 1|2" in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_what_is_no_sweep_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError):
        sweep(tmp_path / name)


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> dict[tuple, list[float]]:
    """Train the longer sweep without a break, and return its evaluations."""
    folder = tmp_path_factory.mktemp("straight")
    assert sweep(written(folder / "sweep.yaml", settings=LONGER), folder / "out") == "finished"
    return returns(folder / "out")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_worker_changes_no_number_and_an_enlarged_sweep_runs_what_is_new(
    straight, tmp_path
):
    """Of two drivers at once one has a worker, which is killed; later a driver is stopped."""
    path, broken = written(tmp_path / "sweep.yaml", settings=LONGER), tmp_path / "broken"
    command = [sys.executable, "-m", "mbpo_jax", "sweep", str(path), "--out", str(broken)]
    with contextlib.ExitStack() as stack:
        drivers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for driver in drivers:
            stack.enter_context(driver)
        os.kill(wait_for_training(broken, steps=250)[0], signal.SIGKILL)
        told = [driver.communicate(timeout=600)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], told
    assert sum("failed (signal SIGKILL) and is tried again" in each for each in told) == 1
    assert len(store.units_of(broken)) == 1
    assert returns(broken) == straight

    assert sweep(path, broken) == "finished"  # nothing is trained twice
    assert returns(broken) == straight
    larger = written(tmp_path / "larger.yaml", settings=LONGER, seeds=4)
    command[4] = str(larger)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        wait_for(lambda: any(unit.state == "running" for unit in store.units_of(broken)))
        driver.send_signal(signal.SIGINT)
        output, _ = driver.communicate(timeout=600)
    assert driver.returncode == OF_OUTCOME["interrupted"], output
    assert sweep(broken) == "finished"
    found = returns(broken)
    assert len(found) == 4
    assert {key: found[key] for key in straight} == straight


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """Mount a file system of a few megabytes."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "none", str(path)]
    if not shutil.which("mount") or subprocess.run(mount, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    yield path
    subprocess.run(["umount", str(path)], check=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_full_disk_ends_the_sweep_and_the_same_command_goes_on(small_disk, straight, tmp_path):
    path, full = written(tmp_path / "sweep.yaml", settings=LONGER), small_disk / "full"
    command = [sys.executable, "-m", "mbpo_jax", "sweep", str(path), "--out", str(full)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as driver:
        wait_for_training(full, steps=250)
        with pytest.raises(OSError, match="No space"), open(small_disk / "filler", "wb") as file:
            while True:
                file.write(bytes(2**12))
                file.flush()
        _, problems = driver.communicate(timeout=600)
    assert driver.returncode == 2
    (problem,) = problems.splitlines()
    assert "No space left on device" in problem
    assert "free some space there or choose another --out" in problem
    (unit,) = store.units_of(full)
    assert unit.failures == []
    (small_disk / "filler").unlink()
    assert sweep(path, full) == "finished"
    assert returns(full) == straight


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_driver_leaves_its_group_which_the_next_one_takes_over(straight, tmp_path):
    """What trains the group outlives its driver; the next driver waits for it, or resumes it."""
    path, broken = written(tmp_path / "sweep.yaml", settings=LONGER), tmp_path / "broken"
    command = [sys.executable, "-m", "mbpo_jax", "sweep", str(path), "--out", str(broken)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        trainer, name = wait_for_training(broken, steps=250)
        os.kill(trainer, signal.SIGSTOP)  # it shall not be done before anyone looks
        driver.kill()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        told = iter(driver.stdout.readline, "")
        assert next(line for line in told if f"process {trainer}" in line).startswith(name)
        os.kill(trainer, signal.SIGKILL)
        output, _ = driver.communicate(timeout=600)
    assert driver.returncode == OF_OUTCOME["finished"], output
    assert f"{name}: resumed" in output
    assert returns(broken) == straight


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_group_that_fails_does_not_stop_the_others(tmp_path, capsys):
    """One group's directory is spoiled, so that its process fails at once, three times."""
    path = written(tmp_path / "sweep.yaml", algorithms=["sac", "retrace"], seeds=1)
    units = laid_out(tmp_path / "out", read_yaml(path))
    spoiled = next(unit for unit in units if unit.group.config.algorithm == "retrace")
    (spoiled.path / "checkpoints").write_text("this is no directory")
    assert sweep(path, tmp_path / "out") == "incomplete"
    told = capsys.readouterr().out
    assert "1 of 2 runs are trained" in told
    assert f"failed: {spoiled.name}" in told
    assert re.search(r"\n  Retrace +0 of 1 .*\n  SAC +1 of 1 ", told)
    assert {unit.state for unit in store.units_of(tmp_path / "out")} == {"finished", "failed"}
    assert "see" in told
    (spoiled.path / "checkpoints").unlink()
    assert sweep(path, tmp_path / "out", retry=True) == "finished"


def test_a_group_is_trained_for_the_trackers_of_the_sweeps_file(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        worker.driver, "train_group", lambda *_, **options: told.append(options) or "finished"
    )
    monkeypatch.setattr(store, "find_unit", lambda sweep_dir, name: store.Unit(tmp_path, None))
    assert worker.train_unit(tmp_path, "group") == "finished"
    (tmp_path / store.SWEEP_FILE).write_text("log: [wandb, trackio]")
    worker.train_unit(tmp_path, "group")
    (tmp_path / store.SWEEP_FILE).write_text("log: []")
    worker.train_unit(tmp_path, "group")
    assert [each["log"] for each in told] == [("tensorboard",), ("wandb", "trackio"), ()]
    assert {each["part_of"] for each in told} == {tmp_path.name}

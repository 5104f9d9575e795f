"""Sweeps as a user starts them: real processes, killed and continued."""

import os
import signal
import subprocess
import sys

import pytest

from mbpo_jax.errors import ConfigError
from mbpo_jax.sweeps import manifest, process, store
from mbpo_jax.sweeps.sweep import EXIT_INCOMPLETE, sweep
from mbpo_jax.training import run_directory
from mbpo_jax.training.driver import EXIT_DONE, EXIT_INTERRUPTED
from tests.sweeps.processes import (
    LONGER,
    TINY,
    returns,
    wait_for,
    wait_for_training,
    written,
)


def test_a_plan_names_what_is_new_and_keeps_what_is_there(tmp_path):
    runs = manifest.expand(TINY)
    plan = store.plan(tmp_path, runs)
    assert [len(unit.group.runs) for unit in plan.new] == [3]
    store.create(plan.new)
    (unit,) = store.units_of(tmp_path)
    assert (unit.state, unit.group) == ("waiting", plan.new[0].group)
    store.create(plan.new)  # a second driver finds it there
    assert len(store.units_of(tmp_path)) == 1
    larger = manifest.expand({**TINY, "seeds": [1, 2, 3, 4]})
    again = store.plan(tmp_path, larger)
    assert [run.seed for unit in again.new for run in unit.group.runs] == [3, 4]
    assert (len(again.known), again.dropped) == (1, 1)


def test_a_unit_is_given_up_after_three_failures_until_it_is_forgiven(tmp_path):
    store.create(store.plan(tmp_path, manifest.expand(TINY)).new)
    (unit,) = store.units_of(tmp_path)
    for _ in range(store.MOST_FAILURES):
        assert unit.state == "waiting"
        unit.add_failure(reason="exit code 3")
    assert unit.state == "failed"
    unit.forgive()
    assert unit.state == "waiting"


def test_an_error_of_python_is_a_failure_though_it_ends_with_the_code_of_divergence(tmp_path):
    store.create(store.plan(tmp_path, manifest.expand(TINY)).new)
    (unit,) = store.units_of(tmp_path)
    (unit.path / store.OUTPUT).write_text("Traceback\nZeroDivisionError: division by zero\n")
    told = process.told_end(unit, process.EXIT_DIVERGED)
    assert "failed (exit code 1) and is tried again" in told
    assert unit.failures[0]["last_line"] == "ZeroDivisionError: division by zero"
    run_directory.write_status(unit.path, "diverged")
    assert process.told_end(unit, process.EXIT_DIVERGED) == f"{unit.name}: diverged"


@pytest.mark.parametrize("name", ["../groups", "nothing", ".."])
def test_a_group_is_asked_for_by_its_name_alone(tmp_path, name):
    store.create(store.plan(tmp_path, manifest.expand(TINY)).new)
    with pytest.raises(ConfigError, match="has no group"):
        store.find_unit(tmp_path, name)


def test_a_directory_that_is_held_says_by_whom(tmp_path):
    store.create(store.plan(tmp_path, manifest.expand(TINY)).new)
    (unit,) = store.units_of(tmp_path)
    assert run_directory.holder(unit.path) is None
    with run_directory.opened(unit.path, unit.group):
        assert f"process {os.getpid()} on " in run_directory.holder(unit.path)
        with (
            pytest.raises(run_directory.Busy, match=f"process {os.getpid()}"),
            run_directory.opened(unit.path, unit.group),
        ):
            pass
    assert run_directory.holder(unit.path) is None


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_what_is_no_sweep_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError):
        sweep(tmp_path / name, None, False, False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_worker_changes_no_number_and_an_enlarged_sweep_runs_what_is_new(tmp_path):
    """The worker is killed in its midst, the driver tries again, and then the driver is stopped."""
    path = written(tmp_path / "sweep.yaml", settings=LONGER)
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert sweep(path, straight, False, False) == EXIT_DONE

    command = [sys.executable, "-m", "mbpo_jax", "sweep", str(path), "--out", str(broken)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        os.kill(wait_for_training(broken, steps=250), signal.SIGKILL)
        output, _ = driver.communicate(timeout=600)
    assert driver.returncode == EXIT_DONE, output
    assert "failed (signal SIGKILL) and is tried again" in output
    assert returns(broken) == returns(straight)

    assert sweep(path, broken, False, False) == EXIT_DONE  # nothing is trained twice
    assert returns(broken) == returns(straight)
    larger = written(tmp_path / "larger.yaml", settings=LONGER, seeds=4)
    command[4] = str(larger)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        wait_for(lambda: any(unit.state == "running" for unit in store.units_of(broken)))
        driver.send_signal(signal.SIGINT)
        output, _ = driver.communicate(timeout=600)
    assert driver.returncode == EXIT_INTERRUPTED, output
    assert sweep(broken, None, False, False) == EXIT_DONE
    found = returns(broken)
    assert len(found) == 4
    assert {key: found[key] for key in returns(straight)} == returns(straight)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_group_that_fails_does_not_stop_the_others(tmp_path, capsys):
    """One group's directory is spoiled, so that its process fails at once, three times."""
    path = written(tmp_path / "sweep.yaml", algorithms=["sac", "mve"], seeds=1)
    runs = manifest.read_sweep(path)
    store.create(store.plan(tmp_path / "out", runs).new)
    spoiled = next(u for u in store.units_of(tmp_path / "out") if u.group.config.algorithm == "mve")
    (spoiled.path / "checkpoints").write_text("this is no directory")
    assert sweep(path, tmp_path / "out", False, False) == EXIT_INCOMPLETE
    told = capsys.readouterr().out
    assert "1 of 2 runs are trained" in told
    assert f"failed: {spoiled.name}" in told
    assert {unit.state for unit in store.units_of(tmp_path / "out")} == {"finished", "failed"}
    assert "see" in told
    (spoiled.path / "checkpoints").unlink()
    assert sweep(path, tmp_path / "out", False, True) == EXIT_DONE

"""The host: what a run leaves behind, how it ends, and that it resumes exactly."""

import contextlib
import dataclasses
import errno
import functools
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

import mbpo_jax
from mbpo_jax import cli, config_io
from mbpo_jax.config import Config
from mbpo_jax.errors import ConfigError, DiskError, UserError
from mbpo_jax.files import read_rows
from mbpo_jax.presets import preset
from mbpo_jax.training import (
    checkpoint,
    devices,
    driver,
    layout,
    loop,
    plan,
    run_directory,
)
from mbpo_jax.training.group import group_of
from mbpo_jax.yaml_files import read_yaml
from tests.choice import mostly, mostly_exhaustive
from tests.probe_environments import linear_gaussian

ENV = linear_gaussian(noise=0.05, episode_length=6)
SMALL = {
    "total_env_steps": 60,
    "random_steps": 20,
    "steps_per_fit": 10,
    "epoch_length": 10,
    "eval_every": 10,
    "checkpoint_every": 10,
    "num_seeds": 2,
}
MODEL_FREE = {"algorithm": "sac", "replay_capacity": 1000}
"""One program for whatever is trained so, however long."""


def small_config(**changes) -> Config:
    """Return a configuration that trains in a second, of two runs unless told otherwise."""
    config = dataclasses.replace(preset("inverted_pendulum", "debug"), **(SMALL | changes))
    rollout = dataclasses.replace(config.rollout, diagnostic_length=2)
    fit = dataclasses.replace(config.fit, batch_size=8, max_epochs=2)
    env = dataclasses.replace(config.env, termination="none")
    return dataclasses.replace(config, env=env, rollout=rollout, fit=fit)


@pytest.fixture(autouse=True)
def _fast_environment(undrawn, monkeypatch):
    """Train on a system that compiles at once, and draw no pictures of it."""
    monkeypatch.setattr(layout, "make_env", lambda config: ENV)
    # Devices are set up already when these tests run.
    monkeypatch.setattr(devices, "use_host_devices", lambda num_runs: None)


def train(config: Config, run_dir: Path = Path("run")) -> str:
    return mbpo_jax.train(config, run_dir, command=["mbpo-jax", "train"]).state


def results(run_dir: Path) -> tuple[list, list]:
    """Return the rows of a run without clock times."""
    evals = read_rows(run_dir / "evals.jsonl")
    return [
        {name: value for name, value in row.items() if name != "wall_seconds"} for row in evals
    ], read_rows(run_dir / "metrics.jsonl")


@functools.cache
def straight() -> Path:
    """Train without a break, once for all tests; how often a run is saved does not change it."""
    train(small_config(), Path("straight"))
    return Path("straight").resolve()


def status(run_dir: Path) -> dict:
    return json.loads((run_dir / "status.json").read_text())


def stop_after(monkeypatch, chunks: int, action) -> None:
    """Do something at the beginning of a later look of the host."""
    advance, done = driver.Training._advance, []

    def counted(self):
        if len(done) == chunks:
            action()
        done.append(None)
        advance(self)

    monkeypatch.setattr(driver.Training, "_advance", counted)


class Killed(BaseException):
    pass


def kill():
    raise Killed


@pytest.mark.figures
def test_run_directory_holds_everything(capsys):
    assert train(small_config()) == "finished"
    run_dir = Path("run")
    evals, metrics = results(run_dir)
    assert [(row["env_steps"], row["run"], row["seed"]) for row in evals] == [
        (steps, run, run) for steps in (0, 30, 40, 50, 60) for run in (0, 1)
    ]
    assert len(metrics) == 8
    assert evals[2]["return_mean"] != evals[3]["return_mean"]
    for name in ("model/holdout_mse", "rollout/length_mean", "sac/alpha", "model/k_step_error_2"):
        assert all(isinstance(row[name], float) for row in metrics), name
    for name in ("config.yaml", "environment.json", "curve.png"):
        assert (run_dir / name).stat().st_size > 0
    assert list(run_dir.glob("tensorboard/run_*/events*"))
    assert status(run_dir)["state"] == "finished"
    checkpoints = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
    assert checkpoints == ["0000000050", "0000000060"]
    first, *between, done, last = capsys.readouterr().out.splitlines()
    assert first.startswith("memory: about ")
    for line in ("compiling the training step", "compiled in ", "random steps: 0 of 20"):
        assert any(printed.startswith(line) for printed in between), line
    assert done.startswith("done: return")
    assert last == "see run"


@pytest.mark.parametrize("name", ["evals.jsonl", "metrics.jsonl"])
def test_rows_that_a_finished_run_did_not_write_are_taken_out(name):
    shutil.copytree(straight(), "run")
    with open(Path("run") / name, "a") as file:
        file.write((Path("run") / name).read_text().splitlines(keepends=True)[-1])
    assert train(small_config()) == "finished"
    assert results(Path("run")) == results(straight())


def test_finished_run_is_not_trained_again(capsys):
    shutil.copytree(straight(), "run")
    before = (Path("run") / "metrics.jsonl").read_bytes()
    assert train(small_config()) == "finished"
    assert "finished already; choose another run directory" in capsys.readouterr().out
    assert (Path("run") / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("chunks", mostly_exhaustive([0, 1, 3], lambda chunks: chunks == 1))
def test_killed_run_resumes_to_the_same_results(monkeypatch, chunks):
    config = small_config(checkpoint_every=20)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        stop_after(patch, chunks, kill)
        train(config, Path("killed"))
    assert train(config, Path("killed")) == "finished"
    assert results(Path("killed")) == results(straight())


def test_signal_saves_and_the_same_command_resumes(monkeypatch, capsys):
    config, before = small_config(checkpoint_every=40), signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        stop_after(patch, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert train(config, Path("run")) == "interrupted"
    assert status(Path("run"))["state"] == "interrupted"
    assert "the same command resumes" in capsys.readouterr().out
    assert train(config, Path("run")) == "finished"
    assert results(Path("run")) == results(straight())
    environment = json.loads(Path("run/environment.json").read_text())
    (earlier,) = environment.pop("earlier")
    assert set(earlier) == set(environment) > {"time", "devices", "versions"}
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_clock_that_jumps_back_changes_no_number(monkeypatch):
    straight()
    clock, jump = time.time, []
    stop_after(monkeypatch, 2, lambda: jump.append(3600.0))
    monkeypatch.setattr(time, "time", lambda: clock() - sum(jump))
    assert train(small_config()) == "finished"
    assert jump
    assert results(Path("run")) == results(straight())
    seconds = [row["wall_seconds"] for row in read_rows(Path("run/evals.jsonl"))]
    assert seconds == sorted(seconds)


def test_corrupt_checkpoint_is_named_and_training_goes_on_from_the_one_before(monkeypatch, capsys):
    config = small_config()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        stop_after(patch, 3, kill)
        train(config, Path("run"))
    manifest = Path("run/checkpoints/0000000050/manifest.json")
    manifest.write_text("{")
    assert train(config, Path("run")) == "finished"
    printed = capsys.readouterr().out
    assert "0000000050 is corrupt" in printed
    assert "resuming at 40 environment steps: run" in printed
    assert results(Path("run")) == results(straight())


# Written after the checkpoint of 50 steps, and before it.
@pytest.mark.parametrize("row", [pytest.param(8, marks=pytest.mark.slow), 4])
def test_rows_that_were_changed_are_made_again_or_else_nothing_is(row, capsys):
    shutil.copytree(straight(), "run")
    path = Path("run/metrics.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 8
    changed = lines[row - 1].replace(b"0.", b"7.", 1)
    assert changed != lines[row - 1]
    path.write_bytes(b"".join([*lines[: row - 1], changed, *lines[row:]]))
    before = {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()}
    if row > 6:
        assert train(small_config()) == "finished"
        printed = capsys.readouterr().out
        assert f"warning: {path}, row {row}: it is not as it was written" in printed
        assert "resuming at 50 environment steps: run" in printed
        assert results(Path("run")) == results(straight())
        return
    with pytest.raises(checkpoint.CheckpointError, match=rf"metrics\.jsonl, row {row}: .*restore"):
        train(small_config())
    unchanged = {p: p.read_bytes() for p in before if p.name not in (".lock", "environment.json")}
    assert unchanged.items() <= before.items()


@pytest.mark.slow
def test_a_disk_that_fills_up_loses_nothing_that_was_saved(monkeypatch):
    done = []

    def fill_up(descriptor: int) -> None:
        done.append(descriptor)
        if len(done) > 25:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill_up)
        with pytest.raises(DiskError, match=r"^cannot .*run/.*No space left .*same command"):
            train(small_config())
    assert any(Path("run/checkpoints").glob("0*"))
    assert train(small_config()) == "finished"
    assert results(Path("run")) == results(straight())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.yaml", "config.yaml is empty; restore it from a copy, or delete it"),
        ("runs.json", "runs.json is empty; restore it"),
    ],
)
def test_an_emptied_file_is_said_to_be_empty(name, message):
    shutil.copytree(straight(), "run")
    (Path("run") / name).write_text("")
    with pytest.raises(UserError, match=message):
        train(small_config())


def test_a_configuration_that_was_cut_off_is_not_only_said_to_be_another():
    shutil.copytree(straight(), "run")
    path = Path("run/config.yaml")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: lines.index("num_seeds: 2\n")]))
    with pytest.raises(
        ConfigError, match=r"num_seeds: 1 -> 2[\s\S]*does not have num_seeds and .*cut off"
    ):
        train(small_config())


def test_an_emptied_environment_file_leaves_a_gap_that_is_told(capsys):
    shutil.copytree(straight(), "run")
    (Path("run") / "environment.json").write_text("")
    run_directory.write_environment(Path("run"), {"time": "now"})
    assert "warning: run/environment.json is empty" in capsys.readouterr().out
    written = run_directory.read_environment(Path("run"))
    assert written["earlier"][0]["lost"].startswith("run/environment.json is empty")


def test_training_stops_once_two_evaluations_in_a_row_are_solved():
    assert train(small_config(stop_at_return=-1e6)) == "finished"
    evals, _ = results(Path("run"))
    assert [row["env_steps"] for row in evals] == [0, 0, 30, 30, 40, 40]
    assert status(Path("run"))["solved"] == 2


def test_other_configuration_is_refused_and_nothing_is_lost():
    shutil.copytree(straight(), "run")
    before = {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()}
    changed = dataclasses.replace(small_config(), seed=3)
    with pytest.raises(
        ConfigError, match=r"another configuration[\s\S]*seed: 0 -> 3[\s\S]*run-dir"
    ):
        train(changed)
    assert {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()} == before


def test_settings_may_change_as_long_as_there_is_no_checkpoint(monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        stop_after(patch, 0, kill)
        train(small_config())
    assert train(small_config(seed=3)) == "finished"
    assert {row["seed"] for row in results(Path("run"))[0]} == {3, 4}


def test_directory_that_cannot_be_written_is_an_error():
    Path("file").write_text("in the way")
    with pytest.raises(DiskError, match=r"cannot make the directory file/run: Not a directory"):
        train(small_config(), Path("file/run"))


@pytest.mark.parametrize("name", ["config.yaml", "evals.jsonl"])
def test_files_that_are_not_ours_are_not_overwritten(name):
    Path(name).write_text("mine")
    with pytest.raises(ConfigError, match=rf"would overwrite {name}; choose another --run-dir"):
        train(small_config(), Path())
    assert [path.name for path in Path().iterdir()] == [name]
    assert Path(name).read_text() == "mine"


def test_directory_in_use_is_an_error(monkeypatch):
    messages = []

    def train_again():
        with pytest.raises(ConfigError, match="another process trains") as error:
            train(small_config())
        messages.append(error.value)

    stop_after(monkeypatch, 0, train_again)
    train(small_config())
    assert messages


def test_all_updates_are_counted_those_after_a_fit_and_those_caught_up_too():
    base = small_config(**MODEL_FREE, num_seeds=1)
    sac = dataclasses.replace(base.sac, critic_updates=3, catches_up=True)
    config = dataclasses.replace(base, sac=sac)
    train(config)
    trained = mbpo_jax.load("run", ENV)
    made = optax.tree_utils.tree_get(trained.learned().agent.critic_optimizer, "count")
    planned = plan.planned_updates(layout.set_up(group_of(config)))
    assert planned.calls_to_catch_up > 0
    assert made == planned.total(config.num_chunks) == status(Path("run"))["gradient_steps"]


@pytest.mark.slow
def test_a_finished_run_goes_on_to_a_later_end_as_if_that_had_been_asked_for_first(capsys):
    config = small_config(**MODEL_FREE)
    assert train(dataclasses.replace(config, total_env_steps=40), Path("longer")) == "finished"
    assert train(config, Path("longer")) == "finished"
    assert "total_env_steps: 40 -> 60" in capsys.readouterr().out
    assert train(config, Path("at-once")) == "finished"
    assert results(Path("longer")) == results(Path("at-once"))
    with pytest.raises(ConfigError, match=r"another configuration:\n  total_env_steps: 60 -> 40"):
        train(dataclasses.replace(config, total_env_steps=40), Path("longer"))


def test_what_cannot_go_on_is_refused_and_nothing_is_lost():
    config = small_config(**MODEL_FREE)
    assert train(config) == "finished"
    before = results(Path("run"))
    shutil.rmtree("run/checkpoints")
    with pytest.raises(ConfigError, match="has no checkpoint from which it could go on"):
        train(dataclasses.replace(config, total_env_steps=70))
    assert results(Path("run")) == before
    assert status(Path("run"))["state"] == "finished"


@pytest.mark.slow
def test_a_run_with_a_model_goes_on_too_and_so_does_one_that_was_solved():
    solved = small_config(stop_at_return=-1e9)
    assert train(solved) == "finished"
    assert status(Path("run"))["env_steps"] == 40
    assert train(dataclasses.replace(solved, stop_at_return=1e9, total_env_steps=70)) == "finished"
    evals = results(Path("run"))[0]
    assert [row["env_steps"] for row in evals[::2]] == [0, 30, 40, 50, 60, 70]
    assert status(Path("run"))["state"] == "finished"
    assert len(mbpo_jax.load("run").play(1, seed=0).returns) == 1


def test_a_run_of_the_version_before_goes_on_or_is_refused_with_a_way_out(monkeypatch):
    """It has a group of settings that is there no more."""
    with monkeypatch.context() as patch:
        stop_after(patch, 2, kill)
        with pytest.raises(Killed):
            train(small_config())
    config = Path("run/config.yaml")
    config.write_text(config.read_text() + "search:\n  horizon: 3\n")
    # Without the second stopping rule there was no factor, and the number had another default.
    old = config.read_text().replace("  cold_factor: 10\n", "")
    assert old != config.read_text()
    config.write_text(old.replace("num_steps: 250", "num_steps: 2000"))
    Path("old").mkdir()
    Path("old/config.yaml").write_text(old.replace("stopping: early", "stopping: fixed"))
    fit = run_directory.load_group(Path("old")).config.fit
    assert (fit.stopping, fit.cold_factor) == ("budget", 1)
    assert train(small_config()) == "finished"
    assert results(Path("run")) == results(straight())
    assert "search:" not in config.read_text().splitlines()
    config.write_text(config.read_text().replace("algorithm: mbpo", "algorithm: bptt"))
    with pytest.raises(ConfigError, match="bptt is policy_search with"):
        mbpo_jax.load("run")


def test_too_little_memory_is_an_error_before_anything_is_written(monkeypatch):
    monkeypatch.setattr(devices, "available_bytes", lambda num_devices: 1000)
    with pytest.raises(ConfigError, match=r"KiB, but has .* lower num_seeds"):
        train(small_config())
    assert not Path("run").exists()


@pytest.mark.parametrize(
    "what_is_large",
    mostly(pytest.mark.slow, ["buffers", "agent's batches", "model's batches"], "buffers".__eq__),
)
def test_the_memory_estimate_holds_what_the_step_holds(what_is_large):
    """XLA tells what its program needs, arguments and temporaries; a little more is its own."""
    config = small_config(num_seeds=1)
    if what_is_large == "buffers":
        config = dataclasses.replace(
            small_config(
                num_seeds=1, replay_capacity=200_000, total_env_steps=200_000, eval_every=100_000
            ),
            rollout=dataclasses.replace(config.rollout, rollouts_per_step=2000),
        )
    elif what_is_large == "agent's batches":
        config = dataclasses.replace(config, sac=dataclasses.replace(config.sac, batch_size=2**18))
    else:
        config = dataclasses.replace(config, fit=dataclasses.replace(config.fit, batch_size=2**18))
    setup = layout.set_up(group_of(config))
    program, runs, shapes = setup.program, setup.runs, setup.shapes
    step = jax.jit(lambda config, state: program.step(config, config.random_steps, state))
    one_run = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), shapes)
    numbers = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), runs.config)
    needed = step.lower(numbers, one_run).compile().memory_analysis()
    total = needed.argument_size_in_bytes + needed.temp_size_in_bytes
    estimate = plan.check_fits(setup).bytes_per_device
    assert 0.9 * total < estimate < 3.0 * total


@pytest.fixture
def sound() -> list[dict]:
    """Train without a fault, before a test changes the program."""
    return results(straight())[0]


@pytest.mark.slow
def test_diverged_run_is_reported_and_its_neighbour_goes_on(sound, retraced, monkeypatch, capsys):
    def poison(before, after, metrics, original=loop.freeze_if_diverged):
        # The bad run is told by the parity of its key's last word, which differs between the two.
        word = jax.random.key_data(before.key)[-1]
        bad = (word % 2 == bad_parity) & (after.replay.size > 30)
        agent = after.agent._replace(log_alpha=jnp.where(bad, jnp.nan, after.agent.log_alpha))
        return original(before, after._replace(agent=agent), metrics)

    bad_parity = 1
    monkeypatch.setattr(loop, "freeze_if_diverged", poison)
    ended = train(small_config(), Path("poisoned"))
    evals = results(Path("poisoned"))[0]
    diverged = {row["run"] for row in evals if row.get("diverged")}
    printed = capsys.readouterr().out
    assert ended in ("finished", "diverged")
    for run in diverged:
        assert f"run {run} (seed {run}) became non-finite" in printed
        first = next(r["env_steps"] for r in evals if r["run"] == run and r.get("diverged"))
        assert all(r.get("diverged") for r in evals if r["run"] == run and r["env_steps"] >= first)
    assert diverged
    for run in {0, 1} - diverged:
        assert [r for r in evals if r["run"] == run] == [r for r in sound if r["run"] == run]


@pytest.mark.slow
@pytest.mark.usefixtures("retraced")
def test_all_runs_diverged_ends_training_with_an_error_code(monkeypatch, capsys):
    def poison(before, after, metrics, original=loop.freeze_if_diverged):
        agent = after.agent._replace(log_alpha=after.agent.log_alpha * jnp.nan)
        return original(before, after._replace(agent=agent), metrics)

    monkeypatch.setattr(loop, "freeze_if_diverged", poison)
    assert train(small_config()) == "diverged"
    assert status(Path("run"))["state"] == "diverged"
    assert len(results(Path("run"))[0]) == 4
    assert "became non-finite" in capsys.readouterr().out


def test_evaluating_a_run_directory_prints_every_run(capsys):
    shutil.copytree(straight(), "run")
    capsys.readouterr()
    assert cli.main(["eval", "run", "--episodes", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "run 0 (seed 0) at 60 steps",
        "run 1 (seed 1) at 60 steps",
    ]


def test_dry_run_prints_runs_and_sizes_and_leaves_nothing(capsys):
    usual = small_config()
    changed = dataclasses.replace(usual, eval_episodes=7)
    plan.dry_run(changed, Path("run"), usual)
    printed = capsys.readouterr().out
    assert printed.count("\n") <= 50
    assert "2 of MBPO (seeds 0 to 1, in one program)" in printed
    assert f"  eval_episodes: {usual.eval_episodes} -> 7\n" in printed
    assert re.search(r"memory: about [\d.]+ [KM]iB on 1 device", printed)
    assert "time: not known before the first evaluation" in printed
    assert " 0.0 " not in printed
    assert not Path("run").exists()


def test_dry_run_with_all_prints_every_setting_and_array(capsys):
    plan.dry_run(small_config(), Path("run"), small_config(), everything=True)
    printed = capsys.readouterr().out
    Path("settings.yaml").write_text(printed.split("\n\n")[2])
    settings = read_yaml(Path("settings.yaml"))
    assert config_io.apply(Config(), settings, "what was printed") == small_config()
    arrays = printed.rpartition("arrays of all runs, by size:\n")[2].splitlines()
    assert len(arrays) == len(jax.tree.leaves(layout.set_up(group_of(small_config())).shapes))


def test_dry_run_says_whether_these_runs_could_go_on_there(capsys):
    def told(config: Config) -> str:
        plan.dry_run(config, straight(), small_config())
        return next(line for line in capsys.readouterr().out.splitlines() if "directory" in line)

    later = dataclasses.replace(small_config(), total_env_steps=2 * small_config().total_env_steps)
    other = dataclasses.replace(
        small_config(), sac=dataclasses.replace(small_config().sac, tau=0.5)
    )
    assert told(small_config()).endswith("(there: finished)")
    assert told(later).endswith("(there: finished)")
    refused = "another configuration"
    assert told(other).endswith(f"finished, and refused: {straight()} holds a run of {refused})")


@pytest.mark.parametrize(
    ("left", "outlook"),
    [
        ({}, "new"),
        ({"config.yaml": "a: 1"}, "new, and refused: run is no run directory, .*"),
        ({"status.json": '{"state": "running"}'}, "there: running, which begins anew"),
        (
            # Of other runs, whose first save was cut off: nothing is lost with them.
            {"status.json": '{"state": "running"}', "checkpoints/partial-0000000010/host": "{}"}
            | {"config.yaml": "seed: 7"},
            "there: running, which begins anew",
        ),
        ({"status.json": '{"state": "finished"}', "config.yaml": None}, "there: finished"),
    ],
)
def test_what_is_foreseen_of_a_directory_is_what_happens(left, outlook):
    run_dir, group = Path("run"), group_of(small_config())
    for name, text in left.items():
        text = config_io.dump_yaml(small_config()) if text is None else text
        (run_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (run_dir / name).write_text(text)
    assert re.fullmatch(outlook, run_directory.outlook(run_dir, group), re.DOTALL)
    expected = pytest.raises(ConfigError) if "refused" in outlook else contextlib.nullcontext()
    with expected, run_directory.opened(run_dir, group) as is_finished:
        assert is_finished == (outlook == "there: finished")


@pytest.mark.parametrize("random_steps", [20, 0])
def test_model_free_baseline_trains_through_the_same_driver(random_steps):
    """Also from the first step on, without random ones."""
    assert train(small_config(**MODEL_FREE, random_steps=random_steps)) == "finished"
    evals, metrics = results(Path("run"))
    assert [row["env_steps"] for row in evals[::2]] == [0, *range(random_steps + 10, 61, 10)]
    assert "sac/alpha" in metrics[0]
    assert not any(name.startswith(("model/", "rollout/")) for name in metrics[0])


@pytest.mark.slow
@pytest.mark.figures
def test_a_tracker_is_told_of_a_training_that_was_interrupted_and_resumed(monkeypatch):
    Path("own.py").write_text(
        "from mbpo_jax.training.trackers.tracker import Tracker\n"
        "def make_tracker(session):\n"
        "    def note(*what):\n"
        "        print(*what, file=open('notes.txt', 'a'))\n"
        "    def log(run, step, values):\n"
        "        note(run, step, 'eval/return_mean' in values)\n"
        "    return Tracker(log, lambda step, name, path: note(step, name), note)\n"
    )
    with monkeypatch.context() as patch:
        stop_after(patch, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        mbpo_jax.train(small_config(), "run", log="own:make_tracker")
    assert mbpo_jax.train(small_config(), "run", log=["own:make_tracker"]).state == "finished"
    lines = Path("notes.txt").read_text().splitlines()
    told = [line for line in lines if line.endswith("True")]
    assert told == [f"{run} {step} True" for step in (0, 30, 40, 50, 60) for run in (0, 1)]
    assert [line for line in lines if line.isalpha()] == ["interrupted", "finished"]
    assert "60 curve" in lines
    assert not list(Path("run").glob("tensorboard/*"))
    assert results(Path("run")) == results(straight())

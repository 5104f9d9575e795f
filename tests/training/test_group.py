"""Runs of one program that differ in seeds and numbers."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import mbpo_jax
from mbpo_jax.errors import ConfigError
from mbpo_jax.files import read_rows
from mbpo_jax.presets import environment_preset
from mbpo_jax.training import driver, playback, run_directory, runs_axis
from mbpo_jax.training.group import data_paths, group_of, make_group, structure
from mbpo_jax.training.layout import set_up

CONFIG = environment_preset("pendulum", "debug")


def changed(**sections):
    """Return the configuration with fields of sections changed, and fields of its own."""
    values = {
        name: dataclasses.replace(getattr(CONFIG, name), **value)
        if isinstance(value, dict)
        else value
        for name, value in sections.items()
    }
    return dataclasses.replace(CONFIG, **values)


def test_numbers_are_data_and_all_else_is_structure():
    numbers = {"sac.learning_rate", "sac.gamma", "rollout.real_ratio", "rollout.max_length"}
    assert numbers <= data_paths().keys()
    assert not {"seed", "sac.batch_size", "algorithm", "stop_at_return"} & data_paths().keys()
    assert structure(changed(sac={"gamma": 0.9})) == structure(CONFIG)
    assert structure(changed(seed=3)) == structure(CONFIG)
    assert structure(changed(sac={"batch_size": 8})) != structure(CONFIG)
    with pytest.raises(ValueError, match="differ in seeds and numbers"):
        make_group([CONFIG, changed(sac={"batch_size": 8})])


def test_a_configuration_is_a_group_of_seeds_in_a_row():
    group = group_of(changed(seed=2**32 - 1, num_seeds=2))
    assert group.seeds == [2**32 - 1, 0]
    assert {run.num_seeds for run in group.runs} == {1}


def test_a_group_is_written_down_and_read_again(tmp_path):
    group = make_group([changed(seed=5), changed(seed=5, sac={"gamma": 0.5}), changed(seed=1)])
    run_directory.write_group(tmp_path, group)
    assert run_directory.load_group(tmp_path) == group
    assert group.differences()[1] == {"seed": 5, "sac.gamma": 0.5}
    (tmp_path / run_directory.RUNS).write_text('[{"seed": 1, "sac.gama": 0.5}]')
    with pytest.raises(ConfigError, match="did you mean gamma"):
        run_directory.load_group(tmp_path)
    for rows in ('[{"seed": 1}]', '[{"seed": 1}, {"seed": 2}, {"seed": 3, "sac.batch_size": 8}]'):
        (tmp_path / run_directory.RUNS).write_text(rows)
        with pytest.raises(ConfigError, match="does not hold the 3 runs of one program"):
            run_directory.load_group(tmp_path)


@pytest.fixture(params=["lax.map", pytest.param("vmap", marks=pytest.mark.exhaustive)])
def trained(request, undrawn, retraced, monkeypatch):
    """Train four runs that differ in numbers together, and each by itself."""
    if request.param == "vmap":
        monkeypatch.setattr(runs_axis.jax, "default_backend", lambda: "gpu")
    runs = [
        changed(seed=0),
        changed(seed=0, sac={"learning_rate": 3e-3}),
        changed(seed=7),
        changed(seed=7, rollout={"min_length": 3, "max_length": 5, "start_epoch": 1}),
    ]
    # JAX takes batches of keys in loops for keys that are used again.
    with jax.debug_key_reuse(request.param != "vmap"):
        assert driver.train_group(make_group(runs), Path("group")) == "finished"
    for i, run in enumerate(runs):
        assert mbpo_jax.train(run, Path(f"alone-{i}")).state == "finished"
    return runs


@pytest.mark.slow
def test_every_run_of_a_group_is_what_it_is_alone(trained):
    rows = read_rows(Path("group") / "evals.jsonl")
    assert [row["seed"] for row in rows[:4]] == [0, 0, 7, 7]
    for i in range(len(trained)):
        own = [row["return_mean"] for row in rows if row["run"] == i]
        alone = [row["return_mean"] for row in read_rows(Path(f"alone-{i}") / "evals.jsonl")]
        np.testing.assert_allclose(own, alone, rtol=1e-3)
    returns = [[r["return_mean"] for r in rows if r["run"] == i] for i in range(4)]
    assert returns[0] != returns[1]
    assert returns[2] != returns[3]


ON_DEVICES = """
import sys
from pathlib import Path

import jax

jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
assert len(jax.devices()) == int(sys.argv[1])

from mbpo_jax.training import driver, playback, runs_axis
from mbpo_jax.training.group import make_group
from tests.training.test_group import changed

playback.render = lambda *_, **__: playback.Shown(Path(), [])
runs = [changed(seed=i, sac={"learning_rate": 1e-3 + 1e-4 * i}) for i in range(5)]
assert runs_axis.run_mesh(5).size == int(sys.argv[2])
sys.exit(driver.train_group(make_group(runs), Path(sys.argv[3])) != "finished")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_devices", "used"), [(4, 3), pytest.param(8, 5, marks=pytest.mark.exhaustive)]
)
def test_numbers_do_not_depend_on_how_many_devices_share_the_runs(num_devices, used):
    """Five runs on one device, on three with a copy to fill the last, and on one each."""
    for number, mesh_size in ((1, 1), (num_devices, used)):
        done = subprocess.run(
            [sys.executable, "-c", ON_DEVICES, str(number), str(mesh_size), f"on-{number}"],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    one, several = (read_rows(Path(f"on-{number}") / "evals.jsonl") for number in (1, num_devices))
    assert [row["run"] for row in several] == [row["run"] for row in one] == [*range(5)] * 3
    for a, b in zip(one, several, strict=True):
        np.testing.assert_allclose(a["return_mean"], b["return_mean"], rtol=1e-3)
    # What was saved on several devices is loaded on one, without the copies.
    group = run_directory.load_group(Path(f"on-{num_devices}"))
    state = playback.load_checkpoint(Path(f"on-{num_devices}"), set_up(group)).state
    assert state.healthy.shape[0] >= 5

"""A program that is compiled serves later trainings of its process, where it is right for them."""

import dataclasses
import textwrap
from pathlib import Path

import jax
import jax.monitoring
import pytest

import mbpo_jax
from mbpo_jax.envs import make_env
from mbpo_jax.files import read_rows
from mbpo_jax.training import compiled, devices, layout
from mbpo_jax.training.group import group_of
from tests.probe_environments import linear_gaussian, tiny_config

ENV = linear_gaussian(noise=0.05, episode_length=6)
SAC = dataclasses.replace(tiny_config(), algorithm="sac", total_env_steps=18)


@pytest.fixture(autouse=True)
def _fast(undrawn, retraced, monkeypatch):
    monkeypatch.setattr(devices, "use_host_devices", lambda num_runs: None)


def returns(name: str, **changes) -> list[float]:
    sac = dataclasses.replace(SAC.sac, **changes.pop("sac", {}))
    mbpo_jax.train(dataclasses.replace(SAC, sac=sac, **changes), name, env=ENV)
    return [row["return_mean"] for row in read_rows(Path(name) / "evals.jsonl")]


@pytest.fixture
def told():
    """Note what JAX spends time on."""
    told: list[str] = []

    def note(name: str, *_, **__) -> None:
        told.append(name)

    jax.monitoring.register_event_duration_secs_listener(note)
    yield told
    jax.monitoring.unregister_event_duration_listener(note)


@pytest.mark.slow
def test_another_seed_and_another_number_are_trained_by_it_as_by_one_of_their_own(told):
    other = {"seed": 5, "sac": {"learning_rate": 0.1}}
    first = returns("first")
    assert any("backend_compile" in name for name in told)
    told.clear()
    second = returns("second", **other)
    assert not any("backend_compile" in name for name in told)
    compiled.kept_program.cache_clear()
    assert returns("alone", **other) == second != first


@pytest.mark.slow
def test_another_structure_has_a_program_of_its_own():
    returns("first")
    returns("second", sac={"hidden_sizes": (3,)})
    assert compiled.kept_program.cache_info().misses == 2


def test_what_an_import_path_names_is_read_anew(tmp_path, monkeypatch):
    """As in a notebook, whose author mends the function and trains again."""
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("read_anew.py").write_text(
        textwrap.dedent("""
        from mbpo_jax.algorithms.sac import make_sac_baseline

        def learner(env, config):
            return make_sac_baseline(env, config)
        """)
    )
    returns("run", algorithm="read_anew:learner")
    tracking = dataclasses.replace(SAC.tracking, estimators=("read_anew:learner",))
    named = layout.set_up(group_of(dataclasses.replace(SAC, tracking=tracking)), ENV)
    assert compiled.mapped_program(named) is not compiled.mapped_program(named)
    assert compiled.kept_program.cache_info().currsize == 0


def test_an_environment_of_ours_is_made_once():
    config = mbpo_jax.preset("pendulum").env
    assert make_env(config) is make_env(config)
    assert make_env(dataclasses.replace(config, action_repeat=2)) is not make_env(config)

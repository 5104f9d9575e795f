"""What is said of an algorithm, against the algorithm."""

import dataclasses
import functools
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from mbpo_jax import cli, config_io
from mbpo_jax.algorithms import make_algorithm
from mbpo_jax.config import (
    ALGORITHMS,
    CONFIG_CLASSES,
    Config,
    algorithm_record,
    readers,
    reads,
    refuse_unread,
    unread_as_set,
)
from mbpo_jax.config_io import flatten
from mbpo_jax.envs import make_env
from mbpo_jax.errors import ConfigError
from mbpo_jax.files import read_rows
from mbpo_jax.presets import environment_preset
from mbpo_jax.training import loop
from tests.choice import mostly_exhaustive

MODELS = [
    (name, model)
    for name, record in ALGORITHMS.items()
    for model in (("learned", "oracle") if record.has_model else ("learned",))
]
OF_EVERY_KIND = [
    ("sac", "learned"),
    ("mbpo", "learned"),
    ("policy_search", "oracle"),
    ("mpc", "learned"),
]

# What a setting makes needless, so that it is not looked at with the settings that are tried.
CONDITIONAL = {
    "fit.num_steps",
    "fit.cold_factor",
    "rollout.threshold_scale",
    "rollout.threshold_quantile",
    "rollout.uncertainty_penalty",
    "rollout.step_quantile",
    "rollout.total_quantile",
    "planner.temperature",
    "planner.noise_exponent",
    "planner.keep_fraction",
    "tracking",
    "estimator",
}


@pytest.fixture
def read(monkeypatch) -> set[str]:
    """Return a set that fills with the settings that the package reads."""
    groups = {type(value): f"{name}." for name, value in vars(Config()).items()}
    found: set[str] = set()

    def recording(cls: type, names: set[str]):
        original = cls.__getattribute__

        def get(self, name: str):
            if name in names:
                module = sys._getframe(1).f_globals["__name__"]
                # Checks and JAX's own traversal read every field.
                checks = module.startswith(("mbpo_jax.config", "mbpo_jax.fields"))
                if module.startswith("mbpo_jax.") and not checks:
                    found.add(groups.get(cls, "") + name)
            return original(self, name)

        return get

    for cls in CONFIG_CLASSES:
        names = {field.name for field in dataclasses.fields(cls)}
        monkeypatch.setattr(cls, "__getattribute__", recording(cls, names))
    return found


@pytest.mark.parametrize(
    ("algorithm", "model"), mostly_exhaustive(MODELS, OF_EVERY_KIND.__contains__)
)
def test_an_algorithm_reads_the_settings_that_its_record_names_and_no_others(
    read, algorithm, model
):
    environment = "maze" if ALGORITHMS[algorithm].is_tabular else "pendulum"
    config = environment_preset(environment, "debug")
    config = dataclasses.replace(config, algorithm=algorithm, model=model)
    config = config_io.apply(config, {"expansion": {"critic": "mve"}}, "what `svg` reads most with")
    program = loop.make_program(make_env(config.env))
    settings = set(flatten(Config())) - {"model"}  # which is looked at for all of them
    read.clear()
    key = jax.random.key(0)
    state = jax.eval_shape(functools.partial(program.init, config), key)
    state = jax.eval_shape(program.collect, config, state)
    jax.eval_shape(program.step, config, jnp.int32(config.random_steps), state)
    jax.eval_shape(program.evaluate, config, key, state)
    found = read & settings
    assert {path for path in found if not reads(algorithm, model, path)} == set()
    # What every run reads is read by the driver, too, which is not run here.
    of_some = {path for path in settings if len(readers(path)) < len(ALGORITHMS)}
    named = {path for path in of_some if reads(algorithm, model, path)}
    left = named - found - {"track_gradients"}
    assert {path for path in left if not {path, path.partition(".")[0]} & CONDITIONAL} == set()


def test_records_are_told_apart_and_their_sets_fit_into_each_other():
    titles = [record.title for record in ALGORITHMS.values()]
    assert len(set(titles)) == len(titles)
    for name, record in ALGORITHMS.items():
        assert not (record.branches and not record.has_model), name
        assert not (record.differentiates_model and not record.has_model), name
        assert not (record.is_tabular and record.is_actor_critic), name


def test_who_reads_a_setting():
    assert readers("expansion.td_k") == ["mve", "svg"]
    assert readers("rollout.max_length") == ["mbpo", "dyna", "mba", "dhmbpo"]
    assert set(readers("seed")) == set(ALGORITHMS)
    assert reads("mbpo", "learned", "fit.patience")
    assert not reads("mbpo", "oracle", "fit.patience")


@pytest.mark.parametrize("method", ["random", "cem", "icem", "mppi"])
def test_a_planner_reads_the_settings_of_its_method_and_no_others(read, method):
    base = environment_preset("pendulum", "debug")
    config = dataclasses.replace(base, algorithm="mpc", model="oracle")
    config = config_io.apply(config, {"planner": {"method": method}}, "a method")
    program = loop.make_program(make_env(config.env))
    read.clear()
    key = jax.random.key(0)
    state = jax.eval_shape(functools.partial(program.init, config), key)
    jax.eval_shape(program.step, config, jnp.int32(config.random_steps), state)
    settings = {path for path in flatten(config) if path.startswith("planner.")}
    assert read & settings == {path for path in settings if not unread_as_set(config, path)}


def test_what_a_choice_leaves_unread_is_refused_of_those_that_read_the_choice():
    svg = Config(algorithm="svg")
    with pytest.raises(ConfigError, match=r"^expansion.td_k: it .* set expansion.critic to mve$"):
        refuse_unread(svg, ["expansion.td_k"])
    expanded = config_io.apply(svg, {"expansion": {"critic": "mve"}}, "svg")
    refuse_unread(expanded, ["expansion.td_k"])
    refuse_unread(Config(algorithm="mve"), ["expansion.td_k"])
    refuse_unread(Config(algorithm="mine:make"), ["expansion.td_k", "planner.temperature"])
    fixed = config_io.apply(Config(), {"ensemble": {"bounds": "fixed"}}, "fixed")
    with pytest.raises(ConfigError, match=r"^ensemble.bound_penalty: .* ensemble.bounds=fixed"):
        refuse_unread(fixed, ["ensemble.bound_penalty", "ensemble.min_log_variance"])


OWN = """
    import mbpo_jax.algorithms.mbpo as mbpo

    def make_careful(env, config):
        return mbpo.make_mbpo(env, config)

    def nothing(env, config):
        return env

    def too_little(env):
        return env
"""


@pytest.fixture
def own(monkeypatch, tmp_path) -> Iterator[str]:
    """Write a module with algorithms of one's own."""
    monkeypatch.chdir(tmp_path)
    name = f"careful_{tmp_path.name}"
    Path(f"{name}.py").write_text(textwrap.dedent(OWN))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


@pytest.mark.slow
def test_an_algorithm_of_ones_own_is_trained_by_import_path(own):
    name = f"{own}:make_careful"
    command = ["train", "pendulum", "--preset", "debug", "--algorithm", name]
    assert cli.main([*command, "--rollout.real-ratio", "0.5"]) == 0
    run_dir = Path("runs", f"pendulum-{own}-make_careful-debug-0")
    assert len(read_rows(run_dir / "evals.jsonl")) == 3
    assert name in (run_dir / "config.yaml").read_text()
    assert algorithm_record(name).title == "careful"


def test_what_is_wrong_with_an_algorithm_of_ones_own_is_named(own):
    env = make_env(environment_preset("pendulum").env)
    for name, message in (
        ("no_such:make", "algorithm: cannot import"),
        (f"{own}:make_carefull", "did you mean make_careful"),
        (f"{own}:nothing", "returned Env where an mbpo_jax.types.Algorithm is needed"),
        (f"{own}:too_little", r"def too_little\(env, config\):"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_algorithm(env, Config(algorithm=name))

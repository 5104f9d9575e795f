import math

import jax
import pytest

import mbpo_jax.algorithms  # noqa: F401 - registers the classes with JAX
from mbpo_jax.config import (
    Config,
    ConfigError,
    EnsembleConfig,
    EnvConfig,
    FitConfig,
    RolloutConfig,
    SACConfig,
    field_error,
    field_types,
    suggestion,
)


@pytest.mark.parametrize(
    ("cls", "field", "value", "accepted"),
    [
        (SACConfig, "tau", -0.1, ">= 0"),
        (SACConfig, "gamma", 1.01, "<= 1"),
        (SACConfig, "learning_rate", 0.0, "> 0"),
        (SACConfig, "utd_ratio", 0, ">= 1"),
        (FitConfig, "holdout_ratio", 0.95, "<= 0.9"),
        (Config, "seed", -1, ">= 0"),
        (EnvConfig, "episode_length", 0, ">= 1"),
        (FitConfig, "min_improvement", 1.0, "< 1"),
        (EnsembleConfig, "min_log_variance", -31.0, ">= -30"),
        (Config, "total_env_steps", 2**31, "<= 2147483647"),
    ],
)
def test_a_number_out_of_range_is_named_with_the_range(cls, field, value, accepted):
    with pytest.raises(ConfigError, match=rf"^{field}: {value} .*{accepted}$"):
        cls(**{field: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_non_finite_number_is_refused_even_without_a_range(value):
    with pytest.raises(ConfigError, match=r"target_entropy.*finite"):
        SACConfig(target_entropy=value)


def test_the_ends_of_a_closed_range_are_accepted():
    config = SACConfig(gamma=1.0, tau=0.0)
    assert (config.gamma, config.tau) == (1.0, 0.0)


def test_every_wrong_number_is_a_problem_of_its_own():
    with pytest.raises(ConfigError) as error:
        SACConfig(tau=-1.0, utd_ratio=0, batch_size=-2)
    assert [problem.split(":")[0] for problem in error.value.args] == [
        "utd_ratio",
        "batch_size",
        "tau",
    ]
    assert str(error.value).splitlines() == list(error.value.args)


def test_a_range_lets_arrays_pass_because_fields_hold_them_while_jax_traces():
    annotation = field_types(SACConfig)["tau"]
    assert field_error("tau", -1.0, annotation)
    assert field_error("tau", jax.numpy.float32(-1.0), annotation) is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"eval_every": 300}, "eval_every"),
        ({"checkpoint_every": 300}, "checkpoint_every"),
        ({"fit": FitConfig(weight_decays=(0.0,))}, "fit.weight_decays"),
        ({"ensemble": EnsembleConfig(num_elites=3)}, "rollout.rollouts_per_step"),
        ({"random_steps": 1}, "random_steps"),
    ],
)
def test_rules_between_fields_name_the_field_to_change(changes, field):
    with pytest.raises(ConfigError, match=rf"^{field}: "):
        Config(**changes)


def test_rules_of_the_model_do_not_bind_an_algorithm_without_one():
    assert Config(algorithm="sac", random_steps=1).random_steps == 1


def test_elites_are_members():
    with pytest.raises(ConfigError, match=r"num_elites: 8 exceeds num_members \(7\)"):
        EnsembleConfig(num_elites=8)


def test_the_rollout_schedule_cannot_run_backwards():
    with pytest.raises(ConfigError) as error:
        RolloutConfig(min_length=5, max_length=2, start_epoch=9, end_epoch=3)
    assert len(error.value.args) == 2


def test_data_fields_are_the_leaves_of_the_pytree_and_structure_is_static():
    leaves = jax.tree_util.tree_leaves_with_path(Config())
    paths = {jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves}
    assert {"sac.tau", "fit.learning_rate", "fit.weight_decays.0", "rollout.real_ratio"} <= paths
    assert paths.isdisjoint({"seed", "sac.utd_ratio", "fit.holdout_ratio", "stop_at_return"})


def test_a_config_of_arrays_survives_tracing():
    doubled = jax.jit(lambda config: jax.tree.map(lambda x: 2 * x, config))(Config())
    assert doubled.sac.gamma == pytest.approx(1.98)  # out of range: arrays are not checked
    assert doubled.num_seeds == Config().num_seeds


@pytest.mark.parametrize(
    ("name", "advice"),
    [("hoper", "did you mean hopper?"), ("HOPPER", "did you mean hopper?"), ("?", "use one of: ")],
)
def test_suggestion_names_the_nearest_or_everything(name, advice):
    assert suggestion(name, ["hopper", "ant"]).startswith(advice)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EnsembleConfig(bounds="fixd"), "did you mean fixed"),  # pyright: ignore
        (lambda: SACConfig(hidden_sizes=(64, 0)), r"hidden_sizes\[1\]: 0 is too small"),
        (lambda: EnsembleConfig(min_log_variance=1.0, max_log_variance=-1.0), "not below"),
        (lambda: Config(total_env_steps=500, random_steps=500), "leaves nothing to train on"),
        (lambda: Config(steps_per_fit=1000), "replay|hold less|multiple"),
        (lambda: Config(seed=2**32), "too large"),
    ],
)
def test_python_values_are_checked_like_those_from_files(make, message):
    with pytest.raises(ConfigError, match=message):
        make()

import dataclasses
import math

import jax
import pytest

import mbpo_jax.algorithms  # noqa: F401 - registers the classes with JAX
from mbpo_jax.config import (
    CONFIG_CLASSES,
    Config,
    EnsembleConfig,
    EnvConfig,
    ExpansionConfig,
    FitConfig,
    ILQRConfig,
    PlannerConfig,
    PolicySearchConfig,
    RetraceConfig,
    RolloutConfig,
    SACConfig,
    TabularConfig,
)
from mbpo_jax.errors import ConfigError, suggestion
from mbpo_jax.fields import field_error, field_types


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
        (ExpansionConfig, "horizon", -1, ">= 0"),
        (RetraceConfig, "decay", 1.5, "<= 1"),
        (RetraceConfig, "length", 0, ">= 1"),
        (PlannerConfig, "temperature", 0.0, "> 0"),
        (PolicySearchConfig, "entropy_weight", -0.5, ">= 0"),
        (TabularConfig, "epsilon", 2.0, "<= 1"),
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
        (
            {"steps_per_fit": 1000, "eval_every": 1000, "total_env_steps": 5500},
            "rollout.retain_epochs",
        ),
        ({"random_steps": 1, "total_env_steps": 5001}, "random_steps"),
        ({"algorithm": "sac", "model": "oracle"}, "model"),
        ({"algorithm": "mpc", "planner": PlannerConfig(num_particles=7)}, "planner.num_particles"),
        (
            {
                "algorithm": "prioritized_sweeping",
                "tabular": TabularConfig(planning_steps=0),
            },
            "tabular.planning_steps",
        ),
    ],
)
def test_rules_between_fields_name_the_field_to_change(changes, field):
    with pytest.raises(ConfigError, match=rf"^{field}: "):
        Config(**changes)


@pytest.mark.parametrize("changes", [{"algorithm": "sac"}, {"model": "oracle"}], ids=str)
def test_rules_of_the_ensemble_do_not_bind_who_fits_none(changes):
    config = Config(
        random_steps=1, total_env_steps=5001, fit=FitConfig(weight_decays=()), **changes
    )
    assert not config.learns_model
    assert Config(algorithm="mve").learns_model


def test_rules_of_model_buffers_do_not_bind_who_has_none():
    config = Config(algorithm="mve", steps_per_fit=1000, eval_every=1000, total_env_steps=5500)
    assert config.steps_per_fit > config.rollout.retain_epochs * config.epoch_length


@pytest.mark.parametrize(
    ("total", "advice"), [(1100, "use 1000 or 1250"), (620, "use 750"), (1000, None)]
)
def test_a_run_makes_as_many_steps_as_it_is_told(total, advice):
    def config() -> Config:
        return Config(total_env_steps=total, random_steps=500, steps_per_fit=250)

    if advice is None:
        assert config().total_env_steps == total
    else:
        with pytest.raises(ConfigError, match=f"^total_env_steps: {total} .*; {advice}$"):
            config()


def test_elites_need_not_divide_the_rollouts():
    config = Config(
        ensemble=EnsembleConfig(num_elites=3), rollout=RolloutConfig(rollouts_per_step=7)
    )
    assert config.rollout.rollouts_per_step % config.ensemble.num_elites == 1


def test_a_plan_is_not_longer_followed_than_made():
    with pytest.raises(ConfigError, match=r"^replan_every: 9 exceeds horizon \(8\)"):
        ILQRConfig(horizon=8, replan_every=9)


def test_an_elite_of_a_planner_is_one_of_its_population():
    with pytest.raises(ConfigError, match=r"^num_elites: 9 exceeds population \(8\)"):
        PlannerConfig(population=8, num_elites=9)
    assert PlannerConfig(population=8, num_elites=8).num_elites == 8


def test_every_section_is_registered_once_and_before_the_whole():
    sections = {type(getattr(Config(), field.name)) for field in dataclasses.fields(Config)}
    registered = [cls for cls in sections if dataclasses.is_dataclass(cls)]
    assert sorted(map(str, CONFIG_CLASSES)) == sorted(map(str, [*registered, Config]))


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
    assert {"retrace.decay", "policy_search.entropy_weight", "planner.temperature"} <= paths
    assert paths.isdisjoint({"seed", "sac.utd_ratio", "fit.holdout_ratio", "stop_at_return"})
    assert paths.isdisjoint(
        {"expansion.horizon", "expansion.propagation", "ensemble.spectral_norm"}
    )


def test_an_optional_number_is_data_once_it_is_set():
    def paths(config):
        leaves = jax.tree_util.tree_leaves_with_path(config)
        return {jax.tree_util.keystr(path, simple=True) for path, _ in leaves}

    assert paths(ExpansionConfig()) == set()
    assert paths(ExpansionConfig(max_cotangent_norm=1.0)) == {"max_cotangent_norm"}
    assert "horizon" not in paths(PolicySearchConfig(horizon=3))


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


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [(FitConfig, "max_epochs", 0), (PolicySearchConfig, "horizon", 0)],
)
def test_a_field_that_may_be_unset_keeps_its_range(section, field, value):
    assert getattr(section(**{field: None}), field) is None
    with pytest.raises(ConfigError, match=f"{field}: {value} is too small"):
        section(**{field: value})

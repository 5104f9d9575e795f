import dataclasses
from pathlib import Path

import pytest

from mbpo_jax import presets
from mbpo_jax.config import ALGORITHMS, Config
from mbpo_jax.config_io import diff_configs
from mbpo_jax.envs import ENVIRONMENTS, analytic, make_env
from mbpo_jax.errors import ConfigError
from mbpo_jax.models.rollout import rollout_length
from mbpo_jax.presets import ENVIRONMENT_PRESETS, PRESETS, environment_preset, preset
from mbpo_jax.presets.brax import BRAX_PRESETS
from mbpo_jax.presets.dmc import DMC_PRESETS

# Published by the authors of MBPO: updates per step, steps per fit, schedule, epochs the model
# transitions are kept, width of the model, target entropy, random steps.
PUBLISHED = {
    "inverted_pendulum": (10, 250, (1, 15, 1, 1), 1, 200, -0.05, 500),
    "inverted_double_pendulum": (20, 250, (1, 15, 1, 1), 1, 200, -0.5, 500),
    "hopper": (20, 250, (20, 150, 1, 15), 1, 200, -1, 5000),
    "walker2d": (20, 250, (1, 15, 1, 1), 1, 200, -3, 5000),
    "halfcheetah": (40, 250, (1, 15, 1, 1), 1, 200, -3, 5000),
    "ant": (20, 250, (20, 100, 1, 25), 1, 200, -4, 5000),
    "humanoid": (20, 1000, (20, 300, 1, 25), 5, 400, -2, 5000),
}

MAZES = ("blocking_maze", "maze", "shortcut_maze")
"""Environments of the tabular algorithms, which have no networks."""

# Fields that `debug` leaves alone, because they cost nothing or because an environment needs them.
KEPT_BY_DEBUG = {
    "algorithm",
    "env.name",
    "env.backend",
    "env.action_repeat",
    "sac.target_entropy",
    "sac.gamma",
    "sac.learning_rate",
    "sac.initial_alpha",
    "ensemble.normalize_targets",
}
KEPT_SECTIONS = {"tabular", "policy_search", "planner", "ilqr"}


def test_every_environment_has_a_preset_of_its_own():
    assert set(ENVIRONMENT_PRESETS) == set(ENVIRONMENTS)
    assert {name: preset(name).env.name for name in ENVIRONMENTS} == {n: n for n in ENVIRONMENTS}


def gymnasium_names(brax: str) -> list[str]:
    """Return the names of Gymnasium's versions of a task that Brax has, too."""
    named = {name: name.removeprefix("gym/").split("-")[0].lower() for name in ENVIRONMENTS}
    return [
        name for name in named if name.startswith("gym/") and named[name] == brax.replace("_", "")
    ]


@pytest.mark.parametrize("brax", BRAX_PRESETS)
def test_gymnasiums_tasks_have_the_numbers_that_were_published_for_them(brax):
    own = preset(brax)
    names = gymnasium_names(brax)
    assert len(names) == (1 if brax == "pusher" else 2)
    for name in names:
        changed = diff_configs(own, preset(name))
        assert [line.split(":")[0] for line in changed] == ["env.name", "env.backend"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_numbers_are_the_published_ones(name):
    config = preset(name)
    rollout = config.rollout
    schedule = (rollout.start_epoch, rollout.end_epoch, rollout.min_length, rollout.max_length)
    assert PUBLISHED[name] == (
        config.sac.utd_ratio,
        config.steps_per_fit,
        schedule,
        rollout.retain_epochs,
        config.ensemble.hidden_sizes[0],
        config.sac.target_entropy,
        config.random_steps,
    )
    assert rollout.rollouts_per_step * config.steps_per_fit == 100_000


@pytest.mark.parametrize("name", sorted({*BRAX_PRESETS, *analytic.SYSTEMS} - {*PUBLISHED, *MAZES}))
def test_target_entropy_follows_the_rule_where_none_is_published(name):
    assert preset(name).sac.target_entropy == -ENVIRONMENTS[name].action_size / 2


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_debug_makes_every_environment_equally_small(name):
    config, own = preset(name, "debug"), preset(name)
    differing = {line.split(":")[0] for line in diff_configs(preset("debug"), config)}
    kept = {"env.name", "env.backend", "sac.target_entropy"}
    kept |= {"ensemble.normalize_targets", "fit.patience"}  # which cost nothing
    if name in {*analytic.SYSTEMS, *DMC_PRESETS}:
        kept = KEPT_BY_DEBUG
    assert {field for field in differing if field.split(".")[0] not in KEPT_SECTIONS} <= kept
    assert config.sac.target_entropy == own.sac.target_entropy
    assert config.env.name == name


@pytest.mark.parametrize("name", analytic.SYSTEMS)
def test_an_analytic_environment_can_be_made_from_its_preset(name):
    config = preset(name)
    spec = make_env(config.env).spec
    assert (config.env.backend, spec.name) == ("analytic", name)
    assert ALGORITHMS[config.algorithm].is_tabular == spec.tabular == (name in MAZES)


@pytest.mark.parametrize("name", analytic.SYSTEMS)
def test_an_analytic_preset_suits_all_algorithms_for_its_kind_of_states(name):
    """Or making the configuration, which checks the rules between fields, would raise."""
    for algorithm, record in ALGORITHMS.items():
        if record.is_tabular != (name in MAZES):
            continue
        assert dataclasses.replace(preset(name), algorithm=algorithm).algorithm == algorithm


def test_mazes_have_the_numbers_of_their_figures():
    """Steps, time limit, planning steps, step size and discount factor."""
    table = {
        name: (
            preset(name).total_env_steps,
            preset(name).env.episode_length,
            preset(name).tabular.planning_steps,
            preset(name).tabular.step_size,
            preset(name).tabular.gamma,
        )
        for name in MAZES
    }
    assert table == {
        "blocking_maze": (3000, 3000, 10, 1.0, 0.95),
        "maze": (3000, 5000, 5, 0.1, 0.95),
        "shortcut_maze": (6000, 6000, 50, 1.0, 0.95),
    }


def test_debug_evaluates_twice_and_lets_rollouts_grow_from_one_step_to_two():
    config = preset("debug")
    trained = range(config.steps_per_fit, config.total_env_steps - config.random_steps + 1)
    assert sum(step % config.eval_every == 0 for step in trained) == 2
    fits = range(0, config.total_env_steps - config.random_steps, config.steps_per_fit)
    epochs = [step // config.epoch_length for step in fits]
    assert [int(rollout_length(epoch, config.rollout)) for epoch in epochs] == [1, 2]


def test_a_later_preset_goes_over_an_earlier_one_field_by_field():
    config = preset("humanoid", "hopper")
    assert config.env.name == "hopper"
    assert config.rollout.max_length == preset("hopper").rollout.max_length
    assert config.rollout.retain_epochs == preset("humanoid").rollout.retain_epochs


def test_no_preset_is_the_default():
    assert preset() == Config()


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no preset is called 'debgu' .*; did you mean debug\?"):
        preset("hopper", "debgu")
    with pytest.raises(ConfigError, match=r"no environment is called 'walker' .*walker2d"):
        environment_preset("walker")


def test_a_preset_that_is_no_environment_cannot_be_trained_on():
    with pytest.raises(ConfigError, match="no environment is called 'debug'"):
        environment_preset("debug")


def test_summaries_tell_the_number_of_steps():
    for name in presets.ENVIRONMENT_PRESETS:
        assert f"{preset(name).total_env_steps:,} steps" in PRESETS[name].summary


def test_a_preset_of_ones_own_goes_over_the_others_and_its_mistakes_are_named(monkeypatch):
    Path("mine_preset.py").write_text(
        'def careful():\n    return {"fit": {"patience": 50}, "sac": {"gamma": 0.9}}\n\n\n'
        'def wrong():\n    return {"sac": {"gama": 0.9}}\n\n\ndef nothing():\n    pass\n'
    )
    monkeypatch.syspath_prepend(str(Path.cwd()))
    config = environment_preset("pendulum", "debug", "mine_preset:careful")
    assert diff_configs(environment_preset("pendulum", "debug"), config) == [
        f"sac.gamma: {preset('pendulum').sac.gamma} -> 0.9",
        f"fit.patience: {preset('debug').fit.patience} -> 50",
    ]
    for name, message in (
        ("mine_preset:wrong", "mine_preset:wrong: sac.gama: no such field"),
        ("mine_preset:nothing", "returned NoneType where a dictionary is needed"),
        ("mine_preset:carful", "no function 'carful'; .*careful"),
        ("carful", "no preset is called 'carful' .one of your own would be module:function"),
    ):
        with pytest.raises(ConfigError, match=message):
            preset(name)


@pytest.mark.parametrize("name", DMC_PRESETS)
def test_tasks_of_deepmind_control_have_500_actions_of_two_steps_in_an_episode(name):
    """As in Kubo et al. 2025, from five random episodes on; and their other numbers go with it."""
    config = preset(name)
    assert (config.env.episode_length, config.env.action_repeat) == (1000, 2)
    assert config.env.backend == "mjx"
    assert config.random_steps == 5 * 500
    assert environment_preset(name, algorithm="dhmbpo").sac.gamma == 0.995


# Numbers of a method, over those of a task.


def test_an_algorithm_with_numbers_of_its_own_brings_them_for_every_task():
    """Kubo et al. 2025: one set of numbers, where MBPO's are each task's."""
    for name in ("gym/Hopper-v5", "gym/HalfCheetah-v5", "pendulum"):
        own, config = preset(name), environment_preset(name, algorithm="dhmbpo")
        assert config.sac.utd_ratio == 1
        assert (config.sac.num_critics, config.sac.num_target_critics) == (5, 2)
        assert config.sac.gamma == 0.995
        assert config.expansion.horizon == 5
        assert (config.rollout.min_length, config.rollout.max_length) == (20, 20)
        assert config.sac.target_entropy is None
        assert (config.sac.learning_rate, config.sac.batch_size) == (3e-4, 256)
        # What belongs to the task is the task's.
        assert config.env == own.env
        assert config.random_steps == own.random_steps
    assert environment_preset("pendulum", algorithm="mbpo") == preset("pendulum")
    assert environment_preset("pendulum", "debug", algorithm="dhmbpo").steps_per_fit == 50


def test_infoprop_is_mbpo_with_long_rollouts_that_end_where_information_is_lost():
    config = preset("hopper", "infoprop")
    assert (config.algorithm, config.rollout.truncation) == ("mbpo", "information")
    assert config.rollout.min_length == config.rollout.max_length == 100
    assert config.rollout.rollouts_per_step * config.epoch_length * 100 == 2_000_000


@pytest.mark.parametrize("task", ["hopper", "walker2d", "halfcheetah", "ant", "humanoid"])
def test_macura_is_mbpo_with_rollouts_that_end_where_members_disagree(task):
    config = preset(task, f"macura_{task}")
    assert config.algorithm == "mbpo"
    assert config.rollout.truncation == "threshold"
    assert config.ensemble.num_elites == config.ensemble.num_members == 7
    assert config.rollout.max_length == 10

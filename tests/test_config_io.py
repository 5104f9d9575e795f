from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbpo_jax.config import Config, FitConfig, SACConfig, refuse_unread
from mbpo_jax.config_io import (
    apply,
    diff_configs,
    dump_yaml,
    flatten,
    read_yaml,
)
from mbpo_jax.errors import ConfigError
from mbpo_jax.presets import PRESETS, preset


def write(text: str) -> Path:
    path = Path("settings.yaml")
    path.write_text(text)
    return path


def load(path: Path) -> Config:
    return apply(Config(), read_yaml(path), str(path))


def problems(text: str) -> list[str]:
    """Return what is wrong with a file, without the file's name."""
    with pytest.raises(ConfigError) as error:
        load(write(text))
    prefix = "settings.yaml: "
    assert all(problem.startswith(prefix) for problem in error.value.args)
    return [problem.removeprefix(prefix) for problem in error.value.args]


@pytest.mark.parametrize("name", PRESETS)
def test_a_written_configuration_reads_back_equal(name):
    config = preset(name)
    assert load(write(dump_yaml(config))) == config


@given(
    tau=st.floats(0, 1),
    entropy=st.floats(allow_nan=False, allow_infinity=False),
    sizes=st.lists(st.integers(1, 4096), max_size=4),
)
def test_every_number_survives_writing_and_reading(tau, entropy, sizes):
    config = Config(sac=SACConfig(tau=tau, target_entropy=entropy, hidden_sizes=tuple(sizes)))
    assert load(write(dump_yaml(config))) == config


def test_what_a_file_leaves_out_keeps_its_value():
    base = preset("humanoid")
    config = apply(base, read_yaml(write("sac: {tau: 0.5}\nnum_seeds: 2\n")), "file")
    assert diff_configs(base, config) == ["num_seeds: 1 -> 2", "sac.tau: 0.005 -> 0.5"]


def test_an_empty_file_changes_nothing():
    assert load(write("# nothing yet\n")) == Config()


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "+1e-3", "1.e-3", ".1e-2", "0.001", "10e-4"])
def test_floats_may_be_written_with_an_exponent_alone(text):
    assert load(write(f"sac: {{tau: {text}}}")).sac.tau == 0.001


def test_a_whole_number_may_have_an_exponent_and_a_broken_one_is_refused():
    assert load(write("total_env_steps: 1e5")).total_env_steps == 100_000
    assert problems("total_env_steps: 1.5")[0].startswith("total_env_steps: 1.5 should be")


def test_all_mistakes_of_a_file_are_named_at_once():
    found = problems(
        """
        seed: many
        bogus_field: 3
        env: {name: 3, backend: unreal}
        sac: {tua: 1, gamma: 1.5, hidden_sizes: [64, -64]}
        rollout: {real_ratio: -1}
        fit: 5
        """
    )
    assert {problem.split(":")[0] for problem in found} == {
        "seed",
        "bogus_field",
        "env.name",
        "env.backend",
        "sac.tua",
        "sac.gamma",
        "sac.hidden_sizes.1",
        "rollout.real_ratio",
        "fit",
    }
    assert len(found) == 9


def test_rules_are_looked_at_beside_wrong_values_but_not_of_them():
    found = problems(
        """
        sac: {gamma: 1.5}
        ensemble: {num_members: 2}
        eval_every: 7
        total_env_steps: many
        """
    )
    assert [problem.split(" ")[0] for problem in found] == [
        "total_env_steps:",
        "sac.gamma:",
        "ensemble.num_elites:",
        "eval_every:",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "title: x",
        "learns_model: true",
        "rollout: {room: 5}",
        "__class__: 1",
        "null: 1",
        "1.5: 1",
        "2026-01-01: 1",
        "sac: {1.5: 1}",
        "true: 1",
    ],
)
def test_what_is_no_field_is_refused_whatever_it_is(text):
    (problem,) = problems(text + "\neval_episodes: 3")
    assert "no such field" in problem or "should be" in problem


def test_what_an_algorithm_never_reads_is_refused_and_who_reads_it_is_told():
    sac = Config(algorithm="sac")
    refuse_unread(sac, ["sac.gamma", "num_seeds"])
    with pytest.raises(ConfigError) as error:
        refuse_unread(sac, ["rollout.max_length", "sac.gamma", "expansion.horizon"])
    first, second = error.value.args
    assert first.startswith("rollout.max_length: sac does not read it; leave it out")
    assert first.endswith("mbpo, dyna, mba, dhmbpo")
    assert second.startswith("expansion.horizon: sac does not read it")
    with pytest.raises(ConfigError, match=r"fit.num_steps: a fit .* with fit.stopping=early"):
        refuse_unread(Config(), ["fit.num_steps", "fit.patience"])
    budget = Config(fit=FitConfig(stopping="budget"))
    with pytest.raises(ConfigError, match=r"^fit.patience: a fit .* with fit.stopping=budget"):
        refuse_unread(budget, ["fit.num_steps", "fit.cold_factor", "fit.patience"])
    noise = Config(algorithm="sac", sac=SACConfig(exploration_noise=0.1))
    refuse_unread(noise, ["sac.exploration_noise", "sac.tau"])
    for name in ("sac.initial_alpha", "sac.target_entropy"):
        with pytest.raises(ConfigError, match=f"^{name}: there is no temperature"):
            refuse_unread(noise, [name])
    oracle = Config(model="oracle")
    with pytest.raises(ConfigError, match=r"fit.patience: mbpo does not .* with model=oracle"):
        refuse_unread(oracle, ["fit.patience"])


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("num_seed: 2", "num_seed: no such field; did you mean num_seeds"),
        ("sac: {taau: 1}", "sac.taau: no such field; did you mean tau?"),
        ("tau: 1", "tau: no such field; write 'tau:' below 'sac:'"),
        ("sac.tau: 1", "sac.tau: no such field; write 'tau:' below 'sac:'"),
        ("sac: {seed: 1}", "sac.seed: no such field; write 'seed:' at the top"),
        ("learning_rate: 1", "learning_rate: no such field; write 'learning_rate:' below 'sac:'"),
        ("no.such: 1", "no.such: no such field; "),
        ("1: 1", "1: no such field; use one of: "),
    ],
)
def test_an_unknown_field_is_answered_with_the_right_name_or_place(text, advice):
    (problem,) = problems(text)
    assert problem.startswith(advice)


def test_rules_between_fields_come_with_their_full_path():
    assert problems("rollout: {min_length: 3, start_epoch: 99}") == [
        "rollout.max_length: 1 is below min_length (3)",
        "rollout.end_epoch: 15 is below start_epoch (99)",
    ]
    assert problems("planner: {population: 5}") == [
        "planner.num_elites: 20 exceeds population (5); lower it, or raise population"
    ]
    assert [p.split(":")[0] for p in problems("eval_every: 3\ncheckpoint_every: 7")] == [
        "eval_every",
        "checkpoint_every",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("sac: {hidden_sizes: 3}", "sac.hidden_sizes: 3 should be a list; write [3]"),
        (
            "env: {options: {low: [1, 2], up: true}}",
            "env.options: {'low': [1, 2], 'up': True} should be a list; "
            'write ["low=[1, 2]", "up=true"]',
        ),
        ("algorithm: mbop", "algorithm: 'mbop' is not known (one of your own"),
        (
            "policy_search: {propagation: steps}",
            "policy_search.propagation: 'steps' should be 'step', 'traj",
        ),
        ("search: {horizon: 5}", "search: no such field; did you mean sac or policy_search?"),
        ("policy_search: {horizon: 0}", "policy_search.horizon: "),
        ("expansion: {max_cotangent_norm: -1}", "expansion.max_cotangent_norm: "),
    ],
)
def test_a_value_that_is_not_allowed_is_refused(text, problem):
    (found,) = problems(text)
    assert found.startswith(problem)


def test_optional_numbers_can_be_set_and_unset():
    config = load(
        write("policy_search: {horizon: 7, max_gradient_norm: null}\nexpansion: {horizon: 0}")
    )
    assert (config.policy_search.horizon, config.policy_search.max_gradient_norm) == (7, None)
    assert config.expansion.horizon == 0


def test_a_non_finite_number_is_refused():
    assert problems("sac: {target_entropy: .nan}") == [
        "sac.target_entropy: nan is not a finite number"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("seed: 1\nsac:\n  tau: 1\n  tau: 2\n", "line 4, column 3: 'tau' is given twice"),
        ("seed: [1\nsac: 2", "line 2, column "),
        ("? [1, 2]\n: 3", "line 1, column 3: found unhashable key"),
        ("- seed", "holds no fields"),
        ("seed: !!python/name:os.system", "line 1, column 7: "),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_with_the_place(text, problem):
    (found,) = problems(text)
    assert found.startswith(problem)


def test_a_file_that_cannot_be_read_is_named():
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read: No such file"):
        read_yaml(Path("absent.yaml"))
    Path("noise.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match=r"noise\.yaml: cannot be read: it is no text file"):
        read_yaml(Path("noise.yaml"))


def test_equal_configurations_do_not_differ():
    assert diff_configs(preset("ant"), preset("ant")) == []


def test_flatten_gives_every_value_a_dotted_path():
    flat = flatten(preset("hopper"))
    assert flat["env.name"] == "hopper"
    assert flat["rollout.end_epoch"] == 150
    assert flat["seed"] == 0
    assert not {"env", "sac"} & set(flat)

import math
import os
import random
import time
import typing
from pathlib import Path

import pytest
from annotated_types import Ge, Le
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.faults import configurations
from mbpo_jax import cli
from mbpo_jax.cli import train
from mbpo_jax.config import (
    CONFIG_CLASSES,
    Config,
    FitConfig,
    SACConfig,
    StudyConfig,
    refuse_unread,
)
from mbpo_jax.config_io import (
    apply,
    diff_configs,
    dump_yaml,
    flatten,
)
from mbpo_jax.errors import ConfigError
from mbpo_jax.fields import field_types
from mbpo_jax.presets import PRESETS, preset
from mbpo_jax.yaml_files import parse_yaml, read_yaml, to_yaml


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


@settings(max_examples=25)
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
    assert any(part in problem for part in ("no such field", "no name", "should be"))


def test_what_an_algorithm_never_reads_is_refused_and_who_reads_it_is_told():
    sac = Config(algorithm="sac")
    refuse_unread(sac, ["sac.gamma", "num_seeds"])
    with pytest.raises(ConfigError) as error:
        refuse_unread(sac, ["rollout.max_length", "sac.gamma", "expansion.horizon"])
    first, second = error.value.args
    assert first.startswith("rollout.max_length: sac does not read it; leave it out")
    assert first.endswith("mbpo, dyna, mba, dhmbpo")
    assert second.startswith("expansion.horizon: sac does not read it")
    with pytest.raises(ConfigError, match=r"fit.num_steps: it is not read with fit.stopping=early"):
        refuse_unread(Config(), ["fit.num_steps", "fit.patience"])
    budget = Config(fit=FitConfig(stopping="budget"))
    with pytest.raises(ConfigError, match=r"^fit.patience: it .* with fit.stopping=budget"):
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
        (
            "fit.learning_rate: 1",
            "fit.learning_rate: no such field; write 'learning_rate:' below 'fit:'",
        ),
        ("no.such: 1", "no.such: no such field; "),
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
    ("word", "value"),
    [
        *((word, None) for word in ("", "~", "null", "NULL")),
        *(("True", True), ("FALSE", False), ("yes", "yes"), ("off", "off"), ("'1'", "1")),
        *(("0", 0), ("-12", -12), ("+12", 12), ("1_000", 1000), ("0o17", 15), ("0x1F", 31)),
        *(("0b101", 5), ("1e-3", 0.001), ("1E3", 1000.0), (".5", 0.5), ("-.5e+1", -5.0)),
        *(("1.", 1.0), ("1e999", math.inf), ("-.INF", -math.inf), ("1:30", "1:30"), (".", ".")),
        *(("2001-12-14", "2001-12-14"), ("=", "="), ("1e", "1e"), ("é", "é")),
        ("[*known, {a: *known}]", [[1, 2], {"a": [1, 2]}]),
        ("{<<: {a: 1, b: 2}, b: 3}", {"a": 1, "b": 3}),
    ],
)
def test_a_word_means_what_it_means_in_yaml_1_2_and_a_number_of_1_1_stays_one(word, value):
    read = parse_yaml(f"known: &known [1, 2]\nx: {word}", "text")["x"]
    assert (read, type(read)) == (value, type(value))
    if not isinstance(value, list | dict):
        assert parse_yaml(to_yaml({"x": str(word)}), "written") == {"x": word}


def test_words_of_yaml_1_1_still_set_a_switch():
    assert load(write("sac: {critic_layer_norm: yes, catches_up: on}")).sac.critic_layer_norm
    assert not load(write("fit: {bootstrap: off}")).fit.bootstrap


LAUGHS = "\n".join(
    [
        "a0: &a0 [x, x, x, x, x, x, x, x]",
        *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]" for i in range(1, 12)),
    ]
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("seed: 1\nsac:\n  tau: 1\n  tau: 2\n", "line 4, column 3: 'tau' is given twice"),
        ("seed: [1\nsac: 2", "line 2, column "),
        ("? [1, 2]\n: 3", "line 1, column 3: a list or group is no name of a field"),
        ("1: 1", "line 1, column 1: '1' is no name of a field"),
        ('seed: 1\n"a\\n": 1', "line 2, column 1: 'a\\n' is no name of a field"),
        (f"sac: {{{'a' * 101}: 1}}", "line 1, column 7: "),
        ("- seed", "holds no fields"),
        ("seed: 1\n---\nseed: 2", "line 2, column 1: expected a single document"),
        ("seed: 0x_", "line 1, column 7: '0x_' is no number"),
        ("seed: 010", "line 1, column 7: '010' can be read in two ways"),
        ("seed: 2001-13-45", "seed: '2001-13-45' should be a valid integer"),
        ('seed: "\\UFFFFFFFF"', "line 1, column 10: is no YAML"),
        ('env: {name: "\\ud800"}', "line 1, column 13: '\\ud800' holds half a character"),
        ("a: 1\nseed: \0", "line 2: the character '\\x00' cannot stand in YAML"),
        (f"seed: {'[' * 2000}{']' * 2000}", "line 1, column 27: more than 20 fields"),
        (f"seed:\n {'- ' * 2000}", "line 2, column "),
        (f"seed: {'9' * 5000}", "line 1, column 7: '9999"),
        (f"seed: 0x{'f' * 300}", "line 1, column 7: '0xfff"),
        (f"seed: {'9' * 5000}.0", "seed: inf should be a finite number"),
        (f"tracking: {{batches: {10**400}}}", "line 1, column 21: '1000"),
        (f"tracking: {{batches: {10**300}}}", "tracking.batches: "),
        ("seed: !!bool", "line 1, column 7: there are no tags here; leave '!!bool' out"),
        ("env: !!map [1]", "line 1, column 6: there are no tags here; leave '!!map' out"),
        ("seed: !!float x", "line 1, column 7: there are no tags here"),
        ("seed: !!python/name:os.system", "line 1, column 7: there are no tags here"),
        ("seed: <<", "line 1, column 7: "),
        ("seed: &a [*a]", "line 1, column 7: more than 20 fields or lists stand in one another"),
        (LAUGHS, "line 1, column "),
        (f"seed: {' ' * 2**16}", "holds more than 64 KiB"),
        ("num_seeds: 1000000000", "num_seeds: 1000000000 should be less than or equal to 4000"),
        (f"sac: {{hidden_sizes: [{'8,' * 101}]}}", "sac.hidden_sizes: 101 items are too many"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_with_the_place(text, problem, capsys):
    write(text)
    began = time.process_time()
    assert cli.main(["train", "pendulum", "--config", "settings.yaml"]) == 2
    assert time.process_time() - began < 2.0
    out, message = capsys.readouterr()
    assert out == ""
    assert message.startswith(f"mbpo-jax: settings.yaml: {problem}")
    assert message.count("\n") == 1
    assert len(message) < 500


def test_of_very_many_mistakes_the_first_are_told():
    found = problems("\n".join(f"a{i}: 1" for i in range(5000)))
    assert len(found) == 21
    assert found[-1] == "and more problems, which are told when these are mended"


def test_what_is_no_text_file_is_named_and_not_waited_for():
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read: No such file"):
        read_yaml(Path("absent.yaml"))
    Path("noise.yaml").write_bytes(b"seed: 1\nx: \xff\xfe\xff")
    with pytest.raises(ConfigError, match=r"noise\.yaml: cannot be read: .* line 2 is not UTF-8"):
        read_yaml(Path("noise.yaml"))
    with pytest.raises(ConfigError, match=r"is a directory; name a file"):
        read_yaml(Path())
    os.mkfifo("pipe")
    for path in ("pipe", "/dev/zero"):
        with pytest.raises(ConfigError, match=r"is a device, a pipe or a socket; name a file"):
            read_yaml(Path(path))


@pytest.mark.parametrize("cls", [*CONFIG_CLASSES, StudyConfig])
def test_every_whole_number_is_bounded_on_both_sides(cls):
    def unbounded(annotation):
        if typing.get_origin(annotation) is typing.Annotated:
            kinds = {type(part) for part in annotation.__metadata__}
            return annotation.__origin__ is int and not {Ge, Le} <= kinds
        return annotation is int or any(map(unbounded, typing.get_args(annotation)))

    assert [name for name, kind in field_types(cls).items() if unbounded(kind)] == []


def test_a_number_that_no_float_holds_is_refused_in_python_too():
    for huge in (10**400, 10**5000):
        with pytest.raises(ConfigError, match=r"^target_entropy: .* is not a finite number$"):
            SACConfig(target_entropy=huge)
        with pytest.raises(ConfigError, match=r"^batch_size: .* is not a finite number$"):
            SACConfig(batch_size=huge)


def test_files_by_chance_are_accepted_or_refused():
    outcome = configurations.try_files(random.Random(0), examples=300)
    assert outcome.unexpected == {}
    assert outcome.accepted > 15
    assert outcome.accepted + outcome.refused == 300


def test_a_fault_is_found_and_the_smallest_file_told(monkeypatch):
    def broken(path):
        content = path.read_bytes()
        return {} if len(content) < 60 else {}["absent"]

    monkeypatch.setattr(train, "_content", broken)
    outcome = configurations.try_files(random.Random(0), examples=100)
    assert list(outcome.unexpected) == ["train: KeyError in broken"]
    (smallest,) = outcome.unexpected.values()
    assert 60 <= len(smallest) < 75


def test_equal_configurations_do_not_differ():
    assert diff_configs(preset("ant"), preset("ant")) == []


def test_flatten_gives_every_value_a_dotted_path():
    flat = flatten(preset("hopper"))
    assert flat["env.name"] == "hopper"
    assert flat["rollout.end_epoch"] == 150
    assert flat["seed"] == 0
    assert not {"env", "sac"} & set(flat)

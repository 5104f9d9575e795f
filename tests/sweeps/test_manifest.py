"""Runs that a sweep file asks for, and the groups they are trained in."""

import re
import time
from pathlib import Path

import pytest
import yaml

from mbpo_jax.errors import ConfigError
from mbpo_jax.presets import SWEEPS, environment_preset
from mbpo_jax.sweeps.manifest import (
    expand,
    group_name,
    make_groups,
    read_sweep,
    run_id,
    varied_fields,
)
from mbpo_jax.training.group import structure

BASE = {"environments": ["pendulum"], "algorithms": ["sac"]}


def test_the_product_of_everything_that_has_several_values():
    runs = expand(
        {
            "environments": ["pendulum", "inverted_pendulum"],
            "algorithms": ["mbpo", "sac"],
            "seeds": 3,
            "grid": {"sac.learning_rate": [1e-3, 1e-4], "sac.gamma": 0.9},
        }
    )
    assert len(runs) == 2 * 2 * 3 * 2
    assert {run.sac.gamma for run in runs} == {0.9}
    assert {run.num_seeds for run in runs} == {1}
    assert {run.seed for run in runs} == {0, 1, 2}
    assert len({run_id(run) for run in runs}) == len(runs)


def test_layers_go_from_the_preset_to_the_grid():
    (run,) = expand(
        {
            **BASE,
            "presets": ["debug"],
            "seeds": [7],
            "settings": {"sac": {"gamma": 0.5, "tau": 0.1}},
            "variants": [{"sac.gamma": 0.6, "eval_episodes": 3}],
            "grid": {"sac.gamma": [0.7]},
        }
    )
    assert (run.sac.gamma, run.sac.tau, run.eval_episodes, run.seed) == (0.7, 0.1, 3, 7)
    assert run.sac.batch_size == environment_preset("pendulum", "debug").sac.batch_size


def test_runs_are_trained_to_the_end_unless_the_file_says_otherwise():
    assert environment_preset("inverted_pendulum").stop_at_return is not None
    content = {"environments": ["inverted_pendulum"], "algorithms": ["sac"]}
    assert expand(content)[0].stop_at_return is None
    assert expand({**content, "settings": {"stop_at_return": 900.0}})[0].stop_at_return == 900.0


def test_parts_add_to_what_stands_above_them():
    runs = expand(
        {
            "environments": ["pendulum"],
            "settings": {"sac": {"gamma": 0.5}},
            "parts": [
                {"algorithms": ["sac"], "settings": {"sac.tau": 0.1}},
                {"algorithms": ["mbpo"], "grid": {"rollout.max_length": [1, 5]}},
                {"algorithms": ["mve"], "settings": {"sac": {"tau": 0.2}}},
            ],
        }
    )
    assert [run.algorithm for run in runs] == ["sac", "mbpo", "mbpo", "mve"]
    assert {run.sac.gamma for run in runs} == {0.5}
    assert [run.sac.tau for run in runs] == [0.1, 0.005, 0.005, 0.2]


def test_what_stands_above_the_parts_is_asked_for_too_if_it_is_whole():
    part = {"algorithms": ["mve"], "seeds": 1}
    found = [(run.algorithm, run.seed) for run in expand({**BASE, "seeds": 2, "parts": [part]})]
    assert found == [("sac", 0), ("sac", 1), ("mve", 0)]


def test_an_axis_is_of_those_that_read_it():
    runs = expand(
        {
            "environments": ["pendulum"],
            "algorithms": ["sac", "mbpo", "mve"],
            "settings": {"model": "oracle"},
            "grid": {"rollout.max_length": [1, 4], "expansion": [{"horizon": 2}, {"horizon": 3}]},
            "variants": [{"sac.gamma": 0.9}, {"sac.gamma": 0.8}],
        }
    )
    assert [run.algorithm for run in runs] == ["sac"] * 2 + ["mbpo"] * 4 + ["mve"] * 4
    preset = environment_preset("pendulum")
    assert {run.rollout.max_length for run in runs if run.algorithm != "mbpo"} == {
        preset.rollout.max_length
    }
    assert {run.expansion.horizon for run in runs if run.algorithm == "mve"} == {2, 3}
    assert {run.model for run in runs if run.algorithm != "sac"} == {"oracle"}


def test_an_axis_that_nobody_reads_is_refused():
    with pytest.raises(ConfigError) as error:
        expand({**BASE, "grid": {"rollout.max_length": [1, 4]}, "settings": {"fit.patience": 3}})
    first, second = error.value.args
    assert first.startswith("sweep: fit.patience: none of the algorithms reads it, as it")
    assert second.startswith("sweep: rollout.max_length: none of the algorithms reads it")
    assert second.endswith("mbpo, dyna, mba, dhmbpo")


def test_mistakes_of_every_kind_are_named_at_once():
    content = {
        **BASE,
        "seed": 3,
        "settings": {"sac.gamma": 2.0},
        "grid": {"sac.gama": [0.1]},
        "variants": ["sac"],
        "parts": [
            {"algorithms": ["mbop"]},
            5,
            {"algorithms": ["retrace"], "settings": {"fit.patience": 3}},
        ],
    }
    with pytest.raises(ConfigError) as error:
        expand(content)
    text = str(error.value)
    for part in ("seed:", "sac.gamma", "fit.patience", "sac.gama", "variants", "mbop", "parts[2]"):
        assert part in text


def documented_sweeps() -> list[str]:
    text = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text()
    return re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", documented_sweeps())
def test_documented_sweeps_ask_for_every_algorithm_that_they_name(text, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    content = yaml.safe_load(text)
    named = {*content["algorithms"], *(a for p in content["parts"] for a in p["algorithms"])}
    assert {run.algorithm for run in read_sweep(path)} == named


def test_the_same_run_twice_is_one():
    part = {"algorithms": ["sac"]}
    assert len(expand({"environments": ["pendulum"], "parts": [part, part]})) == 1


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        ({"algorithms": ["sac"]}, ["environments is missing"]),
        ({**BASE, "seed": 3}, ["seed: no such field; did you mean seeds"]),
        ({**BASE, "seeds": 0}, ["seeds: 0 is too small"]),
        ({**BASE, "seeds": "3"}, ["seeds: '3' should be a number or a list"]),
        ({**BASE, "algorithms": "sac"}, ["algorithms: 'sac' should be a list"]),
        ({**BASE, "algorithms": ["sacc"]}, ["algorithm: 'sacc'", "sac"]),
        ({**BASE, "environments": ["pendulun"]}, ["pendulun", "did you mean pendulum"]),
        (
            {**BASE, "grid": {"sac": {"gamma": [0.1]}}},
            ["sac: a grid has dotted names, each with a list; write sac.gamma: [...]"],
        ),
        ({**BASE, "grid": {"sac.gama": [0.1]}}, ["sac.gama: no such field", "gamma"]),
        ({**BASE, "grid": {"sac.gamma": [0.1, 2.0]}}, ["sac.gamma: 2.0 should be less than"]),
        ({**BASE, "seeds": True}, ["seeds: True should be a number or a list"]),
        ({**BASE, "seeds": []}, ["seeds: is empty"]),
        ({**BASE, "variants": ["sac"]}, ["variants: 'sac' cannot stand here"]),
        ({**BASE, "environments": [1]}, ["environments: 1 cannot stand here"]),
        ({**BASE, "seeds": [False]}, ["seeds: False cannot stand here"]),
        ({**BASE, "presets": ["hopper"]}, ["presets: hopper are of an environment"]),
        ({**BASE, "presets": [1]}, ["presets: 1 cannot stand here"]),
        ({**BASE, "grid": {1: [2]}}, ["grid: 1 is no name of a setting"]),
        ({**BASE, "grid": {"total_env_steps": [200, 300]}}, ["differ in their end alone"]),
        ({**BASE, "grid": {"sac.gamma": []}}, ["grid: sac.gamma: has no value"]),
        ({**BASE, "grid": {"seed": [5]}}, ["grid: seed: use seeds instead"]),
        ({**BASE, "settings": {"env.name": "hopper"}}, ["use environments instead"]),
        ({**BASE, "settings": {"env": {"name": "hopper"}}}, ["env.name: use environments instead"]),
        ({**BASE, "variants": [{"num_seeds": 2}]}, ["variants: num_seeds: use seeds instead"]),
        ({**BASE, "settings": {"sac": 3, "sac.gamma": 0.1}}, ["sac: 3 and sac.gamma exclude"]),
        ({**BASE, 1: 2}, ["1 is no name of a field"]),
        ({**BASE, "parts": ["sac"]}, ["parts[1]: 'sac' should be fields"]),
        ({**BASE, "seeds": 100_000_000}, ["seeds: 100000000 is too large; use a value <= 4000"]),
        ({**BASE, "seeds": 2**31}, ["seeds: 2147483648 is too large"]),
        ({**BASE, "seeds": 10**22}, ["seeds: 10000000000000000000000 is too large"]),
        ({**BASE, "seeds": [5, -1]}, ["seeds: -1 is too small; use a value >= 0"]),
        ({**BASE, "seeds": [2**32]}, ["seeds: 4294967296 is too large"]),
        ({**BASE, "presets": ["debug"] * 101}, ["presets: 101 names are too many"]),
        ({**BASE, "parts": [{"seeds": 3000}] * 2}, ["asks for more than 4,000 runs; divide it"]),
        (
            {**BASE, "grid": {f"a{i}": [1, 2] for i in range(5000)}},
            ["asks for more than 4,000 runs; divide it"],
        ),
        ({**BASE, "variants": [{f"a{i}": 1} for i in range(3000)]}, ["and more problems"]),
        ({**BASE, "algorithms": ["mpc"], "settings": {"model": [1]}}, ["model: [1] should be"]),
    ],
)
def test_what_is_wrong_is_named(content, messages):
    began = time.process_time()
    with pytest.raises(ConfigError) as error:
        expand(content)
    assert time.process_time() - began < 2.0
    for message in messages:
        assert message in "\n".join(error.value.args)


def test_a_file_is_read_and_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("environments: [pendulum]\nalgorithms: [sac]\nseeds: 2\n")
    assert len(read_sweep(path)) == 2
    path.write_text("environments: [pendulum]\nalgorithms: [sac]\ngrid: {sac.gama: [0.1]}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        read_sweep(path)
    path.write_text("environments: [pendulum]\nalgorithms: [sac]\nseeds: 0x_\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: line 3, column 8: '0x_' is no number"):
        read_sweep(path)


@pytest.mark.parametrize(
    ("name", "runs", "groups"),
    [
        ("smoke", 3 * 3 * 2, 3),
        ("mbpo_benchmark", 7 * 2 * 8, 14),
        # Two learners, two tasks: mve and svg, six horizons, two models; retrace, six lengths; sac.
        ("value_expansion", 4 * 9 * (2 * 6 * 2 + 6 + 1), 4 * (2 * 6 * 2 + 6 + 1)),
    ],
)
def test_shipped_sweeps(name, runs, groups):
    found = read_sweep(SWEEPS[name])
    assert len(found) == runs
    assert len(make_groups(found)) == groups


def test_an_id_is_that_of_the_settings_alone():
    (run,), (other,) = (expand({**BASE, "seeds": [seed]}) for seed in (0, 1))
    assert run_id(run) == run_id(expand({**BASE, "seeds": 1})[0])
    assert run_id(run) != run_id(other)


def test_runs_of_one_structure_share_a_group():
    runs = expand(
        {
            **BASE,
            "seeds": 2,
            "grid": {"sac.gamma": [0.9, 0.99], "sac.batch_size": [32, 64]},
        }
    )
    groups = make_groups(runs)
    assert [len(group.runs) for group in groups] == [4, 4]
    for group in groups:
        assert len({structure(run) for run in group.runs}) == 1
        assert group.config.num_seeds == 4
    assert len({group_name(group) for group in groups}) == 2


def test_a_number_and_none_are_of_different_structure():
    grid = {"expansion.max_cotangent_norm": [None, 1.0]}
    runs = expand({"environments": ["pendulum"], "algorithms": ["svg"], "grid": grid})
    assert len(make_groups(runs)) == 2


def test_what_varies_is_told_for_each_environment_and_algorithm():
    parts = [
        {"algorithms": ["mbpo"], "grid": {"rollout": [{"max_length": 1}, {"max_length": 2}]}},
        {"algorithms": ["sac"], "grid": {"sac.hidden_sizes": [[8], [8, 8]]}},
    ]
    found = varied_fields(expand({"environments": ["pendulum"], "seeds": 2, "parts": parts}))
    assert found == {
        ("pendulum", "mbpo"): ["rollout.max_length"],
        ("pendulum", "sac"): ["sac.hidden_sizes"],
    }


def test_groups_that_do_not_fit_are_divided_evenly():
    runs = expand({**BASE, "seeds": 10})
    sizes = [len(group.runs) for group in make_groups(runs, lambda group: 4)]
    assert sizes == [4, 4, 2]
    assert [len(group.runs) for group in make_groups(runs, lambda group: 6)] == [5, 5]


def test_settings_that_are_not_read_as_others_are_set_make_no_twins():
    decays = {"estimator.gae_decay": [0.9, 0.5]}
    content = {"environments": ["pendulum"], "algorithms": ["policy_search"]}
    # With rp nobody reads the decay; with lr_gae it is read.
    both = {"policy_search.gradient": ["rp", "lr_gae"], **decays}
    assert len(expand({**content, "grid": both})) == 3
    # SAC reads it where such an estimator is tracked.
    settings = {"policy_search.gradient": "lr_gae"}
    mixed = {**content, "algorithms": ["sac", "policy_search"], "settings": settings}
    assert len(expand({**mixed, "grid": decays})) == 3
    sac = {**content, "algorithms": ["sac"], "grid": decays}
    tracked = {"track_gradients": 1, "tracking.estimators": ["lr_gae"]}
    assert len(expand({**sac, "settings": tracked})) == 2
    with pytest.raises(ConfigError, match=r"estimator\.gae_decay: none of the algorithms reads it"):
        expand(sac)


def test_who_is_told_of_runs_is_of_the_whole_file_and_changes_no_run():
    asked = {"environments": ["pendulum"], "algorithms": ["sac"]}
    told = expand(asked | {"log": ["wandb", "tensorboard"]})
    assert told == expand(asked) == expand(asked | {"log": []})
    with pytest.raises(ConfigError, match=r"sweep: log: 'wanbd' is not known.*did you mean wandb"):
        expand(asked | {"log": ["wanbd"]})
    with pytest.raises(ConfigError, match=r"parts\[1\]: log: no such field"):
        expand(asked | {"parts": [{"seeds": 2, "log": ["wandb"]}]})

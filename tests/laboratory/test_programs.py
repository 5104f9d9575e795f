"""The programs of a study: what they draw and share, and that every stage is announced."""

import jax
import numpy as np
import pytest

from mbpo_jax.config import EstimatorConfig, StudyConfig
from mbpo_jax.laboratory.commands import examine, number_of_stages
from mbpo_jax.laboratory.estimators.catalogue import draw_batches
from mbpo_jax.laboratory.measures import programs as measured
from mbpo_jax.laboratory.problems.catalogue import make_problem
from mbpo_jax.laboratory.problems.problem import draw


@pytest.mark.parametrize("name", ["rp", "mvd"])
def test_noise_is_what_each_estimator_would_draw_for_itself(name, key):
    problem = make_problem("lq_noisy")
    found = measured.make_programs(problem, EstimatorConfig()).draw(key, name, 3, 5, 4)
    again = jax.random.wrap_key_data(jax.random.key_data(key))
    expected = draw_batches(again, name, problem, 3, 5, 4)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_estimators_share_a_program_unless_they_draw_something_of_their_own(monkeypatch, key):
    drawn = []
    monkeypatch.setattr(
        measured,
        "draw_batches",
        lambda key, name, *rest: drawn.append(name) or draw_batches(key, name, *rest),
    )
    programs = measured.make_programs(make_problem("lq"), EstimatorConfig())
    words = jax.random.key_data(key)
    for name in ("rp", "lr", "es", "svg", "rp"):
        programs.draw(jax.random.wrap_key_data(words), name, 2, 4, 4)
    assert drawn == ["rp", "es"]
    noise = programs.draw(jax.random.wrap_key_data(words), "rp", 2, 4, 4)
    assert programs.compiled("rp", noise) is programs.compiled("rp", noise)


def test_trajectories_of_a_key_are_those_that_are_drawn_one_by_one(key):
    problem = make_problem("lq_noisy")
    words = jax.random.key_data(key)
    found = measured.trajectories(jax.random.wrap_key_data(words), problem, 3, 2)
    for i, one in enumerate(jax.random.split(key, 2)):
        np.testing.assert_allclose(found.action[i], draw(one, problem, 3).action, rtol=1e-12)


@pytest.mark.slow
def test_as_many_stages_are_announced_as_were_told_before():
    problem, told = make_problem("chaotic_rnn"), []
    config = StudyConfig(
        estimators=("lr", "ivw_split"),
        horizons=(1, 2),
        batch_sizes=(2, 4),  # too small a batch for the one that halves it
        batches=8,
        reference_batches=8,
        reference_batch_size=4,
        resamples=50,
    )
    examine(problem, config, announce=told.append)
    assert len(told) == number_of_stages(problem, config) == 2 + 2 * 3 + 5
    assert told[:3] == [
        "horizon 1: reference",
        "horizon 1, batches of 2: lr",
        "horizon 1, batches of 4: lr",
    ]

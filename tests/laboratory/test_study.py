"""Rows of a study: what is in them, what is refused, and what is left out."""

import jax
import numpy as np
import pytest

from mbpo_jax.config import EstimatorConfig, StudyConfig
from mbpo_jax.errors import ConfigError
from mbpo_jax.laboratory.measures.inspection import (
    slice_rows,
    source_rows,
    stability_rows,
    step_rows,
    weight_rows,
)
from mbpo_jax.laboratory.measures.programs import make_programs
from mbpo_jax.laboratory.measures.study import equal_budget, make_reference, study, suitable
from mbpo_jax.laboratory.problems.catalogue import make_problem

SMALL = {"batches": 64, "reference_batches": 32, "reference_batch_size": 32, "resamples": 200}


def config(**changes) -> StudyConfig:
    return StudyConfig(**{**SMALL, "horizons": (3,), "batch_sizes": (8,), **changes})


def test_rows_hold_what_was_measured_and_its_cost():
    rows = study(make_problem("lq"), config(estimators=("rp", "lr"), horizons=(1, 3)))
    assert [(r["estimator"], r["horizon"]) for r in rows] == [
        ("rp", 1),
        ("lr", 1),
        ("rp", 3),
        ("lr", 3),
    ]
    for row in rows:
        assert row["reference"] == "exact"
        assert row["model_evaluations"] == 8 * row["horizon"]
        assert row["vjps"] == (8 * row["horizon"] if row["estimator"] == "rp" else 0)
        assert row["seconds"] > 0.0
        if row["variance"] is not None:
            low, high = row["variance_interval"]
            assert low < row["variance"] < high
            assert row["variance_times_vjps"] == row["variance"] * row["vjps"]
    # The table of exact variances, within what 64 estimates can tell.
    rp = rows[2]
    assert 0.5 < rp["variance"] * 8 / 2.87328 < 2.0
    assert rp["log10_variance_ratio"] == 0.0


def test_a_study_is_the_same_the_second_time():
    def numbers():
        rows = study(make_problem("quadratic"), config(estimators=("lr",), horizons=(1,)))
        return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]

    assert numbers() == numbers()


def test_all_leaves_out_what_the_problem_does_not_allow():
    problem = make_problem("chaotic_rnn")
    names = suitable(config(estimators=("all",)), problem)
    assert {"rp", "lr", "tp", "es", "fd"} <= set(names)
    assert not {"svg", "q", "lr_value", "lr_state"} & set(names)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"estimators": ("svg",)}, "svg needs a critic, which the problem 'chaotic_rnn' has not"),
        ({"estimators": ("lr_state",)}, "lr_state needs a system with noise"),
        ({"estimators": ("ivw_split",), "batch_sizes": (2,)}, "a batch size of 4 or more, not 2"),
        ({"estimators": ("mvd",), "horizons": (100,)}, "at most 64 steps times action components"),
    ],
)
def test_what_an_estimator_lacks_is_said(changes, message):
    with pytest.raises(ConfigError, match="estimators: ") as error:
        study(make_problem("chaotic_rnn"), config(**changes))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"estimators": ("lrr",)}, "did you mean"),
        ({"horizons": (0,)}, "horizons[0]: 0 is too small"),
        ({"batch_sizes": (0,)}, "batch_sizes[0]: 0 is too small"),
        ({"batches": 1}, "batches: 1 is too small"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ConfigError) as error:
        config(**changes)
    assert message in str(error.value)


def test_unknown_problems_and_settings_are_answered_with_the_nearest():
    with pytest.raises(
        ConfigError, match=r"'chaotic_rn' is not known .*; did you mean chaotic_rnn"
    ):
        make_problem("chaotic_rn")
    with pytest.raises(ConfigError, match="lq has no setting 'beta'; use one of: critic_error"):
        make_problem("lq", beta=1.0)
    with pytest.raises(ConfigError, match="pendulum has no settings"):
        make_problem("pendulum", beta=1.0)


@pytest.mark.parametrize("name", ["heaviside", "pushing"])
def test_problems_of_all_kinds_can_be_studied(name):
    rows = study(
        make_problem(name),
        config(estimators=("rp", "lr"), horizons=(1,), batch_sizes=(4,), batches=32),
    )
    assert all(not row["overflowed"] for row in rows)


def test_a_gradient_beyond_float32_is_reported_as_overflow_with_the_growth_in_logarithms():
    with jax.enable_x64(False):
        problem = make_problem("chaotic_rnn", beta=5.0)
        (row,) = study(
            problem, config(estimators=("rp",), horizons=(200,), batch_sizes=(2,), batches=8)
        )
        growth = stability_rows(problem, 200, config())[-1]
    assert row["overflowed"]
    assert row["variance"] is None
    assert growth["log10_second_moment"] > 76.0


def test_the_reference_is_the_estimator_that_can_be_trusted():
    """Pathwise on a smooth system, the likelihood ratio where paths explode."""
    assert make_reference(make_problem("chaotic_rnn", beta=1.0), 5, config()).kind == "rp"
    assert make_reference(make_problem("chaotic_rnn", beta=5.0), 40, config()).kind == "lr"


def test_the_parts_of_a_gradient_sum_to_it():
    problem = make_problem("lq")
    rows = step_rows(["rp"], make_programs(problem, EstimatorConfig()), 3, 8, config())
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert rows[0]["squared_mean"] > 0.0


def test_without_a_random_start_all_variance_is_the_actions():
    programs = make_programs(make_problem("lq"), EstimatorConfig())
    rows = source_rows(["rp"], programs, 3, 8, config())
    shares = {row["source"]: row["variance"] / row["total"] for row in rows}
    assert shares == {"action": pytest.approx(1.0), "interaction": pytest.approx(0.0, abs=1e-9)}


def test_cheap_estimators_are_averaged_over_more_batches_at_equal_cost():
    rows = equal_budget(
        [
            {"flops": 100, "variance": 4.0, "squared_bias": 0.0},
            {"flops": 400, "variance": 1.0, "squared_bias": 0.5},
            {"flops": 400, "variance": None, "squared_bias": None},
        ]
    )
    np.testing.assert_allclose([r["error_at_equal_flops"] for r in rows[:2]], [1.0, 1.5])
    assert rows[2]["error_at_equal_flops"] is None


def test_the_weights_of_steps_lie_between_either_gradient():
    programs = make_programs(make_problem("lq"), EstimatorConfig())
    rows = weight_rows(["rp", "tp", "ivw_h"], programs, 3, 8, config())
    assert [row["estimator"] for row in rows] == ["tp"] * 3 + ["ivw_h"] * 3
    assert all(0.0 < row["weight_5"] <= row["weight"] <= row["weight_95"] < 1.0 for row in rows)
    # At the last step the path has no noise but that of one action.
    assert rows[2]["weight"] < 0.5


def test_the_return_rises_along_its_gradient_with_the_slope_of_its_norm():
    problem = make_problem("lq")
    assert problem.exact is not None
    gradient = np.asarray(problem.exact(problem.params, 3))
    rows = slice_rows(problem, None, gradient, 3, config())
    x, y = (np.array([row[name] for row in rows]) for name in ("distance", "return"))
    slope = np.polyfit(x, y, 2)[1]
    norm = float(np.linalg.norm(gradient))
    assert abs(slope - norm) < 4.0 * np.sqrt(2.87328 / 256)

"""Aggregates by hand, coverage of the intervals, and agreement with rliable."""

import json
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from mbpo_jax.reports import statistics
from mbpo_jax.reports.statistics import estimate

TWO_TASKS = [np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 0.5, 0.5, 1.0])]


def test_aggregates_by_hand():
    assert statistics.interquartile_mean(TWO_TASKS) == pytest.approx((0.5 + 1.0 + 1.0 + 2.0) / 4)
    assert statistics.mean(TWO_TASKS) == pytest.approx((2.5 + 0.5) / 2)
    assert statistics.median([*TWO_TASKS, np.array([9.0])]) == pytest.approx(2.5)
    # Above the target a run misses nothing: 0 and (1 + 0.5 + 0.5 + 0) / 4.
    assert statistics.optimality_gap(TWO_TASKS) == pytest.approx(0.25)
    np.testing.assert_allclose(
        statistics.performance_profile(TWO_TASKS, np.array([0.0, 0.5, 2.0])),
        [(1 + 0.75) / 2, (1 + 0.25) / 2, 0.5 / 2],
    )


def test_tasks_with_different_numbers_of_runs_weigh_the_same_in_the_mean():
    assert statistics.mean([np.array([1.0]), np.zeros(9)]) == 0.5


def test_probability_of_improvement_is_the_mann_whitney_statistic():
    rng = np.random.default_rng(0)
    x, y = rng.integers(5, size=(2, 8)).astype(float)  # with ties
    expected = stats.mannwhitneyu(x, y).statistic / 64
    assert statistics.probability_of_improvement([x], [y]) == pytest.approx(expected)
    assert statistics.probability_of_improvement([x], [x]) == 0.5


def test_area_under_a_curve_is_its_mean_height():
    steps = np.array([0.0, 1.0, 3.0])
    # Trapezoids of 1 and of 2 (2 + 3) / 2 over a range of 3.
    np.testing.assert_allclose(
        statistics.area_under_curve(steps, np.array([[0.0, 2.0, 3.0], [7.0, 7.0, 7.0]])), [2.0, 7.0]
    )
    assert statistics.area_under_curve(np.array([5.0]), np.array([4.0])) == 4.0


def test_intervals_cover_the_truth_as_often_as_they_say():
    """The percentile interval of a mean of 30 normal runs in either of two tasks."""
    rng = np.random.default_rng(0)

    def covers(seed: int) -> bool:
        found = estimate(statistics.mean, list(rng.normal(1.0, 1.0, (2, 30))), seed=seed)
        return found.low < 1.0 < found.high

    assert 0.89 < np.mean([covers(seed) for seed in range(400)]) < 0.98


def test_runs_are_redrawn_within_their_task():
    """Tasks whose runs agree have no spread, however far apart the tasks are."""
    found = estimate(statistics.mean, [np.full(5, 1.0), np.full(5, 100.0)])
    assert (found.low, found.value, found.high) == (50.5, 50.5, 50.5)


def test_time_is_kept_and_a_seed_gives_the_same_interval():
    curves = [np.random.default_rng(0).normal(size=(7, 5))]
    found = estimate(statistics.interquartile_mean, curves, seed=3)
    assert found.value.shape == found.low.shape == found.high.shape == (7,)
    np.testing.assert_array_equal(
        found.low, estimate(statistics.interquartile_mean, curves, seed=3).low
    )
    assert np.any(found.low != estimate(statistics.interquartile_mean, curves, seed=4).low)


def test_two_runs_have_no_interval():
    found = estimate(statistics.mean, [np.array([1.0, 2.0]), np.arange(5.0)])
    assert found.value == 1.75
    assert np.isnan([found.low, found.high]).all()


RLIABLE = """
import json, sys
import numpy as np
from rliable import library, metrics

data = {name: np.array(x) for name, x in json.load(sys.stdin).items()}
aggregates = lambda x: np.array([
    metrics.aggregate_iqm(x), metrics.aggregate_mean(x), metrics.aggregate_median(x),
    metrics.aggregate_optimality_gap(x),
])
points, ends = library.get_interval_estimates(data, aggregates, reps=5000)
pairs = {"a,b": (data["a"], data["b"])}
improved, improved_ends = library.get_interval_estimates(
    pairs, metrics.probability_of_improvement, reps=1000
)
taus = np.linspace(0.0, 2.0, 9)
profile, profile_ends = library.create_performance_profile(data, taus, reps=2000)
print(json.dumps({
    "points": points["a"].tolist(), "ends": ends["a"].tolist(),
    "improved": float(improved["a,b"]), "improved_ends": improved_ends["a,b"].tolist(),
    "profile": profile["a"].tolist(), "profile_ends": profile_ends["a"].tolist(),
}))
"""


@pytest.mark.slow
@pytest.mark.exhaustive  # installs a package from the network
@pytest.mark.timeout(900)
def test_rliable_finds_the_same(tmp_path):
    """Point estimates are equal, and ends of intervals up to their Monte-Carlo error."""
    made = subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=False)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "rliable", "pandas<3", "setuptools<81"]
    if made.returncode or subprocess.run(install, check=False).returncode:
        pytest.skip("rliable cannot be installed here")
    rng = np.random.default_rng(0)
    a, b = rng.gamma(4.0, 0.25, (10, 4)), rng.gamma(4.0, 0.22, (10, 4))  # runs x tasks
    script = tmp_path / "compare.py"
    script.write_text(RLIABLE)
    told = subprocess.run(
        [python, script],
        input=json.dumps({"a": a.tolist(), "b": b.tolist()}),
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = json.loads(told.stdout.splitlines()[-1])

    def together(scores) -> np.ndarray:
        return np.stack(
            [
                statistics.interquartile_mean(scores),
                statistics.mean(scores),
                statistics.median(scores),
                statistics.optimality_gap(scores),
            ],
            axis=-1,
        )

    tasks, others = list(a.T), list(b.T)
    taus = np.linspace(0.0, 2.0, 9)
    ours = {
        "points": estimate(together, tasks, resamples=5000),
        "improved": estimate(statistics.probability_of_improvement, tasks, others),
        "profile": estimate(lambda x: statistics.performance_profile(x, taus), tasks),
    }
    for name, found in ours.items():
        np.testing.assert_allclose(found.value, theirs[name], rtol=1e-12, err_msg=name)
        ends = theirs["ends" if name == "points" else f"{name}_ends"]
        width = np.asarray(ends)[1] - np.asarray(ends)[0]
        for end, expected in zip((found.low, found.high), ends, strict=True):
            # 2.5 % quantiles of 1,000 resamples and more have errors of some hundredths; a share
            # of 40 runs moves in steps.
            allowed = 0.08 * width + (1 / 40 if name == "profile" else 0.0) + 1e-12
            assert np.all(np.abs(end - np.squeeze(expected)) <= allowed), name

"""The data that figures show; pixels are looked at by people."""

import io

import numpy as np
import pytest
from matplotlib.axes import Axes

from mbpo_jax.reports import plots
from tests.reports.rows import STEPS, evals, line_of, points


def _metrics(**values: list[float | None]) -> list[dict]:
    names = {"length": "rollout/length_mean", "kept": "rollout/kept"}
    return [
        {"env_steps": step, "run": 0, "seed": 10}
        | {
            names.get(name, f"model/k_step_error_{name[1:]}"): line[i]
            for name, line in values.items()
        }
        for i, step in enumerate(STEPS)
    ]


def _band(panel: Axes) -> tuple[np.ndarray, np.ndarray]:
    """Return lower and upper edge of the panel's only band, by ascending step."""
    (band,) = panel.collections
    corners = np.asarray(band.get_paths()[0].vertices)
    edges = [corners[corners[:, 0] == step, 1] for step in np.unique(corners[:, 0])]
    return np.array([edge.min() for edge in edges]), np.array([edge.max() for edge in edges])


def _legend(panel: Axes) -> list[str]:
    legend = panel.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


class TestCollect:
    def test_arranges_rows_by_run_and_step_whatever_their_order(self):
        rows = evals([[1, 2, 3], [4, 5, 6]])
        curves = plots.collect(rows[::-1], "return_mean")
        np.testing.assert_array_equal(curves.env_steps, STEPS)
        np.testing.assert_array_equal(curves.values, [[1, 2, 3], [4, 5, 6]])

    def test_runs_of_several_directories_are_told_apart_by_seed(self):
        rows = [row | {"run": 0} for row in evals([[1, 2, 3], [4, 5, 6]])]
        assert plots.collect(rows, "return_mean").values.shape == (2, 3)

    def test_null_and_absent_values_are_nan(self):
        rows = evals([[1, None, 3], [4, 5, 6]])[:-1]
        values = plots.collect(rows, "return_mean").values
        np.testing.assert_array_equal(values, [[1, np.nan, 3], [4, 5, np.nan]])

    def test_diverged_run_keeps_its_last_value_and_others_do_not(self):
        rows = evals([[1, None, 3], [4, None, None]])
        rows[4]["diverged"] = True
        curves = plots.collect(rows, "return_mean")
        np.testing.assert_array_equal(curves.values, [[1, np.nan, 3], [4, 4, 4]])
        np.testing.assert_array_equal(curves.diverged, [[False] * 3, [False, True, True]])

    def test_summary_is_over_the_same_runs_everywhere(self):
        steps, mean, low, high = plots.collect(
            evals([[1, None, 3], [5, 5, 9]]), "return_mean"
        ).summary()
        np.testing.assert_array_equal(steps, [250, 750])
        np.testing.assert_allclose(mean, [3, 6])
        np.testing.assert_array_equal(low, [1, 3])
        np.testing.assert_array_equal(high, [5, 9])


class TestLearningCurve:
    def test_several_runs_show_each_run_their_mean_and_range(self):
        returns = [[0.0, 10.0, 20.0], [2.0, 14.0, 26.0]]
        (panel,) = plots.learning_curve_figure(evals(returns), [], "title").axes
        mean = line_of(panel, "mean and range of 2 runs")
        np.testing.assert_allclose(points(mean), [[250, 1], [500, 12], [750, 23]])
        thin = [points(line)[:, 1] for line in panel.lines if line is not mean]
        np.testing.assert_allclose(thin, returns)
        lower, upper = _band(panel)
        np.testing.assert_allclose([lower, upper], returns)

    def test_one_run_shows_the_spread_over_episodes_and_says_so(self):
        (panel,) = plots.learning_curve_figure(evals([[1, None, 3]]), [], "title").axes
        line = line_of(panel, "one run: mean ± std. dev. over its episodes")
        np.testing.assert_allclose(points(line), [[250, 1], [750, 3]])
        lower, upper = _band(panel)
        np.testing.assert_allclose(lower, [-4, -2])
        np.testing.assert_allclose(upper, [6, 8])
        assert _legend(panel) == [line.get_label()]

    def test_diverged_runs_are_marked_where_it_was_found(self):
        rows = evals([[1, 2, 3], [4, None, None]])
        rows[4]["diverged"] = rows[5]["diverged"] = True
        (panel,) = plots.learning_curve_figure(rows, [], "title").axes
        mark = line_of(panel, "diverged (1 of 2 runs)")
        np.testing.assert_allclose(points(mark), [[500, 4]])

    def test_what_truncation_kept_of_rollouts_has_a_panel_of_its_own(self):
        metrics = _metrics(_1=[0.5, 0.4, 0.3], length=[2.0, 3.0, 4.0], kept=[0.9, None, 0.7])
        figure = plots.learning_curve_figure(evals([[1, 2, 3]]), metrics, "title")
        (panel,) = (axes for axes in figure.axes if axes.get_ylabel().startswith("Kept"))
        (line,) = panel.lines
        np.testing.assert_allclose(points(line), [[250, 0.9], [750, 0.7]])
        assert panel.get_xlabel() == "Environment steps"
        assert panel.get_ylim() == (0.0, 1.0)

    def test_solved_line_lies_at_the_return_that_counts(self):
        (panel,) = plots.learning_curve_figure(evals([[1, 2, 3]]), [], "title", 950.0).axes
        assert set(points(line_of(panel, "solved (950)"))[:, 1]) == {950.0}

    def test_model_panel_shows_first_and_longest_error_and_rollout_length(self):
        metrics = _metrics(
            k1=[0.3, 0.2, 0.1],
            k2=[0.4, 0.3, 0.2],
            k10=[None, 0.9, 0.8],
            k20=[None, None, None],
            length=[1.0, 1.5, 2.0],
        )
        figure = plots.learning_curve_figure(evals([[1, 2, 3]]), metrics, "title")
        upper, left, right = figure.axes
        assert left.get_yscale() == "log"
        assert left.get_shared_x_axes().joined(upper, left)
        np.testing.assert_allclose(points(line_of(left, "1-step error"))[:, 1], [0.3, 0.2, 0.1])
        np.testing.assert_allclose(points(line_of(left, "10-step error")), [[500, 0.9], [750, 0.8]])
        assert len(left.lines) == 2
        np.testing.assert_allclose(points(line_of(right, "realised rollout"))[:, 1], [1, 1.5, 2])
        assert _legend(left) == ["1-step error", "10-step error", "realised rollout length"]

    def test_every_axis_is_named(self):
        metrics = _metrics(k1=[0.3, 0.2, 0.1], length=[1.0, 1.0, 1.0])
        upper, left, right = plots.learning_curve_figure(evals([[1, 2, 3]]), metrics, "title").axes
        assert left.get_xlabel() == "Environment steps"
        assert all(panel.get_ylabel() for panel in (upper, left, right))

    @pytest.mark.parametrize(
        ("metrics", "num_axes"),
        [
            (_metrics(), 1),
            (_metrics(k1=[None] * 3, length=[None] * 3), 1),
            (_metrics(k1=[0.3, 0.2, 0.1]), 2),
            (_metrics(length=[1.0, 2.0, 3.0]), 3),
            (_metrics(k1=[0.3, None, None], length=[None, 1.0, None]), 3),
        ],
    )
    def test_missing_metrics_are_left_out(self, metrics, num_axes):
        figure = plots.learning_curve_figure(evals([[1, 2, 3]]), metrics, "title")
        assert len(figure.axes) == num_axes

    @pytest.mark.parametrize(
        "evals",
        [
            [],
            evals([[1, 2, 3]])[:1],
            evals([[None, None, None]]),
            evals([[None] * 3, [1, 2, 3]]),
        ],
    )
    def test_thin_data_can_be_drawn_without_a_warning(self, evals, recwarn):
        figure = plots.learning_curve_figure(evals, [], "title", 950.0)
        figure.savefig(io.BytesIO(), format="png")
        assert not recwarn.list

    def test_a_single_evaluation_is_visible(self):
        (panel,) = plots.learning_curve_figure(evals([[1, 2, 3]])[:1], [], "title").axes
        assert line_of(panel, "one run").get_marker() == "o"

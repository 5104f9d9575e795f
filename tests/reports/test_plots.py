"""The data that figures show; pixels are looked at by people."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from mbpo_jax.reports import plots

STEPS = (250, 500, 750)


def _evals(returns: Sequence[Sequence[float | None]], **extra: object) -> list[dict]:
    return [
        {
            "env_steps": step,
            "run": run,
            "seed": 10 + run,
            "return_mean": value,
            "return_std": 5.0,
            **extra,
        }
        for run, line in enumerate(returns)
        for step, value in zip(STEPS, line, strict=True)
    ]


def _metrics(**values: list[float | None]) -> list[dict]:
    names = {"length": "rollout/length_mean"}
    return [
        {"env_steps": step, "run": 0, "seed": 10}
        | {
            names.get(name, f"model/k_step_error_{name[1:]}"): line[i]
            for name, line in values.items()
        }
        for i, step in enumerate(STEPS)
    ]


def _line(panel: Axes, label: str) -> Line2D:
    (line,) = [line for line in panel.lines if str(line.get_label()).startswith(label)]
    return line


def _points(line: Line2D) -> np.ndarray:
    """Return the `[N, 2]` points of a line: environment steps and values."""
    return np.stack([np.asarray(line.get_xdata()), np.asarray(line.get_ydata())], axis=-1)


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
        rows = _evals([[1, 2, 3], [4, 5, 6]])
        curves = plots.collect(rows[::-1], "return_mean")
        np.testing.assert_array_equal(curves.env_steps, STEPS)
        np.testing.assert_array_equal(curves.values, [[1, 2, 3], [4, 5, 6]])

    def test_runs_of_several_directories_are_told_apart_by_seed(self):
        rows = [row | {"run": 0} for row in _evals([[1, 2, 3], [4, 5, 6]])]
        assert plots.collect(rows, "return_mean").values.shape == (2, 3)

    def test_null_and_absent_values_are_nan(self):
        rows = _evals([[1, None, 3], [4, 5, 6]])[:-1]
        values = plots.collect(rows, "return_mean").values
        np.testing.assert_array_equal(values, [[1, np.nan, 3], [4, 5, np.nan]])

    def test_diverged_run_keeps_its_last_value_and_others_do_not(self):
        rows = _evals([[1, None, 3], [4, None, None]])
        rows[4]["diverged"] = True
        curves = plots.collect(rows, "return_mean")
        np.testing.assert_array_equal(curves.values, [[1, np.nan, 3], [4, 4, 4]])
        np.testing.assert_array_equal(curves.diverged, [[False] * 3, [False, True, True]])

    def test_summary_is_over_the_same_runs_everywhere(self):
        steps, mean, low, high = plots.collect(
            _evals([[1, None, 3], [5, 5, 9]]), "return_mean"
        ).summary()
        np.testing.assert_array_equal(steps, [250, 750])
        np.testing.assert_allclose(mean, [3, 6])
        np.testing.assert_array_equal(low, [1, 3])
        np.testing.assert_array_equal(high, [5, 9])


class TestLearningCurve:
    def test_several_runs_show_each_run_their_mean_and_range(self):
        returns = [[0.0, 10.0, 20.0], [2.0, 14.0, 26.0]]
        (panel,) = plots.learning_curve_figure(_evals(returns), [], "title").axes
        mean = _line(panel, "mean and range of 2 runs")
        np.testing.assert_allclose(_points(mean), [[250, 1], [500, 12], [750, 23]])
        thin = [_points(line)[:, 1] for line in panel.lines if line is not mean]
        np.testing.assert_allclose(thin, returns)
        lower, upper = _band(panel)
        np.testing.assert_allclose([lower, upper], returns)

    def test_one_run_shows_the_spread_over_episodes_and_says_so(self):
        (panel,) = plots.learning_curve_figure(_evals([[1, None, 3]]), [], "title").axes
        line = _line(panel, "one run: mean ± std. dev. over its episodes")
        np.testing.assert_allclose(_points(line), [[250, 1], [750, 3]])
        lower, upper = _band(panel)
        np.testing.assert_allclose(lower, [-4, -2])
        np.testing.assert_allclose(upper, [6, 8])
        assert _legend(panel) == [line.get_label()]

    def test_diverged_runs_are_marked_where_it_was_found(self):
        rows = _evals([[1, 2, 3], [4, None, None]])
        rows[4]["diverged"] = rows[5]["diverged"] = True
        (panel,) = plots.learning_curve_figure(rows, [], "title").axes
        mark = _line(panel, "diverged (1 of 2 runs)")
        np.testing.assert_allclose(_points(mark), [[500, 4]])

    def test_solved_line_lies_at_the_return_that_counts(self):
        (panel,) = plots.learning_curve_figure(_evals([[1, 2, 3]]), [], "title", 950.0).axes
        assert set(_points(_line(panel, "solved (950)"))[:, 1]) == {950.0}

    def test_model_panel_shows_first_and_longest_error_and_rollout_length(self):
        metrics = _metrics(
            k1=[0.3, 0.2, 0.1],
            k2=[0.4, 0.3, 0.2],
            k10=[None, 0.9, 0.8],
            k20=[None, None, None],
            length=[1.0, 1.5, 2.0],
        )
        figure = plots.learning_curve_figure(_evals([[1, 2, 3]]), metrics, "title")
        upper, left, right = figure.axes
        assert left.get_yscale() == "log"
        assert left.get_shared_x_axes().joined(upper, left)
        np.testing.assert_allclose(_points(_line(left, "1-step error"))[:, 1], [0.3, 0.2, 0.1])
        np.testing.assert_allclose(_points(_line(left, "10-step error")), [[500, 0.9], [750, 0.8]])
        assert len(left.lines) == 2
        np.testing.assert_allclose(_points(_line(right, "realised rollout"))[:, 1], [1, 1.5, 2])
        assert _legend(left) == ["1-step error", "10-step error", "realised rollout length"]

    def test_every_axis_is_named(self):
        metrics = _metrics(k1=[0.3, 0.2, 0.1], length=[1.0, 1.0, 1.0])
        upper, left, right = plots.learning_curve_figure(_evals([[1, 2, 3]]), metrics, "title").axes
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
        figure = plots.learning_curve_figure(_evals([[1, 2, 3]]), metrics, "title")
        assert len(figure.axes) == num_axes

    @pytest.mark.parametrize(
        "evals",
        [
            [],
            _evals([[1, 2, 3]])[:1],
            _evals([[None, None, None]]),
            _evals([[None] * 3, [1, 2, 3]]),
        ],
    )
    def test_thin_data_can_be_drawn_without_a_warning(self, evals, recwarn):
        figure = plots.learning_curve_figure(evals, [], "title", 950.0)
        figure.savefig(io.BytesIO(), format="png")
        assert not recwarn.list

    def test_a_single_evaluation_is_visible(self):
        (panel,) = plots.learning_curve_figure(_evals([[1, 2, 3]])[:1], [], "title").axes
        assert _line(panel, "one run").get_marker() == "o"


class TestComparison:
    def test_labels_keep_their_style_over_panels_and_stand_beside_the_last(self):
        mbpo, sac = _evals([[1, 2, 3], [3, 4, 5]]), _evals([[0, 0, 1], [0, 0, 3]])
        panels = {"hopper": {"MBPO": mbpo, "SAC": sac}, "ant": {"SAC": mbpo, "MBPO": sac}}
        hopper, ant = plots.comparison_figure(panels).axes
        assert [panel.get_title(loc="left") for panel in (hopper, ant)] == ["hopper", "ant"]
        np.testing.assert_allclose(_points(_line(hopper, "MBPO"))[:, 1], [2, 3, 4])
        np.testing.assert_allclose(_points(_line(ant, "SAC"))[:, 1], [2, 3, 4])
        for label in ("MBPO", "SAC"):
            first, second = _line(hopper, label), _line(ant, label)
            assert first.get_color() == second.get_color()
            assert first.get_linestyle() == second.get_linestyle()
        assert _line(ant, "SAC").get_color() != _line(ant, "MBPO").get_color()
        heights = {text.get_text(): text.get_position()[1] for text in ant.texts}
        assert heights["SAC"] > heights["MBPO"], "in the order in which the lines end"
        assert not hopper.texts

    def test_labels_of_lines_that_end_together_do_not_overlap(self):
        rows = _evals([[1, 2, 3]])
        (panel,) = plots.comparison_figure({"hopper": dict.fromkeys("ABCD", rows)}).axes
        heights = np.sort([text.get_position()[1] for text in panel.texts])
        assert np.diff(heights).min() >= 0.09 - 1e-9
        assert 0 <= heights.min() <= heights.max() <= 1

    def test_curve_without_rows_does_not_disturb_the_others(self, recwarn):
        panels = {"hopper": {"MBPO": _evals([[1, 2, 3]]), "SAC": [], "SVG": _evals([[None] * 3])}}
        figure = plots.comparison_figure(panels, "title")
        figure.savefig(io.BytesIO(), format="png")
        np.testing.assert_allclose(_points(_line(figure.axes[0], "MBPO"))[:, 1], [1, 2, 3])
        assert not recwarn.list


class TestSaving:
    def test_files_are_png_and_nothing_else_is_left(self, tmp_path):
        evals = _evals([[1, 2, 3]])
        plots.learning_curve(tmp_path / "curve.png", evals, [], "title")
        plots.comparison_curves(tmp_path / "comparison.png", {"hopper": {"MBPO": evals}})
        assert {path.name for path in tmp_path.iterdir()} == {"curve.png", "comparison.png"}
        for path in tmp_path.iterdir():
            with Image.open(path) as image:
                assert image.format == "PNG"

    def test_failing_figure_leaves_the_old_one(self, tmp_path, monkeypatch):
        path = tmp_path / "curve.png"
        path.write_bytes(b"old")

        def fail(figure: Figure, file: io.BytesIO, **_: object) -> None:
            file.write(b"half")
            raise OSError("disk full")

        monkeypatch.setattr(Figure, "savefig", fail)
        with pytest.raises(OSError, match="disk full"):
            plots.save_png(path, Figure())
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

"""The data that the figure of the model's error shows."""

import io
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from mbpo_jax.reports.model_error import error_growth, model_error_figure
from mbpo_jax.reports.plots import error_curves

Error = Callable[[int, int, int], float | None]
STEPS = (250, 500, 750)


def _rows(error: Error, longest: int, steps: Sequence[int] = STEPS, num_runs: int = 1):
    """Return metrics of errors `error(step, run, k)`."""
    return [
        {"env_steps": step, "run": run, "seed": 10 + run}
        | {f"model/k_step_error_{k}": error(step, run, k) for k in range(1, longest + 1)}
        for step in steps
        for run in range(num_runs)
    ]


def _growth(error: Error, longest: int, steps: Sequence[int] = STEPS, num_runs: int = 1):
    return error_growth(error_curves(_rows(error, longest, steps, num_runs)))


def _line(panel: Axes, label: str) -> Line2D:
    (line,) = [line for line in panel.lines if str(line.get_label()).startswith(label)]
    return line


def _points(line: Line2D) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def _linear(step: int, run: int, k: int) -> float:
    return (1 + run) * k * 100 / step


class TestErrorGrowth:
    def test_median_and_range_are_over_runs(self):
        table = {0: [0.1, 0.2, 0.4], 1: [0.3, 0.9, 2.7], 2: [0.2, 0.5, 0.6]}
        (growth,) = _growth(lambda step, run, k: table[run][k - 1], 3, [250], num_runs=3)
        assert growth.env_steps == 250
        np.testing.assert_array_equal(growth.lengths, [1, 2, 3])
        np.testing.assert_allclose(growth.median, [0.2, 0.5, 0.6])
        np.testing.assert_allclose(growth.low, [0.1, 0.2, 0.4])
        np.testing.assert_allclose(growth.high, [0.3, 0.9, 2.7])

    @pytest.mark.parametrize(
        ("steps", "chosen"),
        [
            ([50], [50]),
            ([50, 100], [50, 100]),
            ([50, 100, 150], [50, 100, 150]),
            (range(50, 501, 50), [50, 300, 500]),
        ],
    )
    def test_first_middle_and_last_moment_are_chosen(self, steps, chosen):
        assert [growth.env_steps for growth in _growth(_linear, 2, steps)] == chosen

    def test_moments_without_errors_do_not_count(self):
        growths = _growth(
            lambda step, run, k: None if step in (50, 250) else 1.0, 2, range(50, 300, 50)
        )
        assert [growth.env_steps for growth in growths] == [100, 150, 200]

    def test_lengths_are_sorted_as_numbers(self):
        (growth,) = _growth(_linear, 12, [100])
        np.testing.assert_array_equal(growth.lengths, np.arange(1, 13))
        np.testing.assert_allclose(growth.median, np.arange(1, 13))

    def test_a_length_that_one_run_lacks_is_left_out(self):
        def error(step: int, run: int, k: int) -> float | None:
            return None if run == 1 and k == 3 else _linear(step, run, k)

        (growth,) = _growth(error, 4, [100], num_runs=2)
        np.testing.assert_array_equal(growth.lengths, [1, 2, 4])
        np.testing.assert_allclose(growth.median, [1.5, 3.0, 6.0])

    def test_a_run_without_any_error_does_not_count(self):
        def error(step: int, run: int, k: int) -> float | None:
            return None if run == 1 else _linear(step, run, k)

        (growth,) = _growth(error, 2, [100], num_runs=3)
        np.testing.assert_allclose(growth.low, [1.0, 2.0])
        np.testing.assert_allclose(growth.median, [2.0, 4.0])
        np.testing.assert_allclose(growth.high, [3.0, 6.0])


class TestFigure:
    def test_each_moment_has_a_curve_and_a_band(self):
        figure = model_error_figure(_rows(_linear, 3, num_runs=3), "title")
        (panel,) = figure.axes
        for step, band in zip(STEPS, panel.collections, strict=True):
            lengths, median = _points(_line(panel, f"after {step} steps"))
            np.testing.assert_array_equal(lengths, [1, 2, 3])
            np.testing.assert_allclose(median, [_linear(step, 1, k) for k in (1, 2, 3)])
            corners = np.asarray(band.get_paths()[0].vertices)
            edges = [(corners[corners[:, 0] == k, 1]) for k in (1, 2, 3)]
            np.testing.assert_allclose(
                [(edge.min(), edge.max()) for edge in edges],
                [(_linear(step, 0, k), _linear(step, 2, k)) for k in (1, 2, 3)],
            )
        heading = panel.get_legend().get_title().get_text()
        assert heading == "median and range of 3 runs"

    def test_an_error_that_grows_with_the_square_lies_on_the_guide(self):
        (panel,) = model_error_figure(_rows(lambda step, run, k: 0.2 * k**2, 6), "title").axes
        guide = _points(_line(panel, "guide"))
        np.testing.assert_allclose(guide, _points(_line(panel, "after 750 steps")))

    def test_the_guide_starts_at_the_last_error_and_is_straight_with_slope_two(self):
        (panel,) = model_error_figure(_rows(_linear, 10), "title").axes
        lengths, guide = _points(_line(panel, "guide"))
        assert guide[0] == _linear(750, 0, 1)
        slopes = np.diff(np.log(guide)) / np.diff(np.log(lengths))
        np.testing.assert_allclose(slopes, 2.0)
        assert panel.get_xscale() == panel.get_yscale() == "log"

    def test_axes_are_named_with_units(self):
        (panel,) = model_error_figure(_rows(_linear, 3), "heading").axes
        assert panel.get_title(loc="left") == "heading"
        assert "(steps)" in panel.get_xlabel()
        assert "standard deviations of the training data" in panel.get_ylabel()

    def test_curves_differ_in_colour_line_and_marker(self):
        (panel,) = model_error_figure(_rows(_linear, 3), "title").axes
        lines = [_line(panel, f"after {step} steps") for step in STEPS]
        for look in ("get_color", "get_linestyle", "get_marker"):
            assert len({getattr(line, look)() for line in lines}) == 3

    def test_the_last_moment_always_looks_the_same(self):
        looks = set()
        for steps in ([750], [500, 750], [250, 500, 750]):
            (panel,) = model_error_figure(_rows(_linear, 3, steps), "title").axes
            line = _line(panel, "after 750 steps")
            looks.add((line.get_color(), line.get_linestyle(), line.get_marker()))
        assert len(looks) == 1

    @pytest.mark.parametrize("factor", [1.3, 1e2])
    def test_axes_of_any_range_have_numbers(self, factor):
        figure = model_error_figure(_rows(lambda step, run, k: 0.15 * factor**k, 5), "title")
        (panel,) = figure.axes
        figure.savefig(io.BytesIO(), format="png")
        low, high = panel.get_ylim()
        shown = [tick for tick in panel.get_yticks() if low <= tick <= high]
        assert 2 <= len(shown) <= 12

    @pytest.mark.parametrize("rows", [[], _rows(_linear, 1), _rows(lambda *_: None, 3)])
    def test_thin_data_can_be_drawn_without_a_warning(self, rows, recwarn):
        model_error_figure(rows, "title").savefig(io.BytesIO(), format="png")
        assert not recwarn.list

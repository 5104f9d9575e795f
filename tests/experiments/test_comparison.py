"""What the comparisons of algorithms show."""

import io

import numpy as np
import pytest
from PIL import Image

from experiments import comparison
from tests.reports.rows import STEPS, evals, line_of, points


def test_labels_keep_their_style_over_panels_and_stand_beside_the_last():
    mbpo, sac = evals([[1, 2, 3], [3, 4, 5]]), evals([[0, 0, 1], [0, 0, 3]])
    panels = {"hopper": {"MBPO": mbpo, "SAC": sac}, "ant": {"SAC": mbpo, "MBPO": sac}}
    hopper, ant = comparison.comparison_figure(panels).axes
    assert [panel.get_title(loc="left") for panel in (hopper, ant)] == ["hopper", "ant"]
    np.testing.assert_allclose(points(line_of(hopper, "MBPO"))[:, 1], [2, 3, 4])
    np.testing.assert_allclose(points(line_of(ant, "SAC"))[:, 1], [2, 3, 4])
    for label in ("MBPO", "SAC"):
        first, second = line_of(hopper, label), line_of(ant, label)
        assert first.get_color() == second.get_color()
        assert first.get_linestyle() == second.get_linestyle()
    assert line_of(ant, "SAC").get_color() != line_of(ant, "MBPO").get_color()
    heights = {text.get_text(): text.get_position()[1] for text in ant.texts}
    assert heights["SAC"] > heights["MBPO"], "in the order in which the lines end"
    assert not hopper.texts


def test_labels_of_lines_that_end_together_do_not_overlap():
    rows = evals([[1, 2, 3]])
    (panel,) = comparison.comparison_figure({"hopper": dict.fromkeys("ABCD", rows)}).axes
    heights = np.sort([text.get_position()[1] for text in panel.texts])
    assert np.diff(heights).min() >= 0.05
    assert 0 <= heights.min() <= heights.max() <= 1


def test_curve_without_rows_does_not_disturb_the_others(recwarn):
    panels = {"hopper": {"MBPO": evals([[1, 2, 3]]), "SAC": [], "SVG": evals([[None] * 3])}}
    figure = comparison.comparison_figure(panels, "title")
    figure.savefig(io.BytesIO(), format="png")
    np.testing.assert_allclose(points(line_of(figure.axes[0], "MBPO"))[:, 1], [1, 2, 3])
    assert not recwarn.list


def test_the_clock_shows_the_same_returns_against_seconds():
    rows = [row | {"wall_seconds": 2.0 * row["env_steps"]} for row in evals([[1, 2, 3], [3, 4, 5]])]
    steps, clock = comparison.comparison_figure({"hopper": {"MBPO": rows}}, clock=True).axes
    shown = points(line_of(clock, "MBPO"))
    np.testing.assert_allclose(shown[:, 1], points(line_of(steps, "MBPO"))[:, 1])
    np.testing.assert_allclose(shown[:, 0], 2.0 * np.array(STEPS))


def test_intervals_stand_at_their_values_with_their_ends():
    curves = {"a": {0: (1.0, 0.5, 2.0), 5: (3.0, 2.0, 3.5)}, "b": {5: (0.0, -1.0, 1.0)}}
    (panel,) = comparison.interval_figure({"hopper": curves}, "H", "return").axes
    (first, _, (bars,)), (second, _, _) = panel.containers
    np.testing.assert_allclose(first.get_ydata(), [1.0, 3.0])
    ends = [segment[:, 1] for segment in bars.get_segments()]
    np.testing.assert_allclose(ends, [(0.5, 2.0), (2.0, 3.5)])
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["0", "5"]
    # Near the second value's place, but beside the other curve's point.
    assert abs(second.get_xdata()[0] - 1) < 0.5
    assert second.get_xdata()[0] != first.get_xdata()[1]


@pytest.mark.parametrize("count", [6, 12])
def test_labels_are_told_apart_by_colour_or_line(count):
    styles = comparison.label_styles({"hopper": [str(i) for i in range(count)]})
    assert len(set(styles.values())) == count


def test_comparisons_are_saved_as_png(tmp_path):
    comparison.comparison_curves(tmp_path / "a.png", {"hopper": {"MBPO": evals([[1, 2, 3]])}})
    intervals = {"hopper": {"MBPO": {0: (1.0, 0.0, 2.0)}}}
    comparison.interval_curves(tmp_path / "b.png", intervals, "H", "return")
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png"}
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert image.format == "PNG"

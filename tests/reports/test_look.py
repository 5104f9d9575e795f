"""What all figures have in common: nothing is cut off, hidden or out of order."""

import functools

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from mbpo_jax.errors import ConfigError
from mbpo_jax.reports import figures
from tests.gallery import ESTIMATORS, GALLERY, STEPS, evaluations


@functools.cache
def drawn(name: str) -> Figure:
    figure = GALLERY[name]()
    figure.draw_without_rendering()
    return figure


def bands(panel) -> list[PolyCollection]:
    return [found for found in panel.collections if isinstance(found, PolyCollection)]


@pytest.mark.slow
@pytest.mark.parametrize("name", GALLERY)
def test_nothing_is_cut_off_at_the_edge(name):
    figure = drawn(name)
    with figures.figure_style():
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0) >= -0.01
    assert box.x1 <= width + 0.01
    assert box.y1 <= height + 0.01


@pytest.mark.parametrize("name", GALLERY)
def test_names_of_curves_do_not_lie_over_each_other(name):
    for panel in drawn(name).axes:
        # Without the lines that lead to them.
        boxes = [Text.get_window_extent(text) for text in panel.texts if text.get_text()]
        for i, one in enumerate(boxes):
            assert not any(one.overlaps(other) for other in boxes[:i])


@pytest.mark.parametrize("name", GALLERY)
def test_a_panel_has_few_bands_and_they_can_be_seen(name):
    for panel in drawn(name).axes:
        assert len(bands(panel)) <= figures.MOST_BANDS
        for band in bands(panel):
            assert band.get_facecolor()[0, -1] >= 0.15


@pytest.mark.parametrize("name", GALLERY)
def test_axes_of_steps_count_in_whole_numbers(name):
    for panel in drawn(name).axes:
        if "teps" in panel.get_xlabel() and panel.get_xscale() == "linear":
            places = panel.get_xticks()
            np.testing.assert_array_equal(places, np.round(places))


@pytest.mark.parametrize("name", GALLERY)
def test_numbers_on_an_axis_do_not_touch(name):
    for panel in drawn(name).axes:
        for axis in (panel.xaxis, panel.yaxis):
            low, high = sorted(axis.get_view_interval())
            boxes = [
                tick.label1.get_window_extent()
                for tick in axis.get_major_ticks()
                if tick.label1.get_visible()
                and tick.label1.get_text()
                and low <= tick.get_loc() <= high
            ]
            for i, one in enumerate(boxes):
                assert not any(one.overlaps(other) for other in boxes[:i])


@pytest.mark.parametrize("name", ["variance at one horizon", "tracking at one moment"])
def test_what_is_known_at_one_place_alone_has_a_row_for_each_name(name):
    panel = drawn(name).axes[0]
    names = [tick.get_text() for tick in panel.get_yticklabels()]
    assert {"rp", "lr", "mvd"} <= set(names)
    assert panel.get_xscale() == "log"


def test_bands_are_those_of_the_curves_that_end_highest():
    assert figures.banded({"a": 1.0, "b": np.nan}) == {"a"}
    ends = {name: float(value) for value, name in enumerate("abcdef")}
    assert figures.banded(ends) == {"c", "d", "e", "f"}
    panel = drawn("comparison of nine").axes[0]
    tops = sorted(band.get_paths()[0].vertices[:, 1].max() for band in bands(panel))
    assert len(tops) == 4
    assert tops[0] > 500.0


def test_a_legend_is_read_line_by_line_in_the_order_in_which_curves_were_given():
    figure = drawn("efficiency")
    (legend,) = figure.legends
    found = [(text.get_window_extent(), text.get_text()) for text in legend.get_texts()]
    lines = sorted(found, key=lambda pair: (-round(pair[0].y0), pair[0].x0))
    names = [name for _, name in lines]
    assert names == [name for name in ESTIMATORS if name != "fd"]


def test_labels_stand_in_the_order_in_which_curves_end():
    texts = drawn("variance").axes[0].texts
    heights = {text.get_text(): text.get_position()[1] for text in texts}
    assert heights["ivw_trajectory"] > heights["mix"] > heights["lr"]


@pytest.mark.parametrize(
    ("last", "numbers"), [(40.0, [1, 3, 10, 30]), (4000.0, [1, 10, 100, 1000])]
)
def test_a_logarithmic_axis_has_as_many_numbers_as_have_room(last, numbers):
    figure = Figure(layout="constrained")
    panel = figure.subplots()
    panel.plot([1.0, last], [0.0, 1.0])
    panel.set_xscale("log")
    figures.log_numbers(panel)
    low, high = panel.get_xlim()
    assert [tick for tick in panel.get_xticks() if low <= tick <= high] == numbers


def test_labels_are_moved_no_further_than_they_have_to_be():
    np.testing.assert_allclose(figures.spread([0.5, 0.1, 0.5], 0.1), [0.45, 0.1, 0.55])
    np.testing.assert_allclose(figures.spread([0.0, 0.0, 1.0, 1.0], 0.2), [0.0, 0.2, 0.8, 1.0])
    np.testing.assert_allclose(figures.spread([0.3] * 3, 0.8), [-0.6, 0.2, 1.0])
    assert figures.spread([], 0.1).size == 0


def test_shares_that_are_more_than_one_say_why():
    (panel,) = drawn("sources").axes
    assert "below 0 by chance" in panel.get_xlabel()


def test_a_long_name_is_in_a_legend_below():
    with figures.figure_style():
        figure = Figure(layout="constrained")
        panel = figure.subplots()
        panel.plot([0, 1], [0, 1], label="an algorithm with many settings, " * 3)
        figures.name_curves(figure, panel)
    assert len(figure.legends) == 1
    assert not panel.texts


def test_the_curve_begins_at_the_first_evaluation():
    panel = drawn("curve of a run").axes[0]
    assert panel.lines[0].get_xdata()[0] == STEPS[0] == evaluations(1)[0]["env_steps"] == 0


@pytest.mark.parametrize(
    ("given", "formats"), [("pdf", ("pdf",)), (["svg", "pdf"], ("svg", "pdf"))]
)
def test_formats_are_one_or_several(given, formats):
    assert figures.formats_of(given) == formats


def test_an_unknown_format_is_refused():
    with pytest.raises(ConfigError, match=r"figure_format: 'jpg' is not there; choose of pdf, svg"):
        figures.formats_of(["pdf", "jpg"])


def test_figures_are_written_in_all_formats_that_were_ever_asked_for(tmp_path):
    path, figure = tmp_path / "sac.learning_rate.png", drawn("curve of a run")
    figures.save_figure(path, figure)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    figures.save_figure(path, figure, ["pdf"])
    pdf, svg = path.with_suffix(".pdf"), path.with_suffix(".svg")
    first = pdf.read_bytes()
    assert path.read_bytes().startswith(b"\x89PNG")
    assert first.startswith(b"%PDF")
    assert b"/Type3" not in first, "letters are outlines that can be embedded"
    assert not svg.exists()
    pdf.write_bytes(b"old")
    figures.save_figure(path, figure, ["svg"])
    assert pdf.read_bytes().startswith(b"%PDF"), "no file is behind the others"
    assert b"<svg" in svg.read_bytes()
    figures.remove_figure(path)
    assert not list(tmp_path.iterdir())

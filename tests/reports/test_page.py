"""Pages in a browser, whatever they report: the laboratory's, which has wide tables."""

import pytest
from matplotlib.figure import Figure

from mbpo_jax.config.estimators import ESTIMATORS
from mbpo_jax.laboratory.report.page import write_page
from mbpo_jax.reports import page
from tests.browser import chromium, opened, overflow, unreachable


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 600])
def test_the_page_of_a_study_fits_its_window(tmp_path, width):
    path = tmp_path / "report.html"
    table = [[f"column {i}" for i in range(12)], *[["1.25e-3 to 2.5e-3"] * 12] * 3]
    figures = {name: Figure(figsize=(size, 3)) for name, size in (("steps", 24), ("slice", 5))}
    command = f"mbpo-jax variance --run {'a/very/long/path' * 20}"
    write_page(path, "On <lq>", command, ["a & b"], [table, table], figures, ESTIMATORS)
    with chromium() as browser, opened(browser, path, width) as shown:
        assert overflow(shown) == 0
        assert unreachable(shown) == []
        assert shown.locator("h1").text_content() == "On <lq>"
        # The wide figure scrolls; the narrow one does not.
        assert [
            shown.locator("figure div.wide").nth(i).evaluate("e => e.scrollWidth > e.clientWidth")
            for i in range(2)
        ] == [True, False]
        shown.get_by_role("link", name="Numbers").click()
        assert abs(shown.locator("h2", has_text="Numbers").bounding_box()["y"]) < 40


def test_names_are_listed_as_in_a_sentence():
    assert page.few(["a"]) == "a"
    assert page.few(["a", "b"]) == "a and b"
    assert page.few(list("abcde")) == "a, b, c, d and e"
    assert page.few(list("abcdef")) == "a, b, c, d and 2 more"


def test_long_text_is_broken_and_numbers_stand_right():
    table = [["name", "|g|"], ["x" * 61, "1 (0 to 2)"], ["<y>", "-3"]]
    text = page.table_of(table)
    assert f"<td class='text long'>{'x' * 61}</td><td>1 (0 to 2)</td>" in text
    assert "<td class=text>&lt;y&gt;</td><td>-3</td>" in text
    assert "<th class=text><span>name</span></th><th><span>|g|</span></th>" in text

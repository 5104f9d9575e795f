"""How every figure is saved, and what tells its curves apart."""

import io

import matplotlib
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from mbpo_jax.reports import figures


def test_failing_figure_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "curve.png"
    path.write_bytes(b"old")

    def fail(figure: Figure, file: io.BytesIO, **_: object) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        figures.save_figure(path, Figure())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_style_is_gone_after_the_figure():
    before = dict(matplotlib.rcParams)
    with figures.figure_style():
        assert dict(matplotlib.rcParams) != before
    assert dict(matplotlib.rcParams) == before


def test_curves_of_similar_brightness_differ_in_their_line():
    """In grey print, colours closer than a tenth cannot be told apart."""

    def brightness(color: str) -> float:
        red, green, blue = to_rgb(color)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    looks = figures.CURVE_STYLES
    assert len({color for color, _ in looks[:9]}) == 9
    assert len(set(looks)) == len(looks) == 18
    for i, (color, line) in enumerate(looks[:9]):
        for other_color, other_line in looks[:i]:
            assert abs(brightness(color) - brightness(other_color)) > 0.1 or line != other_line

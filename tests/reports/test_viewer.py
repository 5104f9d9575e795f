import base64
import importlib.util
import json
import re
import zlib
from html.parser import HTMLParser
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.envs import brax, brax_viewer
from mbpo_jax.reports import viewer

pytestmark = pytest.mark.brax

DT = 0.25
CART = np.array([-0.5, 0.0, 0.5])
ANGLE = np.array([-1.0, 0.25, 1.5])


class Page(HTMLParser):
    """The parts of a page: everything it could load, and its scripts by `id` or `type`."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.scripts, self._script = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.links += [attributes[name] for name in ("src", "href", "data") if name in attributes]
        if tag == "script":
            self._script = attributes.get("id", attributes["type"])

    def handle_endtag(self, tag):
        if tag == "script":
            self._script = None

    def handle_data(self, data):
        if self._script:
            self.scripts[self._script] = data


@pytest.fixture(scope="module")
def system_json():
    system = brax.load("inverted_pendulum", "generalized").sys
    from brax import kinematics

    positions = jnp.stack([CART, ANGLE], axis=1)
    forward = jax.jit(jax.vmap(lambda q: kinematics.forward(system, q, jnp.zeros_like(q))[0]))
    states = SimpleNamespace(x=forward(positions))
    return brax_viewer.viewer_json(system, states, DT)


@pytest.fixture
def page(tmp_path, system_json):
    path = tmp_path / "rollout.html"
    viewer.write_html(path, system_json, "an episode")
    return Page(path.read_text(encoding="utf-8"))


def modules(page: Page) -> dict[str, str]:
    imports = json.loads(page.scripts["importmap"])["imports"]
    prefix = "data:text/javascript;base64,"
    assert all(url.startswith(prefix) for url in imports.values())
    return {
        name: base64.b64decode(url.removeprefix(prefix)).decode() for name, url in imports.items()
    }


def test_the_system_holds_the_motion_in_real_time(system_json):
    system = json.loads(system_json)
    assert system["opt"]["timestep"] == DT
    poses = system["states"]["x"]
    cart, pole = (np.array([pose["pos"][link] for pose in poses]) for link in (0, 1))
    np.testing.assert_allclose(cart[:, 0], CART, atol=1e-5)
    np.testing.assert_allclose(pole, cart, atol=1e-5)  # The pole's frame is its hinge.
    # The pole turns about y: its quaternion is (cos, 0, sin, 0) of half the angle.
    turned = [np.array(pose["rot"][1]) for pose in poses]
    zero = np.zeros_like(ANGLE)
    expected = np.stack([np.cos(ANGLE / 2), zero, np.sin(ANGLE / 2), zero], axis=1)
    np.testing.assert_allclose(turned, expected, atol=1e-5)


def test_the_page_holds_the_system(page, system_json):
    system = zlib.decompress(base64.b64decode(page.scripts["system"])).decode()
    assert system == system_json


def test_the_page_loads_nothing_from_elsewhere(page):
    assert page.links == []
    sources = modules(page) | {"page": page.scripts["module"]}
    wanted = {
        name
        for source in sources.values()
        for name in re.findall(r"""\b(?:from|import|import\()\s*['"]([^'"]+)['"]""", source)
    }
    assert wanted >= {"three", "lilgui", "brax/viewer.js", "brax/animator.js"}
    assert wanted <= set(sources)
    assert not [name for name, text in sources.items() if re.search(r"@import|url\(http", text)]


def test_the_page_carries_the_licences_of_what_it_contains(tmp_path, system_json):
    viewer.write_html(tmp_path / "rollout.html", system_json, "")
    text = (tmp_path / "rollout.html").read_text(encoding="utf-8")
    for notice in ("three.js authors", "George Michael Brower", "Brax Authors", "MIT License"):
        assert notice in text


def test_a_title_is_text(tmp_path, system_json):
    viewer.write_html(tmp_path / "rollout.html", system_json, "<script src='x'>$title & more")
    text = (tmp_path / "rollout.html").read_text(encoding="utf-8")
    assert Page(text).links == []
    assert "$title &amp; more" in text


def test_a_page_is_replaced_whole(tmp_path, monkeypatch, system_json):
    path = tmp_path / "rollout.html"
    path.write_text("before")

    def fail(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        with pytest.raises(OSError, match="disk full"):
            viewer.write_html(path, system_json, "")
    assert path.read_text() == "before"
    viewer.write_html(path, system_json, "")
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert list(tmp_path.iterdir()) == [path]


def test_a_brax_without_its_viewer_is_reported(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="reinstall brax"):
        brax_viewer.viewer_scripts()

"""The documentation's site: no link is broken, nothing is fetched, and it does not drift."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import mbpo_jax
from mbpo_jax.config import ALGORITHMS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

LOADS = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}
"""Attributes by which a page has a browser fetch something. A link that is followed is none."""


class Loads(HTMLParser):
    """What a page fetches from elsewhere, and the text of its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign: list[str] = []

    def handle_starttag(self, tag, attrs):
        target = dict(attrs).get(LOADS.get(tag, ""))
        if target and re.match(r"(\w+:)?//", target):
            self.foreign.append(f"{tag} {target}")


def fetched(page: str) -> list[str]:
    """Return what a page or a style sheet fetches from another host."""
    parser = Loads()
    parser.feed(page)
    return parser.foreign + re.findall(r"(?:url\(|@import\s+)[\"']?((?:\w+:)?//[^\"')]+)", page)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site, strictly: a link that leads nowhere is an error."""
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_site_builds_and_fetches_nothing_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > len(ALGORITHMS)
    for path in [*pages, *site.rglob("*.css")]:
        assert fetched(path.read_text()) == [], path.relative_to(site)


@pytest.mark.slow
def test_pages_of_algorithms_say_what_their_records_say(site):
    for name, record in ALGORITHMS.items():
        page = (site / f"docs/algorithms/{name}.html").read_text()
        for setting in record.uses:
            whole = setting.partition(".")[0]
            assert f"<code>{setting}" in page or f"<code>{whole}.*" in page, (name, setting)
        assert record.source.partition(",")[0] in page
        assert 'class="arithmatex"' in page


@pytest.mark.slow
def test_public_names_are_documented(site):
    page = (site / "docs/api.html").read_text()
    for name in mbpo_jax.__all__:
        target = getattr(mbpo_jax, name)
        assert f'id="mbpo_jax.{name}"' in page, name
        assert target.__doc__.partition("\n")[0].split("`")[0] in page


def test_what_is_fetched_from_elsewhere_is_found():
    assert fetched('<link href="https://fonts.example/css"><script src="//cdn.example/a.js">')
    assert fetched("@import url(https://fonts.example/a.css)")
    assert fetched('<a href="https://example.org">to follow</a><img src="a.png">') == []


def test_every_algorithm_has_a_page_with_its_parts():
    assert {path.stem for path in (DOCS / "algorithms").glob("*.md")} == set(ALGORITHMS)
    for name in ALGORITHMS:
        page = (DOCS / f"algorithms/{name}.md").read_text()
        for part in ("## Equation", "## Cost of an environment step", "## When it fails"):
            assert part in page, name


def test_settings_that_pages_name_exist():
    from mbpo_jax.config import Config

    for path in [*(DOCS / "algorithms").glob("*.md"), DOCS / "faq.md", DOCS / "concepts.md"]:
        for group, name in re.findall(r"`(?:--)?([a-z_]+)\.([a-z_]+)`", path.read_text()):
            if hasattr(Config(), group):
                assert hasattr(getattr(Config(), group), name), f"{path.name}: {group}.{name}"


def cells(kind: str) -> list[str]:
    notebook = json.loads((DOCS / "tour.ipynb").read_text())
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_the_notebook_is_of_its_source_and_small():
    source = (DOCS / "tour.md").read_text()
    assert cells("code") == re.findall(r"^```python\n(.*?)\n```$", source, re.M | re.S)
    for text in cells("markdown"):
        assert text in source
    content = (DOCS / "tour.ipynb").read_text()
    assert len(content) < 500_000
    assert not re.search(r"(?<![\w.:/])/(?:home|root|tmp|work|usr|Users)/", content)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # two minutes of processor time, and whatever else goes on
def test_the_notebook_runs(tmp_path, monkeypatch):
    pytest.importorskip("nbclient", reason="needs the extra docs")
    pytest.importorskip("jupytext", reason="needs the extra docs")
    # It trains for longer than it compiles, so its code is optimised.
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    code = (
        "import sys, pathlib; from docs.site.notebook import *; "
        "executed(SOURCE, pathlib.Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/tour/status.json").exists()

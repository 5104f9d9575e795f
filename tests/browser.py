"""Pages as a reader sees them, in a headless Chromium."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Start a Chromium of the system; skip the test where there is none, or no Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-headless-shell"))), None)
    if path is None:
        pytest.skip("needs Debian's chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(browser: Any, path: Path | str, width: int = 1280, **options: Any) -> Iterator[Any]:
    """Open a page; in the end nothing was said on its console, and nothing but it asked for."""
    address = path if isinstance(path, str) else path.as_uri()
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    try:
        yield page
    finally:
        context.close()
    assert said == []
    assert set(asked) <= {address, "data:,"}


def overflow(page: Any) -> int:
    """Return how many pixels of a page lie beyond the right edge of the screen."""
    return page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


def unreachable(page: Any) -> list[str]:
    """Return places that have more than they show and can neither be scrolled nor say so."""
    # They look at their sizes at the end of a frame, which may be still to come.
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page.evaluate(
        """() => [...document.querySelectorAll('div.wide')].filter(place => {
             const more = place.scrollWidth > place.clientWidth + 1;
             const hint = place.previousElementSibling;
             const isTold = hint.matches('p.hint') && hint.checkVisibility();
             const scrolls = ['auto', 'scroll'].includes(getComputedStyle(place).overflowX);
             place.scrollLeft = 1e6;
             const end = place.firstElementChild.getBoundingClientRect().right;
             const isReached = end <= place.getBoundingClientRect().right + 1;
             return place.checkVisibility() && !(scrolls && isReached && more === isTold);
           }).map(place => place.textContent.slice(0, 80))"""
    )

"""A headless Chromium that is installed on this machine, driven by Playwright, and kept from asking other machines."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
HERE = ("127.0.0.1", "localhost", "")


class Browser:
    """A browser with one context: tabs that share their cookies."""

    def __init__(self, context):  # playwright's, which is imported where a browser is started
        self.context = context
        self.asked_elsewhere: list[str] = []  # requests that would leave this machine; none is let through
        context.route("**/*", self._route)

    def tab(self, url: str, width: int = 1280, height: int = 1000):
        """A new tab of this size at an address."""
        page = self.context.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.goto(url)
        return page

    def _route(self, route) -> None:
        if urlsplit(route.request.url).hostname in (*HERE, None):
            route.continue_()
        else:
            self.asked_elsewhere.append(route.request.url)
            route.abort()


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser for as long as it is used."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield Browser(started.new_context())
        finally:
            started.close()

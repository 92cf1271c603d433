"""A real browser: pages of it fail a test by what a user would not see."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

OpenPage = Callable[..., "Page"]
"""C{open_page(url, width=1280, height=800, colours="light", javascript=True, allowed="")}."""


class Watched:
    """
    A browser's page, and what went wrong in it without being seen.

    @ivar allowed: a pattern of console errors that the test means to cause.
    """

    def __init__(self, context: BrowserContext, url: str, allowed: str) -> None:
        self.context = context
        self.complaints: list[str] = []
        self._allowed = re.compile(allowed) if allowed else None
        self._origin = _origin(url)
        context.on("request", lambda request: self._requested(request.url))
        self.page = context.new_page()
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(url)

    def _said(self, message: ConsoleMessage) -> None:
        # What is no page of ours but an answer as text has no icon, and is asked for one.
        is_icon = message.location["url"].endswith("/favicon.ico")
        if message.type in ("error", "warning") and not is_icon:
            text = f"{message.text} ({message.location['url']})"
            if self._allowed is None or not self._allowed.search(text):
                self.complaints.append(text)

    def _requested(self, url: str) -> None:
        if not url.startswith(("data:", "blob:")) and _origin(url) != self._origin:
            self.complaints.append(f"a request to {url}")

    def close(self) -> None:
        self.context.close()
        assert not self.complaints, self.complaints


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, for all tests that want one."""
    if CHROMIUM is None:
        pytest.skip("chromium is missing (apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """
    Opens pages, each as if in a browser of its own. A test fails by an error in the
    console, by one that no script caught, and by a request to somewhere else.
    """
    opened: list[Watched] = []

    def open_one(
        url: str,
        *,
        width: int = 1280,
        height: int = 800,
        colours: Literal["light", "dark"] = "light",
        javascript: bool = True,
        allowed: str = "",
        **more: Any,
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=colours,
            java_script_enabled=javascript,
            **more,
        )
        context.set_default_timeout(8_000)
        opened.append(Watched(context, url, allowed))
        return opened[-1].page

    yield open_one
    for watched in opened:
        watched.close()


def violations(page: Page) -> list[str]:
    """What axe-core finds wrong with a page as it is now."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {[node['html'] for node in one['nodes']]}" for one in found
    ]

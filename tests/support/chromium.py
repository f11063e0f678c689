"""A real browser, Debian's Chromium without a screen, and what it reports about the pages that it shows."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
SECONDS: Final = 30.0
MAX_TABS: Final = 60
_REFUSED: Final = "Failed to load resource: the server responded with a status of 4"
"""What Chromium writes for a page that shows an error, such as that of a form."""
_FOCUSED: Final = """() => {
  const one = document.activeElement;
  const label = one.labels && one.labels.length ? one.labels[0].innerText : one.innerText;
  return (one.getAttribute("aria-label") || label || "").trim().split("\\n")[0];
}"""


def find_chromium() -> str:
    """Return the path of a browser; skip the test if there is none."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    pytest.skip("Chromium is not installed: apt-get install chromium")


@dataclass
class Tab:
    """One tab, and what went wrong in it."""

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Note messages of errors, among them those of the CSP, and requests that leave the origin."""
        self.page.on("console", self._note_message)
        self.page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        self.page.on("dialog", lambda dialog: self.problems.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda request: self._note_request(request.url))

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(_REFUSED):
            self.problems.append(f"{message.type} on {self.page.url}: {message.text}")

    def _note_request(self, url: str) -> None:
        if not url.startswith(f"{self.url}/"):
            self.problems.append(f"a request to {url}")

    async def open(self, path: str) -> None:
        """Open a page of the console."""
        await self.page.goto(f"{self.url}{path}")

    async def press(self, name: str) -> None:
        """Press a button with the mouse."""
        await self.page.get_by_role("button", name=name, exact=True).click()

    async def follow(self, name: str) -> None:
        """Follow a link with the mouse."""
        await self.page.get_by_role("link", name=name, exact=True).first.click()

    async def require_heading(self, text: str) -> None:
        """Wait for the page with this heading, which is its only one."""
        await self.page.locator("h1", has_text=re.compile(rf"^\s*{re.escape(text)}\s*$")).wait_for()
        assert await self.page.locator("h1").count() == 1

    async def tab_to(self, name: str) -> None:
        """Move the focus by the keyboard to the element with this label or text."""
        seen = []
        for _ in range(MAX_TABS):
            await self.page.keyboard.press("Tab")
            seen.append(await self.page.evaluate(_FOCUSED))
            if seen[-1].startswith(name):
                return
        raise AssertionError(f"{name} is not reached by the keyboard, but {seen}")

    async def require_accessible(self) -> None:
        """Let axe look over the page: it reports nothing."""
        found = (await Axe().run(self.page)).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Run a browser."""
    path = find_chromium()
    async with async_playwright() as playwright:
        # As root, as in a container, Chromium runs without its sandbox only.
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def new_tab(
    browser: Browser, url: str, *, script: bool = True, any_authority: bool = False
) -> AsyncIterator[Tab]:
    """Open a tab with cookies of its own on the console at ``url``; nothing may go wrong in it."""
    context: BrowserContext = await browser.new_context(
        java_script_enabled=script, ignore_https_errors=any_authority
    )
    context.set_default_timeout(SECONDS * 1000)
    try:
        tab = Tab(await context.new_page(), url)
        tab.watch()
        yield tab
        assert tab.problems == []
    finally:
        await context.close()

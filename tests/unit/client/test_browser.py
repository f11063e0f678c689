"""Checks how a secret link gets to a browser: nobody else can read it, and nothing of it stays."""

from __future__ import annotations

import stat
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from lessor.cli import browser

LINK = "https://signin.example.com/federation?Action=login&SigninToken=s3cr%22et&x='><"


class Links(HTMLParser):
    """Collects where a page leads."""

    def __init__(self) -> None:
        """Begin with none."""
        super().__init__()
        self.refresh = self.anchor = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of a tag that leads elsewhere."""
        found = dict(attrs)
        if tag == "meta" and found.get("http-equiv") == "refresh":
            self.refresh = found["content"] or ""
        if tag == "a":
            self.anchor = found["href"] or ""


class Browser:
    """A browser that looks at what it is given, and reads it some time later."""

    def __init__(self, *, there: bool = True) -> None:
        """Say by ``there`` whether it can be started."""
        self._there = there
        self.given: list[str] = []
        self.waited: list[float] = []
        self.modes: list[int] = []
        self.page = ""

    @property
    def path(self) -> Path:
        """Return the file that it was given."""
        return Path(unquote(urlsplit(self.given[0]).path))

    def open(self, url: str) -> bool:
        """Note the command line."""
        self.given.append(url)
        self.modes = [stat.S_IMODE(path.stat().st_mode) for path in (self.path, self.path.parent)]
        return self._there

    def wait(self, seconds: float) -> None:
        """Read the page while the command waits."""
        self.waited.append(seconds)
        self.page = self.path.read_text(encoding="utf-8")


def test_the_link_is_in_a_page_of_its_own_and_not_on_the_command_line() -> None:
    """The browser is given a file for its user's eyes alone, which leads to the link and then is gone."""
    it, links = Browser(), Links()
    assert browser.opened(LINK, it.open, it.wait)
    assert "s3cr" not in it.given[0]
    assert it.given[0].startswith("file:///")
    assert it.modes == [0o600, 0o700]
    links.feed(it.page)
    assert (links.refresh, links.anchor) == (f"0;url={LINK}", LINK)
    assert it.waited == [browser.SECONDS]
    assert not it.path.parent.exists()


def test_without_a_browser_nothing_is_waited_for() -> None:
    """Where none can be started the link is printed at once, and no page stays."""
    it = Browser(there=False)
    assert not browser.opened(LINK, it.open, it.wait)
    assert (it.waited, it.path.parent.exists()) == ([], False)


def test_an_interrupt_removes_the_page_too() -> None:
    """Whoever ends the command while it waits leaves no secret behind."""
    it = Browser()

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        browser.opened(LINK, it.open, interrupt)
    assert not it.path.parent.exists()

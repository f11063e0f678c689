"""Checks how the console link gets to a browser without being readable by others."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
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
    """A browser that checks its argument, and reads the page some time later."""

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


def test_the_link_is_in_a_private_page_and_not_on_the_command_line() -> None:
    it, links = Browser(), Links()
    assert browser.opened(LINK, it.open, it.wait)
    assert "s3cr" not in it.given[0]
    assert it.given[0].startswith("file:///")
    assert it.modes == [0o600, 0o700]
    links.feed(it.page)
    assert (links.refresh, links.anchor) == (f"0;url={LINK}", LINK)
    assert it.waited == [browser.SECONDS]
    assert not it.path.parent.exists()


def test_without_a_browser_the_link_is_printed_without_waiting() -> None:
    it = Browser(there=False)
    assert not browser.opened(LINK, it.open, it.wait)
    assert (it.waited, it.path.parent.exists()) == ([], False)


def test_an_interrupt_removes_the_page_too() -> None:
    it = Browser()

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        browser.opened(LINK, it.open, interrupt)
    assert not it.path.parent.exists()


SHOWS: str = """
import os, signal, sys
from pathlib import Path
from urllib.parse import unquote, urlsplit
from lessor.cli import browser

{before}
def browse(url):
    page = Path(unquote(urlsplit(url).path))
    print(page.parent, page.exists(), flush=True)
    {browsing}
    return True

def wait(_):
    {waiting}

try:
    browser.opened("https://signin.example.com/", browse, wait)
except KeyboardInterrupt:
    print("interrupted")
print("went on")
"""
"""A command that shows the page and gets signals at a known moment."""

SENDS = "os.kill(os.getpid(), signal.{})"


def shown(signals: str, *, before: str = "", at: str = "waiting") -> tuple[int, Path, list[str]]:
    """Run the command, send it signals ``at`` some point; return its code, the page's folder and output."""
    sends = "; ".join(SENDS.format(name) for name in signals.split())
    before = before or "signal.signal(signal.SIGHUP, signal.SIG_DFL)"  # as nohup may have started the tests
    parts = {"browsing": "pass", "waiting": "pass", "before": before} | {at: sends}
    done = subprocess.run(
        [sys.executable, "-c", SHOWS.format(**parts)], capture_output=True, text=True, timeout=60, check=False
    )
    page, *rest = done.stdout.splitlines()
    folder, was_there = page.rsplit(" ", 1)
    assert was_there == "True", done.stderr
    return done.returncode, Path(folder), rest


@pytest.mark.parametrize("at", ["browsing", "waiting"])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_that_ends_the_command_removes_the_page_first(name: str, at: str) -> None:
    """The process still ends by the signal, so that a shell or a service manager sees it."""
    code, folder, rest = shown(name, at=at)
    assert (code, rest, folder.exists()) == (-signal.Signals[name], [], False)


def test_a_second_signal_does_not_keep_the_page() -> None:
    """It arrives while the page is being removed."""
    code, folder, rest = shown("SIGTERM SIGTERM")
    assert (code, rest, folder.exists()) == (-signal.SIGTERM, [], False)


def test_ctrl_c_is_still_an_interrupt_and_removes_the_page() -> None:
    code, folder, rest = shown("SIGINT")
    assert (code, rest, folder.exists()) == (0, ["interrupted", "went on"], False)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    code, folder, rest = shown("SIGHUP", before="signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    assert (code, rest, folder.exists()) == (0, ["went on"], False)

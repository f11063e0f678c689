"""Opens a secret link in a browser, hidden from other users who can list processes.

A browser gets the URL to open on its command line, which every user of the machine can read. Therefore it
opens a page that only the user can read, and the page redirects to the link.
"""

from __future__ import annotations

import html
import signal
import tempfile
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Final

SECONDS: Final = 10.0
"""When the page is deleted: a browser does not report that it has read it."""

_pause: Final = Event().wait

_ENDING: Final = tuple(one for one in signal.Signals if one.name in {"SIGHUP", "SIGINT", "SIGTERM"})
"""Signals that end the command; Windows has no SIGHUP."""

_PAGE: Final = """<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0;url={link}">
<title>Lessor</title>
<a href="{link}">Sign in</a>
"""


def opened(
    link: str,
    browse: Callable[[str], bool] = webbrowser.open,
    wait: Callable[[float], object] = _pause,
) -> bool:
    """Open ``link`` and return whether there is a browser; if so, this takes ``SECONDS``.

    A signal that ends the command ends the wait, and takes effect once the page is removed.
    """
    # A new folder with mode 0700, and in it a file that is created with mode 0600.
    with _late_signals() as signals, tempfile.TemporaryDirectory(prefix="lessor-") as folder:
        page = Path(folder) / "sign-in.html"
        page.touch(mode=0o600, exist_ok=False)
        page.write_text(_PAGE.format(link=html.escape(link)), encoding="utf-8")

        def show() -> bool:
            found = browse(page.as_uri())
            if found:
                wait(SECONDS)
            return found

        return signals.interrupt(show)


class _Interrupted(BaseException):
    """A signal arrived while the browser started or while the command waited."""


@dataclass(slots=True)
class _Signals:
    """The last signal received, and whether the next one raises."""

    number: int = 0
    raises: bool = False

    def receive(self, number: int, _: FrameType | None) -> None:
        """Keep a signal, and interrupt ``show`` if it is running."""
        self.number = number
        if self.raises:
            self.raises = False  # so that a second signal doesn't interrupt the removal of the page
            raise _Interrupted

    def interrupt(self, show: Callable[[], bool]) -> bool:
        """Return the result of ``show``, or False if a signal ends it or arrived before it."""
        try:
            self.raises = True
            return not self.number and show()
        except _Interrupted:
            return False
        finally:
            self.raises = False


@contextmanager
def _late_signals() -> Iterator[_Signals]:
    """Delay signals that would end the process until the end of the block; ignored signals stay ignored."""
    signals = _Signals()
    ends = (signal.SIG_DFL, signal.default_int_handler)
    before = {one: signal.getsignal(one) for one in _ENDING if signal.getsignal(one) in ends}
    for one in before:
        signal.signal(one, signals.receive)
    try:
        yield signals
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        if signals.number:
            signal.raise_signal(signals.number)

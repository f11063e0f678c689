"""Opens a secret link in a browser, past everybody who can see the list of processes.

A browser is started with what it opens on its command line, which every user of the machine can read. So it
is given a page that only its user can read, and that leads on to the link.
"""

from __future__ import annotations

import html
import tempfile
import webbrowser
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Final

SECONDS: Final = 10.0
"""How long the page stays: no browser tells when it has read it."""

_pause: Final = Event().wait

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
    """Open ``link`` and return whether there is a browser; takes ``SECONDS`` then, and leaves nothing behind.

    An interrupt ends the wait, and removes the page as well.
    """
    # A folder of its own with 0700, and in it a file that is made with 0600.
    with tempfile.TemporaryDirectory(prefix="lessor-") as folder:
        page = Path(folder) / "sign-in.html"
        page.touch(mode=0o600, exist_ok=False)
        page.write_text(_PAGE.format(link=html.escape(link)), encoding="utf-8")
        found = browse(page.as_uri())
        if found:
            wait(SECONDS)
        return found

"""Ignores SIGHUP while `lessor server` and `lessor dev` start, from the first line on."""

from __future__ import annotations

import signal
from collections.abc import Sequence

SERVERS = frozenset({"server", "dev"})
"""Commands that handle SIGHUP once they serve; until then it must not end them."""

_before: object = None
"""The handler of SIGHUP before ``ignore_early``; None if it was not changed."""


def ignore_early(arguments: Sequence[str]) -> None:
    """Ignore SIGHUP if one of the arguments may be the name of a command that serves."""
    global _before  # noqa: PLW0603 - a signal's handler is the process's own
    if not SERVERS.isdisjoint(arguments):
        _before = signal.signal(signal.SIGHUP, signal.SIG_IGN)


def settle(command: str | None) -> None:
    """Ignore SIGHUP for a command that serves; restore the previous handler for any other command."""
    global _before  # noqa: PLW0603
    if command in SERVERS:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    elif _before is not None:
        signal.signal(signal.SIGHUP, _before)  # type: ignore[arg-type]
        _before = None

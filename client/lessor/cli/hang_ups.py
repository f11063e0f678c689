"""What SIGHUP does to a command that serves, until it serves: nothing, from the first line on."""

from __future__ import annotations

import signal
from collections.abc import Sequence

SERVERS = frozenset({"server", "dev"})
"""Commands that react to SIGHUP once they serve; until then it must not end them."""

_before: object = None
"""What SIGHUP did to this process before ``ignore_early``; None where it is still so."""


def ignore_early(arguments: Sequence[str]) -> None:
    """Ignore SIGHUP where one of the arguments may be the name of a command that serves."""
    global _before  # noqa: PLW0603 - a signal's handler is the process's own
    if not SERVERS.isdisjoint(arguments):
        _before = signal.signal(signal.SIGHUP, signal.SIG_IGN)


def settle(command: str | None) -> None:
    """Ignore SIGHUP for a command that serves, and let it do to any other what it did before."""
    global _before  # noqa: PLW0603
    if command in SERVERS:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    elif _before is not None:
        signal.signal(signal.SIGHUP, _before)  # type: ignore[arg-type]
        _before = None

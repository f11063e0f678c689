"""Default signal handling for processes that tests start, as at a terminal."""

from __future__ import annotations

import signal


def restore_signals() -> None:
    """Let SIGINT, SIGQUIT and SIGHUP reach what this process starts, though it was started with them ignored.

    A shell without job control ignores the first two for what it runs in the background (POSIX, "Signals and
    Error Handling"), nohup ignores SIGHUP, and a child inherits that. A signal that is handled here is back
    at its default in a child.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)

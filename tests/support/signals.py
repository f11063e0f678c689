"""Default signal handling for processes that tests start, as at a terminal."""

from __future__ import annotations

import signal


def restore_sigint() -> None:
    """Let what this process starts be interrupted, though it was started with SIGINT ignored.

    A shell without job control ignores SIGINT for what it runs in the background (POSIX, "Signals and Error
    Handling"), and a child inherits that. A signal that is handled here is back at its default in a child.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)

"""How the engine's parts notify observers and each other of events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lessor_server.engine.ports import Observer
from lessor_server.engine.revocation.queue import RevocationQueue
from lessor_server.engine.revocation.waiters import AttemptWaiters


@dataclass(frozen=True, slots=True)
class Signals:
    """The observer, the timers' ear for new deadlines, what is due, and who waits for a revocation."""

    notify: Observer
    watch: Callable[[str, int], None]
    """Receives a lease's id and its deadline (microseconds), after the commit."""
    queue: RevocationQueue
    waiting: AttemptWaiters

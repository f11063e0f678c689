"""The request ids that AWS gave to the calls of one call to Lessor, for its audit records.

The tasks that a call starts inherit its collection.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

MAX_IDS: Final = 100

_collected: ContextVar[list[str] | None] = ContextVar("aws_request_ids", default=None)


def collect_request_ids() -> list[str]:
    """Begin a collection for the current task and those that it starts; return it."""
    collected: list[str] = []
    _collected.set(collected)
    return collected


def note_request_id(request_id: str) -> None:
    """Add the id of a call that AWS answered."""
    collected = _collected.get()
    if collected is not None and request_id and len(collected) < MAX_IDS and request_id not in collected:
        collected.append(request_id)

"""What the loop and the threads of the sinks give each other: records, and what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from lessor_server.domain.audit.chain import ChainEnd
from lessor_server.domain.audit.record import EncodedRecord


class AuditClock(Protocol):
    """The machine's clocks, in microseconds."""

    def wall_us(self) -> int:
        """Return the time since the epoch."""
        ...

    def boot_us(self) -> int:
        """Return a time that never jumps."""
        ...


@dataclass(slots=True, eq=False)
class Entry:
    """A record on its way; ``waiting`` names the sinks whose answer ``future`` still needs.

    ``has_effect``: it is about an effect, so records of reads and of refusals never take its place.
    """

    record: EncodedRecord
    has_effect: bool
    future: asyncio.Future[None] | None = None
    waiting: set[str] = field(default_factory=set)


class WriteReport(NamedTuple):
    """What has become of the entries that were put before; ``error`` is empty while the sink works."""

    sink: str
    batches: int
    """How many puts it answers."""
    written: Sequence[Entry]
    failed: Sequence[Entry]
    """Not written yet; they are tried again, and reported again when they are. Those that are in the file but
    may not be durable are not tried again."""
    settled: int
    """How many entries about effects no longer wait to be written."""
    settled_others: int
    end: ChainEnd
    error: str
    problem: str
    """What is missing or changed in a file that was opened."""

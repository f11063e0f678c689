"""An audit log in memory, which fails when a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lessor_server.domain.audit.record import AuditRecord
from lessor_server.domain.errors.access import AuditUnavailable


class FakeAudit:
    """Keeps records; ``journal`` also gets a word for each, so that a test sees the order of things."""

    def __init__(self) -> None:
        """Begin with a sink that works."""
        self.works = True
        self.written: list[AuditRecord] = []
        self.noted: list[AuditRecord] = []
        self.noted_effects: list[AuditRecord] = []
        self.journal: list[str] = []
        self.before_write: Callable[[AuditRecord], None] = lambda _: None
        self.may_write = asyncio.Event()
        self.may_write.set()

    @property
    def records(self) -> list[AuditRecord]:
        """Return all records."""
        return [*self.written, *self.noted]

    async def write(self, record: AuditRecord) -> None:
        """Keep a record, or fail as without a sink."""
        self.before_write(record)
        await self.may_write.wait()
        if not self.works:
            raise AuditUnavailable
        self.written.append(record)
        self.journal.append(record.kind.value)

    def note(self, record: AuditRecord, *, has_effect: bool) -> None:
        """Keep a record that nobody waits for."""
        self.noted.append(record)
        self.noted_effects += [record] if has_effect else []
        self.journal.append(record.kind.value)

    def hash_value(self, value: str) -> str:
        """Return a readable stand-in for a hash."""
        return f"hash of {value}"

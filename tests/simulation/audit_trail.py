"""The audit of a world: records in memory, durable once written, and torn away from a process that dies.

Each write that a call waits for is an effect, before and after which the process can die.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lessor_server.domain.audit.record import AuditRecord, RecordKind
from lessor_server.domain.errors.access import AuditUnavailable
from tests.simulation.points import Fate

if TYPE_CHECKING:
    from tests.simulation.process import Process

WRITE_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """The record of a credential that could not be written, and how often all was disturbed until then."""

    lease_id: str
    disturbances: int


def hashed(value: str) -> str:
    """Return what stands for a value in a record."""
    return f"hash of {value}"


class AuditTrail:
    """The sink as one process has it; ``services.audit.Audit``."""

    works = True

    def __init__(self, process: Process) -> None:
        """Write for ``process``."""
        self._process = process
        self._world = process.world

    async def write(self, record: AuditRecord) -> None:
        """Write a record, unless the process dies or the sink fails at this point."""
        self._process.require_alive()
        fate = self._world.points.meet(f"audit {record.kind.value} {record.rpc}")
        if fate is not None:
            self._world.shake(WRITE_SECONDS)
        if fate is Fate.BEFORE:
            self._process.kill()
            self._process.require_alive()
        await asyncio.sleep(WRITE_SECONDS)
        self._process.require_alive()
        if fate is not Fate.UNDONE:
            self._world.records.append(record)
        if fate is Fate.AFTER:
            self._process.kill()
            self._process.require_alive()
        if fate in (Fate.LOST, Fate.UNDONE):
            if record.kind is RecordKind.RESPONSE and record.access_key_hmac:
                disturbances = self._world.expectations.disturbances
                self._world.unrecorded(Unrecorded(record.lease_id, disturbances))
            raise AuditUnavailable

    def note(self, record: AuditRecord, *, has_effect: bool) -> None:
        """Write a record that nobody waits for."""
        if self._process.alive:
            self._world.records.append(record)

    def hash_value(self, value: str) -> str:
        """Return what stands for a value in a record."""
        return hashed(value)

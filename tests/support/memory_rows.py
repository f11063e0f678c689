"""The rows of the store in memory: leases, the clock, and changes of rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Protocol

from lessor_server.domain.lease import LIVE, Lease, State, next_generation
from lessor_server.engine.store_types import BulkRevocation
from tests.support.memory_config import At
from tests.support.memory_rotations import MemoryRotations

_MICROSECOND = timedelta(microseconds=1)


def us(span: timedelta) -> int:
    """Return a duration in microseconds."""
    return span // _MICROSECOND


class Clock(Protocol):
    """The machine's two clocks, in microseconds."""

    def wall_us(self) -> int:
        """Return the wall clock's time since the epoch."""
        ...

    def boot_us(self) -> int:
        """Return the time since the machine started."""
        ...


@dataclass(frozen=True, slots=True)
class Row:
    """A lease and the columns that never leave a store."""

    lease: Lease
    claimed_by: str = ""
    gone_us: int = 0

    @property
    def live(self) -> bool:
        """Return whether the lease counts: its user may exist, or its session is still valid."""
        return self.lease.state in LIVE

    def counts_by_rule(self, owner: str, policy_rule: str, now: int) -> bool:
        """Return whether the lease counts against the limit of this rule for this owner."""
        lease = self.lease
        if (lease.owner, lease.policy_rule) != (owner, policy_rule):
            return False
        working = lease.is_session and lease.state is State.GONE and lease.max_expires_us > now
        return self.live or (working and policy_rule != "")

    def due(self, now: int, *, held: bool = False) -> bool:
        """Return whether the row may be claimed; while expiries are ``held`` an ACTIVE one may not."""
        return self.lease.due_us <= now and self.live and not (held and self.lease.state is State.ACTIVE)


class MemoryRows(MemoryRotations):
    """Rows and open prefixes, with the service's time, which never goes back."""

    def __init__(self, clock: Clock, at: At, instance: str) -> None:
        """Use the time of ``clock``."""
        super().__init__(at, instance)
        self._clock = clock
        self._offset_us = clock.wall_us() - clock.boot_us()
        self._first_start = True
        self.rows: dict[str, Row] = {}
        self.open: list[BulkRevocation] = []

    def restart(self) -> None:
        """Continue as the next process that opens the store: at the wall clock's time, or after the last."""
        self._offset_us = max(self._clock.wall_us(), self.now()) - self._clock.boot_us()
        self._first_start = False

    def now(self) -> int:
        """Return the service's time in microseconds since the epoch."""
        return self._clock.boot_us() + self._offset_us

    def _lease_ids(self) -> list[str]:
        return sorted(self.rows)

    def _shown(self, lease: Lease) -> Lease:
        """Return a lease as it is read to grant something: marked if somebody edited its row."""
        return replace(lease, tampered=True) if f"leases/{lease.id}" in self.tampered else lease

    def _covered(self, lease: Lease) -> bool:
        """Return whether an open prefix covers the lease: its life must not be extended."""
        return any(takes(prefix, lease) for prefix in self.open)

    def _taken_in(self, prefix: BulkRevocation) -> list[Row]:
        """Return the live rows that a prefix covers, by id."""
        return [
            self.rows[lease_id]
            for lease_id in sorted(self.rows)
            if self.rows[lease_id].live and takes(prefix, self.rows[lease_id].lease)
        ]

    def _put(self, row: Row, *, by: str = "", gone_us: int = 0, **changes: Any) -> Lease:
        lease = replace(row.lease, generation=next_generation(row.lease.generation), **changes)
        self.rows[lease.id] = Row(lease, by, gone_us)
        return lease

    def _remembers(self, mount: str) -> bool:
        return any(row.lease.mount == mount and not row.lease.is_session for row in self.rows.values())

    def _earlier(self, mount: str, role: str, owner: str, request_id: str) -> Lease | None:
        for row in self.rows.values():
            lease = row.lease
            if (lease.mount, lease.role, lease.owner) != (mount, role, owner):
                continue
            if lease.request is not None and lease.request.id == request_id:
                return self._shown(lease)
        return None


def takes(prefix: BulkRevocation, lease: Lease) -> bool:
    """Return whether a prefix covers a lease: its id is in the range, and it was begun before the cut-off.

    A prefix with an owner covers only the leases of that owner.
    """
    own = prefix.owner in ("", lease.owner)
    return own and prefix.ids.covers(lease.id) and lease.created_us <= prefix.cutoff_us

"""A server of leases in memory and a clock in virtual time, for the client's code that keeps leases valid."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import grpc

from lessor import errors
from lessor.leasing.issued import Issued, Order
from lessor.leasing.refreshed import Plan, RefreshedLease, Tools
from lessor.refresh import Term

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
AWAY = errors.Unavailable("can't reach a server at nowhere", grpc.StatusCode.UNAVAILABLE)
BUSY = errors.Unavailable("busy", grpc.StatusCode.UNAVAILABLE, "TRY_LATER", retry_after=2 * SECOND)
LOST = errors.NotFound("no lease", grpc.StatusCode.NOT_FOUND, "LEASE_NOT_FOUND")
DENIED = errors.PermissionDenied("not permitted", grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")


class LoopClock:
    """The time of the running loop."""

    def now(self) -> datetime:
        """Return the time."""
        return START + timedelta(seconds=asyncio.get_running_loop().time())

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(min(seconds, 15.0))


@dataclass
class MemoryServer:
    """Issues leases of ``ttl`` that can be renewed until ``longest`` after their issue, or sessions.

    ``failures`` has one error for each of the next calls, None for a call that succeeds; ``down`` fails all.
    """

    ttl: timedelta = HOUR
    longest: timedelta = 24 * HOUR
    is_session: bool = False
    clock: LoopClock = field(default_factory=LoopClock)
    calls: list[tuple[str, timedelta]] = field(default_factory=list)
    failures: list[errors.Error | None] = field(default_factory=list)
    down: bool = False
    request_ids: list[str] = field(default_factory=list)
    issued: dict[str, datetime] = field(default_factory=dict)
    revoked: list[str] = field(default_factory=list)

    def names(self) -> list[str]:
        """Return the calls so far, without their times."""
        return [name for name, _ in self.calls]

    async def issue(self, order: Order, request_id: str) -> Issued:
        """Issue."""
        self.request_ids.append(request_id)
        await self._answer("issue")
        now = self.clock.now()
        lease_id = f"{order.mount}/creds/{order.role}/{len(self.issued)}"
        self.issued[lease_id] = now
        ttl = min(self.ttl, self.longest)
        number = len(self.issued)
        return Issued(
            lease_id=lease_id,
            access_key=f"AKIA{number}",
            secret_key=f"secret{number}",
            session_token=f"token{number}" if self.is_session else "",
            term=Term(now, now + ttl, ttl, not self.is_session),
        )

    async def renew(self, issued: Issued) -> Issued:
        """Renew."""
        await self._answer("renew")
        now = self.clock.now()
        end = min(now + issued.term.ttl, self.issued[issued.lease_id] + self.longest)
        return issued.with_term(issued.term.after_renewal(now, end, end - now, renewable=True))

    async def revoke(self, lease_id: str, seconds: float) -> str:
        """Revoke."""
        await self._answer("revoke")
        self.revoked.append(lease_id)
        return ""

    async def _answer(self, name: str) -> None:
        self.calls.append((name, self.clock.now() - START))
        await asyncio.sleep(0)
        failure = self.failures.pop(0) if self.failures else None
        if self.down:
            raise AWAY
        if failure is not None:
            raise failure


@dataclass
class LeaseWorld:
    """One lease, its server, and what was reported."""

    server: MemoryServer = field(default_factory=MemoryServer)
    plan: Plan = field(default_factory=lambda: Plan(Order("aws", "app")))
    reports: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the lease."""
        self.tools = Tools(self.server, self.server.clock, random.Random(1), self.reports.append)
        self.lease = RefreshedLease(self.plan, self.tools)

    async def run_for(self, span: timedelta) -> None:
        """Issue the first credentials and keep them valid for ``span``."""
        await self.lease.issue_first()
        try:
            async with asyncio.timeout(span.total_seconds()):
                await self.lease.run()
        except TimeoutError:
            pass

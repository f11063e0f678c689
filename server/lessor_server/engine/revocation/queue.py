"""The leases to revoke next: due ids, or a scan of the whole store; and the callers that wait for them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass
from itertools import islice

from lessor_server.domain.lease import Lease
from lessor_server.engine.meter import NO_METER, Meter
from lessor_server.engine.waiting import wait_until

MAX_HINTS = 100_000
"""The maximum number of hints; beyond it, a scan of the store replaces them."""
MIN_ROOM = 8
"""A backlog is claimed when there is room for so many leases of it: each claim costs a commit."""
ROOM_SECONDS, ANY_ROOM_SECONDS = 1.0, 10.0
"""How long a backlog waits for that room, and for how long it then takes any: while AWS is slow to answer for
nearly all running attempts, there is no such room."""


@dataclass(frozen=True, slots=True)
class RevocationRequest:
    """A request to revoke a lease: when it was made, in the loop's time, and a caller's context.

    Attempts run in that context, so that they belong to the caller's trace and its audit records. A bulk
    revocation has none.
    """

    at: float
    context: Context | None


class RevocationQueue:
    """The leases to revoke next."""

    def __init__(self, meter: Meter = NO_METER) -> None:
        """Begin with a full scan of the store: a start does not know which leases became due before.

        ``meter`` receives the lag of each revocation.
        """
        self._meter = meter
        self._requests: dict[str, RevocationRequest] = {}
        """Until the lease has ended."""
        self._urgent: dict[str, None] = {}
        self._bulk: dict[str, None] = {}
        self._hints: dict[str, dict[str, None]] = {}
        """By mount, in order of arrival."""
        self._hinted = 0
        self._deferred: dict[str, None] = {}
        self.full_scan_needed = True
        self._looked_at = -math.inf
        self._wake = asyncio.Event()
        self._wake.set()
        self._waiters: dict[str, dict[asyncio.Future[None], None]] = {}
        self._shortage: asyncio.TimerHandle | None = None
        """Runs while a backlog waits for room, and while it takes any: then ``_is_short``."""
        self._is_short = False

    @contextmanager
    def next_attempt(self, lease_id: str) -> Iterator[asyncio.Future[None]]:
        """Yield a future for the end of the next attempt on a lease; enter before requesting the attempt."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(lease_id, {})[future] = None
        try:
            yield future
        finally:
            waiting = self._waiters[lease_id]
            del waiting[future]
            if not waiting:
                del self._waiters[lease_id]

    def end_attempt(self, lease_id: str) -> None:
        """Wake all callers that wait for ``lease_id``, and the revocation worker, which has room again."""
        for future in self._waiters.get(lease_id, ()):
            if not future.done():
                future.set_result(None)
        if self._urgent or self._bulk or self._hints or self.full_scan_needed:
            self._wake.set()

    def push_hints(self, ids: Iterable[str]) -> None:
        """Add the hint that ``ids`` are due."""
        for lease_id in ids:
            of_mount = self._hints.setdefault(lease_id.partition("/")[0], {})
            self._hinted += lease_id not in of_mount
            of_mount[lease_id] = None
        if self._hinted > MAX_HINTS:
            self._forget_hints()
            self.full_scan_needed = True
        self._wake.set()

    def push_bulk(self, ids: Iterable[str]) -> None:
        """Add leases of a bulk revocation: they go before expiries."""
        added = dict.fromkeys(ids)
        self._bulk |= added
        self._remember(added, None)
        if len(self._bulk) > MAX_HINTS:
            self._bulk.clear()
            self.full_scan_needed = True
        self._wake.set()

    def push_urgent(self, lease_id: str) -> None:
        """Add a lease that a caller revoked: it goes before all others."""
        self._urgent[lease_id] = None
        self._remember((lease_id,), copy_context())
        self._wake.set()

    def _remember(self, ids: Iterable[str], context: Context | None) -> None:
        """Remember the first request to revoke each lease; the oldest requests make room."""
        request = RevocationRequest(asyncio.get_running_loop().time(), context)
        for lease_id in ids:
            self._requests.setdefault(lease_id, request)
        for lease_id in list(islice(self._requests, max(len(self._requests) - MAX_HINTS, 0))):
            del self._requests[lease_id]

    def context_of(self, lease_id: str) -> Context | None:
        """Return a copy of the context of the request to revoke a lease; None if it has none."""
        request = self._requests.get(lease_id)
        return request.context.copy() if request is not None and request.context is not None else None

    def report_key_deleted(self, lease: Lease, now_us: int) -> None:
        """Measure the lag of a revocation: AWS has acknowledged that the key is deleted."""
        request = self._requests.get(lease.id)
        lags = [] if request is None else [asyncio.get_running_loop().time() - request.at]
        if 0 < lease.expires_us <= now_us:
            lags.append((now_us - lease.expires_us) / 1e6)
        if lags:
            self._meter.record_revocation_lag(max(lags))

    def forget(self, lease_id: str) -> None:
        """Forget the request to revoke a lease that has ended, or that another process revokes."""
        self._requests.pop(lease_id, None)

    def defer(self, lease_id: str) -> None:
        """Remember an urgent lease so that the next full scan tries it first."""
        if len(self._deferred) < MAX_HINTS:
            self._deferred[lease_id] = None

    def request_full_scan(self) -> None:
        """Request a full scan of the store, after the urgent leases."""
        self._urgent |= self._deferred
        self._deferred.clear()
        self.full_scan_needed = True
        self._wake.set()

    def take_urgent(self, most: int) -> list[str]:
        """Take out at most ``most`` ids that are urgent."""
        return _taken(self._urgent, most)

    @property
    def has_bulk(self) -> bool:
        """Return whether leases of bulk revocations wait."""
        return bool(self._bulk)

    def take_bulk(self, most: int) -> list[str]:
        """Take out at most ``most`` ids of bulk revocations; none if this is little of a backlog."""
        return _taken(self._bulk, most) if self.request_room(len(self._bulk), most) else []

    def take_hints(self, most: int, but: Collection[str]) -> list[str]:
        """Take out at most ``most`` hints of one mount, not of those in ``but``; mounts take turns.

        A mount with a backlog is left out if ``most`` is little of it.
        """
        able = (mount for mount, ids in self._hints.items() if self.request_room(len(ids), most))
        mount = next((mount for mount in able if mount not in but), None)
        if mount is None:
            return []
        of_mount = self._hints.pop(mount)
        ids = _taken(of_mount, most)
        self._hinted -= len(ids)
        if of_mount:
            self._hints[mount] = of_mount
        return ids

    def request_room(self, waiting: int, room: int) -> bool:
        """Request room for a claim: return whether it is worth its commit; if not, begin to wait for more.

        It is for all that wait, for ``MIN_ROOM``, or for any that has waited long enough.
        """
        if room >= MIN_ROOM:
            self._end_shortage()
        elif room < waiting and self._shortage is None:
            self._shortage = asyncio.get_running_loop().call_later(ROOM_SECONDS, self._take_any_room)
        return room >= min(waiting, MIN_ROOM) or self._is_short

    def _take_any_room(self) -> None:
        self._shortage = asyncio.get_running_loop().call_later(ANY_ROOM_SECONDS, self._end_shortage)
        self._is_short = True
        self._wake.set()

    def _end_shortage(self) -> None:
        if self._shortage is not None:
            self._shortage.cancel()
        self._shortage, self._is_short = None, False

    def begin_full_scan(self) -> None:
        """Drop all hints, since a scan of the store begins; call this before the scan.

        A hint that is dropped during the scan requests another scan.
        """
        self._forget_hints()
        self.full_scan_needed = False

    def _forget_hints(self) -> None:
        self._hints.clear()
        self._hinted = 0

    async def wait(self, seconds: float) -> None:
        """Wait until there is work; ``seconds`` after the last full scan, request another.

        Hints do not restart this time, so a lease without a hint is found even under load.
        """
        loop = asyncio.get_running_loop()
        until = self._looked_at + seconds
        time_came = await wait_until(self._wake, until)
        self._wake.clear()
        if self.full_scan_needed or time_came or loop.time() >= until:
            self.full_scan_needed = True
            self._looked_at = loop.time()


def _taken(source: dict[str, None], most: int) -> list[str]:
    ids = list(islice(source, most))
    for lease_id in ids:
        del source[lease_id]
    return ids

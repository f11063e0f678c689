"""Revokes due leases: claims rows, attempts their revocation, and stores the result.

Hints (ids whose deadline has come) make it fast; the store makes it reliable: every 30 s, at start and when
a paused account answers again, it asks for all that is due, earliest first. While that is more
than it has room for, hints of the mounts concerned wait: the store gives them out in their turn.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from functools import partial

from lessor_server.domain import backoff
from lessor_server.domain import lease as steps
from lessor_server.domain.aws.errors import AwsCallFailed
from lessor_server.domain.durations import MICROSECOND
from lessor_server.domain.errors.base import (
    AwsUnavailable,
    InternalError,
    LessorError,
    RateLimiterFull,
    StoreUnavailable,
)
from lessor_server.domain.events import ClaimLost, Expiring, Forgotten, RevocationFailed, Revoked, Stuck
from lessor_server.domain.lease import CREATE_GRACE, STUCK_AFTER, Lease
from lessor_server.engine.aws.outage_probe import OutageProbe
from lessor_server.engine.aws.rate_limiter import Priority
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.background import BackgroundTasks
from lessor_server.engine.ports import LeaseStore, Observer, Watch
from lessor_server.engine.revocation.attempt import (
    AttemptResult,
    NoAnswer,
    RefusedByAws,
    UserDeleted,
    UserNotFound,
    attempt_revocation,
)
from lessor_server.engine.revocation.claims import RevocationClaims
from lessor_server.engine.revocation.queue import RevocationQueue
from lessor_server.engine.waiting import wait_for

FULL_SCAN_SECONDS, STORE_RETRY_SECONDS = 30.0, 1.0
MAX_CONCURRENT = 128
"""Leases revoked at the same time; the rate limiter limits their calls."""

UNSEEN = "AWS does not find the user; the server checks again later"
OTHER_ACCOUNT = "the mount's root belongs to another account than this lease"


class RevocationWorker:
    """Revokes every lease that must end: expired, revoked, or unfinished."""

    def __init__(
        self,
        store: LeaseStore,
        roots: Roots,
        queue: RevocationQueue,
        watch: Watch,
        claims: RevocationClaims,
        notify: Observer,
        background: BackgroundTasks,
        rng: random.Random,
    ) -> None:
        """Claim due leases in ``store`` as ``claims``, and revoke them through ``roots``."""
        self._store = store
        self._roots = roots
        self._background = background
        self._queue = queue
        self._watch = watch
        self._notify = notify
        self._claims = claims
        self._rng = rng
        self._outage_probe = OutageProbe(roots, background, notify, rng, queue.request_full_scan)
        self._running: dict[str, Lease] = {}
        """The leases of the running attempts, as they were claimed last."""
        self._unwritten: dict[str, asyncio.Event] = {}
        """The claimed leases whose result the store did not take; an event has it written again."""
        self._behind: deque[str] = deque(maxlen=MAX_CONCURRENT)
        """The mounts of the last claimed leases, while more leases are due than there is room for."""

    async def run(self) -> None:
        """Claim and revoke until cancelled.

        Begin with a full scan, as a failed run may have lost hints and claims.
        """
        self._claims.note_lost()
        self._queue.request_full_scan()
        store_fails = False
        while True:
            await self._queue.wait(STORE_RETRY_SECONDS if store_fails else FULL_SCAN_SECONDS)
            try:
                scans = self._queue.full_scan_needed
                if await self._claims.release_lost((*self._running, *self._unwritten), scans=scans):
                    self._queue.full_scan_needed = True
                await self._claim_some()
                if store_fails:
                    self._write_again(self._unwritten)
                store_fails = False
            except StoreUnavailable:
                self._note_lost()
                store_fails = True

    def _note_lost(self) -> None:
        """Record that leases may be claimed and not worked on: release them, and look for all that is due."""
        self._claims.note_lost()
        self._queue.full_scan_needed = True

    async def _claim_some(self) -> None:
        """Claim as many due leases as there is room for: requested ones first, then all in due order."""
        # Life of an expiry, 3 and 4: the queue in its order, each claim one conditional UPDATE.
        while (room := MAX_CONCURRENT - len(self._running)) > 0:
            if ids := self._queue.take_urgent(room):
                self._begin(await self._claim_requested(ids), Priority.ASKED)
            elif ids := self._queue.take_bulk(room) or self._hinted(room):
                self._begin(await self._store.claim(ids, self._claims.terms()), Priority.EXPIRY)
            elif self._queue.full_scan_needed and self._queue.request_room(MAX_CONCURRENT, room):
                await self._claim_due(room)
            else:
                return

    async def _claim_requested(self, ids: list[str]) -> list[Lease]:
        """Claim leases that a caller revoked; forget those that another process has claimed."""
        leases = await self._store.claim(ids, self._claims.terms())
        others = set(ids) - {lease.id for lease in leases}
        for lease_id in others:
            self._queue.forget(lease_id)
        self._write_again(others)
        return leases

    def _write_again(self, ids: Iterable[str]) -> None:
        """Write the results of those of ``ids`` now that wait for the store."""
        for lease_id in ids:
            if (again := self._unwritten.get(lease_id)) is not None:
                again.set()

    def _hinted(self, room: int) -> list[str]:
        """Return the hints that do not overtake leases that were due earlier.

        Before the first scan the backlogs are unknown; then a mount without a known backlog goes ahead.
        Bulk revocations that wait for more room go before all of them.
        """
        if self._queue.has_bulk or (self._queue.full_scan_needed and not self._behind):
            return []
        return self._queue.take_hints(room, self._behind)

    async def _claim_due(self, room: int) -> None:
        """Claim due leases, earliest first; if they fill the room, there is a backlog."""
        self._queue.begin_full_scan()
        leases = await self._store.claim_due(self._claims.terms(), room, self._roots.paused_accounts())
        if len(leases) == room:
            self._queue.full_scan_needed = True
            self._behind.extend(lease.mount for lease in leases)
        else:
            self._behind.clear()
        self._begin(leases, Priority.EXPIRY)

    def _begin(self, leases: list[Lease], priority: Priority) -> None:
        for lease in leases:
            self._running[lease.id] = lease
            if _expires(lease, self._store.now()):
                self._notify(Expiring(lease.id, owner=lease.owner))
            job = self._revoke_claimed(lease, priority)
            self._background.start(job, context=self._queue.context_of(lease.id))

    async def _revoke_claimed(self, lease: Lease, priority: Priority) -> None:
        """Make one attempt on a claimed lease and record its result; without one the claim is released.

        What the store does not take is written later: the next attempt's result would fail in the same way.
        """
        is_lost = True
        try:
            began_us = self._store.now()
            result = await self._attempt_supervised(lease, priority)
            if isinstance(result, NoAnswer) and priority is Priority.ASKED:
                self._queue.defer(lease.id)
            record = partial(self._record, lease, result, began_us)
            is_recorded = await self._try_record(record)
            if is_recorded is None:
                again = self._unwritten[lease.id] = asyncio.Event()
                self._background.start(self._record_later(lease, record, again), lasting=True)
            is_lost = is_recorded is False
        finally:
            if self._running.get(lease.id) is lease:  # else it was claimed again meanwhile
                del self._running[lease.id]
            if is_lost:
                self._note_lost()
            self._queue.end_attempt(lease.id)

    async def _try_record(self, record: Callable[[], Awaitable[bool]]) -> bool | None:
        """Write the result of an attempt; return False if the claim is lost, and None if the store fails."""
        try:
            with self._background.unit("record the result of an attempt"):
                return await record()
        except (StoreUnavailable, InternalError):
            return None

    async def _record_later(
        self, lease: Lease, record: Callable[[], Awaitable[bool]], again: asyncio.Event
    ) -> None:
        """Write a result again, with back-off, while the claim lasts: no call to AWS is repeated for it."""
        is_recorded, failures = None, 0
        try:
            while is_recorded is None:
                seconds = backoff.probe(failures, self._rng.random())
                if self._store.now() + int(seconds * 1e6) >= lease.due_us:
                    return
                await wait_for(again, seconds)
                again.clear()
                is_recorded, failures = await self._try_record(record), failures + 1
                if is_recorded is None:
                    self._queue.end_attempt(lease.id)  # a caller need not wait for the next time
        finally:
            if self._unwritten.get(lease.id) is again:
                del self._unwritten[lease.id]
            if not is_recorded:
                self._note_lost()
            self._queue.end_attempt(lease.id)

    async def _attempt_supervised(self, lease: Lease, priority: Priority) -> AttemptResult:
        """Make one attempt; an unexpected exception counts as a refusal, so that retries back off."""
        try:
            with self._background.unit("revoke a lease"):
                return await self._attempt(lease, priority)
        except InternalError as error:
            return RefusedByAws(error)
        except StoreUnavailable as error:
            return NoAnswer(error)

    async def _attempt(self, lease: Lease, priority: Priority) -> AttemptResult:
        if lease.is_session:
            return UserDeleted()  # nothing on AWS can be deleted, whatever becomes of root and account
        try:
            root = await self._roots.get(lease.mount)
            if root.account != lease.footprint.account:
                return RefusedByAws(LessorError(OTHER_ACCOUNT))
            self._roots.limiter(root).require_open()
        except StoreUnavailable:
            raise
        except LessorError as error:
            return NoAnswer(error) if isinstance(error, AwsUnavailable) else RefusedByAws(error)
        result = await attempt_revocation(
            self._roots.caller(root, priority),
            lease,
            lambda: self._queue.report_key_deleted(lease, self._store.now()),
        )
        if isinstance(result, NoAnswer) and isinstance(result.error, AwsCallFailed):
            return RefusedByAws(result.error)
        if isinstance(result, NoAnswer) and not isinstance(result.error, RateLimiterFull):
            self._outage_probe.pause(root, result.error)
        return result

    async def _record(self, lease: Lease, result: AttemptResult, began_us: int) -> bool:
        """Write the result of an attempt; return False if the claim is lost."""
        match result:
            case UserDeleted():  # life of an expiry, 8
                return await self._finish(lease)
            case UserNotFound():  # 9
                return await self._check_again(lease, began_us)
            case NoAnswer(error):  # 10
                # Says nothing about the row: it counts no attempt, and stays due for when AWS is back.
                waits = isinstance(error, (RateLimiterFull, StoreUnavailable))
                seconds = (error.retry_in or 0) if waits else 0
                return await self._reschedule(lease, error, timedelta(seconds=seconds), lease.attempts)
            case RefusedByAws(error):  # 9
                attempts = backoff.counted(lease.attempts)
                wait = backoff.refused(attempts, self._rng.random())
                return await self._reschedule(lease, error, wait, attempts)

    async def _finish(self, lease: Lease) -> bool:
        self._queue.forget(lease.id)
        if not await self._store.write(lease, steps.finish(lease)):
            self._notify(ClaimLost(lease.id, "finish"))
            return False
        owner, until_us = lease.owner, lease.max_expires_us
        session = lease.is_session
        self._notify(
            Forgotten(lease.id, until_us, owner=owner) if session else Revoked(lease.id, owner=owner)
        )
        return True

    async def _check_again(self, lease: Lease, began_us: int) -> bool:
        """Finish the lease if a second check, begun after the grace of a late CreateUser, finds no user.

        An answer may be old by now, if the machine slept; and while expiries are held nobody knows whether
        the grace is over.
        """
        grace_ends_us = lease.last_create_us + CREATE_GRACE // MICROSECOND
        if lease.not_found_count and began_us >= grace_ends_us and not self._claims.expiry_held:
            return await self._finish(lease)
        wait = backoff.not_found_delay(lease.not_found_count)
        now, count = self._store.now(), backoff.counted(lease.not_found_count)
        after = steps.reschedule(lease, UNSEEN, wait, now, attempts=lease.attempts, not_found_count=count)
        if not await self._store.write(lease, after):
            return False
        self._watch(after.id, after.due_us)
        return True

    async def _reschedule(self, lease: Lease, error: LessorError, wait: timedelta, attempts: int) -> bool:
        now, count = self._store.now(), lease.not_found_count
        after = steps.reschedule(lease, error.message, wait, now, attempts=attempts, not_found_count=count)
        if not await self._store.write(lease, after):
            self._notify(ClaimLost(lease.id, "fail"))
            return False
        if wait:
            self._watch(after.id, after.due_us)
        seconds = wait.total_seconds()
        owner = lease.owner
        self._notify(RevocationFailed(lease.id, error.message, error.detail, attempts, seconds, owner=owner))
        if attempts == STUCK_AFTER and attempts > lease.attempts:
            self._notify(Stuck(lease.id, error.message, attempts, owner=owner))
        return True


def _expires(lease: Lease, now_us: int) -> bool:
    """Return whether a claimed lease has expired and its revocation was not attempted yet."""
    return 0 < lease.expires_us <= now_us and not lease.last_error

"""Revokes or abandons all leases of a range.

A range is accepted in one small commit, for any number of leases. Its rows then become REVOKING some hundreds
a commit, so that no intent waits for them; leases that are being revoked already become due now. Rows begun
after the cut-off are not changed. No lease of an open range is renewed or becomes ACTIVE.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from lessor_server.domain.errors.base import InternalError, StoreUnavailable
from lessor_server.domain.events import Abandoned, PrefixAccepted
from lessor_server.domain.lease_id import IdRange
from lessor_server.domain.mount import Mount
from lessor_server.engine.ports import Observer, UpkeepStore
from lessor_server.engine.revocation.queue import RevocationQueue
from lessor_server.engine.store_types import BulkRevocation
from lessor_server.engine.supervisor import Supervisor
from lessor_server.engine.waiting import wait_for

AT_A_TIME = 500
POLL_SECONDS, RETRY_SECONDS, FULL_SCAN_SECONDS = 0.5, 1.0, 30.0
PAUSE_PER_COUNT = 10
"""The time between two counts of what is left, in times of what one takes."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The progress of a range: leases covered, gone, failed, and neither yet; the rest was abandoned."""

    accepted: int
    done: int
    failed: int
    left: int


class Prefixes:
    """Accepts bulk revocations and carries them out."""

    def __init__(
        self, store: UpkeepStore, queue: RevocationQueue, notify: Observer, supervisor: Supervisor
    ) -> None:
        """Change rows in ``store`` and add their ids to ``queue``."""
        self._store = store
        self._queue = queue
        self._notify = notify
        self._supervisor = supervisor
        self._wake = asyncio.Event()

    async def accept(self, ids: IdRange, by: str, owner: str = "") -> tuple[BulkRevocation, int]:
        """Accept the revocation of a range, durably; return it and how many live leases the range has.

        With an ``owner`` it covers only the leases of that owner.
        """
        prefix, taken = await self._store.open_prefix(ids, owner)
        self._accepted(ids, taken, by, owner)
        return prefix, taken

    async def disable(self, mount: str, by: str) -> tuple[Mount, int] | None:
        """Refuse a mount new leases and accept the revocation of all its leases, durably.

        Returns the mount and the number of its leases, or None if there is no such mount.
        """
        disabled = await self._store.disable(mount)
        if disabled is not None:
            self._accepted(IdRange.of_mount(mount), disabled[1], by)
        return disabled

    def _accepted(self, ids: IdRange, taken: int, by: str, owner: str = "") -> None:
        self._notify(PrefixAccepted(ids.low, taken, by, owner))
        self._wake.set()

    async def follow(self, prefix: BulkRevocation, accepted: int) -> AsyncIterator[Standing]:
        """Yield the progress of a range at each change, until each lease is gone or has failed once."""
        last, loop = Standing(accepted, 0, 0, accepted), asyncio.get_running_loop()
        while True:
            began = loop.time()
            progress = await self._store.progress(prefix)
            left = progress.alive - progress.failed
            standing = Standing(accepted, progress.gone, progress.failed, left)
            if standing != last:
                yield standing
            if not standing.left:
                return
            last = standing
            # A million leases take a second to count, which is taken from other jobs of the store.
            await asyncio.sleep(max(POLL_SECONDS, PAUSE_PER_COUNT * (loop.time() - began)))

    async def abandon(self, ids: IdRange, by: str, *, live: bool = False) -> int:
        """Abandon the REVOKING leases of a range, and with ``live`` all others; return how many."""
        abandoned = 0
        while some := await self._store.abandon(ids, AT_A_TIME, live=live):
            abandoned += len(some)
        self._notify(Abandoned(ids.low, abandoned, by))
        return abandoned

    async def run(self) -> None:
        """Carry out the open bulk revocations, including those of an earlier process, until cancelled."""
        self._wake.set()
        while True:
            # A range may be durable although its caller disconnected or got an error.
            await wait_for(self._wake, FULL_SCAN_SECONDS)
            self._wake.clear()
            try:
                await self._work_off()
            except StoreUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
                self._wake.set()

    async def _work_off(self) -> None:
        """Make the leases of all open ranges due, in turns, so that no range waits for a large one.

        A range that fails unexpectedly is retried by the periodic pass.
        """
        reached: dict[BulkRevocation, str] = {}
        failed: set[BulkRevocation] = set()
        while prefixes := [one for one in await self._store.prefixes() if one not in failed]:
            for prefix in prefixes:
                try:
                    with self._supervisor.unit(f"revoke the prefix {prefix.ids.low}"):
                        reached[prefix] = await self._put_up_some(prefix, reached.get(prefix, ""))
                except InternalError:
                    failed.add(prefix)

    async def _put_up_some(self, prefix: BulkRevocation, after: str) -> str:
        """Make some leases of a range due, or close it if none is left; return the last id."""
        ids = await self._store.mark_range_revoking(prefix, after, AT_A_TIME)
        if ids:
            self._queue.push_bulk(ids)
            return ids[-1]
        await self._store.close_prefix(prefix)
        return after

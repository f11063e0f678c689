"""Puts whole ranges of leases up for revocation, and abandons them.

Accepting a prefix is one small commit, whatever the number of leases, and survives a kill; the rows are
then turned some hundreds a commit, so that no intent waits behind them. What is being revoked already is
tried now, too. Rows begun after the cut-off are not touched, and no lease of an open prefix is renewed or
becomes ACTIVE.
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

AT_A_TIME = 500
POLL_SECONDS, RETRY_SECONDS, FULL_SCAN_SECONDS = 0.5, 1.0, 30.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a prefix has come: leases taken in, gone, failed since, and neither yet.

    Leases missing from the sum were abandoned since.
    """

    accepted: int
    done: int
    failed: int
    left: int


class Prefixes:
    """Accepts prefixes and works them off."""

    def __init__(
        self, store: UpkeepStore, queue: RevocationQueue, notify: Observer, supervisor: Supervisor
    ) -> None:
        """Turn rows in ``store`` and hand their ids to ``queue``."""
        self._store = store
        self._queue = queue
        self._notify = notify
        self._supervisor = supervisor
        self._wake = asyncio.Event()

    async def accept(self, ids: IdRange, by: str) -> tuple[BulkRevocation, int]:
        """Put a range up for revocation; return it and how many leases it takes in.

        When this returns, nothing stops it.
        """
        prefix, taken = await self._store.open_prefix(ids)
        self._accepted(ids, taken, by)
        return prefix, taken

    async def disable(self, mount: str, by: str) -> tuple[Mount, int] | None:
        """Let a mount take no new lease and put all of its leases up; return it and how many they are.

        None where there is no such mount. When this returns, nothing stops it.
        """
        disabled = await self._store.disable(mount)
        if disabled is not None:
            self._accepted(IdRange.of_mount(mount), disabled[1], by)
        return disabled

    def _accepted(self, ids: IdRange, taken: int, by: str) -> None:
        self._notify(PrefixAccepted(ids.low, taken, by))
        self._wake.set()

    async def follow(self, prefix: BulkRevocation, accepted: int) -> AsyncIterator[Standing]:
        """Yield how far a prefix has come, at each change, until each lease is gone or has failed once."""
        last = Standing(accepted, 0, 0, accepted)
        while True:
            progress = await self._store.progress(prefix)
            left = progress.alive - progress.failed
            standing = Standing(accepted, progress.gone, progress.failed, left)
            if standing != last:
                yield standing
            if not standing.left:
                return
            last = standing
            await asyncio.sleep(POLL_SECONDS)

    async def abandon(self, ids: IdRange, by: str, *, live: bool = False) -> int:
        """Stop trying for what is being revoked of a range, for ``live`` leases too; return how many."""
        abandoned = 0
        while some := await self._store.abandon(ids, AT_A_TIME, live=live):
            abandoned += len(some)
        self._notify(Abandoned(ids.low, abandoned, by))
        return abandoned

    async def run(self) -> None:
        """Work off the open prefixes, also those of the process before, until cancelled."""
        self._wake.set()
        while True:
            try:
                async with asyncio.timeout(FULL_SCAN_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass  # a range may be durable although its caller was gone, or got an error
            self._wake.clear()
            try:
                await self._work_off()
            except StoreUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
                self._wake.set()

    async def _work_off(self) -> None:
        """Make the leases of all open ranges due; the ranges take turns, so that none waits for a large one.

        One that fails unexpectedly is left for the backstop.
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
        """Make some leases of a range due, or close it if none is left; return the last one's id."""
        ids = await self._store.mark_range_revoking(prefix, after, AT_A_TIME)
        if ids:
            self._queue.push_bulk(ids)
            return ids[-1]
        await self._store.close_prefix(prefix)
        return after

"""Runs rotations that are due or requested, at most one attempt for each row at a time.

Rows are few, so the store is polled for the next due time, at least every 30 s. While expiry is held nothing
starts automatically: a wrong clock would rotate at the wrong time, and with a restored store the account's
newer keys would look like lost ones.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from lessor_server.domain.errors.base import Aborted, InternalError, LessorError, NotFound, StoreUnavailable
from lessor_server.domain.rotation import Phase, Rotation
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.background import BackgroundTasks
from lessor_server.engine.ports import Observer, Store
from lessor_server.engine.revocation.expiry_hold import ExpiryHold
from lessor_server.engine.rotation.rotation_run import Goal, RotationClaim, RotationOrder, RotationRun
from lessor_server.engine.rotation.user_keys import UserKeys
from lessor_server.engine.supervisor import Supervisor
from lessor_server.engine.waiting import wait_for

FULL_SCAN_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 1.0
"""The polling interval while the store cannot write, or expiry is held."""

MAX_CONCURRENT: Final = 8
"""The maximum number of scheduled rotations at the same time."""


@dataclass(slots=True)
class Job:
    """A running attempt; ``answer`` is set once the new key is in use, or the attempt has ended."""

    order: RotationOrder
    rotates: bool
    answer: asyncio.Future[Rotation]
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    by_clock: bool = False
    align: bool = False
    """The root's config has changed since the attempt began."""

    def serves(self, order: RotationOrder) -> bool:
        """Return whether the key that this attempt will create is enough for ``order``."""
        plain = not order.delete_other_key and order.change is None
        return self.rotates and not self.answer.done() and order.goal is Goal.ROTATE and plain


class Rotator:
    """One job for each row with a running attempt."""

    def __init__(
        self,
        store: Store,
        roots: Roots,
        keys: UserKeys,
        notify: Observer,
        rng: random.Random,
        supervisor: Supervisor,
        work: BackgroundTasks,
        expiry: ExpiryHold,
    ) -> None:
        """Run jobs in ``work``; scheduled ones wait while ``expiry`` is held."""
        self._store = store
        self._roots = roots
        self._keys = keys
        self._notify = notify
        self._rng = rng
        self._supervisor = supervisor
        self._work = work
        self._expiry = expiry
        self._jobs: dict[str, Job] = {}
        self._interrupted: dict[str, Rotation] = {}
        """Rows still claimed by attempts that a failure of the store has ended."""
        self._claiming = asyncio.Lock()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Start due rotations, until cancelled."""
        while True:
            try:
                seconds = await self._begin_due()
            except StoreUnavailable:
                seconds = RETRY_SECONDS
            await wait_for(self._wake, seconds)
            self._wake.clear()

    async def _begin_due(self) -> float:
        """Start due rotations, and return the seconds until the next check."""
        await self._give_back()
        if self._expiry.held:
            return RETRY_SECONDS
        async with self._claiming:
            room = MAX_CONCURRENT - sum(job.by_clock for job in self._jobs.values())
            if room <= 0:
                return FULL_SCAN_SECONDS  # the end of a job wakes this loop
            busy = frozenset(self._jobs)
            next_us = await self._store.next_rotation_us(busy)
            left = (next_us - self._store.now()) / 1e6
            if not next_us or left > 0:
                return min(left, FULL_SCAN_SECONDS) if next_us else FULL_SCAN_SECONDS
            for rotation in await self._store.claim_rotations(room, busy):
                with suppress(InternalError), self._supervisor.unit(f"begin {rotation.subject}"):
                    self._start(rotation.subject, RotationOrder(), rotation)
        return 0.0

    async def ask(self, subject: str, order: RotationOrder) -> Rotation:
        """Run an attempt by ``order``, or join one that already creates a new key; return the row.

        It continues if the caller disconnects.

        Raises:
            NotFound: There is no such row, and the order has none to store.
            Aborted: Another process works on it.
        """
        while True:
            async with self._claiming:
                job = self._jobs.get(subject)
                if job is None:
                    job = self._start(subject, order, None)
                    break
            if job.serves(order):
                break
            await job.ended.wait()
        return await asyncio.shield(job.answer)

    async def align(self, subject: str) -> None:
        """Schedule the next rotation of a root by its config, now or after the running job."""
        job = self._jobs.get(subject)
        if job is None:
            await self.ask(subject, RotationOrder(Goal.ALIGN, new=Rotation(subject)))
        else:
            job.align = True

    def _start(self, subject: str, order: RotationOrder, claimed: Rotation | None) -> Job:
        rotates = order.goal is Goal.ROTATE
        if claimed is not None:
            now = self._store.now()
            halfway = claimed.phase in (Phase.INTENDED, Phase.MADE)
            missed = claimed.schedule.missed(claimed.next_us, now)
            rotates = not claimed.ending and (halfway or (claimed.is_due(now) and not missed))
        answer = asyncio.get_running_loop().create_future()
        job = Job(order, rotates, answer, by_clock=claimed is not None)
        self._jobs[subject] = job
        self._work.start(self._work_on(subject, job, claimed))
        return job

    async def _work_on(self, subject: str, job: Job, claimed: Rotation | None) -> None:
        """Run one attempt and wake its callers."""

        def answer(rotation: Rotation) -> None:
            if not job.answer.done():
                job.answer.set_result(rotation)

        run: RotationRun | None = None
        try:
            with self._supervisor.unit(f"rotate {subject}"):
                row = claimed or await self._claim(subject, job.order)
                run = self._new_run(row, job.order, answer)
                answer(await run.run())
        except LessorError as error:
            if run is not None and isinstance(error, StoreUnavailable):
                self._interrupted[subject] = run.row
            if not job.answer.done():
                job.answer.set_exception(error)
                job.answer.exception()  # retrieved, even if nobody waits
        finally:
            del self._jobs[subject]
            if job.align:
                self._start(subject, RotationOrder(Goal.ALIGN, new=Rotation(subject)), None)
            job.ended.set()
            self._wake.set()

    def _new_run(
        self, claimed: Rotation, order: RotationOrder, switched: Callable[[Rotation], None]
    ) -> RotationRun:
        held = RotationClaim(self._store, self._notify, self._rng, claimed)
        return RotationRun(
            held, self._keys, self._roots, self._notify, self._rng, self._supervisor, order, switched
        )

    async def _give_back(self) -> None:
        """Release the rows that a failure of the store has interrupted, unless they were claimed again."""
        for subject, row in list(self._interrupted.items()):
            try:
                with self._supervisor.unit(f"give back the rotation of {subject}"):
                    await self._store.move_rotation(replace(row, due_us=row.idle_due_us()), done=True)
            except InternalError:
                pass  # its claim expires
            if self._interrupted.get(subject) is row:
                del self._interrupted[subject]

    async def _claim(self, subject: str, order: RotationOrder) -> Rotation:
        await self._give_back()
        claimed = await self._store.claim_rotation(subject)
        if claimed is None and order.new is not None:
            claimed = await self._store.add_rotation(order.new)
        if claimed is not None:
            return claimed
        if await self._store.get_rotation(subject) is None:
            raise NotFound("static role", subject)
        raise Aborted(f"the rotation of {subject} is claimed by another process", retry_in=1.0)

"""A rotation's row under claim: every change is durable before the next call is sent."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

from lessor_server.domain import backoff
from lessor_server.domain.errors.base import Aborted, AwsUnavailable, LessorError, PacerFull
from lessor_server.domain.events import RotationFailed
from lessor_server.domain.root import StoredRoot
from lessor_server.domain.rotation import Rotation
from lessor_server.engine.ports import Observer, RotationStore

_MICROSECOND = timedelta(microseconds=1)
_SILENT = (AwsUnavailable, PacerFull, Aborted)
"""Errors that say nothing about the row, and count no attempt."""


class RotationClaim:
    """Holds the claim; ``now`` is the row as it is, with what is not durable yet."""

    def __init__(self, store: RotationStore, notify: Observer, rng: random.Random, claimed: Rotation) -> None:
        """Begin with the row as it was ``claimed``."""
        self.now = claimed
        self.store = store
        self._notify = notify
        self._rng = rng

    async def move(self, after: Rotation, *, done: bool = False) -> None:
        """Make the next state durable, or raise ``Aborted`` where the claim is lost."""
        moved = await self.store.move_rotation(after, done=done)
        if moved is None:
            raise self._lost()
        self.now = moved

    async def switch(self, after: Rotation, root: StoredRoot) -> bool:
        """Make the next state and the root durable in one transaction; False where the root has changed."""
        moved = await self.store.switch_root(after, root)
        if moved is not None:
            self.now = moved
            return True
        there = await self.store.get_rotation(after.subject)
        if there is None or there.generation != self.now.generation:
            raise self._lost()
        return False

    async def let_go(self) -> None:
        """Give the row back, due when its next step is."""
        await self.move(replace(self.now, due_us=self.now.idle_due_us()), done=True)

    async def fail(self, error: LessorError, by: str) -> None:
        """Write down why the attempt failed that ``by`` asked for, and let the row go, due after a wait."""
        row = self.now
        attempts = row.attempts if isinstance(error, _SILENT) else backoff.counted(row.attempts)
        wait = backoff.refused(max(attempts, 1), self._rng.random())
        idle_due_us, again_us = row.idle_due_us(), self.store.now() + wait // _MICROSECOND
        due_us = max(idle_due_us, again_us) if idle_due_us else 0
        await self.move(replace(row, attempts=attempts, last_error=error.message, due_us=due_us), done=True)
        self._notify(RotationFailed(row.subject, error.message, error.detail, attempts, by))

    async def forget(self) -> None:
        """Delete the row, or raise ``Aborted`` where the claim is lost."""
        if not await self.store.forget_rotation(self.now):
            raise self._lost()

    def _lost(self) -> Aborted:
        return Aborted(f"the rotation of {self.now.subject} was claimed by another process", retry_in=1.0)

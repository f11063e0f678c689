"""Measures the accounts of the mounts, each hour: their users and quota, and the age of their roots' keys."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from lessor_server.domain.aws.iam_calls import GetAccountSummary, ListKeyDates
from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.root import Root
from lessor_server.domain.root_kind import RootKind, kind_of
from lessor_server.engine.aws.caller import is_inconclusive
from lessor_server.engine.aws.rate_limiter import Priority
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.meter import AccountGauges
from lessor_server.engine.paging import iter_mount_names
from lessor_server.engine.ports import Store

POLL_SECONDS: Final = 60.0
"""The interval for new mounts and for mounts whose account did not answer."""
EVERY_SECONDS: Final = 3600.0
MAX_MEASURED: Final = 100
"""The number of mounts that are measured, the first by name."""


class AccountMeter:
    """Keeps the last measurement of each account."""

    def __init__(self, store: Store, roots: Roots) -> None:
        """Ask AWS through ``roots``, with the lowest priority."""
        self._store = store
        self._roots = roots
        self._due: dict[str, tuple[int, float]] = {}
        """For each mount the version of the root that was measured, and when it is measured again."""
        self._measured: dict[str, AccountGauges] = {}

    @property
    def accounts(self) -> Mapping[str, AccountGauges]:
        """Return the last measurement by mount."""
        return self._measured

    async def run(self) -> None:
        """Measure until cancelled; a new mount or root is measured within a minute, and then each hour."""
        while True:
            with suppress(LessorError):  # the store is read again soon
                names = [name async for name in iter_mount_names(self._store)][:MAX_MEASURED]
                self._due = {name: self._due.get(name, (0, 0.0)) for name in names}
                self._measured = {name: one for name, one in self._measured.items() if name in self._due}
                for name in names:
                    await self._measure_if_due(name)
            await asyncio.sleep(POLL_SECONDS)

    async def _measure_if_due(self, mount: str) -> None:
        now = asyncio.get_running_loop().time()
        version, due = self._due[mount]
        with suppress(LessorError):  # there is no root, or AWS does not answer
            root = await self._roots.get(mount)
            if root.version == version and now < due:
                return
            room = await self._roots.caller(root, Priority.CHECK).call(GetAccountSummary())
            if is_inconclusive(room):
                return
            created_us = await self._find_key_date(root)
            self._due[mount] = root.version, now + EVERY_SECONDS
            known = None if isinstance(room, LessorError) else room
            self._measured[mount] = AccountGauges(known, created_us)

    async def _find_key_date(self, root: Root) -> int:
        """Return when the root's key was created, 0 if it is not a user's key or AWS does not say."""
        if not root.config.access_key or root.config.assume_chain:
            return 0
        arn = (await self._roots.identity(root)).arn
        if kind_of(root.config, arn) is not RootKind.USER_KEYS:
            return 0
        dates = await self._roots.caller(root, Priority.CHECK).call(ListKeyDates(arn.rpartition("/")[2]))
        found = () if isinstance(dates, LessorError) else dates
        return next((created_us for key_id, created_us in found if key_id == root.config.access_key), 0)

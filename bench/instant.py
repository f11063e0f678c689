"""AWS and a store that answer at once: what a server saves with them is what the real ones cost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, TypeVar, cast

from lessor_server.adapters.sql.clock import Clock
from lessor_server.adapters.sqlite.store import SqliteStore, Verify, open_store
from lessor_server.domain import lease as steps
from lessor_server.domain.aws import iam_calls, sts_calls
from lessor_server.domain.aws.iam_calls import AccessKey, Call, CreatedUser
from lessor_server.domain.aws.sts_calls import AwsIdentity
from lessor_server.domain.events import Event
from lessor_server.domain.lease import Intent, Lease
from lessor_server.domain.root import Root
from lessor_server.domain.secret import Secret
from lessor_server.engine.store_types import StoredContext

T = TypeVar("T")

_ACCOUNT = "123456789012"


class InstantAws:
    """Does nothing and says that it is done."""

    def __init__(self, *_parts: object, **_settings: object) -> None:
        """Take what the real gateway takes, and need none of it."""
        self._numbers = count(1)

    async def send(self, _root: Root, call: Call[T]) -> T:
        """Return a success without waiting."""
        return cast("T", self._answer(call))

    def forget(self, _mount: str) -> None:
        """Keep nothing of any mount, and so forget it."""

    def _answer(self, call: Call[Any]) -> object:
        arn = f"arn:aws:iam::{_ACCOUNT}:user/{call.user}"
        match call:
            case iam_calls.CreateUser():
                return CreatedUser(arn)
            case iam_calls.CreateAccessKey():
                return AccessKey(f"AKIAEXAMPLE{next(self._numbers):09}", Secret("an-example-and-no-key"))
            case sts_calls.GetCallerIdentity():
                return AwsIdentity(f"aws:{_ACCOUNT}", arn, "AIDAEXAMPLE")
            case _:
                return None


class InstantStore:
    """Answers the steps of an issue from memory, without a thread, a row or a commit; the rest is SQLite's.

    What an issue stands on is read once, so configure before the first credential.
    """

    def __init__(self, store: SqliteStore) -> None:
        """Leave to ``store`` all that no issue does."""
        self._store = store
        self._grounds: dict[tuple[str, str], StoredContext] = {}
        self._begun: dict[str, Lease] = {}
        self.now = store.now

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as many types as there are methods
        """Return the SQLite store's own method."""
        return getattr(self._store, name)

    async def load_issue_context(
        self, mount: str, role: str, _owner: str = "", _request_id: str = ""
    ) -> StoredContext:
        """Return what was read the first time that a root stood there with its account."""
        found = self._grounds.get((mount, role))
        if found is None:
            found = await self._store.load_issue_context(mount, role)
            if found.root is not None and found.root.account:
                self._grounds[mount, role] = found
        return found

    async def begin(self, intent: Intent, span: timedelta) -> Lease:
        """Return an intent that is stored nowhere but in memory."""
        lease = self._begun[intent.id] = steps.begin(intent, self.now(), span)
        return lease

    async def get(self, lease_id: str, *, salvage: bool = False) -> Lease | None:
        """Return a lease that was begun, and otherwise the SQLite store's."""
        return self._begun.get(lease_id) or await self._store.get(lease_id, salvage=salvage)

    async def is_current(self, lease: Lease) -> bool:
        """Return True for what was begun here."""
        return lease.id in self._begun or await self._store.is_current(lease)

    async def write(self, before: Lease, after: Lease) -> bool:
        """Accept each step of a lease that was begun here; the rest is the SQLite store's."""
        return self._begun.pop(before.id, None) is not None or await self._store.write(before, after)


@asynccontextmanager
async def open_instant_store(
    folder: Path, clock: Clock, notify: Callable[[Event], None], verify: Verify
) -> AsyncIterator[InstantStore]:
    """Open a store whose issues cost nothing; arguments as those of ``open_store``."""
    async with open_store(folder, clock, notify, verify) as store:
        yield InstantStore(store)

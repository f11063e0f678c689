"""Compares the account with the store: at a start, each hour, and on request.

Users below this installation's path are listed first and then looked up in the store: the intent always
precedes its user, so a user without a row is not ours, or its row was lost. Old tombstones whose users a
complete listing did not show are purged. While the clock is not trusted no age is known: nothing is adopted,
reported missing or purged until the next run.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from enum import Enum

from lessor_server.domain import user_names
from lessor_server.domain.aws.errors import for_caller
from lessor_server.domain.aws.iam_calls import GetUser, IamUser, ListUsers
from lessor_server.domain.durations import MICROSECOND
from lessor_server.domain.errors.base import Invalid, LessorError, StoreUnavailable
from lessor_server.domain.errors.preconditions import RootNotSet
from lessor_server.domain.events import OrphanAdopted, Reconciled, ReconcileFailed, UserMissing
from lessor_server.domain.lease import CREATE_GRACE, Footprint, Lease, Orphan, State
from lessor_server.domain.lease_id import RANDOM_BOUND, IdRange, LeaseId, suffix_of
from lessor_server.domain.root import Root
from lessor_server.engine.aws.pages import PageCount
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.paging import iter_mount_names
from lessor_server.engine.ports import Observer, Store, Watch
from lessor_server.engine.revocation.expiry_hold import STORE_ROLLED_BACK, ExpiryHold
from lessor_server.engine.supervisor import Supervisor

EVERY_SECONDS, RETRY_SECONDS = 3600.0, 60.0
PAGE = 500
LOST = "lost"
"""The role name for an orphan whose tags have none."""

_GRACE_US = CREATE_GRACE // MICROSECOND


class FindingKind(Enum):
    """What a reconcile run can find."""

    UNKNOWN_USER = "UNKNOWN_USER"
    MISSING_USER = "MISSING_USER"
    ABANDONED_USER = "ABANDONED_USER"


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference between account and store; ``applied`` if it was repaired."""

    kind: FindingKind
    user_name: str
    lease_id: str
    applied: bool


class Reconciler:
    """Lists the users on the accounts and repairs differences to the store."""

    def __init__(
        self,
        store: Store,
        roots: Roots,
        watch: Watch,
        expiry: ExpiryHold,
        notify: Observer,
        supervisor: Supervisor,
    ) -> None:
        """Compare ``store`` with the accounts of ``roots``; hold ``expiry`` if the store is too old."""
        self._store = store
        self._roots = roots
        self._watch = watch
        self._expiry = expiry
        self._notify = notify
        self._supervisor = supervisor
        self._started_us = store.now()

    async def run(self) -> None:
        """Reconcile every mount now and each hour, failed ones each minute, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            next_round = loop.time() + EVERY_SECONDS
            left = await self._reconcile_all(None)
            self._expiry.swept()
            await self._purge_sessions()
            while left != [] and loop.time() + RETRY_SECONDS < next_round:
                await asyncio.sleep(RETRY_SECONDS)
                left = await self._reconcile_all(left)
            await asyncio.sleep(max(next_round - loop.time(), 0))

    async def _reconcile_all(self, mounts: list[str] | None) -> list[str] | None:
        """Reconcile ``mounts`` (None: all); return those that failed, None if all may have."""
        try:
            if mounts is None:
                mounts = [name async for name in iter_mount_names(self._store)]
                self._roots.forget_all_but(set(mounts))
        except LessorError:
            return None
        return [mount for mount in mounts if not await self._reconcile_mount(mount)]

    async def _purge_sessions(self) -> None:
        """Purge old tombstones of sessions, for which no account has to be listed."""
        try:
            await self._store.purge_tombstones("", 0)
        except StoreUnavailable:
            return  # they wait for the next run

    async def _reconcile_mount(self, mount: str) -> bool:
        began_us = self._store.now()
        try:
            with self._supervisor.unit(f"reconcile {mount}"):
                async for _ in self.reconcile(mount, apply=True):
                    pass
        except RootNotSet:
            return True  # nothing to list
        except LessorError as error:
            self._notify(ReconcileFailed(mount, error.message))
            return False
        return self._may_judge(began_us)  # ages that were unknown are soon checked again

    async def reconcile(
        self, mount: str, *, apply: bool, instance: str = "", by: str = ""
    ) -> AsyncIterator[Finding]:
        """Compare one account with the store and yield what differs.

        Args:
            mount: The mount whose root lists the account.
            apply: Adopt orphans, so that they are revoked.
            instance: Another installation's id, whose users are listed, and adopted only with ``apply``.
            by: The caller, if any.

        Raises:
            RootNotSet, AwsUnavailable, RootRefused: The account cannot be listed.
        """
        root = await self._roots.bind(await self._roots.get(mount))
        whose = instance or self._roots.instance
        listed_us, seen = self._store.now(), set[str]()
        async for listed in self._list_users(root, whose, seen):
            finding = await self._compare(root, listed, whose, apply=apply, by=by)
            if finding is not None:
                yield finding
        if whose != self._roots.instance or not self._may_judge(listed_us):
            return
        async for finding in self._find_missing(root, listed_us, seen, apply=apply):
            if finding.applied:
                self._notify(UserMissing(finding.lease_id, finding.user_name, by))
            yield finding
        purged = await self._store.purge_tombstones(root.account, listed_us)
        self._notify(Reconciled(mount, len(seen), purged))

    async def _list_users(
        self, root: Root, whose: str, seen: set[str]
    ) -> AsyncIterator[tuple[IamUser, Lease | None]]:
        """Yield the users below an installation's path, each with its row, and note their names."""
        marker, count = "", PageCount("ListUsers")
        while True:
            page = await self._roots.call_or_raise(root, ListUsers(user_names.user_path(whose, ""), marker))
            known = await self._store.leases_by_user_name([user.name for user in page.users])
            for user in page.users:
                seen.add(user.name)
                lease = known.get(user.name)
                if lease is not None or user.name not in known:
                    yield user, lease  # otherwise its row cannot be read: nothing can be compared
            marker = page.marker
            if not marker:
                return
            if not count.may_go_on(marker):
                raise for_caller(count.endless())

    async def _find_missing(
        self, root: Root, listed_us: int, seen: set[str], *, apply: bool
    ) -> AsyncIterator[Finding]:
        """Yield the leases, old enough, whose users a complete listing did not show."""
        after = ""
        while page := await self._store.page(IdRange.of_mount(root.mount), State.ACTIVE, after, PAGE):
            after = page[-1].id
            for lease in page:
                name, account = lease.footprint.user_name, lease.footprint.account
                elsewhere = lease.is_session or account != root.account
                if elsewhere or name in seen or lease.issue_us > listed_us - _GRACE_US:
                    continue
                if apply:
                    await self._store.revoke(lease.id)
                    self._watch(lease.id, self._store.now())
                yield Finding(FindingKind.MISSING_USER, name, lease.id, applied=apply)

    async def _compare(
        self, root: Root, listed: tuple[IamUser, Lease | None], whose: str, *, apply: bool, by: str
    ) -> Finding | None:
        """Return the finding about one listed user, if any, and repair it if that is requested."""
        user, lease = listed
        if lease is None:
            found = await self._adopt_unknown(root, user, whose, apply=apply)
            if found is not None and found.applied:
                self._notify(OrphanAdopted(found.lease_id, user.name, by))
            return found
        if lease.state is State.GONE:
            # A tombstone's user was created late: its lease is reopened, even without ``apply``.
            await self._store.reopen(lease.id, lease.last_create_us)
            self._watch(lease.id, self._store.now())
            return Finding(FindingKind.UNKNOWN_USER, user.name, lease.id, applied=True)
        if lease.state is State.ABANDONED:
            return Finding(FindingKind.ABANDONED_USER, user.name, lease.id, applied=False)
        return None

    async def _adopt_unknown(self, root: Root, user: IamUser, whose: str, *, apply: bool) -> Finding | None:
        """Adopt a user without a row, if it is ours and too old to be part of an issue in flight."""
        if self._is_new(user):
            return None
        found = await self._roots.caller(root).call(GetUser(user.name))
        tags = dict(found.tags) if not isinstance(found, LessorError) else {}
        orphan = self._orphan(root, user, tags)
        left = Finding(FindingKind.UNKNOWN_USER, user.name, orphan.id, applied=False)
        if tags.get("lessor:instance") != whose:
            return left
        if whose == self._roots.instance and user.created_us < self._started_us:
            await self._hold_rolled_back()
        if not apply or not self._may_adopt() or self._is_new(user):
            return left  # read again: the clock may have been lowered since
        if not await self._store.adopt(orphan):
            return left
        self._watch(orphan.id, self._store.now())
        return replace(left, applied=True)

    def _may_judge(self, since_us: int) -> bool:
        """Return whether the clock is trusted, and was not lowered since it was last read."""
        return self._expiry.clock_trusted and self._store.now() >= since_us

    def _is_new(self, user: IamUser) -> bool:
        """Return whether the user may be part of an issue in flight."""
        return self._store.now() - user.created_us < _GRACE_US

    def _may_adopt(self) -> bool:
        return self._expiry.clock_trusted and self._expiry.why != STORE_ROLLED_BACK

    async def _hold_rolled_back(self) -> None:
        """Hold expiry: a user that we created before this start has no row, so the store is older."""
        if not self._expiry.resumed and self._expiry.why != STORE_ROLLED_BACK:
            await self._expiry.hold(STORE_ROLLED_BACK)

    def _orphan(self, root: Root, user: IamUser, tags: dict[str, str]) -> Orphan:
        footprint = Footprint(root.account, user.name, user.path)
        try:
            made_for = LeaseId.parse(tags.get("lessor:lease", ""))
        except Invalid:
            made_for = LeaseId(root.mount, LOST, _suffix_of(user))
        return Orphan(str(made_for), root.mount, made_for.role, footprint)


def _suffix_of(user: IamUser) -> str:
    """Return a suffix that depends only on the user, so that two processes adopt it once."""
    number = int.from_bytes(hashlib.sha256(user.name.encode()).digest()) % RANDOM_BOUND
    return suffix_of(user.created_us // 1000, number)

"""Checks which users a reconcile run adopts, and when it drops tombstones."""

from __future__ import annotations

import asyncio

import pytest

from lessor_server.domain.events import ExpiryHeld, OrphanAdopted, Reconciled, ReconcileFailed, Revoked
from lessor_server.domain.lease import State
from lessor_server.domain.lease_id import IdRange
from lessor_server.engine.upkeep.reconciler import Finding
from lessor_server.engine.upkeep.reconciler import FindingKind as Found
from tests.support import builders
from tests.support.engine_world import World, bound, world
from tests.support.iam_faults import Fault, Kind
from tests.support.iam_rules import RefusalError
from tests.support.iam_user import User
from tests.support.virtual_loop import virtual

OURS, THEIRS = "0123456789abcdef", "fedcba9876543210"
GRACE, HOUR, DAY = 900.0, 3600.0, 86_400.0
EVERYTHING_OF_AWS = IdRange("aws/", "aws0")
NEW_ID = builders.intent(77).id


def appear(
    w: World, name: str = "stray", *, instance: str = OURS, of: str = OURS, lease: str = NEW_ID
) -> None:
    """Have a user on the account that no row knows: below ``of``'s path, tagged with ``instance``."""
    tags = (("lessor:instance", instance), ("lessor:lease", lease)) if instance else ()
    w.iam.create_user(name, f"/lessor/{of}/", tags)


async def sweep(w: World, *, apply: bool = True, instance: str = "") -> list[Finding]:
    """Reconcile as a caller does and return what was found."""
    return [found async for found in w.engine.reconciler.reconcile("aws", apply=apply, instance=instance)]


def refuse(path_prefix: str = "/") -> list[User]:
    """Refuse a listing, as AWS does a root that may not make it."""
    raise RefusalError(403, "AccessDenied", f"not you below {path_prefix}")


# --- users that no row knows -----------------------------------------------------------------------------


@virtual
async def test_a_lost_user_of_ours_is_adopted_and_revoked() -> None:
    async with world() as w:
        await bound(w)
        await asyncio.sleep(100)
        appear(w)
        adopted = await w.events.until(OrphanAdopted, seconds=HOUR)
        assert (adopted.lease_id, adopted.user_name) == (NEW_ID, "stray")
        await w.until_gone(seconds=10)
        assert w.users() == []
        assert w.events.of(ExpiryHeld) == []


@virtual
async def test_a_user_younger_than_15_minutes_is_not_adopted() -> None:
    """It may belong to an issue in progress."""
    async with world() as w:
        await bound(w)
        await w.events.until(Reconciled, seconds=HOUR + 60)
        await asyncio.sleep(HOUR - GRACE + 30)
        appear(w)
        await w.events.until(Reconciled, count=2, seconds=HOUR)
        assert w.users() == ["stray"]
        assert await sweep(w) == []
        await w.events.until(Reconciled, count=4, seconds=HOUR + 60)
        await w.until_gone(seconds=10)
        assert w.users() == []


@pytest.mark.parametrize(
    ("instance", "path"), [(THEIRS, OURS), ("", OURS), (OURS, THEIRS), (THEIRS, THEIRS)], ids=str
)
@virtual
async def test_a_user_without_our_path_or_tag_is_not_adopted(instance: str, path: str) -> None:
    async with world() as w:
        await bound(w)
        appear(w, instance=instance, of=path)
        await asyncio.sleep(DAY)
        assert all(not found.applied for found in await sweep(w))
        assert w.users() == ["stray"]
        assert w.events.of(OrphanAdopted) == []


@virtual
async def test_a_run_during_issues_finds_nothing() -> None:
    async with world() as w:
        await bound(w)
        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(w.issue(ttl=1 + number % 3))
                group.create_task(_no_finding(w))
                await asyncio.sleep(0.03)
        await w.until_gone()


async def _no_finding(w: World) -> None:
    assert await sweep(w) == []


@virtual
async def test_a_user_whose_tags_name_no_lease_is_adopted_under_a_new_id() -> None:
    async with world() as w:
        await bound(w)
        appear(w, lease="nonsense")
        await asyncio.sleep(GRACE)
        (found,) = await sweep(w)
        assert found.applied
        assert found.lease_id.startswith("aws/creds/lost/")
        await w.until_gone(seconds=10)
        assert w.users() == []


@virtual
async def test_users_beyond_the_first_page_are_found() -> None:
    async with world() as w:
        await bound(w)
        for number in range(1005):
            appear(w, f"a-{number:04}", instance=THEIRS)
        appear(w, "z-last")
        await asyncio.sleep(GRACE)
        found = await sweep(w)
        assert w.aws.actions().count("ListUsers") == 2
        assert [one.user_name for one in found if one.applied] == ["z-last"]


@virtual
async def test_reconcile_without_apply_changes_nothing() -> None:
    async with world() as w:
        made = await w.issue()
        await asyncio.sleep(1)
        appear(w)
        w.iam.forget(made.lease.footprint.user_name)
        await asyncio.sleep(GRACE)
        found = await sweep(w, apply=False)
        assert found == [
            Finding(Found.UNKNOWN_USER, "stray", NEW_ID, applied=False),
            Finding(Found.MISSING_USER, made.lease.footprint.user_name, made.lease.id, applied=False),
        ]
        assert (w.users(), w.states()[made.lease.id]) == (["stray"], State.ACTIVE)


@virtual
async def test_users_of_another_installation_are_adopted_with_its_id_and_apply() -> None:
    async with world() as w:
        await bound(w)
        appear(w, instance=THEIRS, of=THEIRS)
        await asyncio.sleep(GRACE)
        assert [one.applied for one in await sweep(w, apply=False, instance=THEIRS)] == [False]
        assert [one.applied for one in await sweep(w, instance=THEIRS)] == [True]
        await w.until_gone(seconds=10)
        assert w.users() == []


# --- users that rows know --------------------------------------------------------------------------------


@virtual
async def test_a_lease_whose_user_is_missing_ends() -> None:
    async with world() as w:
        made = await w.issue(ttl=23 * HOUR)
        w.iam.forget(made.lease.footprint.user_name)
        await w.events.until(Revoked, seconds=2 * HOUR)
        assert w.states()[made.lease.id] is State.GONE


@virtual
async def test_a_late_user_of_a_tombstone_is_revoked() -> None:
    async with world() as w:
        made = await w.issue()
        await w.revoke(made.lease.id)
        appear(w, made.lease.footprint.user_name, lease=made.lease.id)
        (found,) = await sweep(w, apply=False)
        assert (found.kind, found.lease_id, found.applied) == (Found.UNKNOWN_USER, made.lease.id, True)
        await w.until_gone(seconds=10)
        assert w.users() == []


@virtual
async def test_an_abandoned_user_is_reported_until_it_is_gone() -> None:
    async with world() as w:
        made = await w.issue()
        await w.store.abandon(EVERYTHING_OF_AWS, 9, live=True)
        for _ in range(2):
            (found,) = await sweep(w)
            assert (found.kind, found.applied) == (Found.ABANDONED_USER, False)
        w.iam.forget(made.lease.footprint.user_name)
        assert await sweep(w) == []


# --- tombstones ------------------------------------------------------------------------------------------


@virtual
async def test_a_tombstone_is_kept_seven_days() -> None:
    async with world() as w:
        made = await w.issue()
        await w.revoke(made.lease.id)
        w.clocks.asleep += 7 * DAY - 2 * HOUR  # hours that nobody has to live through
        await asyncio.sleep(2 * HOUR - 60)
        assert made.lease.id in w.store.rows
        await asyncio.sleep(2 * HOUR)
        assert w.store.rows == {}
        assert sum(event.buried for event in w.events.of(Reconciled)) == 1


@virtual
async def test_no_tombstone_is_dropped_without_a_complete_listing() -> None:
    async with world() as w:
        made = await w.issue()
        await w.revoke(made.lease.id)
        w.clocks.asleep += 7 * DAY - 3 * HOUR  # hours that nobody has to live through
        await asyncio.sleep(2 * HOUR)
        swept = len(w.events.of(Reconciled))
        w.aws.faults.add(Fault(Kind.REFUSE, "ListUsers"))
        await asyncio.sleep(5 * HOUR)
        assert made.lease.id in w.store.rows
        assert len(w.events.of(Reconciled)) == swept
        assert w.events.of(ReconcileFailed)
        w.aws.faults.clear()
        await w.events.until(Reconciled, count=swept + 1, seconds=120)
        assert w.store.rows == {}


@virtual
async def test_a_root_that_was_never_used_is_bound_and_listed() -> None:
    async with world() as w:
        appear(w)
        await asyncio.sleep(2 * HOUR + 60)
        assert w.aws.actions()[:2] == ["GetCallerIdentity", "ListUsers"]
        assert w.aws.actions().count("GetCallerIdentity") == 1
        assert w.store.roots["aws"].account == builders.ACCOUNT
        assert w.events.of(ReconcileFailed) == []


@virtual
async def test_a_mount_without_a_root_does_not_disturb_the_others() -> None:
    async with world() as w:
        await bound(w)
        await w.engine.mounts.enable(builders.mount("bare"), "test")
        await asyncio.sleep(DAY)
        assert w.aws.actions().count("ListUsers") == 24
        assert w.events.of(ReconcileFailed) == []


@virtual
async def test_only_the_account_that_failed_is_retried_each_minute() -> None:
    async with world() as w:
        await bound(w)
        await w.engine.mounts.enable(builders.mount("second"), "test")
        await w.set_root("second", builders.OTHER_ROOT_KEY)
        await w.put_role(builders.role(mount_name="second"))
        await w.issue(mount="second")
        w.other_iam.list_users = refuse  # type: ignore[method-assign]
        await asyncio.sleep(3 * HOUR)
        assert len(w.events.of(Reconciled)) == 3
        assert 100 < len(w.events.of(ReconcileFailed)) < 200


@virtual
async def test_after_a_store_error_the_run_is_retried_within_a_minute() -> None:
    async with world() as w:
        await bound(w)
        await w.kill()
        w.store.fails.add("list_mounts")
        await w.start()
        await asyncio.sleep(90)
        w.store.fails.clear()
        await w.events.until(Reconciled, seconds=61)

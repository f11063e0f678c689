"""Checks the rules of reconcile runs, mounts and the clock that every kind of store has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support import builders, lease_steps
from tests.support.stores import OPENERS, SPAN, START_US, TERMS, Bench, HandClock, bench, intent

from lessor_server.domain.errors.base import AlreadyExists, Invalid
from lessor_server.domain.errors.preconditions import MountDisabling
from lessor_server.domain.lease import CREATE_GRACE, TOMBSTONE_LIFE, Footprint, Orphan, State
from lessor_server.domain.lease_id import IdRange
from lessor_server.domain.mount import MountState
from lessor_server.engine.store_types import BulkRevocation

SECOND = 1_000_000
ALL = IdRange("aws/", "aws0")
APP = IdRange("aws/creds/app/", "aws/creds/app0")
GRACE, WEEK = CREATE_GRACE.total_seconds(), TOMBSTONE_LIFE.total_seconds()


# --- sweeps ----------------------------------------------------------------------------------------------


async def test_leases_are_found_by_user_name_in_every_state(b: Bench) -> None:
    active, gone = await b.active(0), await b.taken(1)
    await lease_steps.finish(b.store, gone)
    names = [intent(number).footprint.user_name for number in range(3)]
    known = await b.store.leases_by_user_name(names)
    assert known == {names[0]: active, names[1]: await b.row(gone.id)}
    assert await b.store.leases_by_user_name([]) == {}


async def test_an_adopted_user_is_due_immediately(b: Bench) -> None:
    found = Footprint(builders.ACCOUNT, "stray", "/lessor/0123456789abcdef/")
    orphan = Orphan(intent(0).id, "aws", "lost", found)
    assert await b.store.adopt(orphan)
    row = await b.row(orphan.id)
    assert (row.state, row.due_us, row.owner, row.role) == (State.REVOKING, START_US, "", "lost")
    assert (row.footprint, row.access_key_id, row.request) == (found, "", None)
    assert not await b.store.adopt(orphan)
    assert await b.row(orphan.id) == row
    (claim,) = await b.store.claim_due(TERMS, 9)
    assert await lease_steps.finish(b.store, claim)


@pytest.mark.parametrize(
    ("age", "listed_ago", "buried"),
    [
        (WEEK - 1, 0, 0),
        (WEEK, 0, 1),
        (WEEK, WEEK - GRACE - 121, 1),
        (WEEK, WEEK - GRACE + 1, 0),
        (WEEK, WEEK + 1, 0),
    ],
)
async def test_a_tombstone_is_dropped_after_a_week_and_a_later_complete_listing(
    b: Bench, age: float, listed_ago: float, buried: int
) -> None:
    claim = await b.taken()
    assert await lease_steps.finish(b.store, claim)
    b.clock.advance(age)
    listed_us = b.clock.wall - int(listed_ago * SECOND)
    assert await b.store.purge_tombstones("aws:999999999999", listed_us) == 0
    assert await b.store.purge_tombstones(builders.ACCOUNT, listed_us) == buried
    assert (await b.store.get(claim.id) is None) is bool(buried)


async def test_only_tombstones_are_dropped(b: Bench) -> None:
    await b.active(0)
    abandoned = await b.active(1, role_name="other")
    await b.store.abandon(IdRange("aws/creds/other/", "aws/creds/other0"), 9, live=True)
    reopened = await b.taken(2)
    await lease_steps.finish(b.store, reopened)
    b.clock.advance(10 * WEEK)
    await b.store.reopen(reopened.id, 0)
    assert await b.store.purge_tombstones(builders.ACCOUNT, b.clock.wall) == 0
    assert (await b.row(abandoned.id)).state is State.ABANDONED


# --- mounts that go --------------------------------------------------------------------------------------


async def test_a_mount_is_disabled_and_its_range_revoked_in_one_commit(b: Bench) -> None:
    active, claim = await b.active(0), await b.begun(1)
    await lease_steps.finish(b.store, await b.taken(2))
    disabling = replace(builders.mount(), state=MountState.DISABLING)
    assert await b.store.disable("aws") == (disabling, 2)
    assert await b.store.get_mount("aws") == disabling
    assert await b.store.prefixes() == [BulkRevocation(ALL, START_US)]
    with pytest.raises(MountDisabling):
        await b.begun(3)
    assert await lease_steps.renew(b.store, active, active.expires_us + SECOND) is None
    assert await lease_steps.activate(b.store, claim, "AKIA") is None
    b.clock.advance(1)
    assert await b.store.disable("aws") == (disabling, 2)


async def test_an_unknown_mount_is_not_disabled(b: Bench) -> None:
    assert await b.store.disable("none") is None
    assert await b.store.prefixes() == []


async def test_a_mount_is_removed_once_it_has_no_live_lease(b: Bench) -> None:
    claim = await b.taken()
    await b.store.put_role(builders.role(), None)
    assert await b.store.remove_disabled() == []
    mount = builders.mount()
    await b.store.put_mount(mount, replace(mount, state=MountState.DISABLING))
    assert await b.store.remove_disabled() == []
    assert await b.store.get_root("aws") is not None
    await lease_steps.finish(b.store, claim)
    assert await b.store.remove_disabled() == ["aws"]
    for left in (b.store.get_mount("aws"), b.store.get_root("aws"), b.store.get_role("aws", "app")):
        assert await left is None
    assert [lease.id for lease in await b.store.page(ALL, None, "", 9)] == [claim.id]
    assert await b.store.remove_disabled() == []


async def test_a_mount_whose_leases_are_abandoned_is_removed(b: Bench) -> None:
    lease, mount = await b.active(), builders.mount()
    await b.store.put_mount(mount, replace(mount, state=MountState.DISABLING))
    await b.store.abandon(ALL, 9, live=True)
    assert await b.store.remove_disabled() == ["aws"]
    assert (await b.row(lease.id)).state is State.ABANDONED


# --- the clock and the store as a whole ------------------------------------------------------------------


async def test_a_hold_is_kept_with_its_reason_until_it_is_ended(b: Bench) -> None:
    assert (await b.store.status()).expiry_hold == ""
    for why in ("ASKED", "STORE_ROLLED_BACK", ""):
        await b.store.set_expiry_hold(why)
        assert (await b.store.status()).expiry_hold == why


async def test_lowering_the_clock_ends_the_drift(b: Bench) -> None:
    """Drift is how far the wall clock is ahead."""
    assert (await b.store.status()).first_start
    assert b.store.drift_us() == 0
    b.clock.wall -= 3600 * SECOND
    assert (b.store.drift_us(), b.store.now()) == (-3600 * SECOND, START_US)
    await b.store.lower_clock()
    assert (b.store.drift_us(), b.store.now()) == (0, START_US - 3600 * SECOND)
    b.clock.advance(5)
    claim = await b.begun(span=SPAN)
    assert claim.created_us == START_US - 3595 * SECOND


def brought_back(copy: Path, folder: Path, size: int) -> Path:
    """Check a copy's path, size and mode, and move it to where a store opens it; return that folder."""
    assert (copy.parent, copy.stat().st_size, copy.stat().st_mode & 0o777) == (folder, size, 0o600)
    restored = folder / "restored"
    restored.mkdir()
    copy.rename(restored / "lessor.db")
    return restored


async def test_a_backup_has_all_rows_and_is_private(tmp_path: Path) -> None:
    async with bench("sqlite", tmp_path) as b:
        lease = await b.active()
        path, size = await b.store.backup("copy.db")
        await b.active(1)
    restored = brought_back(tmp_path / path, tmp_path, size)
    async with OPENERS["sqlite"](restored, HandClock()) as store:
        assert [one.id for one in await store.page(ALL, None, "", 9)] == [lease.id]
        assert not (await store.status()).first_start


@pytest.mark.parametrize("path", ["", "copies/of/today.db"])
async def test_a_backup_is_a_new_file_below_the_data_directory(tmp_path: Path, path: str) -> None:
    async with bench("sqlite", tmp_path) as b:
        answer, size = await b.store.backup(path)
        assert answer == path or (not path and answer.startswith("backup-"))
        assert size > 0
        with pytest.raises(AlreadyExists):
            await b.store.backup(answer)


@pytest.mark.parametrize(
    "path", ["../copy.db", "/elsewhere/copy.db", ".", "lessor.db", "lessor.db-wal", "sealing-key"]
)
async def test_a_backup_elsewhere_or_over_our_own_files_is_refused(tmp_path: Path, path: str) -> None:
    async with bench("sqlite", tmp_path) as b:
        with pytest.raises(Invalid):
            await b.store.backup(path)
        await b.active()


async def test_holds_and_the_lowered_clock_are_durable(tmp_path: Path) -> None:
    clock = HandClock()
    async with bench("sqlite", tmp_path, clock) as b:
        await b.active()
        await b.store.set_expiry_hold("ASKED")
        clock.wall -= 3600 * SECOND
        await b.store.lower_clock()
    async with OPENERS["sqlite"](tmp_path, clock) as store:
        assert (await store.status()).expiry_hold == "ASKED"
        assert not (await store.status()).first_start
        assert store.now() == START_US - 3600 * SECOND

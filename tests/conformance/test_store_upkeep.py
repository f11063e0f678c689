"""The rules of a store about prefixes, sweeps, mounts that go, and the clock, held by every kind of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support import builders
from tests.support.stores import OPENERS, SPAN, START_US, TERMS, Bench, HandClock, bench, intent

from lessor_server.domain.errors import AlreadyExists, Invalid
from lessor_server.domain.lease import CREATE_GRACE, TOMBSTONE_LIFE, Footprint, Orphan, State
from lessor_server.domain.mount import MountState
from lessor_server.engine.stored import OpenPrefix, Progress, Range

SECOND = 1_000_000
ALL = Range("aws/", "aws0")
APP = Range("aws/creds/app/", "aws/creds/app0")
GRACE, WEEK = CREATE_GRACE.total_seconds(), TOMBSTONE_LIFE.total_seconds()


@pytest.fixture(name="b", params=list(OPENERS))
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """Open each kind of store in turn."""
    async with bench(request.param, tmp_path) as made:
        yield made


# --- prefixes --------------------------------------------------------------------------------------------


async def test_a_prefix_takes_in_what_lives_in_its_range(b: Bench) -> None:
    """Opening says how many live leases there are; tombstones and other roles' are none of them."""
    await b.begun(0)
    await b.active(1)
    await b.taken(2)
    await b.store.finish(await b.taken(3))
    await b.active(4, role_name="other")
    assert await b.store.open_prefix(APP) == (OpenPrefix(APP, START_US), 3)
    assert await b.store.prefixes() == [OpenPrefix(APP, START_US)]


async def test_a_range_is_no_pattern(b: Bench) -> None:
    """An underscore in a name is an underscore: the neighbour with another character is not taken in."""
    mine, other = await b.active(0, role_name="a_b"), await b.active(1, role_name="a-b")
    prefix, taken = await b.store.open_prefix(Range("aws/creds/a_b/", "aws/creds/a_b0"))
    assert taken == 1
    assert await b.store.put_up(prefix, 100) == [mine.id]
    assert await b.row(other.id) == other


async def test_a_prefix_is_put_up_some_at_a_time(b: Bench) -> None:
    """Each step turns at most so many, each once; what is being revoked already is left as it is."""
    ids = {(await b.active(number)).id for number in range(5)}
    taken = await b.taken(7)
    prefix, accepted = await b.store.open_prefix(APP)
    assert accepted == 6
    steps = [await b.store.put_up(prefix, 2) for _ in range(4)]
    assert [len(step) for step in steps] == [2, 2, 1, 0]
    assert {lease_id for step in steps for lease_id in step} == ids
    for lease_id in ids:
        row = await b.row(lease_id)
        assert (row.state, row.due_us) == (State.REVOKING, START_US)
    assert await b.store.holds(taken)


async def test_what_was_begun_after_the_cutoff_is_not_touched(b: Bench) -> None:
    """A lease that was begun later lives on, and may be renewed while the prefix is open."""
    await b.active(0)
    prefix, _ = await b.store.open_prefix(APP)
    b.clock.advance(1)
    later = await b.active(1)
    assert len(await b.store.put_up(prefix, 100)) == 1
    assert await b.row(later.id) == later
    assert await b.store.renew(later, later.expires_us + SECOND) is not None


async def test_no_lease_of_an_open_prefix_gets_to_live(b: Bench) -> None:
    """From the moment a prefix is open its leases are neither renewed, nor activated, nor given a key."""
    active, claim = await b.active(0), await b.begun(1)
    other = await b.active(2, role_name="other")
    await b.store.open_prefix(APP)
    assert await b.store.renew(active, active.expires_us + SECOND) is None
    assert await b.store.rekey(active, "AKIB") is None
    assert await b.store.activate(claim, "AKIA") is None
    assert await b.store.renew(other, other.expires_us + SECOND) is not None


async def test_an_intent_that_a_prefix_takes_is_lost_to_its_maker(b: Bench) -> None:
    """Putting up an intent voids its claim."""
    claim = await b.begun()
    prefix, _ = await b.store.open_prefix(APP)
    assert await b.store.put_up(prefix, 9) == [claim.id]
    assert not await b.store.holds(claim)
    assert not await b.store.release(claim, "", 0)


async def test_a_closed_prefix_is_forgotten(b: Bench) -> None:
    """Closing ends one prefix and no other of the same range."""
    first, _ = await b.store.open_prefix(APP)
    b.clock.advance(1)
    second, _ = await b.store.open_prefix(APP)
    await b.store.close_prefix(first)
    assert await b.store.prefixes() == [second]
    await b.store.close_prefix(second)
    assert await b.store.prefixes() == []
    lease = await b.active()
    assert await b.store.renew(lease, lease.expires_us + SECOND) is not None


async def test_progress_counts_what_lives_and_what_has_failed(b: Bench) -> None:
    """Alive are the live leases of the range; failed are those of them with an error."""
    gone, failed = await b.taken(0), await b.taken(1)
    await b.active(2)
    prefix, _ = await b.store.open_prefix(APP)
    assert await b.store.progress(prefix) == Progress(3, 0)
    await b.store.finish(gone)
    await b.store.fail(failed, "no", timedelta(seconds=1), 1, 0)
    assert await b.store.progress(prefix) == Progress(2, 1)


async def test_a_whole_lease_id_counts_as_one(b: Bench) -> None:
    """The range of one lease counts that lease, in the state that callers see, or nothing."""
    lease = await b.active(0, ttl=timedelta(seconds=1))
    await b.active(1)
    one = Range(lease.id, f"{lease.id}0")
    assert [(c.role, c.state, c.count) for c in await b.store.count(one, None)] == [("app", State.ACTIVE, 1)]
    b.clock.advance(1)
    assert [c.count for c in await b.store.count(one, State.REVOKING)] == [1]
    assert await b.store.count(one, State.ACTIVE) == []


# --- abandoning ------------------------------------------------------------------------------------------


async def test_what_is_abandoned_is_never_due_and_takes_no_room(b: Bench) -> None:
    """Live leases of a range become ABANDONED, claims on them void; tombstones stay tombstones."""
    claim, active, taken = await b.begun(0), await b.active(1), await b.taken(2)
    gone = await b.taken(3)
    await b.store.finish(gone)
    some = await b.store.abandon(ALL, 2, live=True)
    rest = await b.store.abandon(ALL, 2, live=True)
    assert sorted([*some, *rest]) == sorted([claim.id, active.id, taken.id])
    assert await b.store.abandon(ALL, 2, live=True) == []
    assert {(await b.row(lease_id)).state for lease_id in (*some, *rest)} == {State.ABANDONED}
    assert (await b.row(gone.id)).state is State.GONE
    assert not await b.store.holds(claim)
    assert not await b.store.finish(taken)
    b.clock.advance(10**6)
    assert await b.store.claim_due(TERMS, 9) == []
    await b.begun(9, max_users=1)


async def test_without_being_told_so_only_what_is_being_revoked_is_abandoned(b: Bench) -> None:
    """A lease that lives, and one that is being made, stay; REVOKING and expired ones are given up."""
    living, making, taken = await b.active(0), await b.begun(1), await b.taken(2)
    expired = await b.active(3, ttl=timedelta(seconds=1))
    b.clock.advance(1)
    assert sorted(await b.store.abandon(ALL, 9, live=False)) == sorted([taken.id, expired.id])
    assert await b.row(living.id) == living
    assert await b.store.holds(making)


async def test_an_abandoned_lease_is_taken_up_again_by_a_revocation(b: Bench) -> None:
    """Revoking an abandoned lease makes it due at once."""
    lease = await b.active()
    await b.store.abandon(ALL, 9, live=True)
    row = await b.store.revoke(lease.id)
    assert row is not None
    assert (row.state, row.due_us) == (State.REVOKING, START_US)
    assert len(await b.store.claim([lease.id], TERMS)) == 1


# --- sweeps ----------------------------------------------------------------------------------------------


async def test_users_are_known_by_name_in_every_state(b: Bench) -> None:
    """A user's lease is found by its name, tombstones and abandoned ones too; others are not there."""
    active, gone = await b.active(0), await b.taken(1)
    await b.store.finish(gone)
    names = [intent(number).footprint.user_name for number in range(3)]
    known = await b.store.known(names)
    assert known == {names[0]: active, names[1]: await b.row(gone.id)}
    assert await b.store.known([]) == {}


async def test_an_adopted_user_is_due_at_once(b: Bench) -> None:
    """Adopting stores a REVOKING row without an owner, once; a row that is there stays as it is."""
    found = Footprint(builders.ACCOUNT, "stray", "/lessor/0123456789abcdef/")
    orphan = Orphan(intent(0).id, "aws", "lost", found)
    assert await b.store.adopt(orphan)
    row = await b.row(orphan.id)
    assert (row.state, row.due_us, row.owner, row.role) == (State.REVOKING, START_US, "", "lost")
    assert (row.footprint, row.access_key_id, row.request) == (found, "", None)
    assert not await b.store.adopt(orphan)
    assert await b.row(orphan.id) == row
    (claim,) = await b.store.claim_due(TERMS, 9)
    assert await b.store.finish(claim)


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
async def test_a_tombstone_goes_after_a_week_and_a_complete_later_listing(
    b: Bench, age: float, listed_ago: float, buried: int
) -> None:
    """It is dropped at seven days, if the listing began after its end and after every CreateUser's grace."""
    claim = await b.taken()
    assert await b.store.finish(claim)
    b.clock.advance(age)
    listed_us = b.clock.wall - int(listed_ago * SECOND)
    assert await b.store.bury("aws:999999999999", listed_us) == 0
    assert await b.store.bury(builders.ACCOUNT, listed_us) == buried
    assert (await b.store.get(claim.id) is None) is bool(buried)


async def test_only_tombstones_are_buried(b: Bench) -> None:
    """Live, abandoned and reopened rows are never dropped, however old."""
    await b.active(0)
    abandoned = await b.active(1, role_name="other")
    await b.store.abandon(Range("aws/creds/other/", "aws/creds/other0"), 9, live=True)
    reopened = await b.taken(2)
    await b.store.finish(reopened)
    b.clock.advance(10 * WEEK)
    await b.store.reopen(reopened.id, 0)
    assert await b.store.bury(builders.ACCOUNT, b.clock.wall) == 0
    assert (await b.row(abandoned.id)).state is State.ABANDONED


# --- mounts that go --------------------------------------------------------------------------------------


async def test_a_mount_is_removed_once_nothing_of_it_lives(b: Bench) -> None:
    """A disabling mount goes with its last live lease, its root and roles with it; rows stay."""
    claim = await b.taken()
    await b.store.put_role(builders.role(), None)
    assert await b.store.remove_disabled() == []
    mount = builders.mount()
    await b.store.put_mount(mount, replace(mount, state=MountState.DISABLING))
    assert await b.store.remove_disabled() == []
    assert await b.store.get_root("aws") is not None
    await b.store.finish(claim)
    assert await b.store.remove_disabled() == ["aws"]
    for left in (b.store.get_mount("aws"), b.store.get_root("aws"), b.store.get_role("aws", "app")):
        assert await left is None
    assert [lease.id for lease in await b.store.page(ALL, None, "", 9)] == [claim.id]
    assert await b.store.remove_disabled() == []


async def test_a_mount_whose_leases_are_abandoned_is_removed(b: Bench) -> None:
    """ABANDONED rows do not keep a disabling mount."""
    lease, mount = await b.active(), builders.mount()
    await b.store.put_mount(mount, replace(mount, state=MountState.DISABLING))
    await b.store.abandon(ALL, 9, live=True)
    assert await b.store.remove_disabled() == ["aws"]
    assert (await b.row(lease.id)).state is State.ABANDONED


# --- the clock and the store as a whole ------------------------------------------------------------------


async def test_a_hold_is_kept_until_it_is_ended(b: Bench) -> None:
    """Nothing is held at first; a hold names its reason, and an empty text ends it."""
    assert await b.store.held() == ""
    for why in ("ASKED", "STORE_ROLLED_BACK", ""):
        await b.store.hold(why)
        assert await b.store.held() == why


async def test_a_wall_clock_that_is_set_drifts_and_can_be_taken_for_true(b: Bench) -> None:
    """Drift is how far the wall is ahead; lowering the clock takes the wall's time, and drifts no more."""
    assert await b.store.first_start()
    assert await b.store.drift_us() == 0
    b.clock.wall -= 3600 * SECOND
    assert (await b.store.drift_us(), b.store.now()) == (-3600 * SECOND, START_US)
    await b.store.lower_clock()
    assert (await b.store.drift_us(), b.store.now()) == (0, START_US - 3600 * SECOND)
    b.clock.advance(5)
    claim = await b.begun(span=SPAN)
    assert claim.lease.created_us == START_US - 3595 * SECOND


def brought_back(copy: Path, folder: Path, size: int) -> Path:
    """Check a copy's place, size and mode, and put it where a store looks for it; return that folder."""
    assert (copy.parent, copy.stat().st_size, copy.stat().st_mode & 0o777) == (folder, size, 0o600)
    restored = folder / "restored"
    restored.mkdir()
    copy.rename(restored / "lessor.db")
    return restored


async def test_a_backup_holds_what_the_store_holds(tmp_path: Path) -> None:
    """The copy opens as a store of its own with the rows of its time, for its owner's eyes alone."""
    async with bench("sqlite", tmp_path) as b:
        lease = await b.active()
        path, size = await b.store.backup("copy.db")
        await b.active(1)
    restored = brought_back(tmp_path / path, tmp_path, size)
    async with OPENERS["sqlite"](restored, HandClock()) as store:
        assert [one.id for one in await store.page(ALL, None, "", 9)] == [lease.id]
        assert not await store.first_start()


@pytest.mark.parametrize("path", ["", "copies/of/today.db"])
async def test_a_backup_goes_to_a_new_file_below_the_folder(tmp_path: Path, path: str) -> None:
    """A folder on the way is made, a name is found where none is given, and the path is told from there."""
    async with bench("sqlite", tmp_path) as b:
        told, size = await b.store.backup(path)
        assert told == path or (not path and told.startswith("backup-"))
        assert size > 0
        with pytest.raises(AlreadyExists):
            await b.store.backup(told)


@pytest.mark.parametrize(
    "path", ["../copy.db", "/elsewhere/copy.db", ".", "lessor.db", "lessor.db-wal", "sealing-key"]
)
async def test_a_backup_that_lies_elsewhere_or_on_our_own_files_is_refused(tmp_path: Path, path: str) -> None:
    """A path out of the data directory, or of one of the server's own files, is INVALID_ARGUMENT."""
    async with bench("sqlite", tmp_path) as b:
        with pytest.raises(Invalid):
            await b.store.backup(path)
        await b.active()


async def test_holds_and_the_lowered_clock_outlive_the_process(tmp_path: Path) -> None:
    """The next start knows the hold, is no first one, and does not go back to the forgotten mark."""
    clock = HandClock()
    async with bench("sqlite", tmp_path, clock) as b:
        await b.active()
        await b.store.hold("ASKED")
        clock.wall -= 3600 * SECOND
        await b.store.lower_clock()
    async with OPENERS["sqlite"](tmp_path, clock) as store:
        assert await store.held() == "ASKED"
        assert not await store.first_start()
        assert store.now() == START_US - 3600 * SECOND

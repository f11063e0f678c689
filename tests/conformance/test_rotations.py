"""Checks the rules of rotations that every kind of store has."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support import builders
from tests.support.stores import START_US, Bench, HandClock, bench

from lessor_server.adapters.sqlite.store import open_store
from lessor_server.domain import rotation as steps
from lessor_server.domain.errors.preconditions import StaticUserTaken
from lessor_server.domain.mount import MountState
from lessor_server.domain.root import Hop, StoredRoot
from lessor_server.domain.rotation import CLAIM_US, Phase, Rotation, root_subject, static_subject
from lessor_server.domain.schedule import Schedule

SECOND = 1_000_000
ROOT = root_subject("aws")
STATIC = Rotation(
    static_subject("aws", "billing"),
    schedule=Schedule(cron="0 3 * * 0", window=timedelta(hours=1)),
    live_keys=2,
    assume_chain=(Hop("arn:aws:iam::210987654321:role/keys", "outside"),),
    account=builders.ACCOUNT,
    user_name="billing",
    user_id="AIDABILLING",
    current="AKIACURRENT",
    sealed=b"sealed \x00 bytes",
    previous="AKIAPREVIOUS",
    keys_before=("AKIACURRENT", "AKIASOMEBODYS"),
    away=("AKIAOLD",),
    next_us=START_US + 3600 * SECOND,
    last_check_us=7,
    retire_us=8,
    inactive=True,
    ending=True,
    attempts=2,
    last_error="AWS said no",
)


async def added(b: Bench, subject: str = ROOT, **fields: Any) -> Rotation:
    """Store a row and return it claimed."""
    made = await b.store.add_rotation(Rotation(subject, **fields))
    assert made is not None
    return made


async def resting(b: Bench, subject: str = ROOT, due_us: int = 0, **fields: Any) -> Rotation:
    """Store an unclaimed row."""
    claimed = await added(b, subject, **fields)
    moved = await b.store.move_rotation(replace(claimed, due_us=due_us), done=True)
    assert moved is not None
    return moved


async def row(b: Bench, subject: str = ROOT) -> Rotation:
    """Return a row that must be there."""
    there = await b.store.get_rotation(subject)
    assert there is not None
    return there


async def test_a_row_is_stored_with_all_fields_and_claimed(b: Bench) -> None:
    made = await b.store.add_rotation(STATIC)
    assert made == replace(STATIC, generation=1, due_us=START_US + CLAIM_US)
    assert await row(b, STATIC.subject) == made
    assert await b.store.add_rotation(STATIC) is None
    assert await b.store.get_rotation(ROOT) is None


async def test_a_user_has_at_most_one_static_role(b: Bench) -> None:
    await b.store.add_rotation(STATIC)
    for mount, name in (("aws", "second"), ("aws2", "billing")):
        other = replace(STATIC, subject=static_subject(mount, name))
        with pytest.raises(StaticUserTaken) as raised:
            await b.store.add_rotation(other)
        assert "billing already belongs to static role aws/billing" in raised.value.message
        assert await b.store.get_rotation(other.subject) is None
    assert await b.store.forget_rotation(await row(b, STATIC.subject))
    assert await b.store.add_rotation(replace(STATIC, subject=static_subject("aws2", "billing"))) is not None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"user_id": "AIDAOTHER"}),
        ({}, {"account": "aws:999999999999"}),
        ({"user_id": ""}, {"user_id": ""}),
        ({"subject": ROOT}, {}),
        ({}, {"subject": ROOT}),
    ],
)
async def test_another_user_id_or_account_is_another_user(
    b: Bench, first: dict[str, Any], second: dict[str, Any]
) -> None:
    assert await b.store.add_rotation(replace(STATIC, **first)) is not None
    other = {"subject": static_subject("aws", "second"), **second}
    assert await b.store.add_rotation(replace(STATIC, **other)) is not None


async def test_a_key_s_static_role_is_found(b: Bench) -> None:
    """By its current, previous or next key."""
    await b.store.add_rotation(replace(STATIC, fresh="AKIAFRESH"))
    await added(b, ROOT, current="AKIAROOT", previous="AKIACURRENT")
    for key_id in ("AKIACURRENT", "AKIAPREVIOUS", "AKIAFRESH"):
        found = await b.store.find_static_holder(key_id, ROOT)
        assert found is not None
        assert found.subject == STATIC.subject
        assert await b.store.find_static_holder(key_id, STATIC.subject) is None
    for key_id in ("AKIAROOT", "AKIASOMEBODYS"):
        assert await b.store.find_static_holder(key_id, ROOT) is None
    await added(b, static_subject("aws", "another"), current="AKIACURRENT")
    second = await b.store.find_static_holder("AKIACURRENT", STATIC.subject)
    assert second is not None
    assert second.name == "another"


async def test_a_key_that_was_a_root_s_is_found_in_any_mount(b: Bench) -> None:
    await added(b, ROOT, current="AKIANOW", previous="AKIAOLD", away=("AKIAOLDER", "AKIAOLD"))
    await b.store.add_rotation(replace(STATIC, away=("AKIASTATIC",)))
    for key_id in ("AKIAOLD", "AKIAOLDER"):
        found = await b.store.find_replacing_rotation(key_id)
        assert found is not None
        assert found.subject == ROOT
    for key_id in ("AKIANOW", "AKIASTATIC", ""):
        assert await b.store.find_replacing_rotation(key_id) is None


async def test_a_claimed_row_cannot_be_claimed(b: Bench) -> None:
    claimed = await added(b)
    assert await b.store.claim_rotation(ROOT) is None
    assert await b.store.claim_rotations(9, frozenset()) == []
    b.clock.advance(CLAIM_US / SECOND)
    (again,) = await b.store.claim_rotations(9, frozenset())
    assert again.generation == claimed.generation + 1
    assert await b.store.move_rotation(claimed, done=True) is None


async def test_a_free_row_can_be_claimed_before_it_is_due(b: Bench) -> None:
    """An explicit rotation does not wait for the schedule."""
    await resting(b, due_us=START_US + 999 * SECOND)
    claimed = await b.store.claim_rotation(ROOT)
    assert claimed is not None
    assert claimed.due_us == START_US + CLAIM_US
    assert await b.store.claim_rotation(static_subject("aws", "nobody")) is None


async def test_due_rows_are_claimed_earliest_first_without_claimed_ones(b: Bench) -> None:
    for number, due_us in enumerate((START_US + 5, START_US - 5, 0, START_US, START_US - 9)):
        await resting(b, static_subject("aws", f"r{number}"), due_us)
    busy = frozenset({static_subject("aws", "r4")})
    assert await b.store.next_rotation_us(frozenset()) == START_US - 9
    assert await b.store.next_rotation_us(busy) == START_US - 5
    (first,) = await b.store.claim_rotations(1, busy)
    assert first.name == "r1"
    assert [one.name for one in await b.store.claim_rotations(9, frozenset())] == ["r4", "r3"]
    assert await b.store.next_rotation_us(frozenset()) == START_US + 5


async def test_a_row_without_a_schedule_is_never_claimed(b: Bench) -> None:
    await resting(b)
    assert await b.store.next_rotation_us(frozenset()) == 0


async def test_a_step_keeps_or_releases_the_claim(b: Bench) -> None:
    claimed = await added(b)
    b.clock.advance(10)
    moved = await b.store.move_rotation(steps.intend(claimed, ("A", "B")), done=False)
    assert moved is not None
    assert (moved.phase, moved.keys_before) == (Phase.INTENDED, ("A", "B"))
    assert moved.due_us == START_US + 10 * SECOND + CLAIM_US
    made = steps.make(moved, "AKIANEW", b"secret")
    done = await b.store.move_rotation(replace(made, due_us=77), done=True)
    assert done == await row(b) == replace(made, due_us=77, generation=made.generation + 1)
    assert (await b.store.claim_rotation(ROOT)) is not None


async def test_an_older_generation_writes_nothing(b: Bench) -> None:
    old = await resting(b, phase=Phase.MADE)
    new = await b.store.claim_rotation(ROOT)
    assert new is not None
    assert await b.store.move_rotation(old, done=True) is None
    root = StoredRoot("aws", b"new", builders.ACCOUNT, 2, "etag-2")
    assert await b.store.switch_root(steps.switch(old, 0, 1), root) is None
    assert not await b.store.forget_rotation(old)
    assert await row(b) == new
    assert await b.store.get_root("aws") == builders.stored_root()
    assert await b.store.forget_rotation(new)
    assert await b.store.get_rotation(ROOT) is None


async def test_root_and_row_are_switched_in_one_transaction(b: Bench) -> None:
    made = await added(b, phase=Phase.MADE, current="OLD", fresh="NEW", fresh_sealed=b"s")
    root = StoredRoot("aws", b"new", "", 2, "etag-2")
    switched = await b.store.switch_root(steps.switch(made, 9, START_US), root)
    assert switched is not None
    assert (switched.phase, switched.current, switched.previous) == (Phase.RETIRING, "NEW", "OLD")
    assert switched == await row(b)
    assert await b.store.claim_rotation(ROOT) is None
    assert await b.store.get_root("aws") == replace(root, account=builders.ACCOUNT)


@pytest.mark.parametrize("version", [1, 3])
async def test_a_root_that_changed_is_not_switched(b: Bench, version: int) -> None:
    made = await added(b, phase=Phase.MADE)
    root = StoredRoot("aws", b"new", builders.ACCOUNT, version, "etag")
    assert await b.store.switch_root(steps.switch(made, 0, START_US), root) is None
    assert await row(b) == made
    assert await b.store.get_root("aws") == builders.stored_root()


async def test_static_roles_are_listed_by_name_and_mount(b: Bench) -> None:
    for mount, name in (("aws", "b"), ("aws", "a"), ("aws", "c"), ("aws2", "x"), ("aw", "y")):
        await resting(b, static_subject(mount, name))
    await resting(b, ROOT)
    await resting(b, static_subject("aws", "aa"), ending=True)  # deleted, and its keys have yet to go
    assert [one.name for one in await b.store.list_static("aws", "", 9)] == ["a", "b", "c"]
    assert [one.name for one in await b.store.list_static("aws", "a", 1)] == ["b"]
    assert await b.store.list_static("nothing", "", 9) == []


async def test_voiding_stale_claims_makes_their_rows_due_immediately(b: Bench) -> None:
    claimed = await added(b)
    free = await resting(b, static_subject("aws", "free"), START_US + 99)
    assert await b.store.void_stale_claims() == 0  # leases
    assert await row(b, free.subject) == free
    assert await b.store.move_rotation(claimed, done=True) is None
    (taken,) = await b.store.claim_rotations(9, frozenset())
    assert taken.subject == ROOT


@pytest.mark.parametrize(
    ("fields", "holds"),
    [
        ({}, False),
        ({"phase": Phase.INTENDED}, True),
        ({"phase": Phase.RETIRING}, True),
        ({"last_check_us": 5}, True),
        ({"ending": True}, True),
        ({"ending": True, "attempts": 6}, False),
        ({"phase": Phase.DROPPING, "attempts": 6}, False),
        ({"last_check_us": 5, "attempts": 6}, False),
    ],
)
async def test_a_mount_is_removed_once_its_rotations_are_idle(
    b: Bench, fields: dict[str, Any], holds: bool
) -> None:
    """A lost key still needs the root. A root that AWS always refuses delays nothing."""
    await resting(b, **fields)
    await resting(b, static_subject("aws2", "other"))
    mount = await b.store.get_mount("aws")
    assert mount is not None
    stuck = bool(fields.get("attempts"))
    assert await b.store.list_unfinished_of_removed_mounts() == []
    assert await b.store.put_mount(mount, replace(mount, state=MountState.DISABLING))
    assert await b.store.list_unfinished_of_removed_mounts() == ([await row(b)] if stuck else [])
    assert await b.store.remove_disabled() == ([] if holds else ["aws"])
    assert (await b.store.get_rotation(ROOT) is not None) == holds
    assert await b.store.get_rotation(static_subject("aws2", "other")) is not None


@pytest.mark.parametrize("fields", [{}, {"ending": True}, {"ending": True, "attempts": 600}])
async def test_a_static_role_keeps_its_mount_until_its_row_is_deleted(
    b: Bench, fields: dict[str, Any]
) -> None:
    """The row says which keys are to be deleted."""
    mine, other = static_subject("aws", "billing"), static_subject("aws2", "other")
    await resting(b, mine, **fields)
    await resting(b, other)
    await b.store.forget_static("aws")
    assert await b.store.list_static_of_disabled() == []
    assert await b.store.get_rotation(mine) is not None
    mount = await b.store.get_mount("aws")
    assert mount is not None
    assert await b.store.put_mount(mount, replace(mount, state=MountState.DISABLING))
    assert await b.store.list_static_of_disabled() == [await row(b, mine)]
    assert (await b.store.list_unfinished_of_removed_mounts(), await b.store.remove_disabled()) == ([], [])
    await b.store.forget_static("aws")
    assert await b.store.get_rotation(mine) is None
    assert await b.store.get_rotation(other) is not None
    assert await b.store.remove_disabled() == ["aws"]


async def test_rotations_are_durable_and_in_backups(tmp_path: Path) -> None:
    async with bench("sqlite", tmp_path) as b:
        stored = await b.store.add_rotation(STATIC)
        name, _ = await b.store.backup("copy.db")
    copy = tmp_path / "other"
    copy.mkdir()
    (tmp_path / name).rename(copy / "lessor.db")
    for folder in (tmp_path, copy):
        async with open_store(folder, HandClock()) as store:
            assert await store.get_rotation(STATIC.subject) == stored

"""Checks the rules of sessions of STS that every kind of store has."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support import builders, lease_steps
from tests.support.stores import SPAN, START_US, TERMS, Bench, HandClock

from lessor_server.adapters.sqlite.migrate import migrations
from lessor_server.adapters.sqlite.store import FILE, open_store
from lessor_server.domain.errors.base import MountFull, RoleFull
from lessor_server.domain.lease import Lease, State
from lessor_server.domain.lease_id import EVERYTHING, IdRange

SECOND = 1_000_000
DAY = 86_400
OTHER = "aws:210987654321"


async def begun(b: Bench, number: int = 0, **changes: Any) -> Lease:
    """Store the intent of a session."""
    return await b.store.begin(builders.session_intent(number, **changes), SPAN)


async def active(b: Bench, number: int = 0, seconds: float = 3600, **changes: Any) -> Lease:
    """Store a session that AWS ends in ``seconds``."""
    claim = await begun(b, number, **changes)
    lease = await lease_steps.activate(
        b.store, claim, f"ASIA{number}", ends_us=b.store.now() + int(seconds * SECOND)
    )
    assert lease is not None
    return lease


async def gone(b: Bench, number: int = 0) -> Lease:
    """Store a session's tombstone."""
    lease = await active(b, number)
    await b.store.revoke(lease.id)
    (claim,) = await b.store.claim([lease.id], TERMS)
    assert await lease_steps.finish(b.store, claim)
    return await b.row(lease.id)


async def counted(b: Bench) -> dict[State, int]:
    """Count all leases by state."""
    return {one.state: one.count for one in await b.store.count(EVERYTHING, None)}


async def test_a_session_has_no_user(b: Bench) -> None:
    lease = await active(b)
    assert (lease.is_session, lease.footprint.user_name) == (True, "")
    assert await b.row(lease.id) == lease


async def test_a_session_ends_when_aws_says(b: Bench) -> None:
    lease = await active(b, seconds=899.2)
    ends_us = START_US + 899_200_000
    assert (lease.expires_us, lease.max_expires_us, lease.due_us) == (ends_us, ends_us, ends_us)
    assert lease.ttl == timedelta(seconds=900)


@pytest.mark.parametrize("seconds", [0.3, -3600])
async def test_a_session_has_a_ttl_of_at_least_a_second(b: Bench, seconds: float) -> None:
    """Also where AWS's clock is behind."""
    lease = await active(b, seconds=seconds)
    assert (lease.ttl, lease.expires_us) == (timedelta(seconds=1), START_US + SECOND)


async def test_an_undelivered_session_taken_by_a_repeat_has_its_own_end(b: Bench) -> None:
    ends_us = START_US + 3600 * SECOND + 7
    lease = await lease_steps.activate(b.store, await begun(b), "ASIA", ends_us=ends_us, undelivered=True)
    assert lease is not None
    assert (lease.expires_us, lease.max_expires_us) == (START_US + 60 * SECOND, ends_us)
    b.clock.advance(30)
    taken = await lease_steps.replace_key(b.store, lease, "ASIB")
    assert taken is not None
    assert (taken.expires_us, taken.due_us, taken.undelivered) == (ends_us, ends_us, False)


async def test_sessions_do_not_count_against_max_users(b: Bench) -> None:
    for number in range(3):
        await active(b, number, max_users=1)
    await b.active(3, max_users=1)
    with pytest.raises(MountFull):
        await b.begun(4, max_users=1)
    await active(b, 5, max_users=1)
    assert await counted(b) == {State.ACTIVE: 5}


async def test_sessions_count_against_max_leases(b: Bench) -> None:
    lease = await active(b, 0, max_leases=2)
    await b.active(1, max_leases=2)
    with pytest.raises(RoleFull):
        await begun(b, 2, max_leases=2)
    await b.store.revoke(lease.id)
    (claim,) = await b.store.claim([lease.id], TERMS)
    await lease_steps.finish(b.store, claim)
    await active(b, 2, max_leases=2)


async def test_a_session_is_claimed_also_without_its_account(b: Bench) -> None:
    """Its end needs no call, so a paused account does not delay it."""
    session, user = await active(b, 0, seconds=10), await b.active(1, ttl=timedelta(seconds=10))
    b.clock.advance(20)
    claims = await b.store.claim_due(TERMS, 10, frozenset({builders.ACCOUNT}))
    assert [claim.id for claim in claims] == [session.id]
    assert [claim.id for claim in await b.store.claim_due(TERMS, 10)] == [user.id]


async def test_a_session_is_never_abandoned(b: Bench) -> None:
    session, user = await active(b, 0), await b.active(1)
    assert await b.store.abandon(IdRange("aws/", "aws0"), 10, live=True) == [user.id]
    assert (await b.row(session.id)).state is State.ACTIVE


async def test_only_users_bind_a_mount_to_an_account(b: Bench) -> None:
    await active(b, 0)
    await gone(b, 1)
    assert await b.store.get_bound_account("aws") == ""
    assert await b.store.put_root(builders.stored_root(account="", version=2), 1)
    assert await b.store.bind_account("aws", 2, OTHER)
    user = builders.intent(2, root_version=2)
    await b.store.begin(replace(user, footprint=replace(user.footprint, account=OTHER)), SPAN)
    assert await b.store.get_bound_account("aws") == OTHER
    assert await b.store.get_bound_account("nope") == ""
    assert not await b.store.put_root(builders.stored_root(account="", version=3), 2)


async def test_a_session_s_tombstone_is_dropped_after_a_week_without_a_listing(b: Bench) -> None:
    session = await gone(b, 0)
    user = await b.taken(1)
    await lease_steps.finish(b.store, user)
    b.clock.advance(6 * DAY)
    assert await b.store.purge_tombstones("", 0) == 0
    b.clock.advance(DAY)
    assert await b.store.purge_tombstones("", 0) == 0  # it worked for an hour after its lease had gone
    b.clock.advance(3600)
    assert await b.store.purge_tombstones("", 0) == 1
    assert await b.store.get(session.id) is None
    assert await b.store.purge_tombstones(builders.ACCOUNT, b.store.now()) == 1


async def test_a_listing_drops_no_tombstone_of_a_session(b: Bench) -> None:
    session = await gone(b)
    assert await b.store.leases_by_user_name([""]) == {}
    b.clock.advance(8 * DAY)
    assert await b.store.purge_tombstones(builders.ACCOUNT, b.store.now()) == 0
    assert await b.store.get(session.id) is not None


async def test_a_session_s_intent_of_a_dead_process_is_due_immediately(b: Bench) -> None:
    claim = await begun(b)
    assert await b.store.void_stale_claims() == 1
    (again,) = await b.store.claim_due(TERMS, 10)
    assert again.id == claim.id
    assert await lease_steps.finish(b.store, again)


async def test_every_row_of_an_earlier_version_has_a_user(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    for number, script in migrations()[:2]:
        connection.executescript(f"{script}\nPRAGMA user_version = {number};")
    connection.execute("PRAGMA application_id=1280528210")
    columns = "id mount role credential_type owner state claimed_by account user_name user_path"
    texts = dict.fromkeys([*columns.split(), "inline_policy", "access_key_id", "last_error"], "x")
    texts |= {"policy_arns": "[]", "groups": "[]", "mount": "aws", "state": "ACTIVE"}
    texts |= {"credential_type": "IAM_USER", "id": builders.intent(0).id, "role": "app", "claimed_by": ""}
    known = connection.execute("PRAGMA table_info(leases)").fetchall()
    values = [texts.get(name, "" if kind == "TEXT" else 0) for _, name, kind, *_ in known]
    connection.execute(f"INSERT INTO leases VALUES ({', '.join('?' * len(values))})", values)
    connection.close()
    async with open_store(tmp_path, HandClock()) as store:
        await store.put_mount(None, builders.mount())
        await store.put_root(builders.stored_root(), 0)
        with pytest.raises(MountFull):
            await store.begin(builders.intent(1, max_users=1), SPAN)
        await store.begin(builders.session_intent(2, max_users=1), SPAN)
        assert await store.get_bound_account("aws") == "x"

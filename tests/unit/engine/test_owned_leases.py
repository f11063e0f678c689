"""Checks that a caller reaches only its own leases, and that refusals say nothing of others' leases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from lessor_server.domain.errors.access import NotYourLease
from lessor_server.domain.errors.base import LessorError, NotFound
from lessor_server.domain.events import (
    Event,
    Expiring,
    Forgotten,
    PrefixAccepted,
    Renewed,
    Retired,
    RevocationFailed,
    Revoked,
    Stuck,
)
from lessor_server.domain.lease import STUCK_AFTER, State
from lessor_server.domain.lease_id import EVERYTHING, IdRange, LeaseId
from lessor_server.engine.leases import Leases, Outcome
from lessor_server.engine.store_types import LeaseCount
from lessor_server.engine.streams.lease_events import LeaseEvent, LeaseEventKind
from tests.support import builders
from tests.support.engine_world import BOUND_SECONDS, World, world
from tests.support.iam_faults import Fault
from tests.support.iam_faults import Kind as Harm
from tests.support.listener import OVERLAP, TTL, listening
from tests.support.virtual_loop import virtual

UNKNOWN = "aws/creds/app/" + "0" * 24
APP = IdRange("aws/creds/app/", "aws/creds/app0")
ASKED: dict[str, Callable[[Leases, LeaseId], Awaitable[object]]] = {
    "lookup": lambda leases, lease_id: leases.lookup(lease_id, "mallory"),
    "renew": lambda leases, lease_id: leases.renew(
        lease_id, timedelta(seconds=60), "mallory", only_owner="mallory"
    ),
    "revoke": lambda leases, lease_id: leases.revoke(
        lease_id, sync=False, by="mallory", only_owner="mallory"
    ),
    "revoke and wait": lambda leases, lease_id: leases.revoke(
        lease_id, sync=True, by="mallory", only_owner="mallory"
    ),
}


async def refused(answer: Awaitable[object]) -> LessorError:
    """Return the error of a call that must be refused."""
    with pytest.raises(LessorError) as raised:
        await answer
    return raised.value


@pytest.mark.parametrize("what", ASKED)
@pytest.mark.parametrize("state", ["live", "ended", "unknown"])
@virtual
async def test_the_lease_of_another_and_no_lease_have_the_same_answer(what: str, state: str) -> None:
    """Before anything is written, whatever the state of the lease is."""
    async with world() as w:
        lease_id = UNKNOWN if state == "unknown" else (await w.issue()).lease.id
        if state == "ended":
            await w.revoke(lease_id)
        before, passed = dict(w.store.rows), list(w.points.passed)
        error = await refused(ASKED[what](w.engine.leases, LeaseId.parse(lease_id)))
        assert type(error) is NotYourLease
        assert error.message == f"lease {lease_id} is not yours, or not known"
        assert w.store.rows == before
        read = [point for point in w.points.passed[len(passed) :] if point.endswith(" done")]
        assert read == []


@virtual
async def test_a_caller_reaches_its_own_leases() -> None:
    async with world() as w:
        mine = (await w.issue(ttl=600, owner="ci")).lease
        leases, lease_id = w.engine.leases, LeaseId.parse(mine.id)
        assert await leases.lookup(lease_id, "ci") == mine
        renewed = await leases.renew(lease_id, timedelta(seconds=900), "ci", only_owner="ci")
        assert renewed.lease.owner == "ci"
        gone = await leases.revoke(lease_id, sync=True, by="ci", only_owner="ci")
        assert gone.outcome is Outcome.GONE
        again = await leases.revoke(lease_id, sync=True, by="ci", only_owner="ci")
        assert again.outcome is Outcome.ALREADY_GONE
        assert (await leases.lookup(lease_id, "ci")).state is State.GONE


@pytest.mark.parametrize("name", ["", "c", "ci2", "CI", "ci\0", "%", "*", "ci' OR '1'='1"])
@virtual
async def test_names_are_compared_whole(name: str) -> None:
    async with world() as w:
        made = await w.issue(owner="ci")
        lease_id = LeaseId.parse(made.lease.id)
        assert isinstance(await refused(w.engine.leases.lookup(lease_id, name)), NotYourLease)
        assert await w.engine.leases.page(EVERYTHING, None, "", 9, only_owner=name) == []
        assert await w.engine.leases.count(EVERYTHING, None, only_owner=name) == []


@virtual
async def test_a_list_has_the_leases_of_the_owner_that_the_caller_may_see() -> None:
    async with world() as w:
        mine, theirs = (await w.issue(owner="ci")).lease, (await w.issue(owner="other")).lease
        leases = w.engine.leases

        async def page(owner: str, only_owner: str | None) -> set[str]:
            found = await leases.page(EVERYTHING, None, "", 9, owner=owner, only_owner=only_owner)
            counted = await leases.count(EVERYTHING, None, owner=owner, only_owner=only_owner)
            assert sum(one.count for one in counted) == len(found)
            return {lease.id for lease in found}

        assert await page("", None) == {mine.id, theirs.id}
        assert await page("other", None) == {theirs.id}
        assert await page("", "ci") == await page("ci", "ci") == {mine.id}
        assert await page("other", "ci") == set()
        assert await leases.count(EVERYTHING, State.ACTIVE, owner="ci") == [
            LeaseCount("aws", "app", State.ACTIVE, 1)
        ]


@virtual
async def test_a_caller_without_the_right_to_list_is_not_told_which_mounts_there_are() -> None:
    async with world() as w:
        await w.engine.leases.require_mount(IdRange.of_mount("none"), "ci")
        error = await refused(w.engine.leases.require_mount(IdRange.of_mount("none")))
        assert isinstance(error, NotFound)


@virtual
async def test_an_operator_renews_and_revokes_the_lease_of_another() -> None:
    async with world() as w:
        made = await w.issue(ttl=600, owner="ci")
        assert (await w.renew(made.lease.id, 900)).owner == "ci"
        assert (await w.revoke(made.lease.id)).outcome is Outcome.GONE
        assert (await w.lease(made.lease.id)).owner == "ci"


# --- bulk revocations ------------------------------------------------------------------------------------


@virtual
async def test_a_bulk_revocation_of_an_owner_leaves_the_others() -> None:
    async with world() as w:
        mine = [(await w.issue(owner="ci")).lease.id for _ in range(3)]
        theirs = [(await w.issue(owner=owner)).lease.id for owner in ("ci2", "other")]
        prefix, accepted = await w.engine.prefixes.accept(APP, "operator", "ci")
        standings = [standing async for standing in w.engine.prefixes.follow(prefix, accepted)]
        assert (accepted, standings[-1].done, standings[-1].left) == (3, 3, 0)
        assert {w.states()[lease_id] for lease_id in mine} == {State.GONE}
        assert {w.states()[lease_id] for lease_id in theirs} == {State.ACTIVE}
        assert w.events.of(PrefixAccepted) == [PrefixAccepted(APP.low, 3, "operator", "ci")]


@virtual
async def test_a_bulk_revocation_of_an_owner_is_carried_out_after_a_kill() -> None:
    async with world() as w:
        mine, theirs = (await w.issue(owner="ci")).lease.id, (await w.issue(owner="other")).lease.id
        await w.store.open_prefix(APP, "ci")
        await w.kill()
        await w.start()
        await w.until(lambda: w.states()[mine] is State.GONE)
        assert w.states()[theirs] is State.ACTIVE


# --- events ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def watching(w: World, only_owner: str | None) -> AsyncIterator[list[LeaseEvent]]:
    """Collect the events of one owner's leases for the length of the block."""
    heard: list[LeaseEvent] = []

    async def read() -> None:
        with w.engine.lease_events.watch(EVERYTHING, only_owner) as happenings:
            async for one in happenings:
                heard.append(one)  # noqa: PERF401 - the list is read before the watch ends

    async with asyncio.TaskGroup() as group:
        task = group.create_task(read())
        await asyncio.sleep(0.01)
        try:
            yield heard
        finally:
            await asyncio.sleep(0.01)
            task.cancel()


@virtual
async def test_a_watcher_of_one_owner_gets_every_event_of_its_leases_and_of_no_other() -> None:
    """Issued, renewed, failed, stuck, expiring and revoked."""
    async with world() as w, watching(w, "ci") as mine, watching(w, "nobody") as none:
        async with watching(w, None) as everything:
            leases = {owner: (await w.issue(ttl=600, owner=owner)).lease for owner in ("ci", "other", "ci2")}
            for lease in leases.values():
                await w.renew(lease.id, 600)
            w.aws.faults.add(Fault(Harm.REFUSE, "DeleteAccessKey", times=3 * STUCK_AFTER))
            await asyncio.sleep(600 + BOUND_SECONDS)
            await asyncio.sleep(7200)
        assert {one.lease_id for one in mine} == {leases["ci"].id}
        assert {one.kind for one in mine} == set(LeaseEventKind)
        assert {one.lease_id for one in everything} == {lease.id for lease in leases.values()}
        assert none == []


@virtual
async def test_every_event_of_a_lease_names_its_owner() -> None:
    """The end of a session, and a lease that a stream retires, too."""
    async with world() as w:
        role = builders.assumed(w.iam.add_role("target").arn)
        await w.put_role(role)
        await w.issue(role="assumed", ttl=900, owner="alice")
        user = await w.issue(ttl=60)
        await w.renew(user.lease.id, 60)
        w.aws.faults.add(Fault(Harm.REFUSE, "DeleteAccessKey", user=user.lease.footprint.user_name, times=9))
        async with listening(w) as listener:
            await listener.until(2, TTL - OVERLAP)
        await asyncio.sleep(9000)
        assert set(w.states().values()) == {State.GONE}
        kinds: tuple[type[Event], ...] = (
            Renewed, Retired, Expiring, Revoked, Forgotten, RevocationFailed, Stuck,
        )  # fmt: skip
        for kind in kinds:
            found = w.events.of(kind)
            assert found, kind
            assert {one.owner for one in found} == {"alice"}, kind  # type: ignore[attr-defined]

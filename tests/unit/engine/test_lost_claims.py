"""Checks that no lease waits for the end of a claim on which its live replica does not work."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from lessor_server.domain.lease import State
from lessor_server.engine.revocation.claims import CLAIM_SPAN, RevocationClaims
from lessor_server.engine.revocation.worker import FULL_SCAN_SECONDS
from lessor_server.engine.store_types import ClaimTerms
from tests.support.engine_world import World, world
from tests.support.replicas import replica
from tests.support.virtual_loop import virtual

LONG_BEFORE_THE_CLAIM_ENDS = 10.0
TERMS = ClaimTerms("a", CLAIM_SPAN)


async def wait_for_end(w: World, seconds: float = LONG_BEFORE_THE_CLAIM_ENDS) -> None:
    """Wait until all leases are gone."""
    await w.until(lambda: set(w.states().values()) == {State.GONE}, seconds)


def is_claimed(w: World, lease_id: str) -> bool:
    """Return whether the lease is claimed."""
    return bool(w.store.rows[lease_id].claimed_by)


async def alone(w: World, count: int = 1) -> list[str]:
    """Stop the engine of the world, so that its replica is alone; return the ids of new leases."""
    made = [(await w.issue(ttl=600)).lease.id for _ in range(count)]
    await w.stop()
    await asyncio.sleep(5)
    return made


@virtual
async def test_leases_of_a_claim_that_failed_unexpectedly_are_revoked_soon() -> None:
    """The driver of the database raises what nobody has listed, after the commit."""
    async with world() as w, replica(w, "a") as one:
        made = await alone(w, 3)
        one.store.lost = RuntimeError("the driver's own error")
        one.store.deaf_to = ("claim", "claim_due")
        for lease_id in made:
            await w.store.revoke(lease_id)
        await w.until(lambda: any(row.claimed_by == "a" for row in w.store.rows.values()))
        one.store.deaf_to = ()
        await wait_for_end(w)
        assert set(w.reports.take()) == {"RevocationWorker.run"}


@virtual
async def test_a_lease_whose_result_failed_unexpectedly_is_revoked_soon() -> None:
    async with world() as w, replica(w, "a") as one:
        (lease_id,) = await alone(w)
        write, failed = one.store.write, []

        async def fail_once(*args: Any) -> bool:
            if not failed:
                failed.append(args)
                raise RuntimeError("the driver's own error")
            return bool(await write(*args))

        one.store.write = fail_once
        await w.store.revoke(lease_id)
        await w.until(lambda: bool(failed))
        await w.until(lambda: not is_claimed(w, lease_id), LONG_BEFORE_THE_CLAIM_ENDS)
        assert w.reports.take() == ["record the result of an attempt"]


@virtual
async def test_a_claim_that_is_committed_after_its_connection_ended_is_found_by_a_full_scan() -> None:
    """The database may still be working on a statement whose caller has given up."""
    async with world() as w, replica(w, "a"):
        (lease_id,) = await alone(w)
        await w.store.revoke(lease_id)
        assert await w.store.claim([lease_id], TERMS)
        await wait_for_end(w, FULL_SCAN_SECONDS + LONG_BEFORE_THE_CLAIM_ENDS)


@virtual
async def test_a_lease_that_was_claimed_again_during_an_attempt_is_revoked_soon_after_that() -> None:
    """A lost claim on a lease is kept while an older attempt on it runs."""
    async with world() as w, replica(w, "a") as one:
        (lease_id,) = await alone(w)
        one.aws.latency = 3.0
        await w.store.revoke(lease_id)
        await w.until(lambda: is_claimed(w, lease_id))
        await w.store.void_lost_claims("a", [])
        (lost,) = await w.store.claim([lease_id], TERMS)
        await w.until(lambda: w.store.rows[lease_id].lease.generation != lost.generation, 15.0)


class SlowStore:
    """A store that answers when it is told to, and knows what each release kept."""

    def __init__(self) -> None:
        """Begin with no answer."""
        self.answer = asyncio.Event()
        self.kept: list[list[str]] = []
        self.error: Exception | None = None

    async def void_lost_claims(self, name: str, kept: Sequence[str]) -> int:
        """Wait for the answer."""
        assert name == "a"
        self.kept.append(list(kept))
        await self.answer.wait()
        if self.error is not None:
            raise self.error
        return 1


def claims_in(store: SlowStore) -> RevocationClaims:
    """Return the claims of a replica in a store."""
    return RevocationClaims("a", cast("Any", None), cast("Any", store))


@virtual
async def test_a_claim_that_is_lost_during_a_release_is_released_by_the_next_one() -> None:
    """The first one has kept it: its attempt still ran."""
    store = SlowStore()
    claims = claims_in(store)
    claims.note_lost()
    async with asyncio.TaskGroup() as group:
        releasing = group.create_task(claims.release_lost(["one", "two"], scans=False))
        await asyncio.sleep(0.1)
        claims.note_lost()
        store.answer.set()
    assert releasing.result() == 1
    assert await claims.release_lost(["two"], scans=False) == 1
    assert await claims.release_lost([], scans=False) == 0
    assert store.kept == [["one", "two"], ["two"]]


@virtual
async def test_a_release_that_fails_is_repeated() -> None:
    store = SlowStore()
    claims = claims_in(store)
    claims.note_lost()
    store.answer.set()
    store.error = RuntimeError("the driver's own error")
    with pytest.raises(RuntimeError):
        await claims.release_lost([], scans=False)
    store.error = None
    assert await claims.release_lost([], scans=False) == 1


@virtual
async def test_full_scans_of_a_backlog_look_for_lost_claims_at_most_once_a_second() -> None:
    store = SlowStore()
    store.answer.set()
    claims = claims_in(store)
    for _ in range(100):
        await claims.release_lost([], scans=True)
        await asyncio.sleep(0.05)
    assert len(store.kept) == 5


@virtual
async def test_leases_of_a_replica_that_ended_in_the_middle_of_attempts_are_revoked_soon() -> None:
    """It is no longer listed, so nobody would notice its silence."""
    async with world() as w, replica(w, "b"):
        async with replica(w, "a"):
            made = (await w.issue(ttl=600)).lease.id
            await asyncio.sleep(5)
            await w.store.revoke(made)
            assert await w.store.claim([made], TERMS)
        await w.stop()
        await wait_for_end(w, FULL_SCAN_SECONDS + LONG_BEFORE_THE_CLAIM_ENDS)

"""Checks streams of credentials: one key is always valid, and old ones end in time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from lessor_server.domain.errors.base import AwsUnavailable, Invalid, NotFound
from lessor_server.domain.events import Issued, Retired, Revoked
from lessor_server.domain.lease import Request
from lessor_server.domain.lease_id import IdRange
from tests.support import builders
from tests.support.engine_world import BASE_US, BOUND_SECONDS, world
from tests.support.listener import MAX_AHEAD, MIN_AHEAD, OVERLAP, TTL, WISH, listening
from tests.support.virtual_loop import virtual


@virtual
async def test_the_next_credentials_come_before_each_expiry_and_the_old_ones_end_after_the_overlap() -> None:
    async with world() as w, listening(w) as listener:
        await listener.until(1, 1)
        while len(listener.got) < 6:
            await asyncio.sleep(1)
            assert listener.key_works()
            assert len(w.users()) <= 2
        expiries = [(made.lease.expires_us - BASE_US) / 1e6 for made in listener.got]
        ahead = [expiry - at for expiry, at in zip(expiries, listener.times[1:], strict=False)]
        assert all(MIN_AHEAD - 1 < one <= MAX_AHEAD for one in ahead)
        assert len({round(one, 3) for one in ahead}) == len(ahead)
        await asyncio.sleep(OVERLAP + BOUND_SECONDS)
        gone = w.events.times_of(Revoked)
        assert len(gone) == 5
        for handed_over, ended in zip(listener.times[1:], gone, strict=True):
            assert handed_over + OVERLAP <= ended <= handed_over + OVERLAP + BOUND_SECONDS


@virtual
async def test_after_the_caller_leaves_the_last_lease_lives_for_the_overlap() -> None:
    async with world() as w:
        async with listening(w) as listener:
            await listener.until(2, 2 * TTL)
            await asyncio.sleep(OVERLAP + BOUND_SECONDS)
        await asyncio.sleep(OVERLAP - 1)
        assert listener.key_works()
        await asyncio.sleep(1 + BOUND_SECONDS)
        assert w.users() == []
        assert len(w.events.of(Retired)) == 2


@virtual
async def test_a_lease_with_less_than_the_overlap_left_is_not_extended() -> None:
    async with world() as w:
        async with listening(w, overlap=400) as listener:
            await listener.until(1, 1)
            w.aws.away = True
            await asyncio.sleep(TTL - 100)
        w.aws.away = False
        await asyncio.sleep(99)
        assert (await w.lease(listener.got[0].lease.id)).expires_us == listener.got[0].lease.expires_us
        assert w.events.of(Retired) == []


@virtual
async def test_a_caller_who_leaves_during_a_handover_leaves_no_lease() -> None:
    async with world() as w:
        async with listening(w) as listener:
            await listener.until(1, 1)
            listener.hold = 1000
            await listener.until(2, 2 * TTL)
            assert len(w.users()) == 2
        await asyncio.sleep(OVERLAP - 1)
        assert len(w.users()) == 2
        await asyncio.sleep(1 + BOUND_SECONDS)
        assert w.users() == []


@pytest.mark.parametrize("after", [0.02, 0.08, 0.12])
@virtual
async def test_a_caller_who_leaves_during_the_first_issue_leaves_no_lease(after: float) -> None:
    async with world() as w:
        async with listening(w) as listener:
            await asyncio.sleep(after)
        await w.until_gone(10)
        assert (listener.got, w.users()) == ([], [])


@virtual
async def test_a_stream_continues_after_an_outage_of_aws() -> None:
    async with world() as w, listening(w) as listener:
        await listener.until(1, 1)
        await asyncio.sleep(TTL - MAX_AHEAD - 5)
        w.aws.away = True
        await asyncio.sleep(100)
        assert len(listener.got) == 1
        w.aws.away = False
        await listener.until(2, 65)
        assert w.now() < (listener.got[0].lease.expires_us - BASE_US) / 1e6


@virtual
async def test_a_long_outage_ends_a_stream_with_its_last_credentials() -> None:
    async with world() as w:
        async with listening(w) as listener:
            await listener.until(1, 1)
            w.aws.away = True
            error = await listener.refused(TTL + 10)
        assert isinstance(error, AwsUnavailable)
        ended = (listener.got[0].lease.expires_us - BASE_US) / 1e6
        assert ended <= w.now() < ended + 5
        w.aws.away = False
        await w.until_gone(60)


@virtual
async def test_a_refused_issue_is_retried_while_the_last_credentials_live() -> None:
    async with world() as w, listening(w) as listener:
        await listener.until(1, 1)
        await w.engine.roles.delete("aws", "app", "test")
        await asyncio.sleep(TTL - 100)
        assert len(listener.got) == 1
        await w.put_role(builders.role())
        await listener.until(2, 35)


@virtual
async def test_the_first_issue_is_not_retried() -> None:
    async with world() as w, listening(w, replace(WISH, role="nobody")) as listener:
        assert isinstance(await listener.refused(1), NotFound)


@pytest.mark.parametrize(("ttl", "overlap"), [(100, 51), (None, 1801), (60, 60)])
@virtual
async def test_an_overlap_of_more_than_half_the_ttl_is_refused(ttl: float | None, overlap: float) -> None:
    asked = replace(WISH, ttl=None if ttl is None else timedelta(seconds=ttl))
    async with world() as w, listening(w, asked, overlap) as listener:
        error = await listener.refused(1)
        assert isinstance(error, Invalid)
        (violation,) = error.violations
        assert violation.field == "overlap"
        assert "ttl" in violation.problem
        assert w.events.of(Issued) == []


@virtual
async def test_revoked_credentials_are_replaced_immediately() -> None:
    async with world() as w, listening(w) as listener:
        await listener.until(1, 1)
        await asyncio.sleep(100)
        await w.revoke(listener.got[0].lease.id)
        await listener.until(2, 1)
        await w.engine.prefixes.accept(IdRange("aws/", "aws0"), "bob")
        await listener.until(3, 5)
        await asyncio.sleep(10)
        assert len(listener.got) == 3
        assert listener.key_works()


@virtual
async def test_a_renewed_lease_still_ends_after_the_handover() -> None:
    async with world() as w, listening(w) as listener:
        await listener.until(1, 1)
        await w.renew(listener.got[0].lease.id, 10 * TTL)
        await listener.until(2, TTL)
        await asyncio.sleep(OVERLAP + BOUND_SECONDS)
        assert len(w.users()) == 1
        assert listener.key_works()


@virtual
async def test_a_lowered_ttl_causes_no_busy_loop() -> None:
    """The overlap may then exceed the ttl: a quarter of it passes before the next issue."""
    async with world() as w, listening(w) as listener:
        await listener.until(1, 1)
        await w.put_role(builders.role(max_ttl=timedelta(seconds=40)))
        await listener.until(2, TTL)
        await asyncio.sleep(100)
        assert 2 + 3 <= len(listener.got) <= 2 + 10
        assert listener.key_works()


@virtual
async def test_a_request_id_names_only_the_first_lease() -> None:
    asked = replace(WISH, request=Request("11111111-1111-4111-8111-111111111111", "digest"))
    async with world() as w, listening(w, asked) as listener:
        await listener.until(2, TTL)
        first, second = (made.lease for made in listener.got)
        assert (first.request, second.request) == (asked.request, None)
        assert first.id != second.id


@virtual
async def test_a_store_error_delays_the_end_of_a_replaced_lease_only_until_it_is_over() -> None:
    async with world() as w, listening(w) as listener:
        await listener.until(2, TTL)
        await asyncio.sleep(0)
        w.store.fail_writes = True
        await asyncio.sleep(20)
        w.store.fail_writes = False
        handed_over = listener.times[1]
        await w.events.until(Revoked, 200)
        assert w.now() <= handed_over + OVERLAP + BOUND_SECONDS
        assert listener.key_works()

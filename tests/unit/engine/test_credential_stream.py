"""Checks streams of credentials: always a good key in hand, and none that outlives its stream for long."""

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
async def test_the_next_come_ahead_of_each_expiry_and_the_ones_before_end_after_the_overlap() -> None:
    """At every second the newest key works; each lease ends ``overlap`` after the next were handed over."""
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
async def test_when_the_caller_goes_the_last_lives_through_the_overlap() -> None:
    """The last key works ``overlap`` longer, and not much longer than that."""
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
async def test_a_short_rest_of_life_is_not_made_longer() -> None:
    """A stream that ends when its last lease has less than the overlap left leaves that expiry alone."""
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
async def test_a_caller_who_goes_while_the_next_are_handed_over_leaves_none_behind() -> None:
    """Neither those before nor the new ones outlive the overlap, though nobody asked for more."""
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
async def test_a_caller_who_goes_while_the_first_are_made_leaves_none_behind(after: float) -> None:
    """Whatever stage the first issue has come to, its user goes."""
    async with world() as w:
        async with listening(w) as listener:
            await asyncio.sleep(after)
        await w.until_gone(10)
        assert (listener.got, w.users()) == ([], [])


@virtual
async def test_an_outage_of_aws_is_outlasted() -> None:
    """While AWS is away the next are tried again and again, and come in time once it is back."""
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
async def test_a_stream_ends_with_its_last_credentials_and_says_why() -> None:
    """Where AWS stays away the stream ends when the last credentials do, with AWS's absence as the reason."""
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
async def test_a_role_that_is_gone_and_comes_back_is_no_end() -> None:
    """Any refusal is retried for as long as the credentials in hand last."""
    async with world() as w, listening(w) as listener:
        await listener.until(1, 1)
        await w.engine.roles.delete("aws", "app", "test")
        await asyncio.sleep(TTL - 100)
        assert len(listener.got) == 1
        await w.put_role(builders.role())
        await listener.until(2, 35)


@virtual
async def test_what_cannot_begin_is_refused_at_once() -> None:
    """The first credentials are not retried: an unknown role is NOT_FOUND."""
    async with world() as w, listening(w, replace(WISH, role="nobody")) as listener:
        assert isinstance(await listener.refused(1), NotFound)


@pytest.mark.parametrize(("ttl", "overlap"), [(100, 51), (None, 1801), (60, 60)])
@virtual
async def test_an_overlap_of_more_than_half_the_life_is_refused(ttl: float | None, overlap: float) -> None:
    """The violation names overlap and ttl, the default one too, and nothing is made."""
    asked = replace(WISH, ttl=None if ttl is None else timedelta(seconds=ttl))
    async with world() as w, listening(w, asked, overlap) as listener:
        error = await listener.refused(1)
        assert isinstance(error, Invalid)
        (violation,) = error.violations
        assert violation.field == "overlap"
        assert "ttl" in violation.problem
        assert w.events.of(Issued) == []


@virtual
async def test_credentials_that_are_revoked_by_hand_are_replaced_at_once() -> None:
    """Whoever revokes a leaked key need not tell its holder: the stream hands over others."""
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
async def test_a_lease_that_was_renewed_meanwhile_ends_with_the_hand_over_all_the_same() -> None:
    """A renewal by somebody else does not let the key that a stream has moved on from live on."""
    async with world() as w, listening(w) as listener:
        await listener.until(1, 1)
        await w.renew(listener.got[0].lease.id, 10 * TTL)
        await listener.until(2, TTL)
        await asyncio.sleep(OVERLAP + BOUND_SECONDS)
        assert len(w.users()) == 1
        assert listener.key_works()


@virtual
async def test_a_ttl_that_was_lowered_meanwhile_does_not_spin() -> None:
    """Though the overlap now exceeds the life that the role gives, a quarter of it passes before the next."""
    async with world() as w, listening(w) as listener:
        await listener.until(1, 1)
        await w.put_role(builders.role(max_ttl=timedelta(seconds=40)))
        await listener.until(2, TTL)
        await asyncio.sleep(100)
        assert 2 + 3 <= len(listener.got) <= 2 + 10
        assert listener.key_works()


@virtual
async def test_a_request_id_names_the_first_lease_alone() -> None:
    """The first credentials are those of the request id; the next are other leases."""
    asked = replace(WISH, request=Request("11111111-1111-4111-8111-111111111111", "digest"))
    async with world() as w, listening(w, asked) as listener:
        await listener.until(2, TTL)
        first, second = (made.lease for made in listener.got)
        assert (first.request, second.request) == (asked.request, None)
        assert first.id != second.id


@virtual
async def test_a_store_that_fails_for_a_while_does_not_keep_a_lease_alive() -> None:
    """What a stream moved on from is retired once the store writes again, counted from the hand-over."""
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

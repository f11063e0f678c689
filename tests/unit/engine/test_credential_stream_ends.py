"""Checks streams of sessions, which cannot be revoked, and streams of a killed process."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from lessor_server.domain.errors.preconditions import MfaRefused
from lessor_server.domain.lease import State
from lessor_server.domain.lease_id import LeaseId
from lessor_server.domain.policy.session import SessionOptions
from lessor_server.domain.role import CredentialType
from lessor_server.domain.secret import Secret
from tests.support import builders
from tests.support.engine_world import BASE_US, BOUND_SECONDS, World, world
from tests.support.listener import MAX_AHEAD, MIN_AHEAD, OVERLAP, TTL, WISH, Listener, listening
from tests.support.virtual_loop import run, virtual
from tests.unit.engine.test_crash import die_at, points_of

# --- sessions of STS -------------------------------------------------------------------------------------

DEVICE = "arn:aws:iam::123456789012:mfa/alice"
SESSION = replace(WISH, role="session")


async def session_role(w: World, **fields: Any) -> None:
    """Let the mount make sessions of a role that AWS has."""
    arn = w.iam.add_role("deploy").arn
    role = builders.role(
        "session",
        credential_type=CredentialType.ASSUMED_ROLE,
        role_arns=(arn,),
        policy_document="",
        **fields,
    )
    await w.put_role(role)


@virtual
async def test_a_replaced_session_is_forgotten_after_the_overlap() -> None:
    """AWS accepts it until its own end, which the answer names."""
    async with world() as w:
        await session_role(w)
        async with listening(w, SESSION) as listener:
            await listener.until(2, TTL)
            before, now = listener.got
            assert before.token != now.token
            assert now.token
            await asyncio.sleep(OVERLAP + BOUND_SECONDS)
            old = await w.lease(before.lease.id)
            assert old.state is State.GONE
            assert old.max_expires_us == before.lease.expires_us
            assert (await w.lease(now.lease.id)).state is State.ACTIVE
        await asyncio.sleep(OVERLAP + BOUND_SECONDS)
        assert set(w.states().values()) == {State.GONE}


@virtual
async def test_a_stream_with_mfa_ends_when_another_code_is_needed() -> None:
    """Each code is valid once. The last credentials are still valid."""
    asked = replace(SESSION, options=SessionOptions(mfa_code=Secret("123456")))
    async with world() as w:
        await session_role(w, mfa_serial_number=DEVICE)
        w.iam.sts.mfa_codes[DEVICE] = "123456"
        async with listening(w, asked) as listener:
            error = await listener.refused(TTL)
        assert isinstance(error, MfaRefused)
        left = (listener.got[0].lease.expires_us - BASE_US) / 1e6 - w.now()
        assert MIN_AHEAD - 1 < left <= MAX_AHEAD


@virtual
async def test_a_lease_that_expired_during_a_store_error_is_not_retired() -> None:
    async with world() as w:
        async with listening(w) as listener:
            await listener.until(1, TTL)
            await w.engine.expiry.hold("a test")
            w.store.fails.add("renew")
        await asyncio.sleep(TTL + 1)
        w.store.fails.clear()
        assert await w.engine.work.settle(BOUND_SECONDS) == 0
        assert (await w.lease(listener.got[0].lease.id)).state is State.ACTIVE


# --- kills -----------------------------------------------------------------------------------------------

MOMENTS = (0.01, 0.06, 0.11, 0.2, 500.0, 790.0, 800.0, 830.0, 839.9, 845.0, 870.0, 900.0, 960.0)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_at_any_moment_leaves_no_key_past_the_expiry_it_was_issued_with(moment: float) -> None:
    async def story() -> None:
        async with world() as w:
            listener = Listener(w)
            task = asyncio.get_running_loop().create_task(listener.listen(WISH, OVERLAP))
            await asyncio.sleep(moment)
            await w.kill()
            assert task.done()
            await w.start()
            ends = w.now() + TTL
            while w.now() < ends + BOUND_SECONDS:
                await asyncio.sleep(1)
                for lease_id, state in w.states().items():
                    lease = await w.engine.leases.lookup(LeaseId.parse(lease_id))
                    late = (lease.expires_us - BASE_US) / 1e6 + BOUND_SECONDS
                    assert state is State.GONE or not lease.expires_us or w.now() <= late
            assert w.users() == []

    run(story())


async def watched(w: World) -> None:
    """Take three sets of a stream, go away, and wait until all has ended."""
    asked = replace(WISH, ttl=timedelta(seconds=100))
    async with aclosing(w.engine.credential_stream.follow(lambda: asked, timedelta(seconds=10))) as issued:
        for _ in range(3):
            await anext(issued)
    await w.until_gone(200)


@pytest.mark.slow
def test_a_death_at_any_point_of_a_stream_leaves_nothing() -> None:
    """The points are around each call and each commit of three handovers and the end."""
    points = run(points_of(watched))
    assert points.count("renew done") == 3
    assert {run(die_at(index, watched, 0, None)) for index in range(len(points))} == set(points)

"""Checks a process that works beside another one on the same store and accounts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from lessor_server.domain.access.acl import EVERYTHING
from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.events import ExpiryHeld, ExpiryResumed, OrphanAdopted
from lessor_server.domain.lease import Request, State
from lessor_server.engine.engine import Dependencies, Engine, EngineConfig, run_engine
from lessor_server.engine.issuing.issuer import Issuer
from lessor_server.engine.issuing.request import Credentials, IssueRequest
from lessor_server.engine.leases import Outcome
from lessor_server.engine.revocation.expiry_hold import ASKED, POLL_SECONDS, STORE_ROLLED_BACK
from lessor_server.engine.store_types import ClaimTerms
from tests.support import lease_steps
from tests.support.engine_world import BOUND_SECONDS, World, bound, world
from tests.support.plain_keyring import PlainKeyring
from tests.support.recording import Recording
from tests.support.virtual_loop import virtual

OURS = "0123456789abcdef"
REQUEST = "00000000-0000-4000-8000-000000000007"
OTHER = ClaimTerms("another", timedelta(minutes=2))


@asynccontextmanager
async def another(w: World, events: Recording | None = None) -> AsyncIterator[Engine]:
    """Run a second engine on the store and the accounts of a world."""
    rng = random.Random("another")
    outside = Dependencies(w.store, w.aws, PlainKeyring(), events or Recording(), w.reports, rng)
    async with run_engine(outside, EngineConfig()) as engine:
        yield engine


# --- a person's hold -------------------------------------------------------------------------------------


@virtual
async def test_a_hold_set_by_one_process_holds_in_all_from_its_commit() -> None:
    async with world() as w, another(w) as other:
        made = await w.issue(ttl=10)
        await asyncio.sleep(9.99)
        await other.expiry.hold(ASKED)
        assert not w.engine.expiry.held
        await asyncio.sleep(60)
        assert w.states()[made.lease.id] is State.ACTIVE
        assert (w.engine.expiry.why, len(w.events.of(ExpiryHeld))) == (ASKED, 1)


@virtual
async def test_a_hold_ended_by_one_process_ends_in_all() -> None:
    """The other processes notice it within seconds."""
    events = Recording()
    async with world() as w, another(w, events) as other:
        await w.engine.expiry.hold(ASKED)
        await w.issue(ttl=10)
        await asyncio.sleep(60)
        assert other.expiry.why == ASKED
        await w.engine.expiry.resume(lower_clock=False)
        await w.until_gone(BOUND_SECONDS)
        await asyncio.sleep(POLL_SECONDS)
        assert not other.expiry.held
        assert isinstance(events.events[-1], ExpiryResumed)


@virtual
async def test_expiry_resumed_by_one_process_is_not_held_again_by_another() -> None:
    async with world() as w:
        await bound(w)
        tags = (("lessor:instance", OURS), ("lessor:lease", "nonsense"))
        w.iam.create_user("stray", f"/lessor/{OURS}/", tags)
        await asyncio.sleep(1000)
        async with another(w) as other:
            await w.until(lambda: other.expiry.why == STORE_ROLLED_BACK, seconds=100)
            await asyncio.sleep(POLL_SECONDS)
            await w.engine.expiry.resume(lower_clock=False)
            await asyncio.sleep(POLL_SECONDS)
            assert [found.applied async for found in other.reconciler.reconcile("aws", apply=True)] == [True]
            assert not other.expiry.held


# --- one lease, two processes ----------------------------------------------------------------------------


@virtual
async def test_a_sync_revocation_returns_the_success_of_another_process() -> None:
    """Within a second."""
    async with world() as w:
        made = await w.issue()
        await w.store.revoke(made.lease.id)
        (claim,) = await w.store.claim([made.lease.id], OTHER)
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(w.revoke(made.lease.id))
            await asyncio.sleep(10)
            assert not answer.done()
            await lease_steps.finish(w.store, claim)
            await asyncio.sleep(1.1)
            assert answer.done()
        assert answer.result().outcome is Outcome.GONE


@virtual
async def test_a_sync_revocation_returns_the_error_of_another_process() -> None:
    async with world() as w:
        made = await w.issue()
        await w.store.revoke(made.lease.id)
        (claim,) = await w.store.claim([made.lease.id], OTHER)
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(w.revoke(made.lease.id))
            await asyncio.sleep(10)
            await lease_steps.reschedule(
                w.store, claim, "AWS said no", timedelta(minutes=10), attempts=1, not_found_count=0
            )
            await asyncio.sleep(1.1)
            assert answer.done()
        assert (answer.result().outcome, answer.result().last_error) == (Outcome.ACCEPTED, "AWS said no")


@virtual
async def test_two_processes_that_find_a_user_adopt_it_once() -> None:
    """The lease id is derived from the user, so both compute the same one."""
    events = Recording()
    async with world() as w, another(w, events):
        await bound(w)
        w.iam.create_user("stray", f"/lessor/{OURS}/", (("lessor:instance", OURS), ("lessor:lease", "")))
        await asyncio.sleep(7300)
        (adopted,) = [*w.events.of(OrphanAdopted), *events.of(OrphanAdopted)]
        assert [one for one in w.states() if "/lost/" in one] == [adopted.lease_id]
        assert w.users() == []


@pytest.mark.parametrize("apart", [0.0, 0.03, 0.06, 0.1, 0.15])
@virtual
async def test_a_key_that_one_process_returned_for_a_repeat_is_not_deleted_by_another(apart: float) -> None:
    """Two processes answer repeats of one request at the same time. Each key that a caller gets is valid."""
    asked = IssueRequest(
        "aws", "app", "alice", timedelta(seconds=600), EVERYTHING, Request(REQUEST, "app for 600")
    )
    async with world() as w, another(w) as other:
        made = await w.issue(ttl=600, request=REQUEST)
        answers: list[Credentials | LessorError] = []

        async def ask(issuer: Issuer, after: float) -> None:
            await asyncio.sleep(after)
            try:
                answers.append(await issuer.generate(asked, 60))
            except LessorError as error:
                answers.append(error)

        async with asyncio.TaskGroup() as group:
            group.create_task(ask(w.engine.issuer, 0.0))
            group.create_task(ask(other.issuer, apart))
        (user,) = w.iam.users.values()
        handed_out = [one.lease.access_key_id for one in answers if isinstance(one, Credentials)]
        assert handed_out
        assert w.store.rows[made.lease.id].lease.access_key_id == handed_out[-1]
        assert list(user.keys) == handed_out[-1:]

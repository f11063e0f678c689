"""Checks which rules decide about a call and an open stream when the access file changes meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.message import Message

from lessor.v1 import creds_pb2, lease_pb2, system_pb2
from lessor_server.domain.access.caller import Credential, Peer, Principal
from lessor_server.domain.errors.access import TooManyWatches
from lessor_server.domain.errors.base import DeadlineExceeded, PermissionDenied, Unauthenticated
from lessor_server.services.call import Caller, Method
from lessor_server.services.call_limits import IdentityLimits
from lessor_server.services.guard import CallRefusal, Guard
from tests.support.access import FixedAccess, principal
from tests.support.call_notes import CallNotes
from tests.support.virtual_loop import virtual

WATCHER = principal("watcher", "list sys/leases/lookup/*")
READER = principal("reader", "read aws/creds/app", max_leases=5)
NOBODY = principal("nobody")
WATCH = lease_pb2.WatchLeasesRequest(prefix="aws/")
CREDS = creds_pb2.WatchCredentialsRequest(role="app")


class Exchange:
    """One call without a transport; its message may be held back."""

    def __init__(self, token: str, request: Message) -> None:
        self.credential = Credential(Peer("test:1"), (f"Bearer {token}",))
        self.seconds: float | None = None
        self.written: list[Message] = []
        self.may_send = asyncio.Event()
        self.may_send.set()
        self._messages = [request.SerializeToString()]

    async def read(self) -> bytes | None:
        await self.may_send.wait()
        return self._messages.pop(0)

    def set_request_id(self, request_id: str) -> None: ...

    async def begin(self) -> None: ...

    async def write(self, message: Message) -> None:
        self.written.append(message)


class Streams:
    """Streams that last, and a call that waits until it may end."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []
        self.open = 0
        self.may_end = asyncio.Event()

    async def _last(self, _: Message, caller: Caller) -> AsyncIterator[Message | None]:
        self.callers.append(caller)
        self.open += 1
        try:
            yield None
            await asyncio.get_running_loop().create_future()
        finally:
            self.open -= 1

    WatchLeases = WatchCredentials = _last

    async def GenerateCredentials(self, _: Message, caller: Caller) -> Message:  # noqa: N802
        self.callers.append(caller)
        await self.may_end.wait()
        return creds_pb2.GenerateCredentialsResponse()


class Bench:
    """A guard over the streams, and who is known to it."""

    def __init__(self, *known: Principal, limits: IdentityLimits | None = None) -> None:
        self.access = FixedAccess({one.name: one for one in known})
        self.now = 1_000.0
        self.guard = Guard(self.access, CallNotes(), lambda: self.now, limits or IdentityLimits())
        self.streams = Streams()
        self.methods: dict[str, Method] = {}
        for file, service in ((lease_pb2, "LeaseService"), (creds_pb2, "CredsService")):
            self.methods |= self.guard.methods(file.DESCRIPTOR.services_by_name[service], self.streams)

    def begin(self, method: str, token: str, request: Message) -> tuple[asyncio.Task[Any], Exchange]:
        """Begin a call; return the task of its outcome."""
        exchange = Exchange(token, request)
        call = self.guard.serve(self.methods[method], exchange)
        return asyncio.get_running_loop().create_task(call), exchange

    async def use(self, *known: Principal) -> None:
        """Replace the rules, as a reload does."""
        self.access.known = {one.name: one for one in known}
        self.access.version += 1
        await self.guard.judge_streams()


async def refused(task: asyncio.Task[Any]) -> Exception:
    """Return the error with which a call ends."""
    outcome = await asyncio.wait_for(task, 5)
    assert isinstance(outcome, CallRefusal)
    return outcome.error


async def settle() -> None:
    """Let everything run that can."""
    await asyncio.sleep(0.1)


@virtual
async def test_a_stream_goes_on_when_the_rules_still_allow_it() -> None:
    b = Bench(WATCHER)
    task, _ = b.begin("WatchLeases", "watcher", WATCH)
    await settle()
    await b.use(principal("watcher", "list sys/leases/lookup/aws/"))
    await asyncio.sleep(3600)
    assert not task.done()
    task.cancel()


@virtual
async def test_a_stream_ends_when_a_reload_takes_its_right() -> None:
    b = Bench(WATCHER, READER)
    watch, _ = b.begin("WatchLeases", "watcher", WATCH)
    creds, _ = b.begin("WatchCredentials", "reader", CREDS)
    await settle()
    assert b.streams.open == 2
    await b.use(principal("watcher", "read sys/leases/lookup/*"), principal("reader", "deny aws/creds/app"))
    for task, path in ((watch, "list on sys/leases/lookup/aws/"), (creds, "read on aws/creds/app")):
        error = await refused(task)
        assert isinstance(error, PermissionDenied)
        assert path in str(error)
    assert b.streams.open == 0


@virtual
async def test_a_stream_ends_when_its_identity_leaves_the_file() -> None:
    b = Bench(WATCHER)
    task, _ = b.begin("WatchLeases", "watcher", WATCH)
    await settle()
    await b.use()
    assert isinstance(await refused(task), Unauthenticated)


@virtual
async def test_a_watch_of_all_leases_is_never_narrowed_and_one_of_own_leases_never_widened() -> None:
    b = Bench(WATCHER, NOBODY)
    wide, _ = b.begin("WatchLeases", "watcher", WATCH)
    narrow, _ = b.begin("WatchLeases", "nobody", WATCH)
    await settle()
    first, second = b.streams.callers
    assert (first.only_owner, second.only_owner) == (None, "nobody")
    await b.use(WATCHER, principal("nobody", "list sys/leases/lookup/*"))
    assert (first.only_owner, second.only_owner) == (None, "nobody")
    await b.use(principal("watcher"), principal("nobody"))
    assert isinstance(await refused(wide), PermissionDenied)
    assert first.only_owner is None
    assert not narrow.done()
    narrow.cancel()


@virtual
async def test_the_limits_of_the_rules_of_now_hold_for_an_open_stream() -> None:
    b = Bench(READER)
    task, _ = b.begin("WatchCredentials", "reader", CREDS)
    await settle()
    (caller,) = b.streams.callers
    assert caller.grant.limits.max_leases == 5
    await b.use(principal("reader", "read aws/creds/*", max_leases=2))
    assert (caller.grant.pattern, caller.grant.limits.max_leases) == ("aws/creds/*", 2)
    task.cancel()


@virtual
async def test_a_call_ends_under_the_rules_with_which_it_began() -> None:
    b = Bench(READER)
    task, _ = b.begin("GenerateCredentials", "reader", creds_pb2.GenerateCredentialsRequest(role="app"))
    await settle()
    await b.use()
    b.streams.may_end.set()
    assert isinstance(await task, creds_pb2.GenerateCredentialsResponse)


@virtual
async def test_a_stream_whose_message_arrives_after_a_reload_is_judged_by_the_new_rules() -> None:
    b = Bench(WATCHER)
    task, exchange = b.begin("WatchLeases", "watcher", WATCH)
    exchange.may_send.clear()
    await settle()
    await b.use(principal("watcher", "deny sys/*"))
    exchange.may_send.set()
    assert isinstance(await refused(task), PermissionDenied)
    assert b.streams.callers == []


@virtual
async def test_a_call_whose_message_arrives_after_a_reload_is_judged_by_the_new_rules() -> None:
    """A caller could hold calls ready until its right is taken."""
    for rule, ended in (("", Unauthenticated), ("deny aws/creds/app", PermissionDenied), ("read *", None)):
        b = Bench(READER)
        b.streams.may_end.set()
        request = creds_pb2.GenerateCredentialsRequest(role="app")
        task, exchange = b.begin("GenerateCredentials", "reader", request)
        exchange.may_send.clear()
        await settle()
        await b.use(*([principal("reader", rule)] if rule else []))
        exchange.may_send.set()
        if ended is None:
            assert isinstance(await task, creds_pb2.GenerateCredentialsResponse)
            assert b.streams.callers[0].grant.pattern == "*"
        else:
            assert isinstance(await refused(task), ended)
            assert b.streams.callers == []


@pytest.mark.parametrize("left", [0.5, 3600.0])
@virtual
async def test_a_stream_ends_with_its_credential(left: float) -> None:
    b = Bench(replace(WATCHER, expires_at=1_000.0 + left))
    task, _ = b.begin("WatchLeases", "watcher", WATCH)
    await asyncio.sleep(left - 0.2)
    b.now += left - 0.2
    assert not task.done()
    b.now += 0.3
    error = await refused(task)
    assert isinstance(error, Unauthenticated)
    assert "expired" in str(error)


@virtual
async def test_a_stream_ends_with_its_credential_also_if_the_two_clocks_differ() -> None:
    """A timer fires a moment early, or the wall clock is behind the loop's."""
    b = Bench(replace(WATCHER, expires_at=1_010.0))
    task, _ = b.begin("WatchLeases", "watcher", WATCH)
    await asyncio.sleep(9)
    b.now += 9.9
    assert isinstance(await refused(task), Unauthenticated)


@virtual
async def test_a_stream_that_ends_at_its_deadline_says_so() -> None:
    b = Bench(replace(WATCHER, expires_at=1_010.0))
    exchange = Exchange("watcher", WATCH)
    exchange.seconds = 5.0
    outcome = await b.guard.serve(b.methods["WatchLeases"], exchange)
    assert isinstance(outcome, CallRefusal)
    assert isinstance(outcome.error, DeadlineExceeded)


@virtual
async def test_a_stream_lasts_longer_if_its_credential_does() -> None:
    b = Bench(replace(WATCHER, expires_at=1_010.0))
    task, _ = b.begin("WatchLeases", "watcher", WATCH)
    await settle()
    await b.use(replace(WATCHER, expires_at=1_100.0))
    await asyncio.sleep(50)
    assert not task.done()
    await b.use(replace(WATCHER, expires_at=1_000.0))
    assert isinstance(await refused(task), Unauthenticated)


@virtual
async def test_streams_are_not_calls_for_the_limits_of_an_identity() -> None:
    b = Bench(WATCHER, limits=IdentityLimits(calls_per_identity=1, watches_per_identity=2))
    tasks = [b.begin("WatchLeases", "watcher", WATCH)[0] for _ in range(2)]
    await settle()
    third, _ = b.begin("WatchLeases", "watcher", WATCH)
    assert isinstance(await refused(third), TooManyWatches)
    for task in tasks:
        task.cancel()
    await settle()
    again, _ = b.begin("WatchLeases", "watcher", WATCH)
    await settle()
    assert not again.done()
    again.cancel()


@virtual
async def test_names_of_the_wrong_shape_come_before_the_right() -> None:
    b = Bench(NOBODY)
    bad = creds_pb2.GenerateCredentialsRequest(role="../app")
    task, _ = b.begin("GenerateCredentials", "nobody", bad)
    assert (await refused(task)).reason == "INVALID_REQUEST"  # type: ignore[attr-defined]
    task, _ = b.begin("GenerateCredentials", "nobody", creds_pb2.GenerateCredentialsRequest(role="app"))
    error = await refused(task)
    assert isinstance(error, PermissionDenied)
    assert "read on aws/creds/app" in str(error)


@virtual
async def test_any_identity_may_ask_who_it_is() -> None:
    b = Bench(NOBODY)

    class System:
        async def WhoAmI(self, _: Message, caller: Caller) -> Message:  # noqa: N802
            return system_pb2.WhoAmIResponse(identity=caller.principal.name)

    methods = dict(b.guard.methods(system_pb2.DESCRIPTOR.services_by_name["SystemService"], System()))
    answer = await b.guard.serve(methods["WhoAmI"], Exchange("nobody", system_pb2.WhoAmIRequest()))
    assert answer == system_pb2.WhoAmIResponse(identity="nobody")

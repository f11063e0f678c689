"""Checks that the bodies of requests are read within the limits of their callers."""

from __future__ import annotations

import asyncio

import pytest

from lessor.v1 import system_pb2 as pb
from lessor_server.domain.access.caller import Principal
from lessor_server.domain.errors.base import TooManyCalls
from lessor_server.http_edge.calls import CallRefused, Calls
from lessor_server.services.call import Caller
from lessor_server.services.call_limits import IdentityLimits
from lessor_server.services.guard import Guard
from tests.support.access import FixedAccess
from tests.support.call_notes import CallNotes
from tests.support.vault_requests import request_of
from tests.unit.services.test_guard import PRINCIPALS


class System:
    """Answers ``WhoAmI``."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["SystemService"]

    async def WhoAmI(  # noqa: N802 - the name of the method
        self, _: pb.WhoAmIRequest, caller: Caller
    ) -> pb.WhoAmIResponse:
        return pb.WhoAmIResponse(identity=caller.principal.name)


async def test_a_caller_has_no_more_bodies_that_are_read_than_calls() -> None:
    limits = IdentityLimits(calls_per_identity=1)
    guard = Guard(FixedAccess(PRINCIPALS), CallNotes(), lambda: 0.0, limits)
    calls = Calls(guard, [System()], None)  # type: ignore[arg-type]
    token = next(iter(PRINCIPALS))
    request = request_of("POST", "/v1/sys/capabilities-self", b"{}", {"X-Vault-Token": token})
    reads, begun, sent = 0, asyncio.Event(), asyncio.Event()

    async def read() -> None:
        nonlocal reads
        reads += 1
        begun.set()
        await sent.wait()

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        first = group.create_task(calls.identify(request, read=read))
        await begun.wait()
        with pytest.raises(CallRefused) as refused:
            await calls.identify(request, read=read)
        sent.set()
    assert isinstance(refused.value.error, TooManyCalls)
    assert isinstance(first.result()[1], Principal)
    assert reads == 1

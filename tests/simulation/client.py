"""A client of the server that calls any replica that serves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from lessor.v1 import config_pb2, creds_pb2, lease_pb2, system_pb2
from tests.simulation.expectations import Answered, Caller, EndRequest
from tests.simulation.journal import suffix
from tests.simulation.process import Reply
from tests.simulation.responsibility import FOLLOWED_SECONDS

if TYPE_CHECKING:
    from lessor_server.engine.engine import Engine
    from tests.simulation.world import World

GIVE_UP = Reply(grpc.StatusCode.UNAVAILABLE, text="no server answers")
OPERATOR = "operator"


def seconds(value: float | None) -> Duration | None:
    """Return a Duration of whole seconds."""
    if value is None:
        return None
    made = Duration()
    made.FromTimedelta(timedelta(seconds=int(value)))
    return made


class Client:
    """Makes calls, and records what was asked and what was answered."""

    def __init__(self, world: World) -> None:
        """Call the servers of ``world``."""
        self._world = world

    async def call(self, method: str, request: Message, who: str = OPERATOR, within: float = 60.0) -> Reply:
        """Make one call."""
        process = self._world.replicas.pick("calls")
        if process is None:
            await asyncio.sleep(0.1)
            return GIVE_UP
        if who in self._world.expectations.callers:
            self._world.expectations.callers[who].replicas[process] = None
        reply = await process.call(method, request, who, within)
        subject = suffix(getattr(request, "lease_id", "") or getattr(reply.messages[-1:], "lease_id", ""))
        self._world.journal.note(f"{who} {method}: {reply.code.name} {reply.text}", subject)
        return reply

    async def generate(self, request: creds_pb2.GenerateCredentialsRequest, who: str, within: float) -> Any:
        """Ask for a credential; return the answer, or None."""
        expectations = self._world.expectations
        caller = expectations.callers.setdefault(who, Caller(self._world.now()))
        shared = who in self._world.rules.names  # each call of a tenant is one of its own
        for record in expectations.records.values():
            if record.owner == who and not shared:
                record.promise = 0.0  # the caller of a repeat has not got the first answer
        caller.waiting += 1
        caller.calls += 1
        caller.open += 1
        try:
            reply = await self.call("GenerateCredentials", request, who, within)
        finally:
            caller.waiting -= 1
            caller.ended = self._world.now()
        caller.open -= reply.code is not grpc.StatusCode.DEADLINE_EXCEEDED
        if not reply.ok:
            return None
        caller.served = True
        answer = reply.messages[0]
        # Another replica may still be serving a repeat, and return the lease again.
        if shared or not (self._world.replicas.several and caller.open):
            self._promise(answer, renewed=False)
        repeated = caller.calls > 1 and not shared
        self._world.judge_answer(Answered("GenerateCredentials", request, answer, repeated))
        return answer

    async def renew(self, lease_id: str, increment: float | None, who: str) -> Any:
        """Renew a lease; return the answer, or None."""
        request = lease_pb2.RenewLeaseRequest(lease_id=lease_id, increment=seconds(increment))
        record = self._world.expectations.of(lease_id)
        if record is not None:
            # A renewal may shorten; until it is known whether it did, nothing is promised.
            record.promise = min(record.promise, self._world.now() + (increment or 0.0))
        reply = await self.call("RenewLease", request, who)
        if not reply.ok:
            return None
        answer = reply.messages[0]
        self._promise(answer, renewed=True)
        self._world.judge_answer(Answered("RenewLease", request, answer))
        return answer

    def _promise(self, answer: Any, *, renewed: bool) -> None:
        """Record until when the caller's key must be valid."""
        record = self._world.expectations.of(answer.lease_id)
        if record is None:
            return
        stamp = answer.expire_time
        left_us = stamp.seconds * 10**6 + stamp.nanos // 1000 - self._world.store.now()
        record.promise, record.renewed = self._world.now() + left_us / 1e6, renewed

    async def revoke(self, lease_id: str, *, sync: bool, who: str) -> Any:
        """Revoke a lease; return the answer, or None."""
        record = self._world.expectations.of(lease_id)
        if record is not None:
            record.asked = True
        request = lease_pb2.RevokeLeaseRequest(lease_id=lease_id, sync=sync)
        reply = await self.call("RevokeLease", request, who)
        if not reply.ok:
            return None
        self._world.judge_answer(Answered("RevokeLease", request, reply.messages[0]))
        return reply.messages[0]

    async def ask(self, job: Callable[[Engine], Awaitable[object]], within: float = 60.0) -> Any:
        """Ask the engine of some replica; return its answer or error, None if there is neither."""
        process = self._world.replicas.pick("calls")
        if process is None:
            await asyncio.sleep(0.1)
            return None
        return await process.ask(job, within)

    async def revoke_prefix(self, prefix: str, *, sync: bool, within: float = 60.0, owner: str = "") -> Reply:
        """Revoke a prefix, of all owners or of one."""
        ask = self._world.expectations.ask(prefix, owner)
        request = lease_pb2.RevokePrefixRequest(prefix=prefix, sync=sync, owner=owner)
        reply = await self.call("RevokePrefix", request, OPERATOR, within)
        self._close(ask)
        return reply

    async def abandon(self, prefix: str) -> Reply:
        """Abandon the leases of a prefix."""
        ask = self._world.expectations.ask(prefix)
        reply = await self.call("AbandonLeases", lease_pb2.AbandonLeasesRequest(prefix=prefix))
        self._close(ask)
        return reply

    async def disable(self, mount: str, *, force: bool) -> EndRequest:
        """Disable a mount until it is removed; return the request to end its leases."""
        ask = self._world.expectations.ask(f"{mount}/")
        while True:
            request = config_pb2.DisableMountRequest(mount=mount, force=force)
            reply = await self.call("DisableMount", request)
            if reply.ok or reply.code is grpc.StatusCode.NOT_FOUND:
                return ask
            await asyncio.sleep(5.0)

    def _close(self, ask: EndRequest) -> None:
        ask.until = self._world.now() + 1.0

    async def resume(self, *, lower_clock: bool) -> bool:
        """Resume expiries; return whether the server agreed."""
        reply = await self.call("ResumeExpiry", system_pb2.ResumeExpiryRequest(lower_clock=lower_clock))
        if reply.ok:
            self._world.later(FOLLOWED_SECONDS, self._world.responsibilities.judge_resumed)
        return reply.ok

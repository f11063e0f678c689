"""Checks calls and open streams of callers with login tokens, through the guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from lessor.v1 import lease_pb2, system_pb2
from lessor_server.domain.access.caller import AuthMethod, Credential
from lessor_server.domain.errors.access import RateLimited
from lessor_server.domain.errors.base import Draining, StoreUnavailable, Unauthenticated
from lessor_server.services.audit import CallAudit
from lessor_server.services.call import Caller
from lessor_server.services.call_limits import IdentityLimits
from lessor_server.services.grpc_handlers import GrpcHandlers
from lessor_server.services.guard import CallRefusal, Guard
from tests.support.call_notes import CallNotes
from tests.support.identifier_world import TOKEN, bearer
from tests.support.login_world import PEER, Server, login_server
from tests.support.virtual_loop import virtual

LEASES = lease_pb2.DESCRIPTOR.services_by_name["LeaseService"]
SYSTEM = system_pb2.DESCRIPTOR.services_by_name["SystemService"]
WHO = "/lessor.v1.SystemService/WhoAmI"


class Service:
    """WhoAmI, which notes its callers, and a watch without an end."""

    def __init__(self) -> None:
        """Begin without callers."""
        self.callers: list[Caller] = []

    async def WhoAmI(self, _: Message, caller: Caller) -> Message:  # noqa: N802
        """Answer."""
        self.callers.append(caller)
        return system_pb2.WhoAmIResponse(identity=caller.principal.name)

    async def WatchLeases(self, _: Message, caller: Caller) -> AsyncIterator[Message | None]:  # noqa: N802
        """Stream nothing for ever."""
        self.callers.append(caller)
        yield None
        await asyncio.get_running_loop().create_future()


class Exchange:
    """One call without a transport."""

    def __init__(self, credential: Credential) -> None:
        """Present a credential."""
        self.credential = credential
        self.seconds: float | None = None

    def metadata(self) -> Mapping[str, str]:
        """Return none."""
        return {}

    async def read(self) -> bytes | None:
        """Return the message of a watch."""
        return lease_pb2.WatchLeasesRequest(prefix="aws/").SerializeToString()

    def set_request_id(self, request_id: str) -> None:
        """Send nothing."""

    async def begin(self) -> None:
        """Send nothing."""

    async def write(self, message: Message) -> None:
        """Send nothing."""


class Served:
    """A guard over the identifier of a server."""

    def __init__(self, here: Server, rate: float | None = None) -> None:
        """Serve the callers of ``here``."""
        audit = CallAudit(here.audit, here.store.now, lambda: "call")
        limits = IdentityLimits(rate=rate)
        identifier = here.world.identifier
        self.guard = Guard(identifier, CallNotes(), here.world.now, limits, audit=audit)
        self.service = Service()
        identifier.judge_streams = self.guard.judge_streams

    async def watch(self, token: str) -> tuple[str, float]:
        """Watch until the watch ends; return the reason, and after how many seconds."""
        began = asyncio.get_running_loop().time()
        method = dict(self.guard.methods(LEASES, self.service))["WatchLeases"]
        answer = await self.guard.serve(method, Exchange(bearer(token)))
        assert isinstance(answer, CallRefusal)
        return answer.error.reason, asyncio.get_running_loop().time() - began


async def test_a_login_token_is_accepted_on_a_real_channel() -> None:
    async with login_server() as here:
        served = Served(here)
        new = await here.log_in()
        server = grpc.aio.server()
        handlers = GrpcHandlers(served.guard)
        server.add_generic_rpc_handlers((handlers.service(SYSTEM, served.service),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.unary_unary(WHO)
            metadata = (("authorization", f"Bearer {new.token.reveal()}"),)
            answer = await call(b"", metadata=metadata, timeout=20)
            assert system_pb2.WhoAmIResponse.FromString(answer).identity == "ci"
            await here.logins.revoke_self(served.service.callers[0].principal, PEER)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"", metadata=metadata, timeout=20)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        await server.stop(0)
        assert served.service.callers[0].principal.auth_method is AuthMethod.LOGIN
        answered = next(one for one in here.audit.records if one.rpc == "SystemService.WhoAmI")
        assert (answered.auth_method, answered.accessor) == ("login", new.status.accessor)


@virtual
async def test_a_stream_ends_with_its_token() -> None:
    async with login_server() as here:
        served = Served(here)
        token = (await here.log_in()).token.reveal()
        assert await served.watch(token) == ("UNAUTHENTICATED", pytest.approx(3600, abs=1))


@virtual
async def test_a_stream_of_a_renewed_token_goes_on_to_its_new_end() -> None:
    async with login_server() as here:
        served = Served(here)
        token = (await here.log_in()).token.reveal()
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(served.watch(token))
            await asyncio.sleep(3000)
            await here.logins.renew_self(await here.who(token), PEER)
        assert watch.result() == ("UNAUTHENTICATED", pytest.approx(6600, abs=1))


@virtual
async def test_a_stream_ends_immediately_when_its_token_is_revoked_on_this_server() -> None:
    async with login_server() as here:
        served = Served(here)
        token = (await here.log_in()).token.reveal()
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(served.watch(token))
            await asyncio.sleep(100)
            await here.logins.revoke_self(await here.who(token), PEER)
        assert watch.result() == ("UNAUTHENTICATED", pytest.approx(100, abs=0.5))


@virtual
async def test_a_stream_ends_within_20_seconds_when_its_token_is_revoked_on_another_server() -> None:
    async with login_server() as here, login_server(here.store) as other:
        served = Served(here)
        token = (await here.log_in()).token.reveal()
        async with asyncio.TaskGroup() as group:
            judging = group.create_task(served.guard.judge_logins())
            watch = group.create_task(served.watch(token))
            fixed = group.create_task(served.watch(TOKEN))
            await asyncio.sleep(100.5)
            await other.logins.revoke_self(await other.who(token), PEER)
            reason, seconds = await watch
            assert reason == "UNAUTHENTICATED"
            assert 100.5 < seconds <= 120.5
            assert not fixed.done()
            judging.cancel()
            fixed.cancel()


@virtual
async def test_a_stream_outlives_a_store_that_fails_for_a_while() -> None:
    async with login_server() as here:
        served = Served(here)
        token = (await here.log_in()).token.reveal()
        async with asyncio.TaskGroup() as group:
            judging = group.create_task(served.guard.judge_logins())
            watch = group.create_task(served.watch(token))
            await asyncio.sleep(5)
            here.store.fails.add("read_login_chain")
            await asyncio.sleep(100)
            with pytest.raises(StoreUnavailable):
                await here.who(token)
            assert not watch.done()
            judging.cancel()
            watch.cancel()


# --- calls that are not methods -----------------------------------------------------------------------------


@virtual
async def test_the_guard_admits_a_caller_of_what_is_not_a_method_within_its_limits() -> None:
    async with login_server() as here:
        served = Served(here, rate=1.0)
        token = (await here.log_in()).token.reveal()
        for _ in range(2):
            async with served.guard.admit(bearer(token)) as principal:
                assert principal.name == "ci"
        with pytest.raises(RateLimited):
            async with served.guard.admit(bearer(token)):
                pass
        root = (await here.logins.create_child(await here.who("root-token-of-tests"), PEER)).token.reveal()
        for _ in range(5):  # as for the root token itself
            async with served.guard.admit(bearer(root)):
                pass


@virtual
async def test_the_guard_makes_strangers_wait_for_their_turn() -> None:
    async with login_server() as here:
        served = Served(here)
        began = asyncio.get_running_loop().time()
        for _ in range(30):
            with pytest.raises(Unauthenticated):
                async with served.guard.admit(bearer("nobody")):
                    pass
        assert asyncio.get_running_loop().time() - began > 1.5


@virtual
async def test_a_guard_that_drains_admits_nobody_and_waits_for_those_who_are_in() -> None:
    async with login_server() as here:
        served = Served(here)
        async with served.guard.admit(bearer(TOKEN)):
            assert await served.guard.drain(1) == 1
        assert await served.guard.drain(timedelta(seconds=1).total_seconds()) == 0
        with pytest.raises(Draining):
            async with served.guard.admit(bearer(TOKEN)):
                pass

"""What the Python clients do while a server restarts, and with the answers of a server of another version."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

import lessor
from lessor.v1 import config_pb2, creds_pb2, lease_pb2
from tests.support.clients import POLICY, lease_of, nothing_left, root_at, until, users_of
from tests.support.server_process import ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.clients]

CALL_SECONDS = 60.0


@dataclass
class Caller:
    """Calls without a pause, in a thread, until it is stopped."""

    call: Callable[[], object]
    answers: list[object] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Call until stopped."""
        while not self.stopped.is_set():
            try:
                self.answers.append(self.call())
            except lessor.Error as error:
                self.failed.append(repr(error))


async def issue_until_cancelled(client: lessor.Client, issued: list[str]) -> None:
    """Issue credentials one after the other."""
    while True:
        answer = await client.generate_credentials(role="app", timeout=CALL_SECONDS)
        issued.append(answer.lease_id)


async def set_up(client: lessor.Client, aws: StandIn) -> None:
    """Enable a mount with a root, and write a role."""
    await client.enable_mount()
    await client.set_root(**{field.name: value for field, value in root_at(aws.url).ListFields()})
    await client.put_role(name="app", credential_type="IAM_USER", policy_document=POLICY)


@pytest.mark.slow
async def test_a_kill_in_the_middle_of_an_issue_leaves_one_user(tmp_path: Path) -> None:
    """The id of the first try is spent then, so the client tries once more with a new one."""
    server, settings = ServerProcess(), {"LESSOR_LISTEN": f"unix:{tmp_path / 'lessor.sock'}"}
    async with StandIn.start() as aws:
        settings["LESSOR_AWS_ALLOWED_ENDPOINTS"] = aws.url
        await server.start(tmp_path, settings)
        try:
            async with lessor.Client(server.address, token=server.token) as client:
                await set_up(client, aws)
                await aws.latency(0.3)
                async with asyncio.TaskGroup() as group:
                    issuing = group.create_task(client.generate_credentials(role="app", timeout=CALL_SECONDS))
                    await until(lambda: aws.users("/lessor/"), lambda users: len(users) == 1)
                    await server.kill()
                    await aws.latency(0)
                    await server.start(tmp_path, settings)
                lease = issuing.result().lease_id
                await until(lambda: users_of(aws, "aws"), lambda users: [*map(lease_of, users)] == [lease])
                counts = (await client.count_leases(prefix="aws/", state="ACTIVE")).counts
                assert [one.count for one in counts] == [1]
        finally:
            await server.kill()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [True, False], ids=["killed", "drained"])
async def test_no_call_fails_while_the_server_restarts(tmp_path: Path, killed: bool) -> None:
    """Reads and issues, blocking and asynchronous; no issue is answered twice."""
    server, settings = ServerProcess(), {"LESSOR_LISTEN": f"unix:{tmp_path / 'lessor.sock'}"}
    async with StandIn.start() as aws:
        settings["LESSOR_AWS_ALLOWED_ENDPOINTS"] = aws.url
        await server.start(tmp_path, settings)
        blocking = lessor.sync.Client(server.address, token=server.token, timeout=CALL_SECONDS)
        issued: list[str] = []
        try:
            async with lessor.Client(server.address, token=server.token) as client:
                await set_up(client, aws)
                caller = Caller(blocking.list_roles)
                async with asyncio.TaskGroup() as group:
                    issuing = group.create_task(issue_until_cancelled(client, issued))
                    group.create_task(asyncio.to_thread(caller.run))

                    async def counts() -> int:
                        return min(len(issued), len(caller.answers))

                    before = await until(counts, lambda seen: seen >= 3)
                    await server.kill() if killed else await server.stop()
                    await server.start(tmp_path, settings)
                    await until(counts, lambda seen: seen >= before + 3)
                    caller.stopped.set()
                    issuing.cancel()
                assert caller.failed == []
                assert len(set(issued)) == len(issued)
                async for _ in client.revoke_prefix(prefix="aws/", sync=True):
                    pass
                await nothing_left(aws, "aws")
        finally:
            blocking.close()
            await server.kill()


def status_of(code: grpc.StatusCode, *details: object) -> tuple[tuple[str, bytes], ...]:
    """Return the trailing metadata of an error with these details."""
    status = Status(code=code.value[0], message="not now; wait")
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)  # type: ignore[arg-type]
        status.details.append(packed)
    return (("grpc-status-details-bin", status.SerializeToString()),)


@dataclass
class Handler(grpc.GenericRpcHandler):
    """A server of another version: it fails each method a few times, and then answers."""

    failures: dict[str, list[tuple[grpc.StatusCode, str]]]
    answers: dict[str, bytes]
    seen: list[tuple[str, bytes]] = field(default_factory=list)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        name = details.method.rpartition("/")[2]

        async def answer(data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            self.seen.append((name, data))
            if self.failures.get(name):
                code, reason = self.failures[name].pop(0)
                info = error_details_pb2.ErrorInfo(domain="lessor", reason=reason)
                await context.abort(code, "not now; wait", status_of(code, info))
            return self.answers[name]

        return grpc.unary_unary_rpc_method_handler(answer)


@asynccontextmanager
async def another_version(handler: Handler) -> AsyncIterator[str]:
    """Serve with ``handler`` and yield the address."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def test_unavailable_with_a_reason_is_repeated_with_the_same_request_id() -> None:
    """The service config looks at the code alone."""
    unavailable = (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    made = creds_pb2.GenerateCredentialsResponse(lease_id="aws/creds/app/1").SerializeToString()
    handler = Handler({"GenerateCredentials": [unavailable]}, {"GenerateCredentials": made})
    async with another_version(handler) as address, lessor.Client(address) as client:
        answer = await client.generate_credentials(role="app")
    assert answer.lease_id == "aws/creds/app/1"
    sent = {creds_pb2.GenerateCredentialsRequest.FromString(data).request_id for _, data in handler.seen}
    assert len(handler.seen) == 2
    assert len(sent) == 1


async def test_a_spent_id_of_the_client_is_replaced_over_the_wire() -> None:
    spent = (grpc.StatusCode.FAILED_PRECONDITION, "REQUEST_ID_SPENT")
    made = creds_pb2.GenerateCredentialsResponse(lease_id="aws/creds/app/1").SerializeToString()
    handler = Handler({"GenerateCredentials": [spent]}, {"GenerateCredentials": made})
    async with another_version(handler) as address:
        with lessor.sync.Client(address) as client:
            answer = await asyncio.to_thread(client.generate_credentials, role="app")
    assert answer.lease_id == "aws/creds/app/1"
    assert len({data for _, data in handler.seen}) == 2


async def test_a_write_that_is_not_safe_to_repeat_is_not_repeated() -> None:
    handler = Handler({"EnableMount": [(grpc.StatusCode.UNAVAILABLE, "DRAINING")]}, {})
    async with another_version(handler) as address, lessor.Client(address) as client:
        with pytest.raises(lessor.Unavailable) as refused:
            await client.enable_mount(mount="eu")
    assert refused.value.reason is lessor.Reason.DRAINING
    assert len(handler.seen) == 1


async def test_a_reason_of_a_newer_server_is_unknown_and_keeps_its_name() -> None:
    newer = (grpc.StatusCode.FAILED_PRECONDITION, "MOON_NOT_FULL")
    handler = Handler({"RevokeLease": [newer]}, {})
    async with another_version(handler) as address, lessor.Client(address) as client:
        with pytest.raises(lessor.Precondition) as refused:
            await client.revoke_lease(lease_id="aws/creds/app/1")
    assert refused.value.reason is lessor.Reason.UNKNOWN
    assert refused.value.reason_name == "MOON_NOT_FULL"
    assert refused.value.fix == "wait"


async def test_fields_of_a_newer_server_are_ignored() -> None:
    """An enum's value that this version does not know arrives as its number."""
    lease = lease_pb2.Lease(lease_id="aws/creds/app/1", state=99)  # type: ignore[arg-type]
    answer = lease_pb2.LookupLeaseResponse(lease=lease).SerializeToString() + b"\xfa\x3f\x03new"
    handler = Handler({}, {"LookupLease": answer})
    async with another_version(handler) as address, lessor.Client(address) as client:
        found = (await client.lookup_lease(lease_id="aws/creds/app/1")).lease
    assert found.state == 99


async def test_a_call_waits_for_a_server_until_its_deadline(tmp_path: Path) -> None:
    """A server that comes in time answers; else the error says why there was no connection."""
    address = f"unix:{tmp_path / 'sock'}"
    made = config_pb2.ListMountsResponse(next_page_token="x").SerializeToString()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handler({}, {"ListMounts": made}),))
    async with lessor.Client(address) as client:
        with pytest.raises(lessor.Unavailable, match="start the server, or set LESSOR_ADDR"):
            await client.list_mounts(timeout=0.3)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(client.list_mounts())
            await asyncio.sleep(0)
            server.add_insecure_port(address)
            await server.start()
        assert waiting.result().next_page_token == "x"
    await server.stop(None)


async def test_a_cancelled_call_ends_at_the_server(tmp_path: Path) -> None:
    ended, began = asyncio.Event(), asyncio.Event()

    class Endless(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
            async def answer(data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
                began.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.set()
                return b""

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Endless(),))
    server.add_insecure_port(f"unix:{tmp_path / 'sock'}")
    await server.start()
    async with lessor.Client(f"unix:{tmp_path / 'sock'}") as client:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(client.generate_credentials(role="app"))
            await began.wait()
            waiting.cancel()
        assert waiting.cancelled()
        async with asyncio.timeout(CALL_SECONDS):
            await ended.wait()
    await server.stop(None)

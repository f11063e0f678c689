"""Checks streams without an end: events of leases, and credentials ahead of each expiry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from lessor.v1 import lease_pb2, role_pb2
from lessor.v1.creds_pb2 import WatchCredentialsRequest, WatchCredentialsResponse
from lessor.v1.lease_pb2 import WatchLeasesRequest, WatchLeasesResponse
from tests.support.clients import SECONDS, Lessor, connect, nothing_left, refused, until, users_of
from tests.support.own_server import own_server
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

Code = grpc.StatusCode
Type = WatchLeasesResponse.Type
Watch = grpc.aio.UnaryStreamCall[Any, WatchLeasesResponse]


@asynccontextmanager
async def watching(lessor: Lessor, prefix: str) -> AsyncIterator[Watch]:
    """Watch the leases below a prefix; events are received from the first line of the block on."""
    call = lessor.leases.WatchLeases(WatchLeasesRequest(prefix=prefix))
    await call.initial_metadata()
    try:
        yield call
    finally:
        call.cancel()


async def heard(watch: Watch, count: int) -> list[WatchLeasesResponse]:
    """Read as many messages."""
    async with asyncio.timeout(SECONDS):
        return [await anext(aiter(watch)) for _ in range(count)]


def credentials(lessor: Lessor, mount: str, ttl: int, overlap: int, seconds: float | None = None) -> Any:
    """Begin a stream of credentials of the role ``app``."""
    request = WatchCredentialsRequest(
        mount=mount, role="app", ttl=Duration(seconds=ttl), overlap=Duration(seconds=overlap)
    )
    return lessor.creds.WatchCredentials(request, timeout=seconds)


async def first(stream: Any) -> WatchCredentialsResponse:
    """Read the next credentials."""
    async with asyncio.timeout(SECONDS):
        return await anext(aiter(stream))


async def end(stream: Any) -> object:
    """Read to the stream's end."""
    async with asyncio.timeout(SECONDS):
        return [message async for message in stream]


# --- leases ----------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_watcher_gets_all_events_of_a_lease(lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount)
    async with watching(lessor, f"{mount}/") as watch:
        lease = (await lessor.generate(mount, ttl=60)).lease_id
        await lessor.renew(lease, 1)
        answer = await heard(watch, 4)
    assert [one.type for one in answer] == [Type.ISSUED, Type.RENEWED, Type.EXPIRING, Type.REVOKED]
    assert {one.lease_id for one in answer} == {lease}
    times = [one.time.ToNanoseconds() for one in answer]
    assert times == sorted(times)
    assert times[2] - times[1] >= 1_000_000_000
    assert not any(one.error for one in answer)


async def test_a_failed_event_has_the_code_of_aws_and_not_its_text(
    lessor: Lessor, aws: StandIn, mount: str
) -> None:
    """The text may name the account."""
    await lessor.put_role(mount)
    lease = (await lessor.generate(mount)).lease_id
    await aws.fault("refuse", "DeleteAccessKey", nth=1, message="arn:aws:iam::123456789012:user/x may not")
    async with watching(lessor, lease) as watch:
        await lessor.revoke(lease)
        (answer,) = await heard(watch, 1)
        assert answer.type == Type.FAILED
        assert answer.error == "AWS DeleteAccessKey: AccessDenied"
        assert answer.error == (await lessor.lookup(lease)).last_error


async def test_a_malformed_prefix_is_refused(lessor: Lessor) -> None:
    for prefix in ("", "aws", "aws/creds/app"):
        stream = lessor.leases.WatchLeases(WatchLeasesRequest(prefix=prefix))
        refusal = await refused(end(stream))
        assert (refusal.code, list(refusal.violations)) == (Code.INVALID_ARGUMENT, ["prefix"])


async def test_a_watch_ends_at_its_caller_s_deadline(lessor: Lessor, mount: str) -> None:
    stream = lessor.leases.WatchLeases(WatchLeasesRequest(prefix=f"{mount}/"), timeout=3.0)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await end(stream)
    assert raised.value.code() is Code.DEADLINE_EXCEEDED


# --- credentials -----------------------------------------------------------------------------------------


async def test_the_next_credentials_come_before_the_previous_end(
    lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount)
    stream = credentials(lessor, mount, ttl=4, overlap=1)
    got: list[WatchCredentialsResponse] = []
    for _ in range(3):
        got.append(await first(stream))
        users = await users_of(aws, mount)
        assert got[-1].access_key in [key["id"] for user in users for key in user["keys"]]  # type: ignore[attr-defined]
        assert len(users) <= 2
        assert (await lessor.lookup(got[-1].lease_id)).state == lease_pb2.Lease.ACTIVE
    assert len({one.secret_key for one in got}) == 3
    assert all(one.lease_duration.seconds == 4 and one.lease_renewable and one.arn for one in got)
    ends = (await lessor.lookup(got[0].lease_id)).expire_time.ToNanoseconds()
    assert ends < got[0].expire_time.ToNanoseconds()
    stream.cancel()
    await nothing_left(aws, mount)


@pytest.mark.slow
async def test_the_last_lease_ends_after_its_caller_left(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await lessor.put_role(mount)
    stream = credentials(lessor, mount, ttl=3600, overlap=2)
    lease = (await first(stream)).lease_id
    stream.cancel()
    brought = await until(lambda: lessor.lookup(lease), lambda one: one.ttl.seconds <= 2)
    assert brought.state in (lease_pb2.Lease.ACTIVE, lease_pb2.Lease.REVOKING)
    await nothing_left(aws, mount)


@pytest.mark.slow
async def test_a_session_s_lease_ends_after_its_caller_left(lessor: Lessor, aws: StandIn, mount: str) -> None:
    arn = await aws.role("deploy")
    kind = role_pb2.Role.ASSUMED_ROLE
    await lessor.put_role(mount, credential_type=kind, role_arns=[arn], policy_document=None)
    stream = credentials(lessor, mount, ttl=900, overlap=1)
    made = await first(stream)
    assert made.security_token
    assert not made.lease_renewable
    stream.cancel()
    gone = await until(lambda: lessor.lookup(made.lease_id), lambda one: one.state == lease_pb2.Lease.GONE)
    assert gone.max_expire_time == made.expire_time


async def test_the_default_overlap_is_60_seconds(lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount)
    refusal = await refused(end(credentials(lessor, mount, ttl=119, overlap=0)))
    assert refusal.code is Code.INVALID_ARGUMENT
    assert "1m is more than half of the ttl, 1m59s" in refusal.violations["overlap"]
    refusal = await refused(end(credentials(lessor, mount, ttl=119, overlap=-1)))
    assert list(refusal.violations) == ["overlap"]


async def test_an_unknown_role_ends_the_stream_immediately(lessor: Lessor, mount: str) -> None:
    assert (await refused(end(credentials(lessor, mount, ttl=600, overlap=60)))).code is Code.NOT_FOUND


@pytest.mark.slow
async def test_a_drain_ends_the_streams_and_shortens_their_leases(tmp_path: Path, aws: StandIn) -> None:
    await aws.reset()
    async with own_server(tmp_path, aws) as server, connect(server.address, server.token) as lessor:
        stream = credentials(lessor, "aws", ttl=3600, overlap=30)
        lease = (await first(stream)).lease_id
        async with watching(lessor, "aws/") as watch:
            async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
                ends = [group.create_task(refused(end(one))) for one in (stream, watch)]
                code = group.create_task(server.stop())
            assert code.result() == 0
            assert {(one.result().code, one.result().reason) for one in ends} == {
                (Code.UNAVAILABLE, "DRAINING")
            }
        await server.start(tmp_path, {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url})
        async with connect(server.address, server.token) as again:
            assert (await again.lookup(lease)).ttl.seconds <= 30


@pytest.mark.slow
async def test_after_a_kill_the_last_lease_ends_at_its_own_expiry(tmp_path: Path, aws: StandIn) -> None:
    await aws.reset()
    async with own_server(tmp_path, aws) as server, connect(server.address, server.token) as lessor:
        stream = credentials(lessor, "aws", ttl=8, overlap=1)
        made = await first(stream)
        await server.kill()
        with pytest.raises(grpc.aio.AioRpcError):
            await end(stream)
        await server.start(tmp_path, {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url})
        async with connect(server.address, server.token) as again:
            assert (await again.lookup(made.lease_id)).expire_time == made.expire_time
        await nothing_left(aws, "aws")

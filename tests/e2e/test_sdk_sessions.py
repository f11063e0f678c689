"""Sessions of boto3 and aioboto3 whose credentials are a lease, across refreshes, by a moved clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

import lessor
from lessor.clock import MachineClock
from tests.support.clients import POLICY, users_of
from tests.support.server_process import ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]

REGION = "us-east-1"


@dataclass
class MovedClock(MachineClock):
    """The machine's clock, set forward by the test."""

    ahead: timedelta = field(default_factory=timedelta)

    def now(self) -> datetime:
        return super().now() + self.ahead


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(server: ServerProcess) -> AsyncIterator[lessor.Client]:
    """Call the server as root."""
    async with lessor.Client(server.address, token=server.token) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def user(client: lessor.Client, mount: str) -> str:
    """Write a role for IAM users."""
    await client.put_role(mount=mount, name="user", credential_type="IAM_USER", policy_document=POLICY)
    return "user"


@pytest_asyncio.fixture(loop_scope="module")
async def assumed(client: lessor.Client, aws: StandIn, mount: str) -> str:
    """Write a role for sessions of an IAM role."""
    arn = await aws.role(f"target-{mount}")
    await client.put_role(mount=mount, name="assumed", credential_type="ASSUMED_ROLE", role_arns=[arn])
    return "assumed"


def identity(session: lessor.boto3.RenewingSession, aws: StandIn) -> str:
    """Return who a session is to AWS."""
    sts: Any = session.client("sts", endpoint_url=aws.url)
    return str(sts.get_caller_identity()["Arn"])


async def aio_identity(session: lessor.aioboto3.AsyncRenewingSession, aws: StandIn) -> str:
    """Return who a session is to AWS."""
    async with session.client("sts", endpoint_url=aws.url) as sts:
        return str((await sts.get_caller_identity())["Arn"])


async def test_a_boto3_session_renews_the_key_of_a_user(
    server: ServerProcess, aws: StandIn, mount: str, user: str
) -> None:
    """After two thirds of its life; botocore alone would ask for a new one from the first request on."""
    clock = MovedClock()

    def walk() -> None:
        with (
            lessor.sync.Client(server.address, token=server.token) as client,
            lessor.boto3.session(user, REGION, mount, "10m", client, clock) as session,
        ):
            key = session.get_credentials().access_key
            first = identity(session, aws)
            lease = client.list_leases(prefix=f"{mount}/").leases[0]
            assert not lease.HasField("last_renewal_time")
            clock.ahead = timedelta(minutes=7)
            assert identity(session, aws) == first
            renewed = client.lookup_lease(lease_id=lease.lease_id).lease
            assert renewed.HasField("last_renewal_time")
            assert session.get_credentials().access_key == key
            assert len(client.list_leases(prefix=f"{mount}/").leases) == 1

    await asyncio.to_thread(walk)
    assert await users_of(aws, mount) == []


async def test_a_boto3_session_replaces_a_session_of_a_role_before_its_end(
    server: ServerProcess, aws: StandIn, mount: str, assumed: str
) -> None:
    clock = MovedClock()

    def walk() -> None:
        with (
            lessor.sync.Client(server.address, token=server.token) as client,
            lessor.boto3.session(assumed, REGION, mount, "15m", client, clock) as session,
        ):
            keys = [session.get_credentials().get_frozen_credentials()]
            for minutes in (9, 11):
                clock.ahead = timedelta(minutes=minutes)
                assert f"assumed-role/target-{mount}/" in identity(session, aws)
                keys.append(session.get_credentials().get_frozen_credentials())
            assert keys[0] == keys[1]
            assert keys[1].access_key != keys[2].access_key
            assert keys[2].token

    await asyncio.to_thread(walk)


async def test_an_aioboto3_session_renews_and_replaces(
    client: lessor.Client, aws: StandIn, mount: str, user: str, assumed: str
) -> None:
    clock = MovedClock()
    async with lessor.aioboto3.session(user, REGION, mount, "10m", client, clock) as session:
        first = await aio_identity(session, aws)
        lease = (await client.list_leases(prefix=f"{mount}/")).leases[0]
        clock.ahead = timedelta(minutes=7)
        async with asyncio.TaskGroup() as group:
            several = [group.create_task(aio_identity(session, aws)) for _ in range(8)]
        assert {task.result() for task in several} == {first}
        assert (await client.lookup_lease(lease_id=lease.lease_id)).lease.HasField("last_renewal_time")
        assert len((await client.list_leases(prefix=f"{mount}/")).leases) == 1
    assert await users_of(aws, mount) == []
    clock.ahead = timedelta()
    async with lessor.aioboto3.session(assumed, REGION, mount, "15m", client, clock) as session:
        await aio_identity(session, aws)
        before = (await (await session.get_credentials()).get_frozen_credentials()).access_key
        clock.ahead = timedelta(minutes=11)
        await aio_identity(session, aws)
        after = (await (await session.get_credentials()).get_frozen_credentials()).access_key
        assert before != after


async def test_a_session_works_on_while_the_server_is_away(
    client: lessor.Client, aws: StandIn, mount: str, user: str
) -> None:
    """A request waits a few seconds for a refresh at most, and the next one not at all."""
    clock = MovedClock()
    away = lessor.Client("127.0.0.1:1")
    async with lessor.aioboto3.session(user, REGION, mount, "10m", client, clock) as session:
        first = await aio_identity(session, aws)
        session._keeper.leases._calls = away._calls
        clock.ahead = timedelta(minutes=7)
        assert await aio_identity(session, aws) == first
        assert isinstance(session._keeper.leases.error, lessor.Unavailable)
        session._keeper.leases._calls = client._calls
    await away.close()


async def test_a_session_of_a_role_that_does_not_exist_is_refused(server: ServerProcess, mount: str) -> None:
    def walk() -> None:
        with (
            lessor.sync.Client(server.address, token=server.token) as client,
            pytest.raises(lessor.NotFound),
        ):
            lessor.boto3.session("nobody", REGION, mount, client=client)

    await asyncio.to_thread(walk)


async def test_a_session_uses_the_environment_and_closes_its_client(
    server: ServerProcess, aws: StandIn, mount: str, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LESSOR_ADDR", server.address)
    monkeypatch.setenv("LESSOR_TOKEN", server.token)

    def walk() -> None:
        session = lessor.boto3.session(user, region_name=REGION, mount=mount)
        assert session.region_name == REGION
        assert f"lessor-{mount}-user-" in identity(session, aws)
        session.close()
        assert session._owned is not None
        with pytest.raises(RuntimeError, match="closed"):
            session._owned.get_info()

    await asyncio.to_thread(walk)
    assert await users_of(aws, mount) == []

"""``lessor.Client`` and ``lessor.sync.Client`` against a real server, over a real channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

import lessor
from tests.support.clients import MANAGED, POLICY, nothing_left, until, users_of
from tests.support.server_process import ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(server: ServerProcess) -> AsyncIterator[lessor.Client]:
    """Call the server as root."""
    async with lessor.Client(server.address, token=server.token) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def role(client: lessor.Client, mount: str) -> str:
    """Write a role for IAM users."""
    await client.put_role(mount=mount, name="app", credential_type="IAM_USER", policy_document=POLICY)
    return "app"


async def test_a_lease_ends_with_its_block(
    client: lessor.Client, aws: StandIn, mount: str, role: str
) -> None:
    async with client.lease(role, mount=mount, ttl="1h", reason="a test") as lease:
        assert lease.access_key.startswith("AKIA")
        assert lease.credentials.usable
        assert len(await users_of(aws, mount)) == 1
        found = (await client.lookup_lease(lease_id=lease.lease_id)).lease
        assert found.reason == "a test"
        assert timedelta(minutes=50) < found.ttl.ToTimedelta() <= timedelta(hours=1)
    assert await users_of(aws, mount) == []


async def test_a_lease_is_revoked_after_an_error_and_a_cancellation(
    client: lessor.Client, aws: StandIn, mount: str, role: str
) -> None:
    """The error of the block is raised as it is."""
    with pytest.raises(KeyError):
        async with client.lease(role, mount=mount):
            raise KeyError
    assert await users_of(aws, mount) == []
    entered = asyncio.Event()

    async def hold() -> None:
        async with client.lease(role, mount=mount):
            entered.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        held = group.create_task(hold())
        await entered.wait()
        held.cancel()
    assert held.cancelled()
    assert await users_of(aws, mount) == []


async def test_a_lease_renews_itself_with_the_same_key(client: lessor.Client, mount: str, role: str) -> None:
    async with client.lease(role, mount=mount, ttl=5, wait_usable=0) as lease:
        key, end = lease.access_key, lease.expire_time

        async def expiry() -> object:
            return lease.expire_time

        await until(expiry, lambda seen: seen != end)
        assert lease.access_key == key
        assert lease.error is None


async def test_a_lease_that_somebody_revoked_is_replaced(
    client: lessor.Client, aws: StandIn, mount: str, role: str
) -> None:
    async with client.lease(role, mount=mount, ttl=2, wait_usable=0) as lease:
        key = lease.access_key
        await client.revoke_lease(lease_id=lease.lease_id, sync=True)

        async def current() -> str:
            return lease.access_key

        await until(current, lambda seen: seen != key)
    await nothing_left(aws, mount)


async def test_the_blocking_client_does_the_same(
    server: ServerProcess, aws: StandIn, mount: str, role: str
) -> None:
    def walk() -> None:
        with lessor.sync.Client(server.address, token=server.token) as client:
            with client.lease(role, mount=mount, ttl=5, wait_usable=0) as lease:
                key, end = lease.access_key, lease.expire_time
                for event in client.watch_leases(prefix=lease.lease_id, timeout=30):
                    if event.type == event.RENEWED:
                        break
                assert lease.access_key == key
            assert client.lookup_lease(lease_id=lease.lease_id).lease.expire_time.seconds >= end.timestamp()
            with pytest.raises(lessor.NotFound) as refused:
                client.get_role(mount=mount, name="nobody")
            assert refused.value.reason is lessor.Reason.NOT_FOUND
            assert refused.value.fix
            with pytest.raises(ZeroDivisionError), client.lease(role, mount=mount, wait_usable=0):
                1 / 0  # noqa: B018

    await asyncio.to_thread(walk)
    assert await users_of(aws, mount) == []


async def test_an_invalid_request_has_all_its_violations(client: lessor.Client, mount: str) -> None:
    with pytest.raises(lessor.Invalid) as refused:
        await client.put_role(mount=mount, name="", credential_type="IAM_USER", policy_arns=[MANAGED, "x"])
    fields = [violation.field for violation in refused.value.violations]
    assert fields[0] == "role.name"
    assert refused.value.reason is lessor.Reason.INVALID_REQUEST


async def test_a_token_file_is_read_at_each_call(server: ServerProcess, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("not-the-token-of-anybody\n", encoding="ascii")
    blocking = lessor.sync.Client(server.address, token_file=file)
    async with lessor.Client(server.address, token_file=file) as client:
        with pytest.raises(lessor.Unauthenticated):
            await client.who_am_i()
        with pytest.raises(lessor.Unauthenticated):
            await asyncio.to_thread(blocking.who_am_i)
        file.write_text(f"{server.token}\n", encoding="ascii")
        assert (await client.who_am_i()).identity == "root"
        assert (await asyncio.to_thread(blocking.who_am_i)).identity == "root"
    blocking.close()


async def test_a_list_ends_and_a_stream_can_be_left(client: lessor.Client, mount: str, role: str) -> None:
    """A stream that is left is cancelled."""
    names = {one.mount for one in (await client.list_mounts()).mounts}
    assert mount in names
    watching = client.watch_leases(prefix=f"{mount}/")

    async def issue_until_seen() -> None:
        while True:
            await client.generate_credentials(mount=mount, role=role)

    async with asyncio.TaskGroup() as group:
        issuing = group.create_task(issue_until_seen())
        event = await anext(watching)
        issuing.cancel()
    assert event.lease_id.startswith(f"{mount}/creds/{role}/")
    await watching.aclose()
    done = [progress async for progress in client.revoke_prefix(prefix=f"{mount}/", sync=True)]
    assert done[-1].left == 0

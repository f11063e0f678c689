"""Runs three real servers on one PostgreSQL database."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo

from lessor.v1 import config_pb2, creds_pb2, lease_pb2, role_pb2, system_pb2
from tests.fire.environment import keys_of
from tests.support.clients import SECONDS, Refusal, lease_of, refused, until, users_of
from tests.support.postgres import LATER_SCHEMA, shared_postgres
from tests.support.replica_servers import ReplicaServer, replica, replicas
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

State = lease_pb2.Lease.State


async def until_listed(server: ReplicaServer, count: int) -> system_pb2.GetInfoResponse:
    """Wait until GetInfo lists so many replicas; each server reads the table at least each 5 s."""
    for _ in range(100):
        info = await server.client.info()
        if len(info.replicas) == count:
            return info
        await asyncio.sleep(0.2)
    raise AssertionError(f"{len(info.replicas)} replicas are listed")


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="fleet")
async def running(
    tmp_path_factory: pytest.TempPathFactory, aws: StandIn
) -> AsyncIterator[list[ReplicaServer]]:
    """Run three replicas that the tests of this module share."""
    folder = tmp_path_factory.mktemp("replicas")
    settings = {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url}
    async with replicas(folder, settings) as servers:
        await servers[0].client.enable("aws", aws.url)
        await servers[0].client.put_role("aws")
        yield servers


async def test_get_info_of_each_replica_lists_all(fleet: list[ReplicaServer]) -> None:
    names: set[str] = set()
    for server in fleet:
        info = await until_listed(server, 3)
        names |= {one.name for one in info.replicas}
        assert len(names) == 3
        for one in info.replicas:
            assert one.version == info.version
            assert abs(one.clock_difference.ToSeconds()) <= 1
            assert list(one.different_settings) == []


async def test_what_one_replica_stores_the_others_use_immediately(fleet: list[ReplicaServer]) -> None:
    made = await fleet[1].client.generate("aws")
    assert (await fleet[2].client.lookup(made.lease_id)).lease_id == made.lease_id


async def test_changes_of_roles_mounts_and_roots_hold_on_all_replicas_immediately(
    fleet: list[ReplicaServer], aws: StandIn
) -> None:
    """Each replica keeps what it has read in memory, and asks the database whether that has changed."""
    await fleet[0].client.enable("lab", aws.url)
    await fleet[0].client.put_role("lab")
    for server in fleet:
        await server.client.generate("lab")
    for number, server in enumerate(fleet):
        await server.client.put_role("lab", max_ttl=Duration(seconds=100 + number))
        for other in fleet:
            made = await other.client.generate("lab")
            assert round(made.lease_duration.ToSeconds()) == 100 + number
    request = role_pb2.DeleteRoleRequest(mount="lab", name="app")
    await fleet[1].client.roles.DeleteRole(request)
    for server in fleet:
        assert (await refused(server.client.generate("lab"))).code is grpc.StatusCode.NOT_FOUND
    await fleet[2].client.put_role("lab")
    disable = config_pb2.DisableMountRequest(mount="lab")
    await fleet[2].client.config.DisableMount(disable)
    for server in fleet:
        refusal = await refused(server.client.generate("lab"))
        assert refusal.code in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND)


# --- requests ----------------------------------------------------------------------------------------------


async def ask(server: ReplicaServer, request_id: str) -> Refusal | creds_pb2.GenerateCredentialsResponse:
    """Ask one server for a credential; return it, or the refusal."""
    request = creds_pb2.GenerateCredentialsRequest(mount="aws", role="app", request_id=request_id)
    try:
        return await server.client.creds.GenerateCredentials(request, timeout=SECONDS)
    except grpc.aio.AioRpcError as error:
        return Refusal.of(error)


async def test_a_request_id_sent_to_all_replicas_at_once_makes_one_user(
    fleet: list[ReplicaServer], aws: StandIn
) -> None:
    """One issues; the others answer ABORTED with a delay, or later the same lease with a new key."""
    request_id = str(uuid.uuid4())
    await aws.latency(0.1)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(server, request_id)) for server in fleet]
    await aws.latency(0)
    answers = [task.result() for task in asked]
    made = [one for one in answers if not isinstance(one, Refusal)]
    aborted = [one for one in answers if isinstance(one, Refusal)]
    assert len({one.lease_id for one in made}) == 1
    assert all(one.code is grpc.StatusCode.ABORTED for one in aborted)
    assert all(one.detail(RetryInfo).retry_delay.ToMilliseconds() > 0 for one in aborted)
    keys = [one.access_key for one in made]
    for server in fleet:
        again = await ask(server, request_id)
        assert not isinstance(again, Refusal)
        assert again.lease_id == made[0].lease_id
        keys.append(again.access_key)
    assert len(set(keys)) == len(keys)
    users = [user for user in await users_of(aws, "aws") if lease_of(user) == made[0].lease_id]
    assert [keys_of(user) for user in users] == [[keys[-1]]]


async def test_a_prefix_revoked_on_one_replica_ends_what_the_others_issue_meanwhile(
    fleet: list[ReplicaServer], aws: StandIn
) -> None:
    """Each lease that was begun before the prefix was accepted ends, whether its caller got it or not."""
    await fleet[0].client.put_role("aws", "swept")
    await aws.latency(0.05)
    made: list[str] = []
    stop = asyncio.Event()

    async def issue(server: ReplicaServer) -> None:
        while not stop.is_set():
            try:
                made.append((await server.client.generate("aws", "swept")).lease_id)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.ABORTED:
                    raise

    async with asyncio.TaskGroup() as group:
        for server in fleet[1:]:
            for _ in range(3):
                group.create_task(issue(server))
        await until(lambda: count_of(made), lambda count: count >= 10)
        before = list(made)
        request = lease_pb2.RevokePrefixRequest(prefix="aws/creds/swept/")
        async for _ in fleet[0].client.leases.RevokePrefix(request):
            pass
        stop.set()
    await aws.latency(0)
    for lease_id in before:
        await until(lambda one=lease_id: fleet[2].client.lookup(one), lambda lease: lease.state == State.GONE)
    users = {lease_of(user) for user in await users_of(aws, "aws") if "/swept/" in lease_of(user)}
    alive = {one for one in made if (await fleet[1].client.lookup(one)).state == State.ACTIVE}
    assert users == alive


async def count_of(made: list[str]) -> int:
    """Return how many there are."""
    return len(made)


async def test_a_watch_on_one_replica_shows_what_happens_on_another(fleet: list[ReplicaServer]) -> None:
    request = lease_pb2.WatchLeasesRequest(prefix="aws/")
    watch = fleet[0].client.leases.WatchLeases(request, timeout=SECONDS)
    await watch.initial_metadata()
    made = await fleet[1].client.generate("aws")
    await fleet[2].client.revoke(made.lease_id)
    shown: list[int] = []
    async for event in watch:
        if event.lease_id == made.lease_id:
            shown.append(event.type)
        if len(shown) == 2:
            break
    assert sorted(shown) == [lease_pb2.WatchLeasesResponse.ISSUED, lease_pb2.WatchLeasesResponse.REVOKED]
    watch.cancel()


async def test_a_hold_on_one_replica_holds_all(fleet: list[ReplicaServer], aws: StandIn) -> None:
    made = await fleet[1].client.generate("aws", ttl=1)
    await fleet[0].client.system.HoldExpiry(system_pb2.HoldExpiryRequest(reason="maintenance"))
    assert made.lease_id in {lease_of(user) for user in await users_of(aws, "aws")}
    await asyncio.sleep(2)
    assert made.lease_id in {lease_of(user) for user in await users_of(aws, "aws")}
    await fleet[2].client.system.ResumeExpiry(system_pb2.ResumeExpiryRequest())

    async def live() -> bool:
        return made.lease_id in {lease_of(user) for user in await users_of(aws, "aws")}

    await until(live, lambda is_live: not is_live)


async def test_three_replicas_do_no_revocation_twice(fleet: list[ReplicaServer], aws: StandIn) -> None:
    """Each has the timer of every lease, and one claims it."""
    await aws.forget_calls()
    async with asyncio.TaskGroup() as group:
        issued = [
            group.create_task(server.client.generate("aws", ttl=2)) for server in fleet for _ in range(12)
        ]
    users = {task.result().arn.rpartition("/")[2] for task in issued}

    async def left() -> set[str]:
        return users & set(await aws.users("/lessor/"))

    await until(left, lambda names: not names)
    deleted = Counter(call["user"] for call in await aws.calls("DeleteUser"))
    assert {deleted[user] for user in users} == {1}


async def test_the_sealing_key_is_rotated_while_all_replicas_issue_and_renew(
    fleet: list[ReplicaServer],
) -> None:
    """No row is sealed under a key that a replica does not know, and the earlier key is dropped."""
    made = [await server.client.generate("aws") for server in fleet]
    stop = asyncio.Event()

    async def work(server: ReplicaServer) -> None:
        while not stop.is_set():
            fresh = await server.client.generate("aws")
            for other in fleet:
                await other.client.renew(fresh.lease_id, 300)
            await server.client.put_role("aws", f"role-of-{server.folder.name}")

    async with asyncio.TaskGroup() as group:
        for server in fleet:
            group.create_task(work(server))
        request = system_pb2.RotateSealingKeyRequest()
        rotated = await fleet[1].client.system.RotateSealingKey(request, timeout=SECONDS)
        stop.set()
    for one in made:
        for server in fleet:
            await server.client.renew(one.lease_id, 300)
    for server in fleet:
        assert not any("was edited" in one for one in (await server.client.info()).warnings)
    database = fleet[0].environment["LESSOR_STORE_URL"].partition("@/")[2].partition("?")[0]
    assert shared_postgres().run("SELECT id FROM sealing_keys", database) == rotated.key_id


async def test_a_replica_with_other_settings_is_named(
    fleet: list[ReplicaServer], tmp_path: Path, aws: StandIn
) -> None:
    other = replica(
        tmp_path,
        9,
        fleet[0].environment["LESSOR_STORE_URL"],
        {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url, "LESSOR_AWS_IN_FLIGHT": "7"},
    )
    await other.start()
    try:
        info = await other.client.info()
        assert len(info.replicas) == len(fleet) + 1
        different = [list(one.different_settings) for one in info.replicas if one.different_settings]
        assert different == [["aws.in_flight"]]
        assert any("has other settings than most: aws.in_flight" in one for one in info.warnings)
    finally:
        assert await other.process.stop() == 0
    listed = await until_listed(fleet[0], len(fleet))
    assert not any("settings" in one for one in listed.warnings)


async def test_replicas_go_on_and_start_again_after_a_later_version_has_migrated_their_database(
    fleet: list[ReplicaServer], aws: StandIn
) -> None:
    url = fleet[0].environment["LESSOR_STORE_URL"]
    name = url.partition("@/")[2].partition("?")[0]
    await asyncio.to_thread(shared_postgres().run, LATER_SCHEMA, name)
    leases = [(await server.client.generate("aws")).lease_id for server in fleet]
    await fleet[0].kill()
    await fleet[0].start()
    leases.append((await fleet[0].client.generate("aws")).lease_id)
    for lease, server in zip(leases, [*fleet[1:], *fleet], strict=False):
        await server.client.revoke(lease)
        assert (await fleet[0].client.lookup(lease)).state == State.GONE
    assert not {lease_of(user) for user in await users_of(aws, "aws")} & set(leases)

"""Checks how long clients are kept, and that each key check is signed with its own key."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from tests.support.gateways import chained, gateway, root
from tests.support.standin_control import StandIn
from tests.support.virtual_loop import virtual

from lessor_server.adapters.aws.assume_chain import ChainCredentials
from lessor_server.adapters.aws.clients import IDLE_SECONDS, RETIRED_SECONDS, Clients
from lessor_server.adapters.aws.endpoints import Endpoint
from lessor_server.adapters.aws.gateway import AwsGateway
from lessor_server.adapters.aws.per_call_credentials import PerCallCredentials
from lessor_server.domain.aws.errors import AwsRefused
from lessor_server.domain.aws.iam_calls import (
    AccessKey,
    CreateAccessKey,
    CreateUser,
    UpdateAccessKey,
    VerifyKeyOnIam,
)
from lessor_server.domain.aws.sts_calls import GetCallerIdentity, GetSessionToken, VerifyKey

ENDPOINT = Endpoint("", "us-east-1")


# --- how long clients live --------------------------------------------------------------------------------


async def test_a_client_is_kept_per_root_version_service_and_endpoint(aws: StandIn) -> None:
    place = Endpoint(aws.url, "us-east-1")
    async with Clients((aws.url,), "lessor/test") as clients:
        first = await clients.get(root(aws.url), "sts", place, None)
        assert await clients.get(root(aws.url), "sts", place, None) is first
        newer = await clients.get(root(aws.url, version=2), "sts", place, None)
        other = await clients.get(root(aws.url, "other"), "sts", place, None)
        elsewhere = await clients.get(root(aws.url), "sts", Endpoint(aws.url, "eu-west-1"), None)
        assert len({id(one) for one in (first, newer, other, elsewhere)}) == 4
        assert (await first.get_caller_identity())["Account"] == "123456789012"


@virtual
async def test_clients_of_an_older_root_are_closed_a_minute_later() -> None:
    """Calls in flight can still end."""
    async with Clients((), "lessor/test") as clients:
        first = await clients.get(root("", version=1), "sts", ENDPOINT, None)
        second = await clients.get(root("", version=2), "sts", ENDPOINT, None)
        await asyncio.sleep(RETIRED_SECONDS - 1)
        other = await clients.get(root("", "other"), "sts", ENDPOINT, None)
        assert await clients.get(root("", version=1), "sts", ENDPOINT, None) is first
        await asyncio.sleep(2)
        assert await clients.get(root("", version=1), "sts", ENDPOINT, None) is not first
        assert await clients.get(root("", version=2), "sts", ENDPOINT, None) is second
        assert await clients.get(root("", "other"), "sts", ENDPOINT, None) is other


@virtual
async def test_a_client_created_by_a_late_call_of_an_older_root_is_closed_too() -> None:
    async with Clients((), "lessor/test") as clients:
        await clients.get(root("", version=2), "sts", ENDPOINT, None)
        late = await clients.get(root("", version=1), "sts", ENDPOINT, None)
        gone = weakref.ref(late)
        del late
        await asyncio.sleep(RETIRED_SECONDS + 1)
        assert gone() is None


@virtual
async def test_an_unused_client_is_closed_when_its_mount_needs_another() -> None:
    async with Clients((), "lessor/test") as clients:
        used = await clients.get(root(""), "sts", ENDPOINT, None)
        other = await clients.get(root("", "other"), "sts", ENDPOINT, None)
        left = await clients.get(
            chained(root(""), "arn:aws:iam::111111111111:role/hub"), "sts", ENDPOINT, None
        )
        gone = weakref.ref(left)
        del left
        await asyncio.sleep(IDLE_SECONDS + 1)
        assert await clients.get(root(""), "sts", ENDPOINT, None) is used
        assert gone() is not None
        await clients.get(root(""), "iam", ENDPOINT, None)
        await asyncio.sleep(RETIRED_SECONDS + 1)
        assert gone() is None
        assert await clients.get(root(""), "sts", ENDPOINT, None) is used
        assert await clients.get(root("", "other"), "sts", ENDPOINT, None) is other


@virtual
async def test_the_clients_of_a_removed_mount_are_closed_after_a_minute() -> None:
    async with Clients((), "lessor/test") as clients:
        other = await clients.get(root("", "other"), "sts", ENDPOINT, None)
        session = ChainCredentials()
        clients_of_it = [
            await clients.get(root("", version=version), service, ENDPOINT, signs)
            for version, service, signs in ((1, "sts", None), (1, "iam", None), (2, "sts", session))
        ]
        gone = [weakref.ref(one) for one in (*clients_of_it, session)]
        del clients_of_it, session
        clients.forget("aws")
        again = await clients.get(root("", version=2), "sts", ENDPOINT, None)
        assert gone[2]() is not again
        await asyncio.sleep(RETIRED_SECONDS + 1)
        assert [one() for one in gone] == [None] * 4
        assert await clients.get(root("", version=2), "sts", ENDPOINT, None) is again
        assert await clients.get(root("", "other"), "sts", ENDPOINT, None) is other


async def test_a_call_in_flight_outlives_its_mount(aws: StandIn) -> None:
    async with Clients((aws.url,), "lessor/test") as clients:
        client = await clients.get(root(aws.url), "sts", Endpoint(aws.url, "us-east-1"), None)
        clients.forget("aws")
        assert (await client.get_caller_identity())["Account"] == "123456789012"


async def test_the_session_of_a_removed_mount_is_dropped_from_memory(aws: StandIn) -> None:
    hub = await aws.role("hub", account="111111111111", trusts=["123456789012"])
    async with Clients((aws.url,), "lessor/test") as clients:
        door = AwsGateway(clients)
        await door.send(chained(root(aws.url), hub), GetCallerIdentity())
        kept = door._chains._kept
        assert len(kept) == 1
        door.forget("aws")
    gc.collect()
    assert len(kept) == 0


# --- proofs -----------------------------------------------------------------------------------------------


async def test_concurrent_key_checks_are_each_signed_with_their_own_key(aws: StandIn) -> None:
    at = root(aws.url)
    async with gateway(aws.url) as door:
        keys: dict[str, AccessKey] = {}
        for number in range(50):
            await door.send(at, CreateUser(f"u{number}", "/", "", ()))
            keys[f"u{number}"] = await door.send(at, CreateAccessKey(f"u{number}"))
        made = await door.send(at, GetSessionToken(900))
        session = AccessKey(made.access_key_id, made.secret, made.token)
        await aws.forget_calls()
        async with asyncio.TaskGroup() as group:
            for name, key in keys.items():
                group.create_task(door.send(at, VerifyKeyOnIam(key, name)))
                group.create_task(door.send(at, VerifyKey(key)))
                group.create_task(door.send(at, VerifyKey(session)))
                group.create_task(door.send(at, GetCallerIdentity()))
    by_user = {call["user"]: call["key_id"] for call in await aws.calls("GetUser")}
    assert by_user == {name: key.access_key_id for name, key in keys.items()}
    signers = [call["key_id"] for call in await aws.calls("GetCallerIdentity")]
    expected = [key.access_key_id for key in keys.values()]
    expected += [session.access_key_id] * 50 + [at.config.access_key] * 50
    assert sorted(map(str, signers)) == sorted(expected)
    assert {call["outcome"] for call in await aws.calls()} == {"ok"}


async def test_only_the_wrong_key_of_several_is_refused(aws: StandIn) -> None:
    at = root(aws.url)
    async with gateway(aws.url) as door:
        await door.send(at, CreateUser("ann", "/", "", ()))
        good = await door.send(at, CreateAccessKey("ann"))
        bad = await door.send(at, CreateAccessKey("ann"))
        await door.send(at, UpdateAccessKey("ann", bad.access_key_id, active=False))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_taken(door, aws.url, key)) for key in (good, bad) * 20]
    assert [task.result() for task in tasks] == [True, False] * 20


async def _taken(door: AwsGateway, url: str, key: AccessKey) -> bool:
    try:
        await door.send(root(url), VerifyKey(key))
    except AwsRefused:
        return False
    return True


@virtual
async def test_clients_for_key_checks_are_shared_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 8
    monkeypatch.setattr("lessor_server.adapters.aws.clients.MAX_VERIFICATION_CLIENTS", most)
    async with Clients((), "lessor/test") as clients:
        first = await clients.verification_client("sts", ENDPOINT)
        assert await clients.verification_client("sts", ENDPOINT) is first
        for number in range(1, most):
            await clients.verification_client("sts", Endpoint("", f"eu-west-{number}"))
        assert await clients.verification_client("sts", ENDPOINT) is first
        second = weakref.ref(await clients.verification_client("sts", Endpoint("", "eu-west-1")))
        for number in range(most, 2 * most - 2):
            await clients.verification_client("sts", Endpoint("", f"eu-west-{number}"))
        assert second() is not None
        for number in (90, 91):
            await clients.verification_client("sts", Endpoint("", f"eu-west-{number}"))
        await asyncio.sleep(RETIRED_SECONDS + 1)
        assert second() is None


async def test_outside_of_a_call_there_is_no_key_to_sign_with() -> None:
    with pytest.raises(LookupError):
        await PerCallCredentials().get_frozen_credentials()

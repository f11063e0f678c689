"""Checks how long the credentials of roots are kept, and that each call is signed with its own."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable
from contextlib import suppress

from tests.support.gateways import chained, gateway, root
from tests.support.standin_control import StandIn
from tests.support.virtual_loop import virtual

from lessor_server.adapters.aws.credentials import (
    MAX_OF_MOUNT,
    RETIRED_SECONDS,
    KeptBySource,
    RootKey,
    Source,
)
from lessor_server.adapters.aws.gateway import AwsGateway
from lessor_server.domain.aws.errors import AwsRefused
from lessor_server.domain.aws.iam_calls import (
    AccessKey,
    CreateAccessKey,
    CreateUser,
    ListAccessKeys,
    UpdateAccessKey,
    VerifyKeyOnIam,
)
from lessor_server.domain.aws.sts_calls import GetCallerIdentity, GetSessionToken, VerifyKey


def source(mount: str = "aws", version: int = 1, key: str = "AKIAEXAMPLEEXAMPLE00") -> Source:
    """Return the source of a root with a key."""
    return Source.of(root("", mount, version, access_key=key))


# --- how long they are kept -------------------------------------------------------------------------------


@virtual
async def test_credentials_of_an_older_root_are_dropped_a_minute_later() -> None:
    """Calls in flight can still end."""
    keys = KeptBySource(RootKey)
    first, second = keys.get(source()), keys.get(source(version=2))
    other = keys.get(source("other"))
    await asyncio.sleep(RETIRED_SECONDS - 1)
    assert keys.get(source()) is first
    await asyncio.sleep(2)
    assert keys.get(source()) is not first
    assert keys.get(source(version=2)) is second
    assert keys.get(source("other")) is other


@virtual
async def test_credentials_of_a_late_call_of_an_older_root_are_dropped_too() -> None:
    keys = KeptBySource(RootKey)
    keys.get(source(version=2))
    gone = weakref.ref(keys.get(source()))
    await asyncio.sleep(RETIRED_SECONDS + 1)
    assert gone() is None


def test_a_mount_keeps_a_bounded_number_of_sources() -> None:
    """Each root that is checked before it is set is one."""
    keys = KeptBySource(RootKey)
    gone = weakref.ref(keys.get(source(key="AKIAFIRSTFIRSTFIRST0")))
    for number in range(MAX_OF_MOUNT):
        keys.get(source(key=f"AKIAEXAMPLE{number:09}"))
    assert gone() is None


def test_the_credentials_of_a_removed_mount_are_dropped_from_memory() -> None:
    keys = KeptBySource(RootKey)
    other = keys.get(source("other"))
    gone = weakref.ref(keys.get(source()))
    keys.forget("aws")
    assert gone() is None
    assert keys.get(source("other")) is other


@virtual
async def test_the_root_that_was_used_last_is_dropped_like_the_others() -> None:
    keys, old = KeptBySource(RootKey), root("")
    gone = [weakref.ref(keys.of(old))]
    assert keys.of(old) is keys.get(Source.of(old)) is gone[0]()
    keys.get(source(version=2))
    await asyncio.sleep(RETIRED_SECONDS + 1)
    gone.append(weakref.ref(keys.of(root("", version=2))))
    keys.forget("aws")
    assert [one() for one in gone] == [None, None]


def test_roots_of_one_version_have_keys_of_their_own() -> None:
    """Such as those that are checked before one of them is set."""
    keys = KeptBySource(RootKey)
    for key in ("AKIAEXAMPLEEXAMPLE00", "AKIAEXAMPLEEXAMPLE01", "AKIAEXAMPLEEXAMPLE00"):
        at = root("", access_key=key)
        assert keys.of(at).of_root(at.config).access_key_id == key


async def test_the_session_of_a_removed_mount_is_dropped_from_memory(aws: StandIn) -> None:
    hub = await aws.role("hub", account="111111111111", trusts=["123456789012"])
    at = chained(root(aws.url), hub)
    async with gateway(aws.url) as door:
        await door.send(at, GetCallerIdentity())
        gone = weakref.ref(door._chains._kept.get(Source.of(at)))
        door.forget("aws")
    gc.collect()
    assert gone() is None


# --- whose key signs --------------------------------------------------------------------------------------


async def test_interleaved_calls_of_accounts_are_each_signed_with_their_own_key(aws: StandIn) -> None:
    """All use the same connections: a root's, those of a chain, and keys that are verified."""
    hub = await aws.role("hub", account="111111111111", trusts=["123456789012"])
    ends = {f"u{n}": root(aws.url, f"mount{n}", access_key=f"AKIAROOT{n:012}") for n in range(10)}
    ends |= {f"c{n}": chained(root(aws.url, f"chained{n}"), hub) for n in range(5)}
    async with gateway(aws.url) as door:
        for _ in range(3):
            async with asyncio.TaskGroup() as group:
                for name, end in ends.items():
                    for _ in range(4):
                        group.create_task(_ignore(door.send(end, ListAccessKeys(name))))
    signers: dict[str, set[str]] = {}
    for call in await aws.calls("ListAccessKeys"):
        signers.setdefault(str(call["user"]), set()).add(str(call["key_id"]))
    assert {name: keys for name, keys in signers.items() if name[0] == "u"} == {
        f"u{n}": {f"AKIAROOT{n:012}"} for n in range(10)
    }
    sessions = [keys for name, keys in signers.items() if name[0] == "c"]
    assert [len(keys) for keys in sessions] == [1] * 5
    assert len(set().union(*sessions)) == 5


async def _ignore(call: Awaitable[object]) -> None:
    with suppress(AwsRefused):
        await call


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

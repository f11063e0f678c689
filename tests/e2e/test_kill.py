"""Kills the server at every point between two AWS calls, and under load.

One server of the module dies in each test and restarts with the same data directory.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
import pytest_asyncio

from lessor.v1 import lease_pb2
from tests.support.clients import MANAGED, Lessor, connect, lease_of, nothing_left, until, users_of
from tests.support.server_process import ServerProcess
from tests.support.standin_control import Json, StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

State = lease_pb2.Lease.State
WIDE: dict[str, Any] = {"policy_arns": [MANAGED], "iam_groups": ["developers"]}
ROUND_TWO = ("PutUserPolicy", "AttachUserPolicy", "AddUserToGroup", "CreateAccessKey")
ISSUE = ("CreateUser", *ROUND_TWO)
REVOKE = ("DeleteAccessKey", "DeleteUserPolicy", "DetachUserPolicy", "RemoveUserFromGroup", "DeleteUser")
BY_DEFAULT = {("CreateAccessKey", "hang_after"), ("DeleteUser", "hang")}
KILLS = 8
SOME = 5
"""Credentials that callers must have got in spite of the kills, for the test to say something."""


class Mortal:
    """A server that is killed and started again over the same data."""

    def __init__(self, folder: Path, aws: StandIn) -> None:
        """Keep its data in ``folder``; it may reach ``aws``."""
        self._folder = folder
        self._settings = {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url}
        self._process = ServerProcess()
        self._runs = False

    async def start(self) -> None:
        """Start it, for the first time or again; does nothing while it runs."""
        if not self._runs:
            await self._process.start(self._folder, self._settings)
            self._runs = True

    async def kill(self) -> None:
        """Kill it with SIGKILL."""
        self._runs = False
        await self._process.kill()

    def connect(self) -> AbstractAsyncContextManager[Lessor]:
        """Open a channel to the process that runs now."""
        return connect(self._process.address, self._process.token)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mortal(tmp_path_factory: pytest.TempPathFactory, aws: StandIn) -> AsyncIterator[Mortal]:
    """Run a server with the mount ``aws`` and a role of every kind of grant."""
    process = Mortal(tmp_path_factory.mktemp("mortal"), aws)
    await process.start()
    async with process.connect() as lessor:
        await lessor.enable("aws", aws.url)
        await lessor.put_role("aws", **WIDE)
    yield process
    await process.kill()


@pytest_asyncio.fixture(loop_scope="module", name="server")
async def living(mortal: Mortal, aws: StandIn) -> Mortal:
    """Lend the server, alive, over an account without faults or users."""
    await aws.clear_faults()
    await mortal.start()
    for user in await users_of(aws, "aws"):
        await aws.forget(str(user["name"]))
    await aws.forget_calls()
    return mortal


async def hold(aws: StandIn, action: str, kind: str, seconds: float = 0.0, user: str = "") -> None:
    """Let the next call of ``action`` hang: before its effect, after it, or for ``seconds``.

    Where a ``user`` is given, the next one for it: another lease may be looked after at the same time.
    """
    await aws.fault(kind, action, nth=1, seconds=seconds, user=user)


async def reached(aws: StandIn, *actions: str, user: str = "") -> None:
    """Wait until AWS was asked for each of ``actions``, for ``user`` where that is given."""

    def there(calls: list[Json]) -> bool:
        of_user = [call for call in calls if user in ("", call["user"])]
        return {str(call["action"]) for call in of_user} >= set(actions)

    await until(aws.calls, there)


async def issue_in_vain(lessor: Lessor) -> None:
    """Request credentials of a server that dies before it answers."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await lessor.generate("aws")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def points(*actions: str) -> list[object]:
    """Return each point at which a call hangs; all but a few are slow, since each is two starts."""
    return [
        pytest.param(action, kind, marks=() if (action, kind) in BY_DEFAULT else pytest.mark.slow)
        for action in actions
        for kind in ("hang", "hang_after")
    ]


async def newest(lessor: Lessor) -> lease_pb2.Lease:
    """Return the lease that was begun last: ids begin with their time."""
    request = lease_pb2.ListLeasesRequest(prefix="aws/", page_size=1000)
    return (await lessor.leases.ListLeases(request)).leases[-1]


@pytest.mark.parametrize(("action", "kind"), points(*ISSUE))
async def test_an_issue_that_was_killed_leaves_nothing(
    server: Mortal, aws: StandIn, action: str, kind: str
) -> None:
    """With and without the effect of the call in flight."""
    await hold(aws, action, kind)
    async with server.connect() as lessor, asyncio.TaskGroup() as group:
        group.create_task(issue_in_vain(lessor))
        await reached(aws, *(["CreateUser"] if action == "CreateUser" else ISSUE))
        await server.kill()
    assert len(await users_of(aws, "aws")) == ((action, kind) != ("CreateUser", "hang"))
    await server.start()
    await nothing_left(aws, "aws")
    async with server.connect() as lessor:
        assert (await newest(lessor)).state in (State.REVOKING, State.GONE)


@pytest.mark.parametrize(("action", "kind"), points(*REVOKE))
async def test_a_revocation_that_was_killed_is_finished_after_the_restart(
    server: Mortal, aws: StandIn, action: str, kind: str
) -> None:
    async with server.connect() as lessor:
        made = await lessor.generate("aws")
        user = made.arn.rpartition("/")[2]
        await hold(aws, action, kind, user=user)
        await lessor.revoke(made.lease_id, sync=False)
        await reached(aws, action, user=user)
    await server.kill()
    assert len(await users_of(aws, "aws")) == ((action, kind) != ("DeleteUser", "hang_after"))
    await server.start()
    await nothing_left(aws, "aws")
    async with server.connect() as lessor:
        assert (await lessor.lookup(made.lease_id)).state in (State.REVOKING, State.GONE)


@pytest.mark.slow
async def test_a_create_user_that_takes_effect_after_the_restart_is_found(
    server: Mortal, aws: StandIn
) -> None:
    await hold(aws, "CreateUser", "delay", 5.0)
    async with server.connect() as lessor, asyncio.TaskGroup() as group:
        group.create_task(issue_in_vain(lessor))
        await reached(aws, "CreateUser")
        await server.kill()
    await server.start()
    await until(lambda: aws.calls("CreateUser"), lambda calls: calls[-1]["outcome"] == "ok")
    await nothing_left(aws, "aws")


@pytest.mark.slow
async def test_leases_that_expired_while_the_server_was_down_are_revoked_at_the_start(
    server: Mortal, aws: StandIn
) -> None:
    await aws.fault("hang", "DeleteAccessKey")  # the end may come before the kill
    async with server.connect() as lessor:
        long, short = await lessor.generate("aws"), await lessor.generate("aws", ttl=1)
    await server.kill()
    await aws.clear_faults()
    left = short.expire_time.ToMicroseconds() / 10**6 - time.time()
    await asyncio.sleep(max(left, 0))
    assert len(await users_of(aws, "aws")) == 2
    await server.start()
    users = await until(lambda: users_of(aws, "aws"), lambda users: len(users) < 2)
    assert [lease_of(user) for user in users] == [long.lease_id]
    async with server.connect() as lessor:
        assert (await lessor.lookup(long.lease_id)).state == State.ACTIVE


@dataclass(slots=True)
class Load:
    """What callers were given while the server died again and again, and what was seen on AWS."""

    server: Mortal
    aws: StandIn
    given: dict[str, float] = field(default_factory=dict)
    """Access key id to expiry, seconds since 1970."""
    leases: set[str] = field(default_factory=set)
    """Every lease id that a user on AWS was ever tagged with."""
    early: list[str] = field(default_factory=list)
    """Keys that were gone before their expiry."""
    stopped: bool = False

    async def given_so_far(self) -> int:
        """Return how many credentials callers have got."""
        return len(self.given)

    async def ask(self, ttl: int) -> None:
        """Ask for credentials again and again, whatever happens to the server."""
        while not self.stopped:
            try:
                async with self.server.connect() as lessor:
                    while not self.stopped:
                        made = await lessor.generate("aws", ttl=ttl)
                        self.given[made.access_key] = made.expire_time.ToMicroseconds() / 10**6
                        await asyncio.sleep(0.02)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)

    async def look(self) -> None:
        """Poll AWS."""
        while not self.stopped:
            before = dict(self.given)
            users = (await self.aws.users("/lessor/")).values()
            now = time.time()
            self.leases.update(lease_of(user) for user in users)
            keys = {key["id"] for user in users for key in cast("list[dict[str, str]]", user["keys"])}
            self.early += [key for key, ends in before.items() if ends > now + 0.05 and key not in keys]
            await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_kills_under_load_leak_nothing(server: Mortal, aws: StandIn) -> None:
    rng = random.Random(KILLS)
    load = Load(server, aws)
    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(load.ask(ttl=1 + number % 3))
        group.create_task(load.look())
        for _ in range(KILLS):
            await asyncio.sleep(rng.uniform(0.05, 0.4))
            await server.kill()
            await server.start()
        await until(load.given_so_far, lambda given: given >= SOME, 30)
        load.stopped = True
    assert len(load.given) >= SOME
    assert load.early == []
    await asyncio.sleep(max(max(load.given.values()) - time.time(), 0))
    await nothing_left(aws, "aws")
    async with server.connect() as lessor:
        for lease_id in load.leases:
            assert (await lessor.lookup(lease_id)).lease_id == lease_id

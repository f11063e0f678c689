"""Checks a server on a slow disk: every commit of SQLite takes a third of a second or more."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from lessor_server.adapters.clock import SystemClock
from lessor_server.adapters.sqlite.store import SqliteStore, open_store
from lessor_server.domain.access.acl import EVERYTHING
from lessor_server.domain.errors.base import DeadlineExceeded
from lessor_server.domain.root import RootConfig
from lessor_server.domain.secret import Secret
from lessor_server.engine.config.mounts import RootRules
from lessor_server.engine.engine import Dependencies, Engine, EngineConfig, run_engine
from lessor_server.engine.issuing.request import Credentials, IssueRequest
from tests.fire.environment import BOUND, MOUNT, cuts, no_user_of, now
from tests.support import builders
from tests.support.clients import ROOT_KEY, ROOT_SECRET
from tests.support.gateways import gateway
from tests.support.plain_keyring import PlainKeyring
from tests.support.recording import Recording
from tests.support.reports import Reports
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.fire, pytest.mark.e2e, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

SLOW = 0.3


class SlowDisk:
    """Makes each commit of a store take ``seconds``, and knows which leases are durably ACTIVE."""

    def __init__(self, store: SqliteStore) -> None:
        """Delay the commits of ``store`` by ``seconds``, once that is set."""
        self.seconds = 0.0
        self.commits = 0
        self.active: frozenset[str] = frozenset()
        raw = store._batches.raw
        self._before = raw.before_commit
        raw.before_commit = self._commit

    def _commit(self, connection: sqlite3.Connection) -> None:
        self._before(connection)
        self.commits += 1
        found = connection.execute("SELECT id FROM leases WHERE state = 'ACTIVE'").fetchall()
        time.sleep(self.seconds)
        # An answer sent before this line was sent before its commit.
        self.active = frozenset(row[0] for row in found)


@asynccontextmanager
async def slowly(folder: Path, aws: StandIn) -> AsyncIterator[tuple[Engine, SlowDisk]]:
    """Run the engine in this process over the real store and the real gateway, with a mount and a role."""
    rng = random.Random(1)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(folder, SystemClock()))
        disk = SlowDisk(store)
        door = await stack.enter_async_context(gateway(aws.url))
        outside = Dependencies(store, door, PlainKeyring(), Recording(), Reports(), rng)
        limits = EngineConfig(root_rules=RootRules((aws.url,)))
        engine = await stack.enter_async_context(run_engine(outside, limits))
        await engine.mounts.enable(builders.mount(MOUNT), "test")
        config = RootConfig(ROOT_KEY, Secret(ROOT_SECRET), "us-east-1", aws.url, aws.url)
        await engine.mounts.set_root(MOUNT, "", lambda _: config, "test")
        await engine.roles.put(MOUNT, "app", "", lambda _: builders.role(mount_name=MOUNT), "test")
        await ask(engine)
        disk.seconds = SLOW
        yield engine, disk


async def ask(engine: Engine, ttl: int = 600, seconds: float = 30.0) -> Credentials:
    """Ask for credentials within ``seconds``."""
    return await engine.issuer.generate(
        IssueRequest(MOUNT, "app", "test", timedelta(seconds=ttl), EVERYTHING), seconds
    )


async def test_no_secret_is_returned_before_its_commit(tmp_path: Path, aws: StandIn) -> None:
    async with slowly(tmp_path, aws) as (engine, disk):
        early: list[str] = []
        before = disk.commits

        async def issue() -> None:
            lease_id = (await ask(engine)).lease.id
            if lease_id not in disk.active:
                early.append(lease_id)

        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(issue())
        assert early == []
        assert disk.commits - before <= 10


async def test_a_deadline_holds_on_a_slow_disk(tmp_path: Path, aws: StandIn) -> None:
    async with slowly(tmp_path, aws) as (engine, disk):
        disk.seconds = 1.2
        users = set(await aws.users("/lessor/"))
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(DeadlineExceeded):
            await ask(engine, seconds=2.1)
        assert loop.time() - began < 2.5
        made = set(await aws.users("/lessor/")) - users
        assert made
        await no_user_of(aws, made, BOUND + 3 * disk.seconds)


async def test_an_expiry_waits_only_for_its_two_commits(tmp_path: Path, aws: StandIn) -> None:
    async with slowly(tmp_path, aws) as (engine, _):
        due: dict[str, float] = {}

        async def issue() -> None:
            lease = (await ask(engine, ttl=2)).lease
            due[lease.footprint.user_name] = lease.expires_us / 1e6

        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(issue())
        await no_user_of(aws, set(due), max(due.values()) - now() + BOUND + 4 * SLOW)
        cut = await cuts(aws)
        late = {user: cut[user] - instant for user, instant in due.items()}
    assert min(late.values()) >= -0.01
    assert max(late.values()) <= BOUND + 2 * SLOW

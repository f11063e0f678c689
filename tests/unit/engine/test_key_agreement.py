"""Checks that replicas agree on a new data key before one of them uses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from lessor_server.domain.errors.base import StoreUnavailable
from lessor_server.domain.errors.sealing import SealingKeyUnavailable
from lessor_server.engine.aws.rate_limiter import RateLimit, RateLimiters
from lessor_server.engine.replica_ports import SILENT_SECONDS
from lessor_server.engine.replicas.key_agreement import KeyAgreement
from lessor_server.engine.replicas.registry import ReplicaRegistry, ThisReplica
from lessor_server.engine.revocation.queue import RevocationQueue
from lessor_server.engine.store_types import WrappedKey
from tests.support.engine_world import Clocks
from tests.support.memory_store import MemoryStore
from tests.support.plain_keyring import PlainKeyring
from tests.support.recording import Recording
from tests.support.replicas import CutStore
from tests.support.virtual_loop import virtual


class SlowKeyring(PlainKeyring):
    """A keyring whose key-encryption key can be away; it records which keys it used when."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False

    async def learn(self, stored: Sequence[WrappedKey]) -> None:
        """Know the stored keys too, if KMS answers."""
        if self.away:
            raise SealingKeyUnavailable("KMS does not answer")
        await super().learn(stored)


@dataclass(slots=True)
class Member:
    """One replica's keyring."""

    keys: SlowKeyring
    agreement: KeyAgreement
    registry: ReplicaRegistry
    store: CutStore


@dataclass(slots=True)
class Members:
    """Replicas on one store."""

    memory: MemoryStore
    clocks: Clocks
    all: list[Member] = field(default_factory=list)

    async def join(self, group: asyncio.TaskGroup, tasks: list[asyncio.Task[None]]) -> Member:
        """Start one more replica."""
        store, keys = CutStore(self.memory), SlowKeyring()
        keys.load(self.memory.data_keys)
        me = ThisReplica(store, self.clocks, f"r{len(self.all)}", "1")  # type: ignore[arg-type]
        agreement = KeyAgreement(me.name, keys, store.list_data_keys, self.clocks.boot_us)
        registry = ReplicaRegistry(
            me, RateLimiters(RateLimit()), asyncio.Event(), RevocationQueue(), Recording(), agreement
        )
        await registry.start()
        tasks.append(group.create_task(registry.run()))
        self.all.append(Member(keys, agreement, registry, store))
        return self.all[-1]

    async def add_key(self) -> str:
        """Add a new data key, as the first replica does in a rotation."""
        key = await self.all[0].keys.make()
        await self.memory.add_data_key(key)
        return key.id


@asynccontextmanager
async def members(count: int) -> AsyncIterator[tuple[Members, asyncio.TaskGroup, list[asyncio.Task[None]]]]:
    """Run so many replicas while the block runs."""
    clocks = Clocks()
    made = Members(MemoryStore(clocks), clocks)
    made.memory.data_keys = [PlainKeyring().first]
    tasks: list[asyncio.Task[None]] = []
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            await made.join(group, tasks)
        yield made, group, tasks
        for task in tasks:
            task.cancel()


@virtual
async def test_a_new_key_is_used_only_when_all_replicas_know_it() -> None:
    async with members(3) as (fleet, _, _):
        fleet.all[2].keys.away = True
        new = await fleet.add_key()
        await asyncio.sleep(60)
        assert [one.keys.active_id for one in fleet.all] == ["key-0"] * 3
        assert fleet.all[1].keys.knows(new)
        fleet.all[2].keys.away = False
        await asyncio.sleep(10)
        assert [one.keys.active_id for one in fleet.all] == [new] * 3
        assert await fleet.all[0].agreement.agree() == new


@virtual
async def test_an_agreement_waits_for_the_key_that_was_just_added() -> None:
    """And not for the one that all have used until now."""
    async with members(2) as (fleet, _, _):
        new = await fleet.add_key()
        assert await fleet.all[0].agreement.agree() == new
        assert [one.keys.active_id for one in fleet.all] == [new] * 2


@virtual
async def test_a_silent_replica_is_not_waited_for_and_uses_no_key_until_it_knows_the_new_one() -> None:
    async with members(2) as (fleet, _, _):
        stopped = fleet.all[1]
        stopped.store.cut = True
        await asyncio.sleep(SILENT_SECONDS + 1)
        new = await fleet.add_key()
        assert await fleet.all[0].agreement.agree() == new
        with pytest.raises(StoreUnavailable):
            stopped.keys.seal(b"x", "place", "1")
        stopped.store.cut = False
        await asyncio.sleep(2)
        assert stopped.keys.seal(b"x", "place", "1").startswith(new.encode())


@virtual
async def test_a_replica_that_starts_during_a_rotation_knows_the_key_before_it_serves() -> None:
    async with members(2) as (fleet, group, tasks):
        new = await fleet.add_key()
        late = await fleet.join(group, tasks)
        assert all(one.keys.knows(new) for one in fleet.all)
        assert late.keys.active_id == new
        await asyncio.sleep(5)
        assert {one.keys.active_id for one in fleet.all} == {new}


@virtual
async def test_a_fresh_replica_seals_whatever_the_others_do() -> None:
    async with members(2) as (fleet, _, _):
        await asyncio.sleep(600)
        assert fleet.all[0].keys.seal(b"x", "place", "1").startswith(b"key-0")

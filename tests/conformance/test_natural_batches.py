"""Checks natural batches: what waits while a batch runs is the next one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from lessor_server.adapters.postgres.batches import MAX_BATCH, NaturalBatches
from lessor_server.domain.errors.base import LessorError, StoreUnavailable


@dataclass(slots=True)
class Recorded:
    """Runs batches when a test lets it, and remembers them."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    batches: list[list[int]] = field(default_factory=list)

    async def run_many(self, items: Sequence[int]) -> list[int | LessorError]:
        """Double each item; 13 breaks its batch, and 7 is refused."""
        self.batches.append(list(items))
        await self.go.wait()
        if 13 in items:
            raise ValueError("13")
        return [StoreUnavailable("7") if item == 7 else item * 2 for item in items]


@asynccontextmanager
async def running(recorded: Recorded) -> AsyncIterator[NaturalBatches[int, int]]:
    """Run batches of numbers; the last digit is the key."""
    batches: NaturalBatches[int, int] = NaturalBatches(recorded.run_many, lambda item: item % 100)
    task = asyncio.create_task(batches.run())
    try:
        yield batches
    finally:
        task.cancel()


async def put_all(batches: NaturalBatches[int, int], items: Sequence[int]) -> list[int | BaseException]:
    """Put items at the same time; return their results and errors."""
    return await asyncio.gather(*(batches.put(item) for item in items), return_exceptions=True)


async def test_what_arrives_while_a_batch_runs_is_the_next_batch() -> None:
    recorded = Recorded()
    async with running(recorded) as batches:
        first = asyncio.create_task(put_all(batches, [1, 2]))
        while not recorded.batches:
            await asyncio.sleep(0)
        second = asyncio.create_task(put_all(batches, [3, 4, 5]))
        await asyncio.sleep(0)
        recorded.go.set()
        assert await first == [2, 4]
        assert await second == [6, 8, 10]
    assert recorded.batches == [[1, 2], [3, 4, 5]]


async def test_items_of_the_same_key_are_in_different_batches() -> None:
    recorded = Recorded()
    recorded.go.set()
    async with running(recorded) as batches:
        assert await put_all(batches, [1, 101, 2]) == [2, 202, 4]
    assert recorded.batches == [[1, 2], [101]]


async def test_an_item_that_breaks_its_batch_breaks_no_other() -> None:
    recorded = Recorded()
    recorded.go.set()
    async with running(recorded) as batches:
        one, broken, refused, two = await put_all(batches, [1, 13, 7, 2])
    assert (one, two) == (2, 4)
    assert isinstance(broken, ValueError)
    assert isinstance(refused, StoreUnavailable)


async def test_a_batch_is_bounded_and_drops_items_of_cancelled_callers() -> None:
    recorded = Recorded()
    recorded.go.set()
    batches: NaturalBatches[int, int] = NaturalBatches(recorded.run_many, lambda item: item)
    calls = [asyncio.create_task(batches.put(item)) for item in range(100, 100 + MAX_BATCH + 10)]
    await asyncio.sleep(0)
    calls[0].cancel()
    await asyncio.sleep(0)
    task = asyncio.create_task(batches.run())
    done = await asyncio.gather(*calls, return_exceptions=True)
    task.cancel()
    assert isinstance(done[0], asyncio.CancelledError)
    assert done[1] == 202
    assert [len(batch) for batch in recorded.batches] == [MAX_BATCH, 9]


async def test_the_end_of_the_store_ends_what_waits() -> None:
    recorded = Recorded()
    async with running(recorded) as batches:
        call = asyncio.create_task(batches.put(1))
        while not recorded.batches:
            await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await call

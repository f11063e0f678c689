"""Checks the waits of the engine's parts: until an event or a time."""

from __future__ import annotations

import asyncio

import pytest

from lessor_server.engine.waiting import finish_within, wait_for, wait_until
from tests.support.virtual_loop import virtual


@virtual
async def test_a_wait_ends_with_the_event() -> None:
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.call_later(3.0, event.set)
    assert not await wait_for(event, 10.0)
    assert loop.time() == 3.0
    event.clear()
    await asyncio.sleep(60.0)
    assert not event.is_set()


@virtual
async def test_a_wait_ends_at_its_time() -> None:
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    assert await wait_for(event, 10.0)
    assert loop.time() == 10.0
    event.clear()
    assert await wait_until(event, 25.0)
    assert loop.time() == 25.0


@virtual
async def test_a_time_that_has_passed_ends_a_wait_immediately() -> None:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(5.0)
    await wait_until(asyncio.Event(), 1.0)
    assert loop.time() == 5.0


@virtual
async def test_a_cancelled_wait_sets_no_event_later() -> None:
    event = asyncio.Event()
    task = asyncio.get_running_loop().create_task(wait_for(event, 10.0))
    await asyncio.sleep(1.0)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(60.0)
    assert task.cancelled()
    assert not event.is_set()


@virtual
async def test_a_job_that_ends_in_time_has_its_result() -> None:
    loop = asyncio.get_running_loop()
    assert await finish_within(10.0, asyncio.sleep(3.0, "done")) == "done"
    await asyncio.sleep(60.0)
    assert loop.time() == 63.0


@virtual
async def test_a_job_that_takes_longer_is_cancelled() -> None:
    loop, task, ended = asyncio.get_running_loop(), asyncio.current_task(), list[float]()

    async def job() -> None:
        try:
            await asyncio.sleep(20.0)
        finally:
            ended.append(loop.time())

    with pytest.raises(TimeoutError):
        await finish_within(10.0, job())
    assert ended == [10.0]
    assert task is not None
    assert not task.cancelling()


@virtual
async def test_a_cancelled_task_gets_no_timeout() -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(finish_within(10.0, asyncio.sleep(20.0)))
        await asyncio.sleep(5.0)
        task.cancel()
    assert task.cancelled()

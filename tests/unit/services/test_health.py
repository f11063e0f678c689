"""Checks that health is answered without waiting, and that each watcher gets every change."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from grpc_health.v1 import health_pb2 as pb

from lessor_server.domain.access.caller import ANONYMOUS
from lessor_server.domain.errors.base import NotFound
from lessor_server.services.call import Caller
from lessor_server.services.health import Health
from tests.support.virtual_loop import virtual

SERVING, NOT_SERVING = pb.HealthCheckResponse.SERVING, pb.HealthCheckResponse.NOT_SERVING
UNKNOWN = pb.HealthCheckResponse.SERVICE_UNKNOWN
CALLER = Caller(ANONYMOUS, 1e9)


async def check(health: Health, name: str = "") -> int:
    """Return what Check answers."""
    return (await health.Check(pb.HealthCheckRequest(service=name), CALLER)).status


async def watch(health: Health, name: str = "") -> AsyncIterator[pb.HealthCheckResponse | None]:
    """Return a watch that is on."""
    watching = health.Watch(pb.HealthCheckRequest(service=name), CALLER)
    assert await anext(watching) is None
    return watching


async def status(watching: AsyncIterator[pb.HealthCheckResponse | None]) -> int:
    """Return what a watch reports next."""
    answer = await anext(watching)
    assert answer is not None
    return answer.status


@virtual
async def test_the_server_is_serving_while_it_is_open_and_the_store_works() -> None:
    health = Health(["a"])
    assert await check(health) == NOT_SERVING
    health.open()
    assert (await check(health), await check(health, "a")) == (SERVING, SERVING)
    health.store(works=False)
    assert await check(health) == NOT_SERVING
    health.store(works=True)
    health.close()
    assert await check(health, "a") == NOT_SERVING


@virtual
async def test_an_unknown_service_is_not_found() -> None:
    with pytest.raises(NotFound):
        await check(Health(["a"]), "b")


@virtual
async def test_the_list_names_every_service() -> None:
    health = Health(["a", "b"])
    health.open()
    listed = await health.List(pb.HealthCheckRequest(), CALLER)
    assert {name: one.status for name, one in listed.statuses.items()} == dict.fromkeys(
        ("", "a", "b"), SERVING
    )


@virtual
async def test_a_watcher_gets_the_state_and_each_change() -> None:
    health = Health(["a"])
    watching = await watch(health, "a")
    assert await status(watching) == NOT_SERVING
    health.open()
    assert await status(watching) == SERVING
    health.store(works=False)
    health.close()
    assert await status(watching) == NOT_SERVING


@virtual
async def test_a_watcher_that_does_not_read_delays_no_other() -> None:
    health = Health(["a"])
    await watch(health)
    other = await watch(health)
    health.open()
    assert await check(health) == SERVING
    assert await status(other) == SERVING


@virtual
async def test_a_watch_of_an_unknown_service_reports_that() -> None:
    watching = await watch(Health(["a"]), "b")
    assert await status(watching) == UNKNOWN


@virtual
async def test_an_ended_watch_is_dropped_from_memory() -> None:
    health = Health(["a"])
    watching = health.Watch(pb.HealthCheckRequest(), CALLER)
    await anext(watching)
    await watching.aclose()
    assert not health._watches

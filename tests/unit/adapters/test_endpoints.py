"""Checks which endpoints are used for a service, and in which order."""

from __future__ import annotations

import asyncio

from tests.support.virtual_loop import virtual

from lessor_server.adapters.aws.endpoints import Endpoint, EndpointHealth, endpoints_of
from lessor_server.domain.root import RootConfig

FIRST, SECOND, THIRD = (
    Endpoint(f"https://sts.{region}.amazonaws.com", region)
    for region in ("us-west-1", "us-west-2", "us-east-2")
)
THREE = RootConfig(
    region="eu-west-1",
    iam_endpoint="https://iam.amazonaws.com",
    sts_endpoint=FIRST.url,
    sts_region=FIRST.region,
    sts_fallback_endpoints=(SECOND.url, THIRD.url),
    sts_fallback_regions=(SECOND.region, THIRD.region),
)


def test_without_endpoints_the_region_decides() -> None:
    for region in ("", "eu-west-1"):
        config = RootConfig(region=region)
        assert endpoints_of(config, "sts") == endpoints_of(config, "iam") == (Endpoint("", region),)


def test_sts_region_counts_without_an_endpoint() -> None:
    config = RootConfig(region="eu-west-1", sts_region="us-east-2")
    assert endpoints_of(config, "sts") == (Endpoint("", "us-east-2"),)
    assert endpoints_of(config, "iam") == (Endpoint("", "eu-west-1"),)


def test_sts_has_its_fallbacks_in_order_and_iam_its_own_region() -> None:
    assert endpoints_of(THREE, "sts") == (FIRST, SECOND, THIRD)
    assert endpoints_of(THREE, "iam") == (Endpoint("https://iam.amazonaws.com", "eu-west-1"),)


@virtual
async def test_an_endpoint_that_failed_comes_last_for_half_a_minute() -> None:
    detours = EndpointHealth()
    wanted = (FIRST, SECOND, THIRD)
    detours.failed(FIRST)
    assert detours.order(wanted) == [SECOND, THIRD, FIRST]
    await asyncio.sleep(10)
    detours.failed(SECOND)
    detours.failed(THIRD)
    assert detours.order(wanted) == [FIRST, SECOND, THIRD]
    await asyncio.sleep(21)
    assert detours.order(wanted) == [FIRST, SECOND, THIRD]
    detours.failed(FIRST)
    assert detours.order(wanted) == [SECOND, THIRD, FIRST]
    await asyncio.sleep(31)
    assert detours.order(wanted) == [FIRST, SECOND, THIRD]


@virtual
async def test_old_failures_of_endpoints_are_dropped_from_memory() -> None:
    detours = EndpointHealth()
    for number in range(100):
        detours.failed(Endpoint("", f"us-east-{number}"))
        await asyncio.sleep(10)
    assert len(detours._until) == 3

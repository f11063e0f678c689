"""Checks that leases end at their expiry. The delay is checked in virtual time and by `soak`."""

from __future__ import annotations

import asyncio
import time
from typing import cast

import grpc
import pytest

from lessor.v1 import lease_pb2, role_pb2
from lessor.v1.creds_pb2 import GenerateCredentialsResponse
from tests.support.clients import Lessor, lease_of, refused, until, users_of
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

State, Outcome = lease_pb2.Lease.State, lease_pb2.RevokeLeaseResponse.Outcome
CLOCKS = 0.05
"""Seconds that two readings of the machine's clock may lie apart."""


async def gone_at(aws: StandIn, made: GenerateCredentialsResponse) -> float:
    """Wait until a key is gone, and return when it was first seen gone; seconds since 1970."""

    async def keys() -> list[str]:
        users = (await aws.users("/lessor/")).values()
        return [key["id"] for user in users for key in cast("list[dict[str, str]]", user["keys"])]

    await until(keys, lambda ids: made.access_key not in ids)
    return time.time()


def expiry(message: GenerateCredentialsResponse | lease_pb2.RenewLeaseResponse) -> float:
    """Return when a lease ends, seconds since 1970."""
    return message.expire_time.ToMicroseconds() / 10**6


async def test_a_key_is_valid_until_its_expiry_and_then_deleted(
    lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount)
    made = await lessor.generate(mount, ttl=2)
    assert await gone_at(aws, made) >= expiry(made) - CLOCKS
    await until(lambda: lessor.lookup(made.lease_id), lambda lease: lease.state == State.GONE)


@pytest.mark.slow
async def test_a_renewed_key_is_valid_until_its_new_expiry(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await lessor.put_role(mount)
    made = await lessor.generate(mount, ttl=4)
    renewed = await lessor.renew(made.lease_id, 5)
    assert expiry(renewed) > expiry(made)
    assert renewed.lease_duration.seconds == 5
    assert await gone_at(aws, made) >= expiry(renewed) - CLOCKS


@pytest.mark.slow
async def test_many_leases_end_each_at_its_own_time(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await lessor.put_role(mount)
    async with asyncio.TaskGroup() as group:
        made = [group.create_task(lessor.generate(mount, ttl=1 + index % 2)) for index in range(30)]
    longer = {task.result().lease_id for task in made if task.result().lease_duration.seconds == 2}
    ends = min(expiry(task.result()) for task in made if task.result().lease_id in longer)

    async def left() -> set[str]:
        return {lease_of(user) for user in await users_of(aws, mount)}

    seen = await until(left, lambda leases: leases <= longer)
    assert time.time() >= ends or seen == longer
    await until(left, lambda leases: not leases)


@pytest.mark.slow
async def test_an_expired_lease_that_is_not_gone_is_revoking(
    lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount)
    await aws.fault("refuse", "DeleteAccessKey")
    made = await lessor.generate(mount, ttl=1)
    lease = await until(lambda: lessor.lookup(made.lease_id), lambda lease: lease.attempts > 0)
    assert lease.state == State.REVOKING
    assert "AccessDenied" in lease.last_error
    refusal = await refused(lessor.renew(made.lease_id))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LEASE_REVOKING")
    await aws.clear_faults()
    assert (await lessor.revoke(made.lease_id)).outcome == Outcome.GONE
    assert (await refused(lessor.renew(made.lease_id))).code is grpc.StatusCode.NOT_FOUND


@pytest.mark.slow
async def test_a_lease_of_a_deleted_role_ends_at_its_expiry(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await lessor.put_role(mount)
    made = await lessor.generate(mount, ttl=4)
    await lessor.roles.DeleteRole(role_pb2.DeleteRoleRequest(mount=mount, name="app"))
    assert (await lessor.lookup(made.lease_id)).state == State.ACTIVE
    assert await gone_at(aws, made) >= expiry(made) - CLOCKS

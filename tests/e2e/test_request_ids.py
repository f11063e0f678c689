"""Checks request ids, which make retries safe, and the wait until a new key is accepted."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from lessor.v1 import lease_pb2
from lessor.v1.creds_pb2 import GenerateCredentialsRequest, GenerateCredentialsResponse
from tests.support.clients import SECONDS, Lessor, nothing_left, refused, until, users_of
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

REQUEST_ID = "7d1f5f0c-0a53-4a3b-8e53-0d5d0f3b9c11"
TOO_NEW = "InvalidClientTokenId"


async def generate(
    lessor: Lessor, mount: str, seconds: float = SECONDS, **fields: Any
) -> GenerateCredentialsResponse:
    """Ask for credentials of the role ``app``; ``seconds`` is the deadline."""
    request = GenerateCredentialsRequest(mount=mount, role="app", **fields)
    return await lessor.creds.GenerateCredentials(request, timeout=seconds)


# --- request ids -----------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_twelve_concurrent_requests_with_one_id_get_one_user(
    lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount)
    await aws.latency(0.05)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(generate(lessor, mount, request_id=REQUEST_ID)) for _ in range(12)]
    answers = {(one.lease_id, one.access_key, one.secret_key) for one in (task.result() for task in asked)}
    assert len(answers) == 1
    (user,) = await users_of(aws, mount)
    assert len(user["keys"]) == 1  # type: ignore[arg-type]


async def test_a_repeat_gets_the_same_lease_with_a_new_key(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await lessor.put_role(mount)
    first = await generate(lessor, mount, request_id=REQUEST_ID, ttl=Duration(seconds=900))
    again = await generate(
        lessor, mount, request_id=REQUEST_ID.upper(), ttl=Duration(seconds=900), reason="!"
    )
    assert (again.lease_id, again.arn, again.expire_time) == (first.lease_id, first.arn, first.expire_time)
    assert {again.access_key, again.secret_key}.isdisjoint({first.access_key, first.secret_key})
    (user,) = await users_of(aws, mount)
    assert [key["id"] for key in user["keys"]] == [again.access_key]  # type: ignore[attr-defined]
    assert (await lessor.lookup(first.lease_id)).access_key == again.access_key


async def test_an_id_is_refused_for_another_request(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await lessor.put_role(mount)
    lease = (await generate(lessor, mount, request_id=REQUEST_ID)).lease_id
    reused = await refused(generate(lessor, mount, request_id=REQUEST_ID, ttl=Duration(seconds=900)))
    assert (reused.code, reused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
    await lessor.revoke(lease)
    spent = await refused(generate(lessor, mount, request_id=REQUEST_ID))
    assert (spent.code, spent.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "REQUEST_ID_SPENT")
    no_id = await refused(generate(lessor, mount, request_id="me"))
    assert list(no_id.violations) == ["request_id"]
    assert await users_of(aws, mount) == []


async def test_the_same_request_may_be_written_in_two_ways(lessor: Lessor, aws: StandIn) -> None:
    """The mount `aws` may be left out, and a ttl of 0 is none."""
    await lessor.enable("aws", aws.url)
    await lessor.put_role("aws")
    first = await generate(lessor, "", request_id=REQUEST_ID)
    named = await generate(lessor, "aws", request_id=REQUEST_ID, ttl=Duration())
    assert named.lease_id == first.lease_id


async def test_a_cancelled_request_can_be_repeated(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await lessor.put_role(mount)
    await generate(lessor, mount)
    await aws.fault("delay", "CreateAccessKey", nth=1, seconds=2.0)
    async with asyncio.TaskGroup() as group:
        gone = group.create_task(generate(lessor, mount, request_id=REQUEST_ID))
        await until(lambda: users_of(aws, mount), lambda users: len(users) == 2)
        gone.cancel()
    back = await generate(lessor, mount, request_id=REQUEST_ID)
    assert len(await users_of(aws, mount)) == 2
    lease = await lessor.lookup(back.lease_id)
    assert lease.state == lease_pb2.Lease.State.ACTIVE
    assert lease.expire_time.seconds - lease.issue_time.seconds == back.lease_duration.seconds


# --- wait_usable -----------------------------------------------------------------------------------------


async def test_usable_means_three_consecutive_checks(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await lessor.put_role(mount)
    await generate(lessor, mount)
    await aws.account(visible_after=0.5)
    await aws.forget_calls()
    made = await generate(lessor, mount, wait_usable=Duration(seconds=20))
    assert made.usable
    looks = [str(call["outcome"]) for call in await aws.calls("GetCallerIdentity")]
    assert looks[-3:] == ["ok"] * 3
    assert set(looks[:-3]) <= {TOO_NEW}


async def test_without_a_wait_the_key_is_not_checked(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await lessor.put_role(mount)
    await generate(lessor, mount)
    await aws.forget_calls()
    assert not (await generate(lessor, mount)).usable
    assert await aws.calls("GetCallerIdentity") == []


@pytest.mark.parametrize(("wait", "deadline"), [(1, SECONDS), pytest.param(60, 4, marks=pytest.mark.slow)])
async def test_a_wait_that_times_out_is_not_an_error(
    lessor: Lessor, aws: StandIn, mount: str, wait: int, deadline: float
) -> None:
    await lessor.put_role(mount)
    await generate(lessor, mount)
    await aws.fault("refuse", "GetCallerIdentity", code=TOO_NEW)
    made = await generate(lessor, mount, deadline, wait_usable=Duration(seconds=wait))
    assert not made.usable
    assert (await lessor.lookup(made.lease_id)).state == lease_pb2.Lease.State.ACTIVE
    await lessor.revoke(made.lease_id)


async def test_a_negative_wait_is_refused(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await lessor.put_role(mount)
    refusal = await refused(generate(lessor, mount, wait_usable=Duration(seconds=-1)))
    assert list(refusal.violations) == ["wait_usable"]
    await nothing_left(aws, mount)

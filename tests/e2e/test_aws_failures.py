"""Checks issues and revocations when AWS refuses, throttles, fails or does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2 as details

from lessor.v1 import creds_pb2, lease_pb2
from tests.support.clients import (
    MANAGED,
    SECONDS,
    Lessor,
    Refusal,
    connect,
    nothing_left,
    refused,
    until,
    users_of,
    works_again,
)
from tests.support.server_process import serving
from tests.support.standin_control import Json, StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

State, Outcome = lease_pb2.Lease.State, lease_pb2.RevokeLeaseResponse.Outcome
WIDE: dict[str, Any] = {"policy_arns": [MANAGED], "iam_groups": ["developers"]}
ROUND_TWO = ("PutUserPolicy", "AttachUserPolicy", "AddUserToGroup", "CreateAccessKey")
ISSUE = ("CreateUser", *ROUND_TWO)
THINGS = (
    "login_profile",
    "mfa",
    "ssh_key",
    "certificate",
    "service_credential",
    "access_key",
    "policy",
    "attached_policy",
    "group",
)
Code = grpc.StatusCode
REFUSALS = {
    "AccessDenied": (403, Code.FAILED_PRECONDITION, "ROOT_REFUSED"),
    "LimitExceeded": (409, Code.RESOURCE_EXHAUSTED, "AWS_LIMIT_EXCEEDED"),
    "MalformedPolicyDocument": (400, Code.FAILED_PRECONDITION, "ROLE_REFUSED_BY_AWS"),
    "SomethingNew": (400, Code.FAILED_PRECONDITION, "AWS_REFUSED"),
}
UNCLEAR = ("error_before", "error_after", "lose", "reset", "drop", "garbage", "redirect")


def mostly_slow(names: Iterable[str], *by_default: str) -> list[object]:
    """Return parameters of which only a few are tried by default."""
    return [pytest.param(name, marks=() if name in by_default else pytest.mark.slow) for name in names]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def known(lessor: Lessor, aws: StandIn) -> str:
    """Enable one mount for the module, with a role of every kind of grant; its root knows its account."""
    await lessor.enable("known", aws.url)
    await lessor.put_role("known", **WIDE)
    await lessor.revoke((await lessor.generate("known")).lease_id)
    return "known"


@pytest_asyncio.fixture(loop_scope="module", name="mount")
async def shared_mount(known: str, lessor: Lessor, aws: StandIn) -> AsyncIterator[str]:
    """Use the module's mount; reset AWS afterwards, and revoke what a failed test may have left."""
    yield known
    await aws.clear_faults()
    await aws.account(visible_after=0)
    await aws.up()
    async for _ in lessor.leases.RevokePrefix(lease_pb2.RevokePrefixRequest(prefix=f"{known}/")):
        await nothing_left(aws, known)


async def seen(aws: StandIn, action: str, times: int = 1) -> list[Json]:
    """Wait until AWS was asked for ``action`` so many times since the record was emptied."""
    return await until(lambda: aws.calls(action), lambda calls: len(calls) >= times)


def holds_no_secret(refusal: Refusal) -> None:
    """Assert that an error shows neither the root's secret nor a secret of AWS's shape."""
    assert "root/secret" not in str(refusal)


async def is_whole(aws: StandIn, mount: str, made: creds_pb2.GenerateCredentialsResponse) -> None:
    """Assert that the mount's one user has all that its role grants, and the caller's key alone."""
    (user,) = await users_of(aws, mount)
    assert user["keys"] == [{"id": made.access_key, "status": "Active"}]
    assert (user["attached"], user["groups"]) == ([MANAGED], ["developers"])
    assert len(cast("list[str]", user["policies"])) == 1


@pytest.mark.parametrize("action", ISSUE)
@pytest.mark.parametrize("code", mostly_slow(REFUSALS, "AccessDenied"))
async def test_a_refused_call_of_an_issue_has_its_error_and_leaves_nothing(
    lessor: Lessor, aws: StandIn, mount: str, action: str, code: str
) -> None:
    http, status, reason = REFUSALS[code]
    await aws.fault("refuse", action, nth=1, code=code, status=http)
    refusal = await refused(lessor.generate(mount))
    assert (refusal.code, refusal.reason) == (status, reason)
    assert (refusal.metadata["aws_code"], refusal.metadata["aws_action"]) == (code, action)
    assert refusal.metadata["aws_request_id"]
    holds_no_secret(refusal)
    await nothing_left(aws, mount)


@pytest.mark.parametrize("action", ISSUE)
@pytest.mark.parametrize("kind", mostly_slow(UNCLEAR, "lose", "reset", "error_after"))
async def test_a_call_of_an_issue_with_an_unclear_answer_is_repeated(
    lessor: Lessor, aws: StandIn, mount: str, action: str, kind: str
) -> None:
    await aws.forget_calls()
    await aws.fault(kind, action, nth=1)
    made = await lessor.generate(mount)
    await is_whole(aws, mount, made)
    assert len(await aws.calls(action)) == 2
    assert (await lessor.revoke(made.lease_id)).outcome == Outcome.GONE
    assert await users_of(aws, mount) == []


@pytest.mark.parametrize("action", ISSUE)
@pytest.mark.parametrize("kind", mostly_slow(UNCLEAR, "lose"))
async def test_three_unclear_answers_are_unavailable_and_leave_nothing(
    lessor: Lessor, aws: StandIn, mount: str, action: str, kind: str
) -> None:
    await aws.forget_calls()
    await aws.fault(kind, action)
    refusal = await refused(lessor.generate(mount))
    assert len(await aws.calls(action)) == 3
    await is_undone(lessor, aws, mount, refusal)


@pytest.mark.parametrize("action", ISSUE)
async def test_a_throttled_call_of_an_issue_is_unavailable_and_leaves_nothing(
    lessor: Lessor, aws: StandIn, mount: str, action: str
) -> None:
    """It is not repeated."""
    await aws.forget_calls()
    await aws.fault("throttle", action, nth=1)
    refusal = await refused(lessor.generate(mount))
    assert len(await aws.calls(action)) == 1
    await is_undone(lessor, aws, mount, refusal)


async def is_undone(lessor: Lessor, aws: StandIn, mount: str, refusal: Refusal) -> None:
    """Assert that AWS is reported as unavailable, that nothing is left, and that the next issue works."""
    assert refusal.metadata["aws_code"]
    holds_no_secret(refusal)
    await nothing_left(aws, mount)
    await aws.clear_faults()
    assert (await lessor.revoke((await lessor.generate(mount)).lease_id)).outcome == Outcome.GONE


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hang", "hang_after"])
async def test_a_call_that_is_never_answered_is_repeated(
    lessor: Lessor, aws: StandIn, mount: str, kind: str
) -> None:
    """After 5 s, the timeout of a call."""
    await aws.fault(kind, "CreateAccessKey", nth=1)
    async with asyncio.timeout(SECONDS):
        made = await lessor.generate(mount)
    await is_whole(aws, mount, made)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hang", "hang_after"])
async def test_three_calls_without_an_answer_fail_the_issue(
    lessor: Lessor, aws: StandIn, mount: str, kind: str
) -> None:
    await aws.forget_calls()
    await aws.fault(kind, "CreateAccessKey")
    async with asyncio.timeout(2 * SECONDS):
        refusal = await refused(lessor.generate(mount))
    assert len(await aws.calls("CreateAccessKey")) == 3
    await is_undone(lessor, aws, mount, refusal)


@pytest.mark.parametrize("action", ROUND_TWO)
async def test_a_concurrent_modification_is_repeated(
    lessor: Lessor, aws: StandIn, mount: str, action: str
) -> None:
    await aws.fault("refuse", action, nth=1, code="ConcurrentModification", status=409)
    made = await lessor.generate(mount)
    await is_whole(aws, mount, made)
    await lessor.revoke(made.lease_id)


@pytest.mark.slow
async def test_a_user_that_is_not_visible_yet_is_waited_for(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await aws.account(visible_after=0.5)
    made = await lessor.generate(mount)
    (user,) = await users_of(aws, mount)
    assert user["keys"] == [{"id": made.access_key, "status": "Active"}]
    await lessor.revoke(made.lease_id)


async def test_a_missing_group_is_not_waited_for(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await lessor.put_role(mount, "lost", iam_groups=["nobody-made-it"])
    await aws.forget_calls()
    refusal = await refused(lessor.generate(mount, "lost"))
    assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "ROLE_REFUSED_BY_AWS")
    assert refusal.metadata["aws_code"] == "NoSuchEntity"
    assert len(await aws.calls("AddUserToGroup")) == 1
    await nothing_left(aws, mount)


async def test_a_root_that_aws_does_not_know_is_refused(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await lessor.enable("rootless", aws.url)
    await lessor.put_role("rootless")
    await aws.fault("refuse", "GetCallerIdentity", nth=1, code="InvalidClientTokenId")
    refusal = await refused(lessor.generate("rootless"))
    assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "ROOT_REFUSED")
    assert refusal.metadata["aws_code"] == "InvalidClientTokenId"
    assert await users_of(aws, "rootless") == []


async def test_an_outage_is_reported_long_before_the_deadline(
    lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await aws.down()
    async with asyncio.timeout(SECONDS):
        refusal = await refused(lessor.generate(mount))
    assert refusal.code is Code.UNAVAILABLE
    assert refusal.detail(details.RetryInfo).retry_delay.ToMilliseconds() > 0
    await aws.up()
    await works_again(lessor, mount)


@pytest.mark.slow
async def test_after_an_outage_overdue_leases_are_revoked_in_due_order(
    lessor: Lessor, aws: StandIn, mount: str, tmp_path: Path
) -> None:
    """With one call in flight at a time, so that calls arrive in the order in which they are sent."""
    settings = {"LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url, "LESSOR_AWS_IN_FLIGHT": "1"}
    async with serving(tmp_path, settings) as server, connect(server.address, server.token) as other:
        await other.enable("ordered", aws.url)
        await other.put_role("ordered")
        made = [await other.generate("ordered", ttl=span) for span in (6, 5, 4)]
        users = {one.access_key: one.arn.rpartition("/")[2] for one in made}
        by_end = sorted(made, key=lambda one: one.expire_time.ToMicroseconds())
        await aws.down()
        last = by_end[-1].lease_id
        await until(lambda: other.lookup(last), lambda lease: lease.state == State.REVOKING)
        refusal = await refused(other.generate("ordered"))
        assert (refusal.code, refusal.reason) == (Code.UNAVAILABLE, "AWS_UNAVAILABLE")
        assert (await other.lookup(last)).attempts == 0
        await aws.forget_calls()
        await aws.up()
        await nothing_left(aws, "ordered")
        cuts = [str(call["user"]) for call in await aws.calls("DeleteAccessKey") if call["outcome"] == "ok"]
        assert cuts == [users[one.access_key] for one in by_end]
        await works_again(other, "ordered")
    await works_again(lessor, mount)  # the module's server may have met the outage too


@pytest.mark.parametrize("things", [*((thing,) for thing in THINGS), THINGS], ids=lambda t: "+".join(t)[:20])
async def test_what_others_attached_to_a_user_does_not_stop_its_revocation(
    lessor: Lessor, aws: StandIn, mount: str, things: tuple[str, ...]
) -> None:
    made = await lessor.generate(mount)
    (user,) = await users_of(aws, mount)
    await aws.touch(str(user["name"]), *things)
    assert (await lessor.revoke(made.lease_id)).outcome == Outcome.GONE
    assert await users_of(aws, mount) == []


async def test_a_user_that_others_deleted_is_not_an_error(lessor: Lessor, aws: StandIn, mount: str) -> None:
    made = await lessor.generate(mount)
    (user,) = await users_of(aws, mount)
    await aws.forget(str(user["name"]))
    assert (await lessor.revoke(made.lease_id)).outcome == Outcome.ACCEPTED
    lease = await lessor.lookup(made.lease_id)
    assert (lease.state, lease.attempts, lease.stuck) == (State.REVOKING, 0, False)


@pytest.mark.parametrize("action", ["CreateUser", "CreateAccessKey"])
async def test_a_cancelled_issue_leaves_nothing(
    lessor: Lessor, aws: StandIn, mount: str, action: str
) -> None:
    await aws.forget_calls()
    await aws.fault("delay", action, nth=1, seconds=2.0)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(lessor.generate(mount))
        await seen(aws, action)
        task.cancel()
    await until(lambda: aws.calls("DeleteUser"), bool)
    await nothing_left(aws, mount)


@pytest.mark.slow
@pytest.mark.fire
@pytest.mark.parametrize("action", ["CreateUser", "CreateAccessKey"])
async def test_a_deadline_that_passes_leaves_nothing(
    lessor: Lessor, aws: StandIn, mount: str, action: str
) -> None:
    await aws.forget_calls()
    await aws.fault("delay", action, nth=1, seconds=3.0)
    refusal = await refused(lessor.generate(mount, seconds=2.1))
    assert (refusal.code, refusal.reason) == (Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    await until(lambda: aws.calls("DeleteUser"), lambda calls: any(call["outcome"] == "ok" for call in calls))
    await nothing_left(aws, mount)


async def test_a_deadline_of_less_than_two_seconds_is_refused(
    lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await aws.forget_calls()
    refusal = await refused(lessor.generate(mount, seconds=1.9))
    assert refusal.code is Code.DEADLINE_EXCEEDED
    assert await aws.calls("CreateUser") == []

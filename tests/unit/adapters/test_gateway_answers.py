"""Checks how answers of AWS are read: sessions, groups, verdicts and refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from tests.support.builders import DOCUMENT
from tests.support.gateways import KEY, NOBODY_THERE, chained, gateway, root
from tests.support.standin_control import StandIn

from lessor_server.adapters.aws.gateway import OPERATIONS, AwsGateway
from lessor_server.adapters.aws.http_connection import HttpAnswer
from lessor_server.adapters.aws.query_client import QueryClient, QueryRequest
from lessor_server.adapters.aws.routes import Routes
from lessor_server.adapters.clock import SystemClock
from lessor_server.domain.aws.errors import AwsRefused, AwsUnknown, Refusal
from lessor_server.domain.aws.iam_calls import (
    Call,
    GetAccountSummary,
    GetGroup,
    GetGroupPolicy,
    GetPolicy,
    GetUser,
    ListAttachedGroupPolicies,
    ListGroupPolicies,
    Simulated,
    SimulatePrincipalPolicy,
    UserRoom,
)
from lessor_server.domain.aws.sts_calls import AssumeRole, GetFederationToken, GetSessionToken
from lessor_server.domain.root import Hop


async def test_sessions_have_all_their_fields(aws: StandIn) -> None:
    role = await aws.role("worker", external_id="sesame", longest=43_200)
    full = AssumeRole(
        role,
        "app",
        7200,
        policy=DOCUMENT,
        policy_arns=("arn:aws:iam::aws:policy/ReadOnlyAccess",),
        tags=(("team", "blue"),),
        transitive_keys=("team",),
        source_identity="alice",
        external_id="sesame",
    )
    async with gateway(aws.url) as door:
        assumed = await door.send(root(aws.url), full)
        federated = await door.send(root(aws.url), GetFederationToken("bob", 900, policy=DOCUMENT))
        plain = await door.send(root(aws.url), GetSessionToken(129_600))
    assert assumed.arn == "arn:aws:sts::123456789012:assumed-role/worker/app"
    assert federated.arn == "arn:aws:sts::123456789012:federated-user/bob"
    assert (plain.arn, plain.packed_percent) == ("", 0)
    assert assumed.packed_percent > federated.packed_percent > 0
    now_us = assumed.expires_us - 7200 * 10**6
    for session, seconds in ((federated, 900), (plain, 129_600)):
        assert abs(session.expires_us - now_us - seconds * 10**6) < 60 * 10**6
    for session in (assumed, federated, plain):
        assert session.token
        ends = (await aws.session(session.access_key_id))["ends"]
        assert ends == pytest.approx(session.expires_us / 1e6, abs=1)
    kept = await aws.session(assumed.access_key_id)
    assert (kept["tags"], kept["transitive"], kept["source_identity"]) == (
        [["team", "blue"]],
        ["team"],
        "alice",
    )
    assert kept["policy_arns"] == ["arn:aws:iam::aws:policy/ReadOnlyAccess"]


@pytest.mark.parametrize(
    ("call", "refusal"),
    [
        (AssumeRole("ROLE", "app", 7200), Refusal.TOO_LONG),
        (AssumeRole("ROLE", "app", 900, policy="{}"), Refusal.MALFORMED),
        (AssumeRole("ROLE", "app", 900, tags=(("k" * 128, "v" * 200),)), Refusal.TOO_LARGE),
        (AssumeRole("arn:aws:iam::123456789012:role/none", "app", 900), Refusal.DENIED),
    ],
)
async def test_refusals_of_sts_have_different_errors(
    aws: StandIn, call: AssumeRole, refusal: Refusal
) -> None:
    role = await aws.role("worker")
    await aws.sts(packed_limit=300)
    asked = AssumeRole(
        call.role_arn.replace("ROLE", role), "app", call.seconds, policy=call.policy, tags=call.tags
    )
    async with gateway(aws.url) as door:
        with pytest.raises(AwsRefused) as raised:
            await door.send(root(aws.url), asked)
    assert raised.value.refusal is refusal


async def test_a_chained_session_lasts_at_most_an_hour(aws: StandIn) -> None:
    first = await aws.role("first")
    second = await aws.role("second", longest=43_200)
    async with gateway(aws.url) as door:
        await door.send(root(aws.url), AssumeRole(second, "app", 7200))
        with pytest.raises(AwsRefused) as raised:
            await door.send(chained(root(aws.url), Hop(first)), AssumeRole(second, "app", 7200))
    assert raised.value.refusal is Refusal.TOO_LONG


async def test_groups_are_read_page_by_page(aws: StandIn) -> None:
    await aws.groups("staff")
    for number in range(3):
        await aws.call("PutGroupPolicy", GroupName="staff", PolicyName=f"p{number}", PolicyDocument=DOCUMENT)
    managed = "arn:aws:iam::aws:policy/ReadOnlyAccess"
    await aws.call("AttachGroupPolicy", GroupName="staff", PolicyArn=managed)
    at = root(aws.url)
    async with gateway(aws.url) as door:
        listed = await door.send(at, ListGroupPolicies("staff"))
        after = await door.send(at, ListGroupPolicies("staff", listed.names[0]))
        document = await door.send(at, GetGroupPolicy("staff", "p1"))
        attached = await door.send(at, ListAttachedGroupPolicies("staff"))
        for look in (GetGroup("staff"), GetPolicy(managed)):
            await door.send(at, look)
    assert (listed.names, listed.marker, after.names) == (("p0", "p1", "p2"), "", ("p1", "p2"))
    assert document.replace(" ", "") == DOCUMENT
    assert attached.names == (managed,)


@pytest.mark.parametrize("call", [GetGroup("none"), GetPolicy("arn:aws:iam::123456789012:policy/none")])
async def test_a_missing_group_or_policy_is_not_a_missing_user(aws: StandIn, call: Call[None]) -> None:
    async with gateway(aws.url) as door:
        with pytest.raises(AwsRefused) as raised:
            await door.send(root(aws.url), call)
    assert raised.value.refusal is Refusal.NO_SUCH_OTHER


async def test_the_simulator_has_a_verdict_for_each_action_on_each_resource(aws: StandIn) -> None:
    await aws.root(KEY)
    ann, bob = (f"arn:aws:iam::123456789012:user/{name}" for name in ("ann", "bob"))
    allow = DOCUMENT.replace("s3:Get*", "iam:Get*").replace('"Resource":"*"', f'"Resource":"{ann}"')
    await aws.call("PutUserPolicy", UserName="root-of-lessor", PolicyName="p", PolicyDocument=allow)
    who = "arn:aws:iam::123456789012:user/root-of-lessor"
    async with gateway(aws.url) as door:
        call = SimulatePrincipalPolicy(who, ("iam:GetUser", "iam:CreateUser"), (ann, bob))
        answer = await door.send(root(aws.url), call)
    assert answer.verdicts == (
        ("iam:GetUser", ann, "allowed"),
        ("iam:GetUser", bob, "implicitDeny"),
        ("iam:CreateUser", ann, "implicitDeny"),
        ("iam:CreateUser", bob, "implicitDeny"),
    )
    assert answer.marker == ""


def test_verdicts_below_their_action_are_read_too() -> None:
    """IAM may use ResourceSpecificResults and truncate its answer (API Reference, EvaluationResult)."""
    answer = {
        "EvaluationResults": [
            {
                "EvalActionName": "iam:GetUser",
                "EvalDecision": "implicitDeny",
                "ResourceSpecificResults": [
                    {"EvalResourceName": "a", "EvalResourceDecision": "allowed"},
                    {"EvalResourceName": "b", "EvalResourceDecision": "explicitDeny"},
                ],
            },
            {"EvalActionName": "iam:ListUsers", "EvalDecision": "allowed"},
        ],
        "IsTruncated": True,
        "Marker": "more",
    }
    assert OPERATIONS[SimulatePrincipalPolicy].read(answer) == Simulated(
        (
            ("iam:GetUser", "a", "allowed"),
            ("iam:GetUser", "b", "explicitDeny"),
            ("iam:ListUsers", "*", "allowed"),
        ),
        "more",
    )


async def test_the_account_summary_has_users_and_quota(aws: StandIn) -> None:
    await aws.call("CreateUser", UserName="ann")
    async with gateway(aws.url) as door:
        assert await door.send(root(aws.url), GetAccountSummary()) == UserRoom(1, 5000)


class LargeAnswers(QueryClient):
    """A client whose answers are all there at once; they are large, and have no user."""

    def send(self, request: QueryRequest, until: float) -> Awaitable[HttpAnswer]:
        """Return an answer that is there."""
        body = f"<GetUserResponse>{' ' * (1 << 17)}</GetUserResponse>"
        answer: asyncio.Future[HttpAnswer] = asyncio.get_running_loop().create_future()
        answer.set_result(HttpAnswer(200, {}, body.encode()))
        return answer


async def test_large_answers_are_read_one_at_a_time_and_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise other work waits until all of them are read."""
    turn, read_at = 0, []
    loop = asyncio.get_running_loop()
    read = QueryRequest.read

    def count() -> None:
        nonlocal turn, ticking
        turn += 1
        ticking = loop.call_soon(count)

    async def send(door: AwsGateway) -> None:
        with pytest.raises(AwsUnknown) as raised:
            await door.send(root(NOBODY_THERE), GetUser("ann"))
        assert (raised.value.__cause__, raised.value.__context__) == (None, None)

    def note(request: QueryRequest, answer: HttpAnswer) -> dict[str, Any]:
        read_at.append(turn)
        return read(request, answer)

    monkeypatch.setattr(QueryRequest, "read", note)
    async with LargeAnswers("lessor/test", SystemClock().wall) as client:
        await client.load("iam")
        door = AwsGateway(client, Routes((NOBODY_THERE,)))
        ticking = loop.call_soon(count)
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(send(door))
        ticking.cancel()
    assert len(set(read_at)) == 5


async def test_the_error_of_a_truncated_answer_has_none_of_its_text() -> None:
    """A secret may be in it."""
    body = b"<GetSessionTokenResponse><GetSessionTokenResult><Credentials><SecretAccessKey>not-a-secr"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with gateway(url) as door:
            with pytest.raises(AwsUnknown, match="UnreadableAnswer") as raised:
                await door.send(root(url), GetSessionToken(900))
    assert raised.value.sent
    assert "not-a-secr" not in raised.value.detail
    assert "not-a-secr" not in repr(raised.value.aws)

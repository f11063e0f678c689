"""Checks the life of a credential: which calls are sent, in which order, and what is answered."""

from __future__ import annotations

from typing import Any, cast

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from lessor.v1 import creds_pb2, lease_pb2
from tests.support.clients import MANAGED, Lessor, lease_of, nothing_left, refused, until, users_of
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

State, Outcome = lease_pb2.Lease.State, lease_pb2.RevokeLeaseResponse.Outcome
BOUNDARY = "arn:aws:iam::aws:policy/PowerUserAccess"
ROUND_TWO = {"PutUserPolicy", "AttachUserPolicy", "AddUserToGroup", "CreateAccessKey"}
NOBODY = "0" * 24
WIDE: dict[str, Any] = {"policy_arns": [MANAGED], "iam_groups": ["developers"]}


async def actions(aws: StandIn, after: int) -> list[str]:
    """Return the actions AWS was asked for after call number ``after``, in order."""
    return [str(call["action"]) for call in await aws.calls(after=after)]


async def count(aws: StandIn) -> int:
    """Return how many calls AWS has seen."""
    return cast("int", (await aws.ask("GET", "totals"))["count"])


async def warm(lessor: Lessor, mount: str) -> None:
    """Issue once, so that the mount's root knows its account and the issues after it call nothing else."""
    await lessor.revoke((await lessor.generate(mount)).lease_id)


async def test_an_issue_is_create_user_then_all_the_rest(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await lessor.put_role(mount, **WIDE)
    await warm(lessor, mount)
    before = await count(aws)
    await lessor.generate(mount)
    first, *rest = await actions(aws, before)
    assert first == "CreateUser"
    assert sorted(rest) == sorted(ROUND_TWO)


async def test_the_second_round_is_sent_in_parallel_after_the_first(
    lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount, **WIDE)
    await warm(lessor, mount)
    before, latency = await count(aws), 0.15
    await aws.latency(latency)
    await lessor.generate(mount)
    first, *rest = [float(str(call["t"])) for call in await aws.calls(after=before)]
    assert len(rest) == len(ROUND_TWO)
    assert min(rest) >= first + latency
    assert max(rest) < min(rest) + latency


async def test_a_user_has_everything_that_its_role_names(lessor: Lessor, aws: StandIn, mount: str) -> None:
    instance = (await lessor.info()).instance_id
    tags = {"team": "payments", "Umlaut": "grün"}
    await lessor.put_role(mount, iam_tags=tags, permissions_boundary_arn=BOUNDARY, **WIDE)
    made = await lessor.generate(mount)
    (user,) = await users_of(aws, mount)
    assert user["path"] == f"/lessor/{instance}/"
    ours = {"lessor:instance": instance, "lessor:lease": made.lease_id, "lessor:role": "app"}
    assert user["tags"] == {**tags, **ours}
    assert user["boundary"] == BOUNDARY
    assert len(cast("list[str]", user["policies"])) == 1
    assert (user["attached"], user["groups"]) == ([MANAGED], ["developers"])
    assert user["keys"] == [{"id": made.access_key, "status": "Active"}]
    assert user["arn"] == made.arn


async def test_a_role_s_path_is_below_lessor_s_own(lessor: Lessor, aws: StandIn, mount: str) -> None:
    instance = (await lessor.info()).instance_id
    await lessor.put_role(mount, user_path="/ci/builds/")
    await lessor.generate(mount)
    (user,) = await users_of(aws, mount)
    assert user["path"] == f"/lessor/{instance}/ci/builds/"


async def test_the_answer_has_the_credential(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await lessor.put_role(mount)
    made = await lessor.generate(mount, ttl=900)
    head, _, suffix = made.lease_id.rpartition("/")
    assert head == f"{mount}/creds/app"
    assert (len(suffix), suffix.isalnum(), suffix.isascii()) == (24, True, True)
    assert made.lease_duration == Duration(seconds=900)
    assert made.lease_renewable
    assert made.access_key.startswith("AKIA")
    assert len(made.secret_key) == 40
    assert (made.security_token, list(made.warnings)) == ("", [])
    assert made.arn.startswith("arn:aws:iam::123456789012:user/lessor/")


async def test_without_a_ttl_the_mount_s_default_of_768_h_holds(lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount)
    request = creds_pb2.GenerateCredentialsRequest(mount=mount, role="app")
    made = await lessor.creds.GenerateCredentials(request)
    assert made.lease_duration.seconds == 768 * 3600


async def test_a_look_up_shows_the_lease_and_no_secret(lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount)
    made = await lessor.generate(mount, ttl=900)
    lease = await lessor.lookup(made.lease_id)
    assert (lease.lease_id, lease.mount, lease.role) == (made.lease_id, mount, "app")
    assert (lease.state, lease.access_key, lease.owner) == (State.ACTIVE, made.access_key, "root")
    assert lease.expire_time == made.expire_time
    assert (lease.expire_time.ToMicroseconds() - lease.issue_time.ToMicroseconds()) == 900 * 10**6
    assert 0 < lease.ttl.seconds <= 900
    assert (lease.renewable, lease.stuck, lease.attempts, lease.last_error) == (True, False, 0, "")
    assert lease.max_expire_time.seconds > lease.expire_time.seconds
    assert made.secret_key not in str(lease)


async def test_a_plain_revocation_is_three_calls_and_deletes_the_key_first(
    lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount)
    made = await lessor.generate(mount)
    before = await count(aws)
    assert (await lessor.revoke(made.lease_id)).outcome == Outcome.GONE
    assert await actions(aws, before) == ["DeleteAccessKey", "DeleteUserPolicy", "DeleteUser"]
    assert await users_of(aws, mount) == []


async def test_a_revocation_removes_what_the_row_says_without_listings(
    lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount, **WIDE)
    made = await lessor.generate(mount)
    before = await count(aws)
    await lessor.revoke(made.lease_id)
    first, *middle, last = await actions(aws, before)
    assert (first, last) == ("DeleteAccessKey", "DeleteUser")
    assert sorted(middle) == ["DeleteUserPolicy", "DetachUserPolicy", "RemoveUserFromGroup"]


async def test_a_revoked_lease_is_gone_then_already_gone(lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount)
    made = await lessor.generate(mount)
    first, second = await lessor.revoke(made.lease_id), await lessor.revoke(made.lease_id)
    assert (first.outcome, second.outcome) == (Outcome.GONE, Outcome.ALREADY_GONE)
    assert first.lease_id == second.lease_id == made.lease_id
    lease = await lessor.lookup(made.lease_id)
    assert (lease.state, lease.renewable) == (State.GONE, False)


@pytest.mark.parametrize("sync", [True, False])
async def test_a_mistyped_id_is_unknown(lessor: Lessor, mount: str, sync: bool) -> None:
    answer = await lessor.revoke(f"{mount}/creds/app/{NOBODY}", sync=sync)
    assert answer.outcome == Outcome.UNKNOWN


async def test_an_async_revocation_is_done_in_the_background(
    lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await lessor.put_role(mount)
    made = await lessor.generate(mount)
    assert (await lessor.revoke(made.lease_id, sync=False)).outcome == Outcome.ACCEPTED
    await nothing_left(aws, mount)
    await until(lambda: lessor.lookup(made.lease_id), lambda lease: lease.state == State.GONE)


@pytest.mark.parametrize("action", ["DeleteAccessKey", "DeleteUserPolicy", "DeleteUser"])
async def test_a_first_attempt_that_fails_is_accepted_with_the_error(
    lessor: Lessor, aws: StandIn, mount: str, action: str
) -> None:
    await lessor.put_role(mount)
    made = await lessor.generate(mount)
    await aws.fault("refuse", action, nth=1)
    answer = await lessor.revoke(made.lease_id)
    assert answer.outcome == Outcome.ACCEPTED
    assert "AccessDenied" in answer.last_error
    lease = await lessor.lookup(made.lease_id)
    assert (lease.state, lease.attempts, lease.last_error) == (State.REVOKING, 1, answer.last_error)
    assert lease.HasField("next_attempt_time")
    assert (await lessor.revoke(made.lease_id)).outcome == Outcome.GONE
    assert await users_of(aws, mount) == []


@pytest.mark.parametrize(
    "lease_id",
    [
        "",
        "nonsense",
        "aws/creds/app",
        "aws/creds/app/",
        "aws/creds/app/short",
        f"aws/creds/app/{NOBODY}0",
        f"aws/creds/app/{NOBODY}/more",
        f"aws/roles/app/{NOBODY}",
        f"../creds/app/{NOBODY}",
        f"aws/creds/../{NOBODY}",
        f"/aws/creds/app/{NOBODY}",
        f"aws/creds/app/{'é' * 24}",
        f"aws/creds/app/{NOBODY}\n",
    ],
)
async def test_a_malformed_lease_id_is_refused(lessor: Lessor, lease_id: str) -> None:
    for call in (lessor.lookup, lessor.renew, lessor.revoke):
        refusal = await refused(call(lease_id))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert list(refusal.violations) == ["lease_id"]


async def test_each_lease_has_a_user_and_a_key_of_its_own(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await lessor.put_role(mount)
    one, two = await lessor.generate(mount), await lessor.generate(mount)
    assert one.lease_id != two.lease_id
    assert one.access_key != two.access_key
    await lessor.revoke(one.lease_id)
    assert [lease_of(user) for user in await users_of(aws, mount)] == [two.lease_id]
    assert (await lessor.lookup(two.lease_id)).state == State.ACTIVE

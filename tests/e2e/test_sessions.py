"""Checks each type of session of STS, what narrows it, and how it ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from lessor.v1 import config_pb2, creds_pb2, lease_pb2, role_pb2
from tests.support.clients import POLICY, Lessor, Refusal, refused, root_at, struct, until
from tests.support.server_process import ServerProcess
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

Code, Outcome, State = grpc.StatusCode, lease_pb2.RevokeLeaseResponse.Outcome, lease_pb2.Lease.State
Credentials = creds_pb2.GenerateCredentialsResponse
SERIAL = "arn:aws:iam::123456789012:mfa/root-device"
ONE = "11111111-1111-4111-8111-111111111111"
DENY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Deny", "Action": "s3:GetObjectAcl", "Resource": "*"}],
}


async def put(lessor: Lessor, mount: str, kind: str, **fields: Any) -> role_pb2.PutRoleResponse:
    """Write a role of this type named ``app`` without policies, unless the fields give some."""
    role = role_pb2.Role(name="app", credential_type=kind, **fields)  # type: ignore[arg-type]
    return await lessor.roles.PutRole(role_pb2.PutRoleRequest(mount=mount, role=role))


async def assumed(lessor: Lessor, aws: StandIn, mount: str, **fields: Any) -> str:
    """Write a role that assumes an IAM role; return that role's ARN."""
    arn = await aws.role(f"target-{mount}", longest=43_200)
    await put(lessor, mount, "ASSUMED_ROLE", role_arns=[arn], **fields)
    return arn


async def generate(lessor: Lessor, mount: str, ttl: int = 900, **fields: Any) -> Credentials:
    """Ask for credentials of the role ``app``."""
    request = creds_pb2.GenerateCredentialsRequest(
        mount=mount, role="app", ttl=Duration(seconds=ttl), **fields
    )
    return await lessor.creds.GenerateCredentials(request, timeout=30)


async def not_generated(lessor: Lessor, mount: str, **fields: Any) -> Refusal:
    """Return the refusal of a request for credentials."""
    return await refused(generate(lessor, mount, **fields))


def stored(folder: Path) -> bytes:
    """Return the content of all files of a data directory."""
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())


def instant(message: Message) -> datetime:
    """Return when credentials or a lease end."""
    ends: datetime = message.expire_time.ToDatetime(UTC)  # type: ignore[attr-defined]
    return ends


async def test_an_assumed_role_has_all_its_fields(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await assumed(lessor, aws, mount, session_tags={"team": "blue"}, source_identity="{{identity.name}}")
    made = await generate(lessor, mount, role_session_name="by-me")
    session = await aws.session(made.access_key)
    assert made.access_key.startswith("ASIA")
    assert made.secret_key
    assert made.security_token
    assert made.arn == f"arn:aws:sts::123456789012:assumed-role/target-{mount}/by-me" == session["arn"]
    assert not made.lease_renewable
    assert 895 <= made.lease_duration.seconds <= 900
    assert 0 < made.packed_policy_percent <= 100
    assert session["tags"] == [["team", "blue"]]
    assert session["source_identity"] == "root"
    left = instant(made) - datetime.now(UTC)
    assert timedelta(seconds=890) < left <= timedelta(seconds=901)
    lease = await lessor.lookup(made.lease_id)
    assert (lease.state, lease.renewable, lease.access_key) == (State.ACTIVE, False, made.access_key)
    assert lease.credential_type == role_pb2.Role.ASSUMED_ROLE
    assert lease.max_expire_time == lease.expire_time == made.expire_time
    assert await aws.users(f"/lessor/{(await lessor.info()).instance_id}/") == {}


async def test_a_federated_session_has_its_policies(lessor: Lessor, aws: StandIn, mount: str) -> None:
    group = f"team-{mount}"
    await aws.groups(group)
    document = '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sqs:*","Resource":"*"}}'
    await aws.call("PutGroupPolicy", GroupName=group, PolicyName="queues", PolicyDocument=document)
    await aws.call("AttachGroupPolicy", GroupName=group, PolicyArn="arn:aws:iam::aws:policy/ReadOnlyAccess")
    await put(lessor, mount, "FEDERATION_TOKEN", policy_document=struct(POLICY), iam_groups=[group])
    made = await generate(lessor, mount, session_policy=struct(DENY))
    session = await aws.session(made.access_key)
    assert ":federated-user/lessor-" in made.arn
    for action in ("s3:GetObject", "sqs:*", "s3:GetObjectAcl"):
        assert f'["{action}"]' in str(session["policy"])
    assert session["policy_arns"] == ["arn:aws:iam::aws:policy/ReadOnlyAccess"]


async def test_a_session_token_needs_an_mfa_code(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await put(lessor, mount, "SESSION_TOKEN", mfa_serial_number=SERIAL)
    assert set((await not_generated(lessor, mount)).violations) == {"mfa_code"}
    await aws.sts(mfa_codes={SERIAL: "123456"})
    made = await generate(lessor, mount, mfa_code="123456")
    assert (made.arn, bool(made.security_token)) == ("", True)
    refusal = await not_generated(lessor, mount, mfa_code="123456")
    assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "MFA_REFUSED")


async def test_a_revoked_session_is_forgotten(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await assumed(lessor, aws, mount)
    made = await generate(lessor, mount)
    before = len(await aws.calls())
    answer = await lessor.revoke(made.lease_id, sync=False)
    assert (answer.outcome, answer.expire_time) == (Outcome.FORGOTTEN, made.expire_time)
    assert (await lessor.lookup(made.lease_id)).state == State.GONE
    again = await lessor.revoke(made.lease_id)
    assert (again.outcome, again.HasField("expire_time")) == (Outcome.ALREADY_GONE, False)
    assert len(await aws.calls()) == before


async def test_a_session_is_not_renewed(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await assumed(lessor, aws, mount)
    made = await generate(lessor, mount)
    refusal = await refused(lessor.renew(made.lease_id))
    assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "NOT_RENEWABLE")


async def test_a_prefix_includes_sessions(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await assumed(lessor, aws, mount)
    leases = [(await generate(lessor, mount)).lease_id for _ in range(3)]
    request = lease_pb2.RevokePrefixRequest(prefix=f"{mount}/", sync=True)
    standings = [standing async for standing in lessor.leases.RevokePrefix(request)]
    assert (standings[-1].accepted, standings[-1].done) == (3, 3)
    assert [(await lessor.lookup(one)).state for one in leases] == [State.GONE] * 3


async def test_a_request_may_narrow_and_never_widen(lessor: Lessor, aws: StandIn, mount: str) -> None:
    """Where the role has a policy, the request's may only deny."""
    await assumed(lessor, aws, mount)
    made = await generate(lessor, mount, session_policy=struct(POLICY))
    assert '"s3:GetObject"' in str((await aws.session(made.access_key))["policy"])
    await assumed(lessor, aws, mount, policy_document=struct(POLICY))
    refusal = await not_generated(lessor, mount, session_policy=struct(POLICY))
    assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, "SESSION_POLICY_WOULD_WIDEN")
    assert set(refusal.violations) == {"session_policy"}
    made = await generate(lessor, mount, session_policy=struct(DENY))
    assert "s3:GetObjectAcl" in str((await aws.session(made.access_key))["policy"])


async def test_all_violations_of_a_request_are_returned(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await assumed(lessor, aws, mount)
    refusal = await not_generated(
        lessor,
        mount,
        ttl=60,
        role_arn="arn:aws:iam::123456789012:role/other",
        role_session_name="a/b",
        mfa_code="987654",
        session_policy=struct({"Version": "2020-01-01", "Statement": []}),
    )
    assert refusal.code is Code.INVALID_ARGUMENT
    policy = {"session_policy.Version", "session_policy.Statement"}
    assert set(refusal.violations) == {"ttl", "role_arn", "role_session_name", "mfa_code", *policy}
    assert "987654" not in str(refusal)


async def test_an_option_for_sessions_is_refused_for_a_user(lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount)
    refusal = await not_generated(
        lessor, mount, role_arn="x", role_session_name="abc", mfa_code="1", session_policy=struct(DENY)
    )
    assert set(refusal.violations) == {"role_arn", "role_session_name", "mfa_code", "session_policy"}


async def test_with_a_star_the_request_names_the_role(lessor: Lessor, aws: StandIn, mount: str) -> None:
    arn = await aws.role(f"app-{mount}")
    await put(lessor, mount, "ASSUMED_ROLE", role_arns=["arn:aws:iam::123456789012:role/app-*"])
    assert f"assumed-role/app-{mount}/" in (await generate(lessor, mount, role_arn=arn)).arn
    assert set((await not_generated(lessor, mount)).violations) == {"role_arn"}
    other = await not_generated(lessor, mount, role_arn="arn:aws:iam::123456789012:role/admin")
    assert set(other.violations) == {"role_arn"}


async def test_a_chained_root_issues_sessions_of_an_hour_and_no_tokens(
    lessor: Lessor, aws: StandIn, mount: str
) -> None:
    await assumed(lessor, aws, mount)
    hop = config_pb2.AssumeStep(role_arn=await aws.role(f"hub-{mount}"))
    config = root_at(aws.url, assume_chain=[hop])
    await lessor.config.SetRoot(config_pb2.SetRootRequest(mount=mount, config=config))
    made = await generate(lessor, mount, ttl=7200)
    assert 3590 <= made.lease_duration.seconds <= 3600
    assert any("capped to 1h by the kind of the mount's root" in warning for warning in made.warnings)
    await put(lessor, mount, "FEDERATION_TOKEN", policy_document=struct(POLICY))
    refusal = await not_generated(lessor, mount)
    assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "ROOT_KIND")


async def test_a_repeat_gets_the_same_lease(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await assumed(lessor, aws, mount)
    first = await generate(lessor, mount, ttl=3600, request_id=ONE)
    again = await generate(lessor, mount, ttl=3600, request_id=ONE)
    assert (again.lease_id, again.expire_time) == (first.lease_id, first.expire_time)
    assert again.access_key != first.access_key
    other = await not_generated(lessor, mount, ttl=3600, request_id=ONE, role_session_name="other")
    assert other.reason == "REQUEST_ID_REUSED"
    await lessor.revoke(first.lease_id)
    spent = await not_generated(lessor, mount, ttl=3600, request_id=ONE)
    assert spent.reason == "REQUEST_ID_SPENT"


async def test_a_repeat_may_have_another_mfa_code(lessor: Lessor, aws: StandIn, mount: str) -> None:
    """Each code is valid once, so it is not compared."""
    await assumed(lessor, aws, mount, mfa_serial_number=SERIAL)
    leases = set()
    for code in ("111111", "222222"):
        await aws.sts(mfa_codes={SERIAL: code})
        leases.add((await generate(lessor, mount, ttl=3600, request_id=ONE, mfa_code=code)).lease_id)
    assert len(leases) == 1


async def test_a_session_is_usable_when_aws_accepts_it(lessor: Lessor, aws: StandIn, mount: str) -> None:
    await assumed(lessor, aws, mount)
    assert (await generate(lessor, mount, wait_usable=Duration(seconds=10))).usable


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"trusts": ["210987654321"]}, "ASSUME_ROLE_REFUSED"), ({"longest": 3600}, "SESSION_TOO_LONG")],
)
async def test_a_refusal_of_the_iam_role_is_a_failed_precondition(
    lessor: Lessor, aws: StandIn, mount: str, fields: dict[str, Any], reason: str
) -> None:
    arn = await aws.role(f"strict-{mount}", **fields)
    await put(lessor, mount, "ASSUMED_ROLE", role_arns=[arn])
    refusal = await not_generated(lessor, mount, ttl=7200)
    assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, reason)
    assert refusal.metadata["aws_code"]


async def test_no_secret_of_a_session_is_stored_or_logged(
    lessor: Lessor, aws: StandIn, mount: str, server: ServerProcess
) -> None:
    await assumed(lessor, aws, mount, mfa_serial_number=SERIAL)
    await aws.sts(mfa_codes={SERIAL: "481516"})
    made = await generate(lessor, mount, mfa_code="481516")
    await lessor.revoke(made.lease_id)

    async def log() -> str:
        return server.log_file.read_text(encoding="utf-8")

    text = await until(log, lambda text: "forgotten" in text and made.lease_id in text)
    for secret in (made.secret_key, made.security_token):
        assert secret not in text
        assert secret.encode() not in stored(server.data_dir)
    assert "481516" not in text

"""Checks how sessions of STS are issued."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from lessor_server.domain.aws.iam_calls import AccessKey
from lessor_server.domain.errors.base import AwsUnavailable, Invalid, LeaseTaken, LessorError, RoleFull
from lessor_server.domain.errors.preconditions import TemplateLabelUnknown
from lessor_server.domain.events import Issued, IssueFailed
from lessor_server.domain.lease import State
from lessor_server.domain.policy.session import SessionOptions
from lessor_server.domain.role import CredentialType, Role
from lessor_server.domain.secret import Secret
from lessor_server.engine.issuing.request import Credentials
from tests.support import builders
from tests.support.engine_world import World, world
from tests.support.iam_faults import Fault, Kind
from tests.support.sts_state import SessionKey
from tests.support.virtual_loop import virtual

SERIAL = "arn:aws:iam::123456789012:mfa/root"
FEDERATED = builders.role("federated", credential_type=CredentialType.FEDERATION_TOKEN)
SESSION = builders.role("session", credential_type=CredentialType.SESSION_TOKEN, policy_document="")


async def assumed(w: World, *, longest: int = 43_200, **changes: Any) -> Role:
    """Write a role that assumes an IAM role of the account."""
    role = builders.assumed(w.iam.add_role("target", longest=longest).arn, **changes)
    await w.put_role(role)
    return role


def session(w: World, made: Credentials) -> SessionKey:
    """Return what AWS holds of a session."""
    return w.iam.sts.sessions[made.lease.access_key_id]


def only_row(w: World) -> State:
    """Return the state of the one lease that there is."""
    (state,) = w.states().values()
    return state


async def warm(w: World) -> None:
    """Let the root's account be known, and forget the calls and points of it."""
    await assumed(w, name="warm")
    await w.issue(role="warm")
    w.store.rows.clear()
    w.aws.sent.clear()
    w.points.passed.clear()


@pytest.mark.parametrize("kind", ["assumed", "federated", "session"])
@virtual
async def test_each_session_type_is_issued_by_one_call(kind: str) -> None:
    async with world() as w:
        await warm(w)
        await assumed(w)
        await w.put_role(FEDERATED)
        await w.put_role(SESSION)
        made = await w.issue(role=kind, ttl=1800)
        action = {"assumed": "AssumeRole", "federated": "GetFederationToken", "session": "GetSessionToken"}
        assert w.aws.actions() == [action[kind]]
        key = session(w, made)
        assert (made.secret, made.token) == (Secret(key.secret), Secret(key.token))
        assert made.arn == ("" if kind == "session" else key.arn)
        assert made.lease.expires_us == made.lease.max_expires_us == int(key.ends) * 1_000_000
        assert made.lease.ttl.total_seconds() == 1800
        assert (made.lease.state, made.lease.is_session, w.users()) == (State.ACTIVE, True, [])
        assert w.events.of(Issued)[-1].access_key_id == key.id


@virtual
async def test_the_intent_is_committed_before_the_call_and_active_before_the_answer() -> None:
    async with world() as w:
        await warm(w)
        await w.put_role(SESSION)
        w.points.passed.clear()
        await w.issue(role="session")
        steps = [point for point in w.points.passed if point.endswith((" done", " sent"))]
        assert steps == ["begin done", "GetSessionToken sent", "GetSessionToken done", "activate done"]


@pytest.mark.parametrize(("ahead", "seconds"), [(0.0, 900), (-100.0, 800), (-899.5, 1), (-5000.0, 1)])
@virtual
async def test_a_lease_ends_when_aws_ends_the_session(ahead: float, seconds: int) -> None:
    """In whole seconds, and at least one."""
    async with world() as w:
        await assumed(w)
        w.clocks.aws_ahead = ahead
        made = await w.issue(role="assumed", ttl=900)
        assert made.lease.ttl.total_seconds() == seconds
        assert made.lease.expires_us > w.store.now()


@virtual
async def test_a_session_ends_without_a_call_to_aws() -> None:
    async with world() as w:
        await assumed(w)
        made = await w.issue(role="assumed", ttl=900)
        w.aws.sent.clear()
        w.aws.away = True
        await asyncio.sleep((made.lease.expires_us - w.store.now()) / 1e6 + 2)
        assert (only_row(w), w.aws.sent) == (State.GONE, [])


@pytest.mark.parametrize("gone", ["paused", "no root", "other account"])
@virtual
async def test_a_session_ends_without_its_root(gone: str) -> None:
    async with world() as w:
        await assumed(w)
        made = await w.issue(role="assumed", ttl=900)
        if gone == "paused":
            user = await w.issue()
            w.aws.away = True
            await w.revoke(user.lease.id)
            assert w.engine.issuer._roots.paused_accounts()
        elif gone == "no root":
            w.store.roots.clear()
        else:
            await w.set_root(key_id=builders.OTHER_ROOT_KEY)
        w.aws.sent.clear()
        await asyncio.sleep((made.lease.expires_us - w.store.now()) / 1e6 + 2)
        assert w.states()[made.lease.id] is State.GONE
        assert w.aws.actions().count("GetSessionToken") == w.aws.actions().count("DeleteUser") == 0


@virtual
async def test_a_root_of_another_account_is_accepted_while_only_sessions_live() -> None:
    async with world() as w:
        await assumed(w)
        await w.issue(role="assumed")
        await w.set_root(key_id=builders.OTHER_ROOT_KEY)
        w.other_iam.add_role("target")
        await w.put_role(builders.assumed(f"arn:aws:iam::{w.other_iam.account}:role/target", "there"))
        made = await w.issue(role="there")
        assert made.lease.footprint.account == f"aws:{w.other_iam.account}"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (
            Fault(Kind.REFUSE, status=403, code="AccessDenied", message="not authorized"),
            "ASSUME_ROLE_REFUSED",
        ),
        (Fault(Kind.REFUSE, status=403, code="InvalidClientTokenId"), "ROOT_REFUSED"),
        (Fault(Kind.REFUSE, status=400, code="MalformedPolicyDocument"), "ROLE_REFUSED_BY_AWS"),
        (Fault(Kind.REFUSE, status=400, code="PackedPolicyTooLarge"), "SESSION_TOO_LARGE"),
        (Fault(Kind.REFUSE, status=403, code="RegionDisabledException"), "ROOT_REFUSED"),
        (Fault(Kind.THROTTLE), "AWS_UNAVAILABLE"),
        (Fault(Kind.ERROR_BEFORE), "AWS_UNAVAILABLE"),
        (Fault(Kind.LOSE), "AWS_UNAVAILABLE"),
        (Fault(Kind.HANG_AFTER), "AWS_UNAVAILABLE"),
        (Fault(Kind.GARBAGE), "AWS_UNAVAILABLE"),
    ],
)
@virtual
async def test_a_failed_session_is_an_error_and_its_row_ends(fault: Fault, reason: str) -> None:
    async with world() as w:
        await warm(w)
        await assumed(w)
        w.aws.faults.add(fault)
        with pytest.raises(LessorError) as raised:
            await w.issue(role="assumed")
        assert raised.value.reason == reason
        await asyncio.sleep(1)
        assert (only_row(w), w.aws.actions()) == (State.GONE, ["AssumeRole"])
        assert len(w.events.of(IssueFailed)) == 1


@virtual
async def test_a_session_longer_than_max_session_duration_is_a_clear_error() -> None:
    async with world() as w:
        await assumed(w, longest=3600)
        with pytest.raises(LessorError, match="AssumeRole") as raised:
            await w.issue(role="assumed", ttl=7200)
        assert "MaxSessionDuration" in raised.value.fix


@virtual
async def test_a_refused_mfa_code_has_its_own_error() -> None:
    async with world() as w:
        await assumed(w, mfa_serial_number=SERIAL)
        w.iam.sts.mfa_codes[SERIAL] = "123456"
        await w.issue(role="assumed", options=SessionOptions(mfa_code=Secret("123456")))
        with pytest.raises(LessorError) as raised:
            await w.issue(role="assumed", options=SessionOptions(mfa_code=Secret("123456")))
        assert raised.value.reason == "MFA_REFUSED"
        assert "123456" not in f"{raised.value} {raised.value.detail} {w.events.events}"


@virtual
async def test_a_request_cancelled_before_the_call_sends_none() -> None:
    async with world() as w:
        await warm(w)
        await assumed(w)
        task = asyncio.get_running_loop().create_task(w.issue(role="assumed"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(1)
        assert (w.aws.actions(), only_row(w)) == ([], State.GONE)


@virtual
async def test_a_request_cancelled_during_the_call_ends_its_row_immediately() -> None:
    async with world() as w:
        await warm(w)
        await assumed(w)
        task = asyncio.get_running_loop().create_task(w.issue(role="assumed"))
        await w.until(lambda: w.aws.sent != [])
        task.cancel()
        await asyncio.sleep(1)
        assert (w.aws.actions(), only_row(w)) == (["AssumeRole"], State.GONE)


@virtual
async def test_a_lease_revoked_during_its_issue_returns_nothing() -> None:
    async with world() as w:
        await warm(w)
        await assumed(w)
        task = asyncio.get_running_loop().create_task(w.attempt(role="assumed"))
        await w.until(lambda: w.aws.sent != [])
        (lease_id,) = w.states()
        await w.revoke(lease_id)
        assert isinstance(await task, LeaseTaken)
        await asyncio.sleep(1)
        assert only_row(w) is State.GONE


@virtual
async def test_a_session_that_cannot_be_activated_is_not_returned() -> None:
    async with world() as w:
        await assumed(w)
        w.store.fails.add("activate")
        with pytest.raises(LessorError):
            await w.issue(role="assumed")
        w.store.fails.clear()
        await asyncio.sleep(3)
        assert only_row(w) is State.GONE


@virtual
async def test_an_invalid_request_calls_neither_store_nor_aws() -> None:
    async with world() as w:
        await warm(w)
        await assumed(w)
        with pytest.raises(Invalid) as raised:
            await w.issue(role="assumed", ttl=60, options=SessionOptions(role_arn="x", session_name="?"))
        fields = [violation.field for violation in raised.value.violations]
        assert fields == ["ttl", "role_arn", "role_session_name"]
        with pytest.raises(Invalid):
            await w.issue(options=SessionOptions(session_name="alice"))
        assert (w.aws.sent, w.states()) == ([], {})


@virtual
async def test_sessions_count_against_max_leases_and_not_against_max_users() -> None:
    async with world(mount=builders.mount(max_users=1)) as w:
        await assumed(w, max_leases=2)
        for _ in range(2):
            await w.issue(role="assumed")
        with pytest.raises(RoleFull):
            await w.issue(role="assumed")
        await w.issue()
        await assumed(w, name="more")
        await w.issue(role="more")


@virtual
async def test_tags_source_identity_and_name_identify_the_caller() -> None:
    async with world() as w:
        await assumed(
            w,
            session_tags=(("team", "{{identity.labels.team}}"),),
            transitive_tag_keys=("team",),
            source_identity="{{identity.name}}",
        )
        named = SessionOptions(session_name="by-alice")
        made = await w.issue(role="assumed", labels={"team": "blue"}, options=named)
        key = session(w, made)
        assert (key.tags, key.transitive, key.source_identity) == ((("team", "blue"),), ("team",), "alice")
        assert made.arn.endswith(":assumed-role/target/by-alice")
        with pytest.raises(TemplateLabelUnknown):
            await w.issue(role="assumed")
        assert len(w.states()) == 1


@virtual
async def test_a_users_policy_is_filled_in_from_its_caller() -> None:
    document = builders.DOCUMENT.replace('"*"', '"arn:aws:s3:::b/{{identity.name}}/*"')
    async with world(role=builders.role(policy_document=document)) as w:
        await w.issue()
        (user,) = w.iam.users.values()
        (inline,) = user.inline.values()
        assert json.loads(inline)["Statement"][0]["Resource"] == "arn:aws:s3:::b/alice/*"


@virtual
async def test_the_wait_until_accepted_uses_the_session_s_token() -> None:
    async with world() as w:
        await assumed(w)
        made = await w.issue(role="assumed", wait_usable=30)
        assert made.usable
        key = AccessKey(made.lease.access_key_id, made.secret, made.token)
        assert w.aws.actions().count("VerifyKey") == 3
        assert "***" in repr(key)


@virtual
async def test_during_an_outage_a_session_is_unavailable_and_its_row_ends() -> None:
    async with world() as w:
        await warm(w)
        await assumed(w)
        w.aws.away = True
        with pytest.raises(AwsUnavailable, match="reach nobody"):
            await w.issue(role="assumed")
        await asyncio.sleep(1)
        assert only_row(w) is State.GONE

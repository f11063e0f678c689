"""Checks the limits of the rule that allows an issue, a repeat, a renewal, and a stream."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from lessor_server.domain.access.acl import NO_LIMITS, Grant, IssueLimits
from lessor_server.domain.access.issuing import require_allowed
from lessor_server.domain.errors.access import RuleFull
from lessor_server.domain.errors.base import Aborted, Invalid, LessorError, PermissionDenied
from lessor_server.domain.errors.preconditions import RequestSpent
from lessor_server.domain.lease import State
from lessor_server.domain.lease_id import LeaseId
from lessor_server.domain.policy.session import SessionOptions
from lessor_server.domain.role import CredentialType
from lessor_server.engine.issuing.request import Credentials, IssueRequest
from tests.support import builders
from tests.support.engine_world import BOUND_SECONDS, World, world
from tests.support.listener import WISH, listening
from tests.support.virtual_loop import virtual

HOUR = timedelta(hours=1)
PATTERN = "aws/creds/deploy-*"
REQUEST, OTHER_REQUEST = "11111111-2222-4333-8444-555555555555", "66666666-7777-4888-9999-000000000000"


def rule(**limits: object) -> Grant:
    """Return a grant with these limits."""
    return builders.grant(PATTERN, **limits)


async def session_role(w: World, *names: str) -> list[str]:
    """Write the role ``assumed``, which allows new IAM roles of these names; return their ARNs."""
    arns = [w.iam.add_role(name, longest=43_200).arn for name in names]
    await w.put_role(builders.assumed(arns[0], role_arns=tuple(arns), max_sts_ttl=12 * HOUR))
    return arns


async def error_of(w: World, **asked: object) -> LessorError:
    """Return the error of an issue that must be refused, which sends and stores nothing."""
    sent, rows = list(w.aws.sent), dict(w.store.rows)
    with pytest.raises(LessorError) as raised:
        await w.issue(**asked)  # type: ignore[arg-type]
    assert (w.aws.sent, w.store.rows) == (sent, rows)
    return raised.value


# --- max_ttl ---------------------------------------------------------------------------------------------


@virtual
async def test_max_ttl_bounds_the_whole_life_of_a_lease_and_is_named() -> None:
    async with world() as w:
        made = await w.issue(ttl=7200, grant=rule(max_ttl=HOUR))
        assert made.warnings == (f"ttl 2h was capped to 1h by the rule {PATTERN}",)
        assert (made.lease.ttl, made.lease.max_ttl, made.lease.policy_rule) == (HOUR, HOUR, PATTERN)
        assert made.lease.max_expires_us == made.lease.expires_us
        await asyncio.sleep(1800)
        renewed = await w.renew(made.lease.id, 7200)
        assert renewed.expires_us == made.lease.max_expires_us
        await asyncio.sleep(1800 + BOUND_SECONDS)
        assert w.users() == []


@virtual
async def test_a_lease_below_max_ttl_is_not_warned_of_and_renewed_up_to_it() -> None:
    async with world() as w:
        made = await w.issue(ttl=600, grant=rule(max_ttl=HOUR))
        assert (made.warnings, made.lease.ttl, made.lease.max_ttl) == ((), timedelta(minutes=10), HOUR)
        assert (await w.renew(made.lease.id, 86_400)).expires_us == made.lease.issue_us + 3_600_000_000


@virtual
async def test_a_longer_max_ttl_than_the_roles_has_no_effect() -> None:
    async with world(role=builders.role(max_ttl=HOUR)) as w:
        plain, ruled = await w.issue(ttl=7200), await w.issue(ttl=7200, grant=rule(max_ttl=2 * HOUR))
        assert (plain.lease.ttl, plain.warnings) == (ruled.lease.ttl, ruled.warnings)
        assert plain.lease.policy_rule == ""


@virtual
async def test_max_ttl_caps_a_session() -> None:
    async with world() as w:
        await session_role(w, "target")
        made = await w.issue(role="assumed", ttl=7200, grant=rule(max_ttl=HOUR))
        assert made.warnings == (f"ttl 2h was capped to 1h by the rule {PATTERN}",)
        assert made.lease.max_expires_us == made.lease.expires_us
        assert int(w.iam.sts.sessions[made.lease.access_key_id].ends) * 10**6 == made.lease.expires_us


@pytest.mark.parametrize("kind", ["assumed", "federated", "session"])
@pytest.mark.parametrize("asked", [None, 900, 3600])
@virtual
async def test_a_max_ttl_below_900_s_refuses_every_session(kind: str, asked: float | None) -> None:
    async with world() as w:
        await session_role(w, "target")
        federated = builders.role("federated", credential_type=CredentialType.FEDERATION_TOKEN)
        await w.put_role(federated)
        bare = builders.role("session", credential_type=CredentialType.SESSION_TOKEN, policy_document="")
        await w.put_role(bare)
        for name in ("assumed", "federated", "session"):
            assert (await w.issue(role=name, ttl=900, grant=rule(max_ttl=timedelta(seconds=900)))).secret
        error = await error_of(w, role=kind, ttl=asked, grant=rule(max_ttl=timedelta(seconds=899)))
        assert type(error) is PermissionDenied
        assert PATTERN in error.message
        assert "900s" in error.message
        user = await w.issue(grant=rule(max_ttl=timedelta(seconds=60)))
        assert user.lease.ttl == timedelta(seconds=60)


# --- max_leases ------------------------------------------------------------------------------------------


@virtual
async def test_max_leases_counts_the_leases_of_the_owner_under_the_rule() -> None:
    async with world() as w:
        two = rule(max_leases=2)
        first = await w.issue(owner="ci", grant=two)
        await w.issue(owner="ci", grant=two)
        error = await error_of(w, owner="ci", grant=two)
        assert isinstance(error, RuleFull)
        assert error.message == f"you have as many live leases as the rule {PATTERN} allows, 2"
        assert (await w.issue(owner="other", grant=two)).secret
        await w.revoke(first.lease.id)
        assert (await w.issue(owner="ci", grant=two)).secret


@virtual
async def test_a_revoked_session_counts_until_its_end() -> None:
    async with world() as w:
        await session_role(w, "target")
        one = rule(max_leases=1)
        made = await w.issue(role="assumed", ttl=900, grant=one)
        await w.revoke(made.lease.id)
        assert isinstance(await error_of(w, role="assumed", grant=one), RuleFull)
        await asyncio.sleep((made.lease.max_expires_us - w.store.now()) / 1e6)
        assert (await w.issue(role="assumed", ttl=900, grant=one)).secret


@virtual
async def test_a_repeat_of_a_request_is_no_further_lease() -> None:
    async with world() as w:
        one = rule(max_leases=1)
        first = await w.issue(request=REQUEST, grant=one)
        again = await w.issue(request=REQUEST, grant=one)
        assert again.lease.id == first.lease.id
        assert isinstance(await error_of(w, request=OTHER_REQUEST, grant=one), RuleFull)


# --- role_arns -------------------------------------------------------------------------------------------


@virtual
async def test_the_role_arn_must_match_a_pattern_of_every_list() -> None:
    async with world() as w:
        one, two, three = await session_role(w, "deploy-a", "deploy-b", "admin")
        both = rule(role_arns=(("arn:aws:iam::*:role/deploy-*", "none"), (two, three)))

        def asked(arn: str) -> dict[str, object]:
            return {"role": "assumed", "options": SessionOptions(role_arn=arn), "grant": both}

        assert (await w.issue(**asked(two))).secret  # type: ignore[arg-type]
        for arn in (one, three):
            error = await error_of(w, **asked(arn))
            assert type(error) is PermissionDenied
            assert error.message.startswith("role_arn: ")
            assert PATTERN in error.message


@pytest.mark.parametrize(
    ("pattern", "allowed"),
    [
        ("arn:aws:iam::*:role/*", True),
        ("arn:aws:iam::123456789*:role/*-a", True),
        ("arn:aws:iam::*:role/*/deploy-a", False),
        ("arn:*", False),
        ("arn:aws:iam::123456789012:role/deploy-a", True),
        ("arn:aws:iam::*:role/DEPLOY-*", False),
        ("arn:aws:iam::*:role/deploy", False),
        ("arn:aws:iam::*:role/deploy-a/", False),
        ("", False),
    ],
)
@virtual
async def test_the_only_role_of_the_role_counts_if_the_request_names_none(
    pattern: str, *, allowed: bool
) -> None:
    async with world() as w:
        await session_role(w, "deploy-a")
        await w.issue(role="assumed", ttl=900)
        grant = rule(role_arns=((pattern,),))
        if allowed:
            assert (await w.issue(role="assumed", grant=grant)).secret
        else:
            assert type(await error_of(w, role="assumed", grant=grant)) is PermissionDenied


def test_a_star_of_a_rule_stands_for_no_slash() -> None:
    """Who names roles below a path chooses the path, so it must not fit the pattern of a name."""
    deep = "arn:aws:iam::123456789012:role/deploy-team/admin"
    grant = rule(role_arns=(("arn:aws:iam::*:role/deploy-*",),))
    with pytest.raises(PermissionDenied):
        require_allowed(grant, builders.assumed(deep), SessionOptions())


@virtual
async def test_the_roles_own_list_still_holds() -> None:
    async with world() as w:
        await session_role(w, "deploy-a")
        options = SessionOptions(role_arn="arn:aws:iam::123456789012:role/deploy-z")
        error = await error_of(
            w, role="assumed", options=options, grant=rule(role_arns=(("arn:aws:iam::*:role/*",),))
        )
        assert isinstance(error, Invalid)


@virtual
async def test_a_rule_for_iam_roles_does_not_concern_users() -> None:
    async with world() as w:
        assert (await w.issue(grant=rule(role_arns=((),)))).secret


@virtual
async def test_a_role_that_changes_is_judged_at_the_repeat() -> None:
    """The IAM role that the first session had may be another one now."""
    async with world() as w:
        await session_role(w, "deploy-a")
        allowed = rule(role_arns=(("arn:aws:iam::*:role/deploy-*",),))
        await w.issue(role="assumed", request=REQUEST, grant=allowed)
        admin = builders.assumed(w.iam.add_role("admin").arn)
        await w.put_role(admin)
        error = await error_of(w, role="assumed", request=REQUEST, grant=allowed)
        assert type(error) is PermissionDenied


# --- repeats of a request --------------------------------------------------------------------------------


async def repeat_after(w: World, seconds: float, grant: Grant) -> Credentials:
    """Repeat the request of a session of 4 h that began ``seconds`` ago."""
    await session_role(w, "target")
    await w.issue(role="assumed", ttl=4 * 3600, request=REQUEST)
    await asyncio.sleep(seconds)
    return await w.issue(role="assumed", ttl=4 * 3600, request=REQUEST, grant=grant)


@virtual
async def test_a_repeated_session_ends_within_todays_max_ttl_of_its_first_issue() -> None:
    async with world() as w:
        again = await repeat_after(w, 600, rule(max_ttl=HOUR))
        lease = again.lease
        assert lease.expires_us == lease.issue_us + 3_600_000_000
        ends_us = w.iam.sts.sessions[lease.access_key_id].ends * 1e6
        assert lease.expires_us - 2e6 < ends_us <= lease.expires_us
        assert len(again.warnings) == 1
        assert PATTERN in again.warnings[0]
        assert lease.max_expires_us > lease.issue_us + 3.99 * 3_600_000_000
        await asyncio.sleep(3000 + BOUND_SECONDS)
        assert w.states()[lease.id] is State.GONE


@virtual
async def test_a_repeated_session_keeps_its_end_under_a_longer_max_ttl() -> None:
    async with world() as w:
        again = await repeat_after(w, 600, rule(max_ttl=5 * HOUR))
        assert (again.lease.expires_us, again.warnings) == (again.lease.max_expires_us, ())


@virtual
async def test_a_repeat_too_late_for_todays_max_ttl_is_spent() -> None:
    """Less than 900 s of the hour are left."""
    async with world() as w:
        with pytest.raises(RequestSpent):
            await repeat_after(w, 2701, rule(max_ttl=HOUR))


@virtual
async def test_a_repeat_under_other_limits_does_not_share_an_issue_that_began_before() -> None:
    """It would get what was allowed by rules that no longer hold."""
    async with world() as w:
        wide, narrow = rule(max_ttl=2 * HOUR), rule(max_ttl=HOUR)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(w.issue(ttl=7200, request=REQUEST, grant=wide))
            await asyncio.sleep(0.01)
            with pytest.raises(Aborted) as raised:
                await w.issue(ttl=7200, request=REQUEST, grant=narrow)
            moved = replace(wide, locations=("policies[9]",))
            same = await w.issue(ttl=7200, request=REQUEST, grant=moved)
        assert raised.value.retry_in
        assert same.lease.id == first.result().lease.id


# --- renewals --------------------------------------------------------------------------------------------


@virtual
async def test_a_renewal_is_bounded_by_todays_limit_of_the_whole_life() -> None:
    async with world() as w:
        lease = (await w.issue(ttl=3600)).lease
        await asyncio.sleep(1800)
        renewed = await w.engine.leases.renew(
            LeaseId.parse(lease.id), 4 * HOUR, "alice", limits=IssueLimits(max_ttl=2 * HOUR)
        )
        assert renewed.lease.expires_us == lease.issue_us + 7_200_000_000
        assert renewed.warnings == (
            "increment 4h was capped to 1h30m by the max_ttl of the rule that allows it",
        )
        assert (await w.lease(lease.id)).max_expires_us == lease.max_expires_us


@pytest.mark.parametrize("limits", [NO_LIMITS, IssueLimits(max_ttl=100 * HOUR), IssueLimits(max_leases=0)])
@virtual
async def test_other_limits_do_not_concern_a_renewal(limits: IssueLimits) -> None:
    async with world() as w:
        lease = (await w.issue(ttl=3600)).lease
        renewed = await w.engine.leases.renew(LeaseId.parse(lease.id), 4 * HOUR, "alice", limits=limits)
        assert (renewed.ttl, renewed.warnings) == (4 * HOUR, ())


@virtual
async def test_a_lease_beyond_todays_limit_ends_at_its_next_renewal() -> None:
    async with world() as w:
        lease = (await w.issue(ttl=7200)).lease
        await asyncio.sleep(3600)
        limits = IssueLimits(max_ttl=HOUR / 2)
        renewed = await w.engine.leases.renew(LeaseId.parse(lease.id), HOUR, "alice", limits=limits)
        assert renewed.ttl == timedelta(seconds=1)
        await asyncio.sleep(1 + BOUND_SECONDS)
        assert w.users() == []


# --- streams ---------------------------------------------------------------------------------------------


@virtual
async def test_a_stream_asks_for_its_request_before_each_issue() -> None:
    """So that a limit of today holds for the next credentials, and a right that was taken ends the stream."""
    async with world() as w:
        asked: list[IssueRequest] = [replace(WISH, grant=rule(max_ttl=24 * HOUR))]
        denied: list[LessorError] = []

        def ask() -> IssueRequest:
            if denied:
                raise denied[0]
            return asked[0]

        async with listening(w, ask=ask) as listener:
            await listener.until(1, 5)
            asked[0] = replace(WISH, grant=rule(max_ttl=timedelta(seconds=300)))
            await listener.until(2, 1000)
            lives = [made.lease.ttl.total_seconds() for made in listener.got]
            assert lives == [1000, 300]
            assert {made.lease.policy_rule for made in listener.got} == {PATTERN}
            denied.append(PermissionDenied("taken away"))
            assert await listener.refused(300) is denied[0]
        assert len(listener.got) == 2


@virtual
async def test_the_first_request_of_a_stream_is_validated_with_its_rule() -> None:
    async with world() as w:
        short = replace(WISH, grant=rule(max_ttl=timedelta(seconds=100)))
        async with listening(w, short, overlap=60) as listener:
            error = await listener.refused(5)
        assert isinstance(error, Invalid)
        assert {one.field for one in error.violations} == {"overlap"}
        await session_role(w, "target")
        sent = len(w.aws.sent)
        async with listening(w, replace(short, role="assumed"), overlap=10) as listener:
            assert type(await listener.refused(5)) is PermissionDenied
        assert (len(w.aws.sent), w.store.rows) == (sent, {})


@virtual
async def test_a_stream_does_not_ask_while_it_waits() -> None:
    async with world() as w:
        times = 0

        def ask() -> IssueRequest:
            nonlocal times
            times += 1
            return WISH

        async with listening(w, ask=ask) as listener:
            await listener.until(1, 5)
            before = times
            await asyncio.sleep(500)
            assert times == before

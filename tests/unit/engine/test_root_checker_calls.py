"""Checks how many calls CheckRoot sends, and what it reports about users and quotas."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from lessor_server.domain.aws.least_policy import MAX_RESOURCES
from lessor_server.domain.root import Hop
from lessor_server.domain.rotation import static_subject
from lessor_server.engine.aws.rate_limiter import RateLimit
from lessor_server.engine.config.root_checker import MAX_CONCURRENT, RESOURCES_PER_CALL, Verdict
from lessor_server.engine.engine import EngineConfig
from tests.support import builders
from tests.support.engine_world import World, bound, world
from tests.support.iam_faults import Fault, Kind
from tests.support.rotating import USER, put, rotating, row_of, static
from tests.support.virtual_loop import virtual

MANY = tuple(f"arn:aws:iam::{number:012}:role/worker" for number in range(2 * RESOURCES_PER_CALL + 20))


async def put_many(w: World) -> None:
    """Write two roles that assume many."""
    for name, arns in (("one", MANY[:100]), ("two", MANY[60:])):
        await w.put_role(builders.assumed("", name, role_arns=arns))


def simulations(w: World) -> list[tuple[float, float]]:
    """Return from when to when each question to the simulator was on its way."""
    return [(one.start, one.end or w.now()) for one in w.aws.sent if one.action == "SimulatePrincipalPolicy"]


@virtual
async def test_many_resources_are_simulated_in_one_call() -> None:
    async with world() as w:
        await put_many(w)
        w.iam.adopt_root(builders.ROOT_KEY)
        allow = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        deny = {"Effect": "Deny", "Action": "sts:AssumeRole", "Resource": MANY[110]}
        document = json.dumps({"Version": "2012-10-17", "Statement": [allow, deny]})
        w.iam.put_user_policy("root-of-lessor", "p", document)
        found = await w.engine.root_checker.check_root("aws")
        assert len(simulations(w)) == 4 + 3
        assert found.verdicts["sts:AssumeRole"] is Verdict.DENIED
        (warning,) = found.warnings
        assert MANY[110] in warning


@virtual
async def test_at_most_four_calls_of_a_check_are_in_flight() -> None:
    async with world() as w:
        await put_many(w)
        await w.engine.root_checker.check_root("aws")
        spans = simulations(w)
        at_once = [sum(start <= at < end for start, end in spans) for at, _ in spans]
        assert max(at_once) == MAX_CONCURRENT


@virtual
async def test_issues_go_before_the_calls_of_a_check() -> None:
    async with world(limits=EngineConfig(rate_limit=RateLimit(rate=4.0))) as w:
        await bound(w)
        checking = asyncio.get_running_loop().create_task(w.engine.root_checker.check_root("aws"))
        await asyncio.sleep(0.3)
        w.aws.sent.clear()
        await w.issue()
        made = [one.action for one in w.aws.sent if one.action != "GetCallerIdentity"]
        assert made.index("CreateAccessKey") <= 4
        await checking


@virtual
async def test_without_the_next_page_the_verdicts_of_the_first_are_kept() -> None:
    async with world() as w:
        w.iam.sts.simulated_a_page = 10
        whole = await w.engine.root_checker.check_root("aws")
        assert set(whole.verdicts.values()) == {Verdict.ALLOWED}
        w.aws.faults.add(Fault(Kind.REFUSE, "SimulatePrincipalPolicy", nth=len(simulations(w))))
        part = await w.engine.root_checker.check_root("aws")
        assert set(part.verdicts.values()) == {Verdict.ALLOWED, Verdict.UNKNOWN}
        assert any("simulator" in warning for warning in part.warnings)


# --- how full the account is ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("users", "quota", "max_users", "warned"),
    [(44, 50, 100, False), (45, 50, 100, True), (45, 50, 5, False), (45, 50, 6, True), (50, 50, 1, True)],
)
@virtual
async def test_an_account_that_is_nearly_full_is_warned_of(
    users: int, quota: int, max_users: int, warned: bool
) -> None:
    """From 90 % of its quota on, if max_users of the mount is more than the rest."""
    async with world(mount=builders.mount(max_users=max_users)) as w:
        w.iam.quotas = replace(w.iam.quotas, users=quota)
        for number in range(users):
            w.iam.create_user(f"u{number}")
        warnings = (await w.engine.root_checker.check_root("aws")).warnings
        assert [f"{users} of the {quota} IAM users" in one for one in warnings] == [True] * warned


@pytest.mark.parametrize("kind", [Kind.REFUSE, Kind.DROP])
@virtual
async def test_an_account_with_unknown_usage_is_not_warned_of(kind: Kind) -> None:
    async with world() as w:
        w.aws.faults.add(Fault(kind, "GetAccountSummary"))
        assert (await w.engine.root_checker.check_root("aws")).warnings == ()


# --- static roles -----------------------------------------------------------------------------------------


@virtual
async def test_the_users_of_static_roles_are_checked() -> None:
    """By the ARN that AWS returns, or without an answer by the name, with any path."""
    async with rotating() as w:
        w.iam.users.pop(USER, None)
        w.iam.create_user(USER, "/team/")
        await put(w)
        arn = "arn:aws:iam::123456789012:user"
        assert await _static_users(w) == [f"{arn}/team/{USER}"]
        w.aws.faults.add(Fault(Kind.REFUSE, "GetUser"))
        assert await _static_users(w) == [f"{arn}/*/{USER}", f"{arn}/{USER}"]


@virtual
async def test_many_static_roles_leave_time_for_the_simulator() -> None:
    """Only the first users are looked up. The ARNs of the others are patterns."""
    async with rotating() as w:
        await put(w)
        row = await row_of(w, static_subject("aws", USER))
        for number in range(100):
            name = f"user-{number}"
            w.store.rotations[static_subject("aws", name)] = replace(
                row, subject=static_subject("aws", name), user_name=name
            )
        w.aws.sent.clear()
        assert len(await _static_users(w)) == MAX_RESOURCES
        assert w.aws.actions().count("GetUser") == 40
        assert any(
            "pattern" in warning for warning in (await w.engine.root_checker.check_root("aws")).warnings
        )


@virtual
async def test_static_roles_elsewhere_need_the_first_role_of_their_chain() -> None:
    async with rotating() as w:
        other = w.iam.peer("111111111111")
        hub = other.add_role("hub").arn
        other.create_user(USER)
        await put(w, static(chain=(Hop(hub),)))
        assert await _resources(w, "LessorStaticRoles") == [hub]
        assert await _static_users(w) == []


async def _static_users(w: World) -> list[str]:
    return await _resources(w, "LessorStaticUsers")


async def _resources(w: World, sid: str) -> list[str]:
    policy = (await w.engine.root_checker.check_root("aws")).policy
    found = [one["Resource"] for one in policy["Statement"] if one["Sid"] == sid]  # type: ignore[index,union-attr,call-overload]
    return [text for one in found for text in ([one] if isinstance(one, str) else one)]  # type: ignore[misc,union-attr]

"""Checks the findings of CheckRoot and CheckRole, and that both change nothing and take at most 5 s."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from lessor_server.domain.errors.base import AwsUnavailable
from lessor_server.domain.errors.preconditions import RootRefused
from lessor_server.domain.role import CredentialType, Role
from lessor_server.domain.root import Hop, RootConfig
from lessor_server.domain.root_kind import RootKind
from lessor_server.domain.secret import Secret
from lessor_server.engine.aws.rate_limiter import RateLimit, RateLimiters
from lessor_server.engine.aws.roots import Roots
from lessor_server.engine.config.mounts import RootRules
from lessor_server.engine.config.root_checker import Verdict
from lessor_server.engine.engine import EngineConfig
from lessor_server.engine.supervisor import Supervisor
from tests.support import builders
from tests.support.engine_world import World, bound, world
from tests.support.iam_faults import Fault, Kind
from tests.support.plain_keyring import PlainKeyring
from tests.support.virtual_loop import virtual

USER = "arn:aws:iam::123456789012:user/root-of-lessor"
INSTANCE = "arn:aws:sts::123456789012:assumed-role/web/i-0123456789abcdef0"
WORKER = "arn:aws:iam::123456789012:role/worker"


async def set_root(w: World, config: RootConfig) -> None:
    """Set the mount's root to one of this config."""
    await w.engine.mounts.set_root("aws", "", lambda _: config, "test")


def opened(w: World) -> Roots:
    """Return the roots as the engine opens them."""
    return Roots(
        w.store,
        PlainKeyring(),
        w.aws,
        RateLimiters(RateLimit()),
        random.Random(0),
        "0123456789abcdef",
        Supervisor(w.reports),
    )


def assumed(**changes: Any) -> Role:
    """Return a role that assumes one."""
    return builders.role(
        credential_type=CredentialType.ASSUMED_ROLE, policy_document="", role_arns=(WORKER,), **changes
    )


# --- the root ---------------------------------------------------------------------------------------------


@virtual
async def test_a_root_with_all_permissions_has_no_warning() -> None:
    async with world() as w:
        found = await w.engine.root_checker.check_root("aws")
        assert (found.identity.arn, found.kind, found.warnings) == (USER, RootKind.USER_KEYS, ())
        assert set(found.verdicts.values()) == {Verdict.ALLOWED}
        assert {"iam:CreateUser", "iam:GetAccountSummary", "sts:GetCallerIdentity"} <= set(found.verdicts)
        assert "sts:AssumeRole" not in found.verdicts  # the mount's one role makes users
        assert w.users() == []


@virtual
async def test_a_denied_action_of_the_root_is_named() -> None:
    async with world() as w:
        w.iam.sts.verdicts |= {"iam:TagUser": "implicitDeny", "iam:ListUsers": "explicitDeny"}
        found = await w.engine.root_checker.check_root("aws")
        denied = {action for action, verdict in found.verdicts.items() if verdict is Verdict.DENIED}
        assert denied == {"iam:TagUser", "iam:ListUsers"}
        assert any("iam:TagUser" in warning for warning in found.warnings)
        assert any("iam:ListUsers" in warning for warning in found.warnings)


@virtual
async def test_roles_of_other_accounts_are_checked() -> None:
    async with world() as w:
        elsewhere = "arn:aws:iam::111111111111:role/hub"
        await w.put_role(replace(assumed(), name="one", role_arns=(WORKER, elsewhere)))
        w.iam.adopt_root(builders.ROOT_KEY)
        allowed = builders.DOCUMENT.replace("s3:Get*", "*").replace(
            '"Resource":"*"', f'"Resource":"{WORKER}"'
        )
        w.iam.put_user_policy("root-of-lessor", "p", allowed)
        found = await w.engine.root_checker.check_root("aws")
        (statement,) = [one for one in found.policy["Statement"] if one["Sid"] == "LessorRoles"]  # type: ignore[index,union-attr,call-overload]
        assert statement["Resource"] == [elsewhere, WORKER]  # type: ignore[index,call-overload]
        assert found.verdicts["sts:AssumeRole"] is Verdict.DENIED
        denied = [warning for warning in found.warnings if "sts:AssumeRole" in warning]
        assert [elsewhere in denied[0], WORKER in denied[0], len(denied)] == [True, False, 1]


@pytest.mark.parametrize("fault", [Fault(Kind.REFUSE), Fault(Kind.HANG), Fault(Kind.DROP)])
@virtual
async def test_without_the_simulator_all_verdicts_are_unknown(fault: Fault) -> None:
    async with world() as w:
        w.aws.faults.add(Fault(fault.kind, "SimulatePrincipalPolicy"))
        began = w.now()
        found = await w.engine.root_checker.check_root("aws")
        assert w.now() - began <= 5.1
        assert found.verdicts["iam:CreateUser"] is Verdict.UNKNOWN
        assert found.verdicts["sts:GetCallerIdentity"] is Verdict.ALLOWED
        assert any("simulator" in warning for warning in found.warnings)


@virtual
async def test_the_policies_of_the_root_s_user_are_simulated() -> None:
    async with world() as w:
        w.iam.adopt_root(builders.ROOT_KEY)
        path = f"arn:aws:iam::123456789012:user/lessor/{(await w.store.status()).instance_id}/*"
        own = builders.DOCUMENT.replace("s3:Get*", "iam:*").replace('"Resource":"*"', f'"Resource":"{path}"')
        w.iam.put_user_policy("root-of-lessor", "p", own)
        found = await w.engine.root_checker.check_root("aws")
        assert found.verdicts["iam:CreateUser"] is Verdict.ALLOWED
        assert found.verdicts["iam:ListUsers"] is Verdict.DENIED
        assert any(USER in warning and "iam:CreateAccessKey" in warning for warning in found.warnings)


@virtual
async def test_keys_of_the_account_s_root_user_are_warned_of() -> None:
    async with world() as w:
        w.iam.sts.root_arn = "arn:aws:iam::123456789012:root"
        found = await w.engine.root_checker.check_root("aws")
        assert found.kind is RootKind.ACCOUNT_ROOT
        assert found.verdicts["iam:CreateUser"] is Verdict.ALLOWED
        assert any("account's root user" in warning for warning in found.warnings)
        assert "SimulatePrincipalPolicy" not in w.aws.actions()


@virtual
async def test_a_second_key_of_the_root_is_warned_of() -> None:
    """Rotation needs room for a new key."""
    async with world() as w:
        w.iam.adopt_root(builders.ROOT_KEY)
        other = w.iam.create_access_key("root-of-lessor").id
        w.iam.put_user_policy("root-of-lessor", "p", builders.DOCUMENT.replace("s3:Get*", "*"))
        (warning,) = (await w.engine.root_checker.check_root("aws")).warnings
        assert other in warning


@virtual
async def test_a_refused_root_and_an_unavailable_aws_are_different_errors() -> None:
    async with world() as w:
        w.aws.faults.add(Fault(Kind.REFUSE, "GetCallerIdentity", code="InvalidClientTokenId"))
        with pytest.raises(RootRefused):
            await w.engine.root_checker.check_root("aws")
        w.aws.faults.clear()
        w.aws.faults.add(Fault(Kind.HANG, "GetCallerIdentity"))
        began = w.now()
        with pytest.raises(AwsUnavailable):
            await w.engine.root_checker.check_root("aws")
        assert w.now() - began <= 5.0


@virtual
async def test_a_chain_is_checked_as_the_role_at_its_end() -> None:
    """Only the root's config knows the role's path."""
    async with world() as w:
        hub = w.iam.peer("111111111111").add_role("team/hub", external_id="sesame").arn
        await set_root(w, builders.root_config(assume_chain=(Hop(hub, "sesame"),)))
        found = await w.engine.root_checker.check_root("aws")
        assert (found.identity.account, found.kind) == ("aws:111111111111", RootKind.ASSUMED_ROLE)
        assert found.verdicts["iam:CreateUser"] is Verdict.ALLOWED
        assert "sts:GetFederationToken" not in found.verdicts


@virtual
async def test_a_hop_that_fails_is_named() -> None:
    async with world() as w:
        hub = w.iam.add_role("hub", trusts=("999999999999",)).arn
        await set_root(w, builders.root_config(assume_chain=(Hop(hub),)))
        with pytest.raises(RootRefused, match=r"assume_chain\[0\]"):
            await w.engine.root_checker.check_root("aws")


# --- the kind ---------------------------------------------------------------------------------------------


@virtual
async def test_the_kind_of_the_server_s_own_credentials_is_requested_once_per_version() -> None:
    async with world(limits=EngineConfig(root_rules=RootRules(ambient_mounts=("aws",)))) as w:
        w.aws.accounts[""] = w.iam
        w.iam.sts.root_arn = INSTANCE
        roots = opened(w)
        for asked in (1, 2):
            await set_root(w, RootConfig(region="us-east-1", secret_key=Secret()))
            for _ in range(3):
                root = await w.engine.mounts.get_root("aws")
                assert await roots.kind(root) is RootKind.INSTANCE_ROLE
            assert w.aws.actions().count("GetCallerIdentity") == asked


@virtual
async def test_the_owner_of_a_root_s_keys_is_requested_once_per_process() -> None:
    """They may be those of the account's root user."""
    async with world() as w:
        await bound(w)
        w.iam.sts.root_arn = "arn:aws:iam::123456789012:root"
        roots = opened(w)
        root = await w.engine.mounts.get_root("aws")
        for _ in range(2):
            assert await roots.kind(root) is RootKind.ACCOUNT_ROOT
        assert w.aws.actions() == ["GetCallerIdentity"]


@virtual
async def test_the_kind_of_a_chain_needs_no_call() -> None:
    async with world() as w:
        await set_root(w, builders.root_config(assume_chain=(Hop(WORKER),)))
        w.aws.away = True
        roots = opened(w)
        assert await roots.kind(await w.engine.mounts.get_root("aws")) is RootKind.ASSUMED_ROLE


@virtual
async def test_a_role_that_its_root_can_t_serve_is_warned_of_when_written() -> None:
    async with world() as w:
        await set_root(w, builders.root_config(assume_chain=(Hop(WORKER),)))
        role = builders.role("token", credential_type=CredentialType.FEDERATION_TOKEN)
        put = await w.engine.roles.put("aws", "token", "", lambda _: role, "test")
        assert [warning for warning in put.warnings if "ASSUMED_ROLE" in warning]
        assert w.aws.sent == []


# --- the role ---------------------------------------------------------------------------------------------


@virtual
async def test_a_role_without_problems_has_no_warning() -> None:
    async with world() as w:
        w.iam.create_policy("mine", builders.DOCUMENT)
        role = builders.role(
            policy_arns=(builders.READ_ONLY, "arn:aws:iam::123456789012:policy/mine"),
            iam_groups=("staff",),
            permissions_boundary_arn=builders.READ_ONLY,
        )
        assert await w.engine.root_checker.check_role(role) == ()
        assert await w.engine.root_checker.check_role(assumed(iam_groups=("staff",))) == ()


@virtual
async def test_missing_policies_and_groups_of_a_role_are_named() -> None:
    async with world() as w:
        none = "arn:aws:iam::123456789012:policy/none"
        role = builders.role(policy_arns=(none,), iam_groups=("nobody",), permissions_boundary_arn=f"{none}2")
        warnings = await w.engine.root_checker.check_role(role)
        assert [warning.split(" does not exist")[0] for warning in warnings] == [
            f"policy {none}",
            f"policy {none}2",
            "group nobody",
        ]


@virtual
async def test_a_failed_lookup_is_not_reported_as_missing() -> None:
    async with world() as w:
        w.aws.faults.add(Fault(Kind.REFUSE, "GetGroup"))
        (warning,) = await w.engine.root_checker.check_role(builders.role(iam_groups=("staff",)))
        assert "group staff could not be looked up: AccessDenied" in warning


@virtual
async def test_a_denied_action_for_a_role_is_named() -> None:
    async with world() as w:
        w.iam.sts.verdicts |= dict.fromkeys(
            ("iam:PutUserPolicy", "sts:AssumeRole", "sts:GetFederationToken"), "implicitDeny"
        )
        federated = builders.role(credential_type=CredentialType.FEDERATION_TOKEN)
        for role, action, where in (
            (builders.role(), "iam:PutUserPolicy", "user/lessor/"),
            (assumed(), "sts:AssumeRole", WORKER),
            (federated, "sts:GetFederationToken", "*"),
        ):
            (warning,) = await w.engine.root_checker.check_role(role)
            assert action in warning
            assert where in warning


@virtual
async def test_many_role_arns_are_simulated_in_few_calls() -> None:
    async with world() as w:
        many = tuple(f"arn:aws:iam::123456789012:role/r{number}" for number in range(100))
        await w.engine.root_checker.check_role(builders.assumed("", role_arns=many))
        assert w.aws.actions().count("SimulatePrincipalPolicy") == 2


@virtual
async def test_the_check_of_a_role_uses_the_kind_that_aws_returns() -> None:
    async with world() as w:
        w.iam.sts.root_arn = "arn:aws:iam::123456789012:root"
        (warning,) = await w.engine.root_checker.check_role(assumed())
        assert "ACCOUNT_ROOT" in warning


@virtual
async def test_the_check_of_a_role_without_aws_is_one_warning() -> None:
    async with world() as w:
        await w.engine.mounts.enable(builders.mount("bare"), "test")
        (warning,) = await w.engine.root_checker.check_role(builders.role(mount_name="bare"))
        assert "has no root" in warning
        for fault in (Fault(Kind.HANG), Fault(Kind.REFUSE)):
            w.aws.faults.clear()
            w.aws.faults.add(fault)
            began = w.now()
            (warning,) = await w.engine.root_checker.check_role(builders.role(iam_groups=("staff",)))
            assert "could not be checked on AWS" in warning
            assert w.now() - began <= 5.0


@virtual
async def test_a_check_of_a_role_takes_5_s_at_most() -> None:
    """What does not answer in that time is unknown. The other findings are reported."""
    async with world() as w:
        w.aws.faults.add(Fault(Kind.HANG, "GetGroup"))
        began = w.now()
        warnings = await w.engine.root_checker.check_role(
            builders.role(iam_groups=("staff",), policy_arns=(NONE,))
        )
        assert w.now() - began <= 5.1
        assert len(warnings) == 2
        assert any("does not exist" in warning for warning in warnings)
        assert any("could not be looked up" in warning for warning in warnings)


NONE = "arn:aws:iam::123456789012:policy/none"

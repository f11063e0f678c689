"""Checks roots with chains, tokens and fallbacks, and the checks of roots and roles."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from lessor.v1 import config_pb2, role_pb2
from tests.support.clients import (
    MANAGED,
    NOBODY_THERE,
    POLICY,
    ROOT_KEY,
    Lessor,
    connect,
    lease_of,
    refused,
    root_at,
    struct,
)
from tests.support.gateways import token_file
from tests.support.server_process import serving
from tests.support.standin_control import Json, StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

Code = grpc.StatusCode
Kind = config_pb2.CheckRootResponse.RootKind
Verdict = config_pb2.RootAction.Verdict
HUB, SPOKE = "111111111111", "222222222222"


async def set_root(lessor: Lessor, mount: str, config: config_pb2.RootConfig, *mask: str) -> Any:
    """Write a root, or only the fields that ``mask`` names, and return it as stored."""
    paths = FieldMask(paths=mask) if mask else None
    request = config_pb2.SetRootRequest(mount=mount, config=config, update_mask=paths)
    return (await lessor.config.SetRoot(request)).config


def check(lessor: Lessor, mount: str) -> Any:
    """Check a root."""
    return lessor.config.CheckRoot(config_pb2.CheckRootRequest(mount=mount))


async def warned(lessor: Lessor, mount: str, **fields: Any) -> list[str]:
    """Check a role and return the warnings."""
    role = role_pb2.Role(name="app", **{"credential_type": role_pb2.Role.IAM_USER, **fields})
    answer = await lessor.roles.CheckRole(role_pb2.CheckRoleRequest(mount=mount, role=role))
    return list(answer.warnings)


def step(role_arn: str, external_id: str = "") -> config_pb2.AssumeStep:
    """Return one step of a chain."""
    return config_pb2.AssumeStep(role_arn=role_arn, external_id=external_id)


async def users_in(aws: StandIn, account: str, mount: str) -> list[Json]:
    """Return the users of a mount in another account."""
    users = cast("list[Json]", (await aws.state(account))["users"])
    return [user for user in users if lease_of(user).startswith(f"{mount}/")]


# --- chains -----------------------------------------------------------------------------------------------


async def test_a_chain_of_roles_works_in_another_account(lessor: Lessor, mount: str, aws: StandIn) -> None:
    hub = await aws.role("hub", account=HUB, trusts=["123456789012"])
    spoke = await aws.role("team/spoke", account=SPOKE, trusts=[hub], external_id="sesame")
    chain = [step(hub), step(spoke, "sesame")]
    stored = await set_root(lessor, mount, root_at(aws.url, assume_chain=chain))
    assert list(stored.assume_chain) == chain
    await lessor.put_role(mount)
    await aws.forget_calls()
    made = await lessor.generate(mount)
    (user,) = await users_in(aws, SPOKE, mount)
    assert user["arn"] == made.arn
    await lessor.revoke(made.lease_id)
    assert await users_in(aws, SPOKE, mount) == []
    assert len(await aws.calls("AssumeRole")) == 2
    signers = {str(call["key_id"])[:4] for call in await aws.calls() if call["action"] != "AssumeRole"}
    assert signers == {"ASIA"}
    checked = await check(lessor, mount)
    assert (checked.root_kind, checked.account) == (Kind.ASSUMED_ROLE, SPOKE)
    assert checked.arn.startswith(f"arn:aws:sts::{SPOKE}:assumed-role/spoke/lessor-")


async def test_a_hop_that_aws_refuses_is_named_to_the_caller(
    lessor: Lessor, mount: str, aws: StandIn
) -> None:
    hub = await aws.role("distrustful", account=HUB, trusts=["999999999999"])
    await set_root(lessor, mount, root_at(aws.url, assume_chain=[step(hub)]))
    await lessor.put_role(mount)
    refusal = await refused(lessor.generate(mount))
    assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "ROOT_REFUSED")
    assert "assume_chain[0]" in refusal.message
    assert refusal.metadata["aws_code"] == "AccessDenied"
    assert f"AWS says: {hub}: User: " in refusal.message
    await aws.role("distrustful", account=HUB, trusts=["123456789012"])
    assert (await lessor.generate(mount)).access_key


async def test_a_mask_changes_and_removes_a_chain(lessor: Lessor, mount: str, aws: StandIn) -> None:
    hub = await aws.role("plain")
    changed = await set_root(lessor, mount, config_pb2.RootConfig(assume_chain=[step(hub)]), "assume_chain")
    assert (changed.access_key, len(changed.assume_chain)) == (ROOT_KEY, 1)
    assert (await check(lessor, mount)).root_kind == Kind.ASSUMED_ROLE
    await set_root(lessor, mount, config_pb2.RootConfig(), "assume_chain")
    await aws.forget_calls()
    assert (await check(lessor, mount)).root_kind == Kind.USER_KEYS
    assert {call["key_id"] for call in await aws.calls()} == {ROOT_KEY}


async def test_concurrent_mounts_sign_with_their_own_roots(
    lessor: Lessor, mount: str, aws: StandIn, numbers: Any
) -> None:
    other = f"mount{next(numbers)}"
    await lessor.enable(other, aws.url)
    hub = await aws.role("hub2", account=HUB)
    await set_root(lessor, other, root_at(aws.url, assume_chain=[step(hub)]))
    for name in (mount, other):
        await lessor.put_role(name)
    for _ in range(3):
        mine, theirs = await lessor.generate(mount), await lessor.generate(other)
        assert (mine.arn.split(":")[4], theirs.arn.split(":")[4]) == ("123456789012", HUB)


async def test_a_web_identity_token_is_enough_for_a_root(tmp_path: Path, aws: StandIn) -> None:
    role = await aws.role("web", audience="sts.amazonaws.com")
    path = tmp_path / "token"
    async with (
        serving(
            tmp_path,
            {
                "LESSOR_AWS_ALLOWED_ENDPOINTS": aws.url,
                "LESSOR_AWS_IDENTITY_TOKEN_DIRS": str(tmp_path),
            },
        ) as process,
        connect(process.address, process.token) as lessor,
    ):
        await lessor.config.EnableMount(config_pb2.EnableMountRequest())
        config = config_pb2.RootConfig(
            iam_endpoint=aws.url,
            sts_endpoint=aws.url,
            assume_chain=[step(role)],
            identity_token_file=str(path),
            identity_token_audience="sts.amazonaws.com",
        )
        await set_root(lessor, "", config)
        missing = await refused(check(lessor, ""))
        assert (missing.code, missing.reason) == (Code.FAILED_PRECONDITION, "IDENTITY_TOKEN_UNUSABLE")
        token_file(path, aud="sts.amazonaws.com")
        checked = await check(lessor, "")
        assert checked.root_kind == Kind.WEB_IDENTITY
        await lessor.put_role("")
        made = await lessor.generate("")
        await lessor.revoke(made.lease_id)
        token = path.read_text(encoding="ascii").strip()
        assert token not in process.log_file.read_text(encoding="utf-8")


# --- places of STS ----------------------------------------------------------------------------------------


async def test_fallback_endpoints_and_regions_must_be_pairs(lessor: Lessor, mount: str) -> None:
    config = config_pb2.RootConfig(
        access_key=ROOT_KEY, secret_key="x", sts_fallback_endpoints=["https://sts.eu-west-1.amazonaws.com"]
    )
    refusal = await refused(set_root(lessor, mount, config))
    assert refusal.code is Code.INVALID_ARGUMENT
    assert list(refusal.violations) == ["config.sts_fallback_regions"]
    stored = (await lessor.config.GetRoot(config_pb2.GetRootRequest(mount=mount))).config
    assert list(stored.sts_fallback_endpoints) == []


async def test_a_root_with_every_field_is_read_back(lessor: Lessor, mount: str) -> None:
    places = [f"https://sts.{region}.amazonaws.com" for region in ("us-west-1", "us-west-2", "us-east-2")]
    fields: dict[str, Any] = {
        "region": "us-west-2",
        "sts_region": "us-west-1",
        "iam_endpoint": "https://iam.amazonaws.com",
        "sts_endpoint": places[0],
        "sts_fallback_endpoints": places[1:],
        "sts_fallback_regions": ["us-west-2", "us-east-2"],
        "max_retries": 0,
    }
    stored = await set_root(
        lessor, mount, config_pb2.RootConfig(access_key=ROOT_KEY, secret_key="x", **fields)
    )
    for name, value in fields.items():
        kept = getattr(stored, name)
        assert (list(kept) if isinstance(value, list) else kept) == value


async def test_a_region_without_an_endpoint_is_kept_as_it_is(lessor: Lessor, mount: str) -> None:
    config = config_pb2.RootConfig(access_key=ROOT_KEY, secret_key="x", region="eu-west-2")
    stored = await set_root(lessor, mount, config)
    assert (stored.region, stored.iam_endpoint, stored.sts_endpoint) == ("eu-west-2", "", "")


async def test_an_unreachable_sts_endpoint_is_skipped(lessor: Lessor, mount: str, aws: StandIn) -> None:
    fallback = {"sts_fallback_endpoints": [aws.url], "sts_fallback_regions": ["eu-west-1"]}
    config = root_at(aws.url, **fallback)
    config.sts_endpoint = NOBODY_THERE
    await set_root(lessor, mount, config)
    assert (await check(lessor, mount)).account == "123456789012"
    config.sts_fallback_endpoints[0] = NOBODY_THERE
    await set_root(lessor, mount, config)
    refusal = await refused(check(lessor, mount))
    assert (refusal.code, refusal.reason) == (Code.UNAVAILABLE, "AWS_UNAVAILABLE")


# --- checks -----------------------------------------------------------------------------------------------


async def test_a_check_of_the_root_names_what_is_denied(lessor: Lessor, mount: str, aws: StandIn) -> None:
    await aws.sts(verdicts={"iam:TagUser": "implicitDeny"})
    try:
        checked = await check(lessor, mount)
    finally:
        await aws.sts(verdicts={})
    verdicts = {one.action: one.verdict for one in checked.actions}
    assert verdicts["iam:TagUser"] == Verdict.DENIED
    assert {verdict for action, verdict in verdicts.items() if action != "iam:TagUser"} == {Verdict.ALLOWED}
    assert any("iam:TagUser" in warning for warning in checked.warnings)
    policy = checked.least_policy["Statement"]
    assert {"LessorUsers", "LessorOwnKey"} <= {one["Sid"] for one in policy}


async def test_without_the_simulator_verdicts_are_unknown(lessor: Lessor, mount: str, aws: StandIn) -> None:
    await aws.fault("refuse", "SimulatePrincipalPolicy")
    checked = await check(lessor, mount)
    verdicts = {one.action: one.verdict for one in checked.actions}
    assert verdicts["iam:CreateUser"] == Verdict.UNKNOWN
    assert Verdict.DENIED not in verdicts.values()


async def test_a_check_of_a_role_reads_from_aws_and_changes_nothing(
    lessor: Lessor, mount: str, aws: StandIn
) -> None:
    await aws.forget_calls()
    none = "arn:aws:iam::123456789012:policy/none"
    warnings = await warned(lessor, mount, policy_arns=[MANAGED, none], iam_groups=["developers", "nobody"])
    assert len(warnings) == 2
    assert none in warnings[0]
    assert "nobody" in warnings[1]
    looks = ("Get", "List", "Simulate")
    assert all(str(call["action"]).startswith(looks) for call in await aws.calls())
    assert (await refused(lessor.roles.GetRole(role_pb2.GetRoleRequest(mount=mount, name="app")))).code is (
        Code.NOT_FOUND
    )


async def test_a_check_warns_of_a_role_that_the_root_may_not_assume(
    lessor: Lessor, mount: str, aws: StandIn
) -> None:
    arn = "arn:aws:iam::123456789012:role/deploy"
    await aws.sts(verdicts={"sts:AssumeRole": "implicitDeny"})
    try:
        (warning,) = await warned(lessor, mount, credential_type=role_pb2.Role.ASSUMED_ROLE, role_arns=[arn])
    finally:
        await aws.sts(verdicts={})
    assert "sts:AssumeRole" in warning
    assert arn in warning


async def test_a_check_of_a_role_refuses_what_a_write_refuses(lessor: Lessor, mount: str) -> None:
    bad = role_pb2.Role(
        name="app", credential_type=role_pb2.Role.SESSION_TOKEN, policy_document=struct(POLICY)
    )
    checking = lessor.roles.CheckRole(role_pb2.CheckRoleRequest(mount=mount, role=bad))
    writing = lessor.roles.PutRole(role_pb2.PutRoleRequest(mount=mount, role=bad))
    assert (await refused(checking)).violations == (await refused(writing)).violations


async def test_a_role_that_a_chain_can_t_serve_is_stored_with_a_warning(
    lessor: Lessor, mount: str, aws: StandIn
) -> None:
    """A root that is a role can't issue federation tokens."""
    await set_root(lessor, mount, root_at(aws.url, assume_chain=[step(await aws.role("plain"))]))
    put = await lessor.put_role(mount, "tokens", credential_type=role_pb2.Role.FEDERATION_TOKEN)
    assert any("FEDERATION_TOKEN" in warning for warning in put.warnings)
    checked = await warned(
        lessor, mount, credential_type=role_pb2.Role.FEDERATION_TOKEN, policy_document=struct(POLICY)
    )
    assert len([warning for warning in checked if "FEDERATION_TOKEN" in warning]) == 1


async def test_without_aws_a_check_of_a_role_has_one_warning(
    lessor: Lessor, mount: str, aws: StandIn
) -> None:
    await aws.down()
    (warning,) = await warned(lessor, mount, policy_arns=[MANAGED])
    assert "could not be checked on AWS" in warning

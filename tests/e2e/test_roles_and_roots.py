"""Checks changes of roles and roots, and their effect on leases."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2 as details

from lessor.v1 import config_pb2, creds_pb2, lease_pb2, role_pb2
from tests.support.clients import (
    MANAGED,
    NOBODY_THERE,
    POLICY,
    ROOT_KEY,
    ROOT_SECRET,
    Lessor,
    refused,
    root_at,
    struct,
)
from tests.support.standin_control import StandIn

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

Code = grpc.StatusCode
ACTIONS = {"iam:CreateUser", "iam:DeleteUser", "iam:CreateAccessKey", "iam:DeleteAccessKey"}


def hours(number: int) -> Duration:
    """Return so many hours."""
    return Duration(seconds=number * 3600)


async def get_role(lessor: Lessor, mount: str, name: str = "app") -> role_pb2.Role:
    """Read a role."""
    return (await lessor.roles.GetRole(role_pb2.GetRoleRequest(mount=mount, name=name))).role


async def get_root(lessor: Lessor, mount: str) -> config_pb2.RootConfig:
    """Read a root."""
    return (await lessor.config.GetRoot(config_pb2.GetRootRequest(mount=mount))).config


def set_root(lessor: Lessor, mount: str, config: config_pb2.RootConfig, *mask: str) -> Any:
    """Write a root, or only the fields that ``mask`` names."""
    paths = FieldMask(paths=mask) if mask else None
    return lessor.config.SetRoot(config_pb2.SetRootRequest(mount=mount, config=config, update_mask=paths))


# --- roles ----------------------------------------------------------------------------------------------


async def test_a_role_is_stored_whole_and_read_back_as_written(lessor: Lessor, mount: str) -> None:
    fields: dict[str, Any] = {
        "policy_arns": [MANAGED],
        "iam_groups": ["developers"],
        "iam_tags": {"team": "payments"},
        "user_path": "/ci/",
        "permissions_boundary_arn": MANAGED,
        "default_ttl": hours(1),
        "max_ttl": hours(2),
        "max_leases": 3,
    }
    stored = (await lessor.put_role(mount, **fields)).role
    wanted = role_pb2.Role(
        name="app",
        credential_type=role_pb2.Role.IAM_USER,
        policy_document=struct(POLICY),
        etag=stored.etag,
        **fields,
    )
    assert stored == wanted
    assert stored.etag
    assert await get_role(lessor, mount) == stored


async def test_without_a_mask_a_role_is_replaced_as_a_whole(lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount, policy_arns=[MANAGED], max_leases=3, iam_tags={"a": "b"})
    await lessor.put_role(mount)
    role = await get_role(lessor, mount)
    assert (list(role.policy_arns), role.max_leases, dict(role.iam_tags)) == ([], 0, {})


async def test_a_mask_changes_only_what_it_names(lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount, policy_arns=[MANAGED], max_leases=3, iam_tags={"a": "b"})
    before = await get_role(lessor, mount)
    sent = role_pb2.Role(name="app", max_leases=9, user_path="/not/named/", iam_tags={"c": "d"})
    mask = FieldMask(paths=["max_leases", "policy_arns"])
    request = role_pb2.PutRoleRequest(mount=mount, role=sent, update_mask=mask)
    after = (await lessor.roles.PutRole(request)).role
    assert (after.max_leases, list(after.policy_arns)) == (9, [])
    assert (after.iam_tags, after.user_path) == (before.iam_tags, before.user_path)
    assert after.policy_document == before.policy_document
    assert after.etag != before.etag
    assert await get_role(lessor, mount) == after


async def test_a_mask_on_an_unknown_role_is_not_found(lessor: Lessor, mount: str) -> None:
    request = role_pb2.PutRoleRequest(
        mount=mount, role=role_pb2.Role(name="new"), update_mask=FieldMask(paths=["max_leases"])
    )
    assert (await refused(lessor.roles.PutRole(request))).code is Code.NOT_FOUND


async def test_a_role_s_etag_must_match_when_it_is_sent(lessor: Lessor, mount: str) -> None:
    first = (await lessor.put_role(mount)).role.etag
    second = (await lessor.put_role(mount, etag=first, max_leases=1)).role.etag
    assert second != first
    for name, etag in (("app", first), ("new", first)):
        refusal = await refused(lessor.put_role(mount, name, etag=etag, max_leases=2))
        assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "ETAG_MISMATCH")
    assert (await get_role(lessor, mount)).max_leases == 1
    await lessor.put_role(mount, max_leases=5)
    assert (await get_role(lessor, mount)).max_leases == 5


async def test_a_check_says_what_a_write_would_and_writes_nothing(lessor: Lessor, mount: str) -> None:
    admin = {**POLICY, "Statement": [{"Effect": "Allow", "Action": "iam:*", "Resource": "*"}]}
    wide = role_pb2.Role(name="app", credential_type=role_pb2.Role.IAM_USER, policy_document=struct(admin))
    checked = await lessor.roles.CheckRole(role_pb2.CheckRoleRequest(mount=mount, role=wide))
    assert any("iam:CreateUser" in warning for warning in checked.warnings)
    wide.policy_document["Version"] = "2023-11-12"
    calls: tuple[Any, ...] = (
        lessor.roles.CheckRole(role_pb2.CheckRoleRequest(mount=mount, role=wide)),
        lessor.roles.PutRole(role_pb2.PutRoleRequest(mount=mount, role=wide)),
    )
    first, second = [await refused(call) for call in calls]
    assert first == second
    refusal = await refused(lessor.roles.GetRole(role_pb2.GetRoleRequest(mount=mount, name="app")))
    assert refusal.code is Code.NOT_FOUND


async def test_a_check_refuses_an_old_etag_as_a_write_does(lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount)
    stored = await get_role(lessor, mount)
    paths = FieldMask(paths=["max_leases"])
    for role, mask in ((stored, None), (role_pb2.Role(name="app", etag=stored.etag), paths)):
        request = role_pb2.CheckRoleRequest(mount=mount, role=role, update_mask=mask)
        await lessor.roles.CheckRole(request)
        request.role.etag = "0123456789abcdef"
        writing = role_pb2.PutRoleRequest(mount=mount, role=request.role, update_mask=mask)
        checked = await refused(lessor.roles.CheckRole(request))
        assert checked == await refused(lessor.roles.PutRole(writing))
        assert (checked.code, checked.reason) == (Code.FAILED_PRECONDITION, "ETAG_MISMATCH")


# --- roots ----------------------------------------------------------------------------------------------


async def test_no_answer_ever_holds_the_root_s_secret(lessor: Lessor, mount: str, aws: StandIn) -> None:
    answer = (await set_root(lessor, mount, root_at(aws.url, max_retries=0))).config
    stored = await get_root(lessor, mount)
    for config in (answer, stored):
        assert (config.access_key, config.secret_key, config.iam_endpoint) == (ROOT_KEY, "", aws.url)
        assert ROOT_SECRET not in str(config)
        assert config.HasField("max_retries")
        assert config.max_retries == 0
        assert config.etag
    await lessor.put_role(mount)
    answers: list[object] = [
        await lessor.config.CheckRoot(config_pb2.CheckRootRequest(mount=mount)),
        await lessor.config.ListMounts(config_pb2.ListMountsRequest()),
        await lessor.config.TuneMount(config_pb2.TuneMountRequest(mount=mount)),
        await lessor.generate(mount),
        await lessor.info(),
        await refused(set_root(lessor, mount, root_at(aws.url, region="not a region"))),
        await refused(set_root(lessor, mount, root_at(aws.url, etag="wrong"))),
        [one async for one in lessor.leases.Reconcile(lease_pb2.ReconcileRequest(mount=mount))],
        await lessor.config.DisableMount(config_pb2.DisableMountRequest(mount=mount)),
    ]
    assert [one for one in answers if ROOT_SECRET in str(one)] == []


async def test_a_mask_on_a_root_keeps_its_secret(lessor: Lessor, mount: str, aws: StandIn) -> None:
    await lessor.put_role(mount)
    changed = (await set_root(lessor, mount, config_pb2.RootConfig(region="eu-west-1"), "region")).config
    assert (changed.region, changed.access_key, changed.iam_endpoint) == ("eu-west-1", ROOT_KEY, aws.url)
    assert (await lessor.generate(mount)).access_key


async def test_a_root_s_etag_must_match_when_it_is_sent(lessor: Lessor, mount: str, aws: StandIn) -> None:
    etag = (await get_root(lessor, mount)).etag
    await set_root(lessor, mount, root_at(aws.url, etag=etag))
    refusal = await refused(set_root(lessor, mount, root_at(aws.url, etag=etag, region="eu-west-1")))
    assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "ETAG_MISMATCH")
    assert (await get_root(lessor, mount)).region == "us-east-1"


async def test_while_leases_live_the_root_stays_in_its_account(
    lessor: Lessor, mount: str, aws: StandIn
) -> None:
    """A root of another account could not revoke their users."""
    await lessor.put_role(mount)
    made = await lessor.generate(mount)
    # The endpoint is the one that is allowed: the account behind it changes.
    await aws.account(account="999999999999")
    refusal = await refused(set_root(lessor, mount, root_at(aws.url, access_key="AKIAOTHEROTHEROTHERO")))
    await aws.account(account="123456789012")
    assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "ROOT_ACCOUNT_CHANGED")
    assert "999999999999" not in refusal.detail(details.ErrorInfo).metadata.values()
    assert (await get_root(lessor, mount)).access_key == ROOT_KEY
    await lessor.revoke(made.lease_id)


async def test_another_key_of_the_same_account_is_accepted(lessor: Lessor, mount: str, aws: StandIn) -> None:
    await lessor.put_role(mount)
    made = await lessor.generate(mount)
    await set_root(lessor, mount, root_at(aws.url, access_key="AKIAOTHEROTHEROTHERO"))
    await lessor.revoke(made.lease_id)
    keys = {str(call["key_id"]) for call in await aws.calls("DeleteUser")}
    assert "AKIAOTHEROTHEROTHERO" in keys


async def test_with_leases_a_root_that_aws_does_not_confirm_is_not_stored(lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount)
    await lessor.generate(mount)
    async with asyncio.timeout(30):
        refusal = await refused(set_root(lessor, mount, root_at(NOBODY_THERE)))
    assert (refusal.code, refusal.reason) == (Code.UNAVAILABLE, "AWS_UNAVAILABLE")
    assert (await get_root(lessor, mount)).iam_endpoint != NOBODY_THERE


async def test_a_check_of_the_root_returns_its_identity_and_least_policy(lessor: Lessor, mount: str) -> None:
    checked = await lessor.config.CheckRoot(config_pb2.CheckRootRequest(mount=mount))
    assert (checked.account, checked.root_kind) == (
        "123456789012",
        config_pb2.CheckRootResponse.RootKind.USER_KEYS,
    )
    assert checked.arn.startswith("arn:aws:iam::123456789012:user/")
    assert {action.action for action in checked.actions} >= ACTIONS
    assert checked.least_policy["Version"] == "2012-10-17"


# --- limits ---------------------------------------------------------------------------------------------


async def test_a_full_role_is_refused_before_any_call(lessor: Lessor, mount: str, aws: StandIn) -> None:
    await lessor.put_role(mount, max_leases=1)
    await lessor.put_role(mount, "other")
    made = await lessor.generate(mount)
    await aws.forget_calls()
    refusal = await refused(lessor.generate(mount))
    assert (refusal.code, refusal.reason) == (Code.RESOURCE_EXHAUSTED, "ROLE_MAX_LEASES")
    assert refusal.detail(details.QuotaFailure).violations[0].subject == f"role/{mount}/app"
    assert await aws.calls("CreateUser") == []
    await lessor.generate(mount, "other")
    await lessor.revoke(made.lease_id)
    assert (await lessor.generate(mount)).lease_id


async def test_a_full_mount_is_refused_before_any_call(lessor: Lessor, aws: StandIn) -> None:
    await lessor.enable("full", aws.url, max_users=2)
    await lessor.put_role("full")
    await lessor.generate("full")
    await lessor.generate("full")
    await aws.forget_calls()
    refusal = await refused(lessor.generate("full"))
    assert (refusal.code, refusal.reason) == (Code.RESOURCE_EXHAUSTED, "MOUNT_MAX_USERS")
    assert refusal.detail(details.QuotaFailure).violations[0].subject == "mount/full"
    assert await aws.calls("CreateUser") == []
    mask = FieldMask(paths=["max_users"])
    await lessor.config.TuneMount(config_pb2.TuneMountRequest(mount="full", max_users=3, update_mask=mask))
    assert (await lessor.generate("full")).lease_id


async def test_concurrent_requests_do_not_exceed_the_limit(lessor: Lessor, aws: StandIn) -> None:
    await lessor.enable("narrow", aws.url, max_users=3)
    await lessor.put_role("narrow")

    async def ask() -> Code:
        try:
            await lessor.generate("narrow")
        except grpc.aio.AioRpcError as error:
            return error.code()
        return Code.OK

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask()) for _ in range(10)]
    codes = sorted((task.result() for task in asked), key=lambda code: code.value[0])
    assert codes == [Code.OK] * 3 + [Code.RESOURCE_EXHAUSTED] * 7


# --- how long -------------------------------------------------------------------------------------------


async def test_a_ttl_above_the_maximum_is_capped_with_a_warning(lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount, default_ttl=hours(1), max_ttl=hours(2))
    made = await lessor.generate(mount, ttl=3 * 3600)
    assert made.lease_duration == hours(2)
    assert any("max_ttl" in warning for warning in made.warnings)
    default = await lessor.creds.GenerateCredentials(
        creds_pb2.GenerateCredentialsRequest(mount=mount, role="app")
    )
    assert (default.lease_duration, list(default.warnings)) == (hours(1), [])


async def test_lease_defaults_hold_where_a_role_says_nothing(lessor: Lessor, mount: str) -> None:
    request = config_pb2.SetLeaseDefaultsRequest(mount=mount, lease=hours(1), lease_max=hours(2))
    await lessor.config.SetLeaseDefaults(request)
    read = await lessor.config.GetLeaseDefaults(config_pb2.GetLeaseDefaultsRequest(mount=mount))
    assert (read.lease, read.lease_max) == (hours(1), hours(2))
    await lessor.put_role(mount)
    made = await lessor.creds.GenerateCredentials(
        creds_pb2.GenerateCredentialsRequest(mount=mount, role="app")
    )
    assert made.lease_duration == hours(1)
    assert (await lessor.generate(mount, ttl=9 * 3600)).lease_duration == hours(2)


async def test_tuning_a_mount_changes_what_its_mask_names(lessor: Lessor, mount: str) -> None:
    mask = FieldMask(paths=["default_lease_ttl"])
    request = config_pb2.TuneMountRequest(mount=mount, default_lease_ttl=hours(2), update_mask=mask)
    tuned = (await lessor.config.TuneMount(request)).mount
    assert (tuned.default_lease_ttl, tuned.max_lease_ttl) == (hours(2), hours(768))
    request.default_lease_ttl.CopyFrom(hours(769))
    assert "default_lease_ttl" in (await refused(lessor.config.TuneMount(request))).violations


async def test_an_uncapped_renewal_gives_its_increment(lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount)
    made = await lessor.generate(mount, ttl=600)
    longer = await lessor.renew(made.lease_id, 3600)
    assert (longer.lease_duration, list(longer.warnings)) == (hours(1), [])
    assert longer.lease_id == made.lease_id
    own = await lessor.renew(made.lease_id)
    assert own.lease_duration.seconds == 600
    assert own.warnings
    lease = await lessor.lookup(made.lease_id)
    assert lease.expire_time == own.expire_time
    assert lease.HasField("last_renewal_time")


async def test_a_renewal_never_exceeds_the_lease_s_max_ttl(lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount, max_ttl=hours(1))
    made = await lessor.generate(mount, ttl=600)
    renewed = await lessor.renew(made.lease_id, 7200)
    assert 3590 <= renewed.lease_duration.seconds <= 3600
    assert renewed.warnings
    lease = await lessor.lookup(made.lease_id)
    assert lease.expire_time == lease.max_expire_time


async def test_a_lowered_max_ttl_counts_at_the_next_renewal(lessor: Lessor, mount: str) -> None:
    await lessor.put_role(mount)
    made = await lessor.generate(mount, ttl=7200)
    await lessor.put_role(mount, max_ttl=hours(1))
    assert (await lessor.lookup(made.lease_id)).expire_time == made.expire_time
    renewed = await lessor.renew(made.lease_id, 7200)
    assert 3590 <= renewed.lease_duration.seconds <= 3600
    assert renewed.warnings

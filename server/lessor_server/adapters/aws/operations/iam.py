"""Converts the calls of IAM to botocore operations, and the answers to values."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote

from lessor_server.adapters.aws.operations.base import (
    ACCESS_KEY_ID,
    ARN,
    Answer,
    Operation,
    Params,
    epoch_us,
    is_of_any,
    nothing,
    read_text,
)
from lessor_server.domain.aws import iam_calls
from lessor_server.domain.aws.iam_calls import AccessKey, Call, CreatedUser, IamUser, UserPage
from lessor_server.domain.secret import Secret

TAG: Final = re.compile(r"(?s).{0,256}")
"""A key or a value of a tag, in any script (IAM API Reference, Tag)."""


DOCUMENT: Final = re.compile(r"(?s).{1,400000}")
"""A policy of up to 131,072 characters, each escaped (IAM API Reference, GetGroupPolicy)."""


def _user(call: Any) -> Params:
    return {"UserName": call.user_name}


def _create_user(call: iam_calls.CreateUser) -> Params:
    params: Params = {"UserName": call.user_name, "Path": call.path}
    if call.boundary_arn:
        params["PermissionsBoundary"] = call.boundary_arn
    if call.tags:
        params["Tags"] = [{"Key": key, "Value": value} for key, value in call.tags]
    return params


def _access_key(answer: Answer) -> AccessKey:
    key = answer["AccessKey"]
    return AccessKey(read_text(key, "AccessKeyId", ACCESS_KEY_ID), Secret(read_text(key, "SecretAccessKey")))


def _key_ids(answer: Answer) -> tuple[str, ...]:
    keys = sorted(answer["AccessKeyMetadata"], key=lambda key: key["CreateDate"])
    return tuple(read_text(key, "AccessKeyId", ACCESS_KEY_ID) for key in keys)


def _key_dates(answer: Answer) -> tuple[tuple[str, int], ...]:
    return tuple(
        (read_text(key, "AccessKeyId", ACCESS_KEY_ID), epoch_us(key["CreateDate"]))
        for key in answer["AccessKeyMetadata"]
    )


def _iam_user(user: Answer) -> IamUser:
    tags = tuple((read_text(tag, "Key", TAG), read_text(tag, "Value", TAG)) for tag in user.get("Tags", ()))
    return IamUser(
        read_text(user, "UserName"),
        read_text(user, "Path"),
        read_text(user, "Arn", ARN),
        epoch_us(user["CreateDate"]),
        tags,
        read_text(user, "UserId"),
    )


def _page(call: Any) -> Params:
    return {"MaxItems": 1000} | ({"Marker": call.marker} if call.marker else {})


def _next(answer: Answer) -> str:
    return read_text(answer, "Marker") if answer.get("IsTruncated") else ""


def _user_page(answer: Answer) -> UserPage:
    return UserPage(tuple(_iam_user(user) for user in answer["Users"]), _next(answer))


def _update_key(call: iam_calls.UpdateAccessKey) -> Params:
    status = "Active" if call.active else "Inactive"
    return _user(call) | {"AccessKeyId": call.access_key_id, "Status": status}


def _document(answer: Answer) -> str:
    """Return a policy as text; IAM escapes it as in a URL."""
    return unquote(read_text(answer, "PolicyDocument", DOCUMENT))


def _simulate(call: iam_calls.SimulatePrincipalPolicy) -> Params:
    asked = {"ActionNames": list(call.actions), "ResourceArns": list(call.resource_arns)}
    return {"PolicySourceArn": call.source_arn} | asked | _page(call)


def _simulated(answer: Answer) -> iam_calls.Simulated:
    """Read the verdict on each action and resource, whether separate or below its action."""
    found: list[tuple[str, str, str]] = []
    for one in answer["EvaluationResults"]:
        action, each = read_text(one, "EvalActionName"), one.get("ResourceSpecificResults", ())
        found += [
            (action, read_text(by, "EvalResourceName"), read_text(by, "EvalResourceDecision")) for by in each
        ]
        if not each:
            named = read_text(one, "EvalResourceName") if "EvalResourceName" in one else "*"
            found.append((action, named, read_text(one, "EvalDecision")))
    return iam_calls.Simulated(tuple(found), _next(answer))


def _user_room(answer: Answer) -> iam_calls.UserRoom:
    summary = answer["SummaryMap"]
    return iam_calls.UserRoom(summary.get("Users", 0), summary.get("UsersQuota", 0))


def _is_of_user(member: str) -> Callable[[Any, Answer], bool]:
    """Return what compares the user in a member of an answer with the call's."""
    return lambda call, answer: _names_user(answer[member], call)


def _are_of_user(member: str) -> Callable[[Any, Answer], bool]:
    """Return what compares the users in a list with the call's: an item need not name one."""
    return lambda call, answer: all(_names_user(item, call) for item in answer[member] if "UserName" in item)


def _names_user(item: Answer, call: Any) -> bool:
    """Return whether an item names the user of a call; AWS ignores case."""
    return read_text(item, "UserName").casefold() == str(call.user_name).casefold()


def _are_below(call: iam_calls.ListUsers, answer: Answer) -> bool:
    """Return whether all users are where they were looked for: from a listing, missing ones are concluded."""
    return all(read_text(user, "Path").startswith(call.path_prefix) for user in answer["Users"])


def _iam(action: str, read: Callable[[Answer], object] = nothing, **fields: str) -> Operation:
    """Return an operation of IAM; ``fields`` maps botocore's parameter names to the call's fields."""

    def params(call: Any) -> Params:
        return _user(call) | {name: getattr(call, field) for name, field in fields.items()}

    return Operation("iam", action, params, read)


def _names(answer: Answer, member: str, field: str) -> tuple[str, ...]:
    """Return the items of a list: texts, or the ``field`` of each item."""
    return tuple(
        read_text(item, field) if field else read_text({member: item}, member) for item in answer[member]
    )


def _group_page(action: str, member: str, field: str) -> Operation:
    """Return an operation that lists one page of a group's policies."""

    def read(answer: Answer) -> iam_calls.Names:
        return iam_calls.Names(_names(answer, member, field), _next(answer))

    return Operation("iam", action, lambda call: {"GroupName": call.group} | _page(call), read)


def _listing(action: str, member: str, field: str) -> Operation:
    """Return an operation that lists items of a user; one page is enough, see ``gateway``."""
    is_of = _are_of_user(member) if field else is_of_any
    return Operation("iam", action, _user, lambda answer: _names(answer, member, field), is_of)


def _listing_of_keys(read: Callable[[Answer], object]) -> Operation:
    """Return an operation that lists the access keys of a user."""
    return Operation("iam", "ListAccessKeys", _user, read, _are_of_user("AccessKeyMetadata"))


OPERATIONS: dict[type[Call[Any]], Operation] = {
    iam_calls.CreateUser: Operation(
        "iam",
        "CreateUser",
        _create_user,
        lambda answer: CreatedUser(read_text(answer["User"], "Arn", ARN)),
        _is_of_user("User"),
    ),
    iam_calls.PutUserPolicy: _iam("PutUserPolicy", PolicyName="policy_name", PolicyDocument="document"),
    iam_calls.AttachUserPolicy: _iam("AttachUserPolicy", PolicyArn="policy_arn"),
    iam_calls.AddUserToGroup: _iam("AddUserToGroup", GroupName="group"),
    iam_calls.CreateAccessKey: Operation(
        "iam", "CreateAccessKey", _user, _access_key, _is_of_user("AccessKey")
    ),
    iam_calls.DeleteAccessKey: _iam("DeleteAccessKey", AccessKeyId="access_key_id"),
    iam_calls.UpdateAccessKey: Operation("iam", "UpdateAccessKey", _update_key, nothing),
    iam_calls.DeleteUserPolicy: _iam("DeleteUserPolicy", PolicyName="policy_name"),
    iam_calls.DetachUserPolicy: _iam("DetachUserPolicy", PolicyArn="policy_arn"),
    iam_calls.RemoveUserFromGroup: _iam("RemoveUserFromGroup", GroupName="group"),
    iam_calls.DeleteUser: _iam("DeleteUser"),
    iam_calls.DeleteLoginProfile: _iam("DeleteLoginProfile"),
    iam_calls.DeactivateMFADevice: _iam("DeactivateMFADevice", SerialNumber="serial"),
    iam_calls.DeleteSSHPublicKey: _iam("DeleteSSHPublicKey", SSHPublicKeyId="key_id"),
    iam_calls.DeleteSigningCertificate: _iam("DeleteSigningCertificate", CertificateId="certificate_id"),
    iam_calls.DeleteServiceSpecificCredential: _iam(
        "DeleteServiceSpecificCredential", ServiceSpecificCredentialId="credential_id"
    ),
    iam_calls.ListAccessKeys: _listing_of_keys(_key_ids),
    iam_calls.ListKeyDates: _listing_of_keys(_key_dates),
    iam_calls.ListUserPolicies: _listing("ListUserPolicies", "PolicyNames", ""),
    iam_calls.ListAttachedUserPolicies: _listing("ListAttachedUserPolicies", "AttachedPolicies", "PolicyArn"),
    iam_calls.ListGroupsForUser: _listing("ListGroupsForUser", "Groups", "GroupName"),
    iam_calls.ListMFADevices: _listing("ListMFADevices", "MFADevices", "SerialNumber"),
    iam_calls.ListSSHPublicKeys: _listing("ListSSHPublicKeys", "SSHPublicKeys", "SSHPublicKeyId"),
    iam_calls.ListSigningCertificates: _listing("ListSigningCertificates", "Certificates", "CertificateId"),
    iam_calls.ListServiceSpecificCredentials: _listing(
        "ListServiceSpecificCredentials", "ServiceSpecificCredentials", "ServiceSpecificCredentialId"
    ),
    iam_calls.GetUser: Operation(
        "iam", "GetUser", _user, lambda answer: _iam_user(answer["User"]), _is_of_user("User")
    ),
    iam_calls.ListUsers: Operation(
        "iam",
        "ListUsers",
        lambda call: {"PathPrefix": call.path_prefix} | _page(call),
        _user_page,
        _are_below,
    ),
    iam_calls.ListGroupPolicies: _group_page("ListGroupPolicies", "PolicyNames", ""),
    iam_calls.ListAttachedGroupPolicies: _group_page(
        "ListAttachedGroupPolicies", "AttachedPolicies", "PolicyArn"
    ),
    iam_calls.GetGroupPolicy: Operation(
        "iam",
        "GetGroupPolicy",
        lambda call: {"GroupName": call.group, "PolicyName": call.policy_name},
        _document,
    ),
    iam_calls.GetGroup: Operation(
        "iam", "GetGroup", lambda call: {"GroupName": call.group, "MaxItems": 1}, nothing
    ),
    iam_calls.GetPolicy: Operation("iam", "GetPolicy", lambda call: {"PolicyArn": call.policy_arn}, nothing),
    iam_calls.VerifyKeyOnIam: _iam("GetUser"),
    iam_calls.SimulatePrincipalPolicy: Operation("iam", "SimulatePrincipalPolicy", _simulate, _simulated),
    iam_calls.GetAccountSummary: Operation("iam", "GetAccountSummary", lambda _: {}, _user_room),
}
"""Every call to IAM that Lessor sends."""

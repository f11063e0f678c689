"""Call values to botocore operations, and botocore's answers back to values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from lessor_server.domain import calls
from lessor_server.domain.calls import Call, FoundUser, Identity, MadeKey, MadeUser, UserPage
from lessor_server.domain.secret import Secret

Params = dict[str, Any]
Answer = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """One operation of one service: how its parameters are made and its answer is read."""

    service: str
    method: str
    params: Callable[[Any], Params]
    read: Callable[[Answer], object]


def _nothing(_: Answer) -> None:
    return None


def _user(call: Any) -> Params:
    return {"UserName": call.user_name}


def _create_user(call: calls.CreateUser) -> Params:
    params: Params = {"UserName": call.user_name, "Path": call.path}
    if call.boundary_arn:
        params["PermissionsBoundary"] = call.boundary_arn
    if call.tags:
        params["Tags"] = [{"Key": key, "Value": value} for key, value in call.tags]
    return params


def _made_key(answer: Answer) -> MadeKey:
    key = answer["AccessKey"]
    return MadeKey(key["AccessKeyId"], Secret(key["SecretAccessKey"]))


def _identity(answer: Answer) -> Identity:
    arn: str = answer["Arn"]
    return Identity(f"{arn.split(':')[1]}:{answer['Account']}", arn, answer["UserId"])


def _found(user: Answer) -> FoundUser:
    tags = tuple((tag["Key"], tag["Value"]) for tag in user.get("Tags", ()))
    created_us = int(user["CreateDate"].timestamp() * 1_000_000)
    return FoundUser(user["UserName"], user["Path"], user["Arn"], created_us, tags)


def _page_params(call: calls.ListUsers) -> Params:
    params: Params = {"PathPrefix": call.path_prefix, "MaxItems": 1000}
    return params | ({"Marker": call.marker} if call.marker else {})


def _user_page(answer: Answer) -> UserPage:
    marker = answer["Marker"] if answer.get("IsTruncated") else ""
    return UserPage(tuple(_found(user) for user in answer["Users"]), marker)


def _date(answer: Answer) -> int:
    said = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return int(parsedate_to_datetime(said).timestamp() * 1_000_000) if said else 0


def _iam(method: str, read: Callable[[Answer], object] = _nothing, **fields: str) -> Request:
    """Return a request to IAM; ``fields`` maps botocore's parameter names to the call's fields."""

    def params(call: Any) -> Params:
        return _user(call) | {name: getattr(call, field) for name, field in fields.items()}

    return Request("iam", method, params, read)


def _listing(method: str, member: str, field: str) -> Request:
    """Return a request that lists what a user has; the names of one page are enough, see ``gateway``."""

    def read(answer: Answer) -> tuple[str, ...]:
        return tuple(item if isinstance(item, str) else item[field] for item in answer[member])

    return Request("iam", method, _user, read)


REQUESTS: dict[type[Call[Any]], Request] = {
    calls.CreateUser: Request(
        "iam", "create_user", _create_user, lambda answer: MadeUser(answer["User"]["Arn"])
    ),
    calls.PutUserPolicy: _iam("put_user_policy", PolicyName="policy_name", PolicyDocument="document"),
    calls.AttachUserPolicy: _iam("attach_user_policy", PolicyArn="policy_arn"),
    calls.AddUserToGroup: _iam("add_user_to_group", GroupName="group"),
    calls.CreateAccessKey: _iam("create_access_key", _made_key),
    calls.DeleteAccessKey: _iam("delete_access_key", AccessKeyId="access_key_id"),
    calls.DeleteUserPolicy: _iam("delete_user_policy", PolicyName="policy_name"),
    calls.DetachUserPolicy: _iam("detach_user_policy", PolicyArn="policy_arn"),
    calls.RemoveUserFromGroup: _iam("remove_user_from_group", GroupName="group"),
    calls.DeleteUser: _iam("delete_user"),
    calls.DeleteLoginProfile: _iam("delete_login_profile"),
    calls.DeactivateMFADevice: _iam("deactivate_mfa_device", SerialNumber="serial"),
    calls.DeleteSSHPublicKey: _iam("delete_ssh_public_key", SSHPublicKeyId="key_id"),
    calls.DeleteSigningCertificate: _iam("delete_signing_certificate", CertificateId="certificate_id"),
    calls.DeleteServiceSpecificCredential: _iam(
        "delete_service_specific_credential", ServiceSpecificCredentialId="credential_id"
    ),
    calls.ListAccessKeys: _listing("list_access_keys", "AccessKeyMetadata", "AccessKeyId"),
    calls.ListUserPolicies: _listing("list_user_policies", "PolicyNames", ""),
    calls.ListAttachedUserPolicies: _listing("list_attached_user_policies", "AttachedPolicies", "PolicyArn"),
    calls.ListGroupsForUser: _listing("list_groups_for_user", "Groups", "GroupName"),
    calls.ListMFADevices: _listing("list_mfa_devices", "MFADevices", "SerialNumber"),
    calls.ListSSHPublicKeys: _listing("list_ssh_public_keys", "SSHPublicKeys", "SSHPublicKeyId"),
    calls.ListSigningCertificates: _listing("list_signing_certificates", "Certificates", "CertificateId"),
    calls.ListServiceSpecificCredentials: _listing(
        "list_service_specific_credentials", "ServiceSpecificCredentials", "ServiceSpecificCredentialId"
    ),
    calls.GetUser: _iam("get_user", lambda answer: _found(answer["User"])),
    calls.ListUsers: Request("iam", "list_users", _page_params, _user_page),
    calls.GetCallerIdentity: Request("sts", "get_caller_identity", lambda _: {}, _identity),
    calls.AskTime: Request("sts", "get_caller_identity", lambda _: {}, _date),
    calls.ProveKey: Request("sts", "get_caller_identity", lambda _: {}, _nothing),
}
"""Every call that Lessor makes; one that is missing here cannot be sent."""

"""Each IAM and STS action of the model by its name: reads parameters, calls the method, shapes the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from tests.support.iam_rules import Result, Value, invalid, missing
from tests.support.iam_user import Thing, User, iso
from tests.support.sts_state import SessionKey

if TYPE_CHECKING:
    from tests.support.iam_account import Account


@dataclass(frozen=True, slots=True)
class Caller:
    """The principal that signed a call (STS GetCallerIdentity)."""

    account: str
    arn: str
    user_id: str
    user_name: str
    session: SessionKey | None = None

    @property
    def role_arn(self) -> str:
        """Return the role of this session without its path, or an empty string."""
        if ":assumed-role/" not in self.arn:
            return ""
        return f"arn:aws:iam::{self.account}:role/{self.arn.split('/')[1]}"


class Params:
    """Reads one call's parameters; a missing required parameter is a ValidationError (CommonErrors)."""

    def __init__(self, raw: Mapping[str, Value], caller: Caller) -> None:
        """Read ``raw``, flattened by the query protocol or nested."""
        self.caller = caller
        self._raw = raw

    def text(self, name: str, default: str = "") -> str:
        """Return a parameter, or the default if it is missing."""
        return str(self._raw.get(name, default))

    def need(self, name: str) -> str:
        """Return a required parameter."""
        value = self.text(name)
        if not value:
            at = name[:1].lower() + name[1:]
            raise invalid(
                f"1 validation error detected: Value null at '{at}' failed to satisfy constraint: "
                "Member must not be null"
            )
        return value

    def user(self) -> str:
        """Return ``UserName``, or the caller's own name if it is missing (API_GetUser)."""
        return self.text("UserName") or self.caller.user_name

    def pairs(self, name: str) -> list[tuple[str, str]]:
        """Return a list of ``Key``/``Value`` members, given nested or flattened by the query protocol."""
        nested = self._raw.get(name)
        if isinstance(nested, Mapping):
            return [(key, str(value)) for key, value in nested.items()]
        if isinstance(nested, Sequence) and not isinstance(nested, str):
            return [(str(item["Key"]), str(item["Value"])) for item in nested if isinstance(item, Mapping)]
        found: list[tuple[str, str]] = []
        while (stem := f"{name}.member.{len(found) + 1}") + ".Key" in self._raw:
            found.append((self.text(stem + ".Key"), self.text(stem + ".Value")))
        return found

    def texts(self, name: str, field: str = "") -> list[str]:
        """Return a list of texts, or of the ``field`` of each member, nested or flattened."""
        nested = self._raw.get(name)
        if isinstance(nested, Sequence) and not isinstance(nested, str):
            return [str(item[field] if isinstance(item, Mapping) else item) for item in nested]
        found: list[str] = []
        end = f".{field}" if field else ""
        while (stem := f"{name}.member.{len(found) + 1}{end}") in self._raw:
            found.append(self.text(stem))
        return found

    def page(self, field: str, items: Iterable[Value], name_of: Callable[[Value], str] = str) -> Result:
        """Cut one page out of a list by ``Marker`` and ``MaxItems``, 1 to 1000, default 100 (API_ListUsers).

        The marker is the name of the last item given, so a page stays right while others are deleted;
        ``items`` must be in the order of their names unless all fit one page.
        """
        wanted = self.text("MaxItems", "100")
        size = int(wanted) if wanted.isdecimal() else 0
        if not 1 <= size <= 1000:
            raise invalid(f"1 validation error detected: Value '{wanted}' at 'maxItems' is out of range")
        marker = self.text("Marker").casefold()
        rest = [item for item in items if not marker or name_of(item).casefold() > marker]
        result: Result = {field: rest[:size], "IsTruncated": len(rest) > size}
        if len(rest) > size:
            result["Marker"] = name_of(rest[size - 1])
        return result


Action: TypeAlias = "Callable[[Account, Params], Result | None]"


def field_of(name: str) -> Callable[[Value], str]:
    """Return a function that reads a field of a listed item."""
    return lambda item: str(item[name]) if isinstance(item, Mapping) else ""


def _create_user(iam: Account, p: Params) -> Result:
    user = iam.create_user(
        p.need("UserName"), p.text("Path", "/"), p.pairs("Tags"), p.text("PermissionsBoundary")
    )
    return {"User": user.described_whole()}


def _list_users(iam: Account, p: Params) -> Result:
    users = iam.list_users(p.text("PathPrefix", "/"))
    return p.page("Users", (user.described() for user in users), field_of("UserName"))


def _list_user_tags(iam: Account, p: Params) -> Result:
    tags = iam.get_user(p.need("UserName")).tags
    return p.page("Tags", [{"Key": key, "Value": tags[key]} for key in sorted(tags)], field_of("Key"))


def _list_user_policies(iam: Account, p: Params) -> Result:
    names = sorted(iam.get_user(p.need("UserName")).inline, key=str.casefold)
    return p.page("PolicyNames", names)


def _list_attached(iam: Account, p: Params) -> Result:
    arns = sorted(iam.get_user(p.need("UserName")).attached, key=str.casefold)
    attached = [{"PolicyName": arn.rpartition("/")[2], "PolicyArn": arn} for arn in arns]
    return p.page("AttachedPolicies", attached, field_of("PolicyArn"))


def _list_groups(iam: Account, p: Params) -> Result:
    names = sorted(iam.get_user(p.need("UserName")).groups, key=str.casefold)
    return p.page("Groups", [iam.get_group(name) for name in names], field_of("GroupName"))


def _create_access_key(iam: Account, p: Params) -> Result:
    key = iam.create_access_key(p.user())
    return {"AccessKey": {**key.described(), "SecretAccessKey": key.secret}}


def _list_access_keys(iam: Account, p: Params) -> Result:
    user = iam.get_user(p.user())
    keys = [user.keys[key_id].described() for key_id in sorted(user.keys)]
    return {"UserName": user.name, **p.page("AccessKeyMetadata", keys, field_of("AccessKeyId"))}


def _list_mfa(iam: Account, p: Params) -> Result:
    user = iam.get_user(p.user())
    devices = [
        {"UserName": user.name, "SerialNumber": serial, "EnableDate": iso(user.mfa[serial])}
        for serial in sorted(user.mfa, key=str.casefold)
    ]
    return p.page("MFADevices", devices, field_of("SerialNumber"))


def _ssh_key(user: User, key_id: str, uploaded: str) -> Value:
    return {"UserName": user.name, "SSHPublicKeyId": key_id, "Status": "Active", "UploadDate": uploaded}


def _certificate(user: User, cert_id: str, uploaded: str) -> Value:
    return {
        "UserName": user.name,
        "CertificateId": cert_id,
        "CertificateBody": "-",
        "Status": "Active",
        "UploadDate": uploaded,
    }


def _service_credential(user: User, credential_id: str, created: str) -> Value:
    return {
        "UserName": user.name,
        "ServiceSpecificCredentialId": credential_id,
        "ServiceName": "codecommit.amazonaws.com",
        "ServiceUserName": f"{user.name}-at-codecommit",
        "Status": "Active",
        "CreateDate": created,
    }


def _list_things(kind: Thing, field: str, describe: Callable[[User, str, str], Value]) -> Action:
    """Return the action that lists one kind of a user's attachments."""

    def perform(iam: Account, p: Params) -> Result:
        user = iam.get_user(p.user())
        things: Result = {field: [describe(user, key, iso(at)) for key, at in user.things[kind].items()]}
        return things if kind is Thing.SERVICE_CREDENTIAL else {**things, "IsTruncated": False}

    return perform


def _delete_thing(kind: Thing, id_field: str, noun: str) -> Action:
    """Make the action that deletes one kind of thing from a user; ``noun`` begins the NoSuchEntity."""

    def perform(iam: Account, p: Params) -> Result:
        thing_id = p.need(id_field)
        if iam.get_user(p.user()).things[kind].pop(thing_id, None) is None:
            raise missing(f"The {noun} with id {thing_id} cannot be found.")
        return {}

    return perform


def _account_summary(iam: Account, _: Params) -> Result:
    summary = {
        "Users": len(iam.users),
        "UsersQuota": iam.quotas.users,
        "Groups": len(iam.groups),
        "Policies": len(iam.policies),
        "AccessKeysPerUserQuota": iam.quotas.access_keys,
        "AttachedPoliciesPerUserQuota": iam.quotas.attached_policies,
        "GroupsPerUserQuota": iam.quotas.groups,
        "UserPolicySizeQuota": iam.quotas.inline_bytes,
        "MFADevices": len(iam.virtual_mfa),
    }
    return {"SummaryMap": summary}


def _caller_identity(iam: Account, p: Params) -> Result:
    del iam
    return {"Arn": p.caller.arn, "UserId": p.caller.user_id, "Account": p.caller.account}


ACTIONS: dict[str, Action] = {
    "CreateUser": _create_user,
    "GetUser": lambda iam, p: {"User": iam.get_user(p.user()).described_whole()},
    "DeleteUser": lambda iam, p: iam.delete_user(p.need("UserName")),
    "ListUsers": _list_users,
    "TagUser": lambda iam, p: iam.tag_user(p.need("UserName"), p.pairs("Tags")),
    "ListUserTags": _list_user_tags,
    "CreatePolicy": lambda iam, p: {
        "Policy": iam.create_policy(p.need("PolicyName"), p.need("PolicyDocument"), p.text("Path", "/"))
    },
    "PutUserPolicy": lambda iam, p: iam.put_user_policy(
        p.need("UserName"), p.need("PolicyName"), p.need("PolicyDocument")
    ),
    "DeleteUserPolicy": lambda iam, p: iam.delete_user_policy(p.need("UserName"), p.need("PolicyName")),
    "ListUserPolicies": _list_user_policies,
    "AttachUserPolicy": lambda iam, p: iam.attach_user_policy(p.need("UserName"), p.need("PolicyArn")),
    "DetachUserPolicy": lambda iam, p: iam.detach_user_policy(p.need("UserName"), p.need("PolicyArn")),
    "ListAttachedUserPolicies": _list_attached,
    "CreateGroup": lambda iam, p: {"Group": iam.create_group(p.need("GroupName"), p.text("Path", "/"))},
    "AddUserToGroup": lambda iam, p: iam.add_user_to_group(p.need("UserName"), p.need("GroupName")),
    "RemoveUserFromGroup": lambda iam, p: iam.remove_user_from_group(p.need("UserName"), p.need("GroupName")),
    "ListGroupsForUser": _list_groups,
    "CreateAccessKey": _create_access_key,
    "DeleteAccessKey": lambda iam, p: iam.delete_access_key(p.user(), p.need("AccessKeyId")),
    "UpdateAccessKey": lambda iam, p: iam.update_access_key(
        p.user(), p.need("AccessKeyId"), p.need("Status")
    ),
    "ListAccessKeys": _list_access_keys,
    "CreateLoginProfile": lambda iam, p: {"LoginProfile": iam.create_login_profile(p.user())},
    "GetLoginProfile": lambda iam, p: {"LoginProfile": iam.login_profile(p.user())},
    "DeleteLoginProfile": lambda iam, p: iam.delete_login_profile(p.user()),
    "ListMFADevices": _list_mfa,
    "DeactivateMFADevice": lambda iam, p: iam.deactivate_mfa_device(p.user(), p.need("SerialNumber")),
    "DeleteVirtualMFADevice": lambda iam, p: iam.delete_virtual_mfa_device(p.need("SerialNumber")),
    "ListSSHPublicKeys": _list_things(Thing.SSH_KEY, "SSHPublicKeys", _ssh_key),
    "DeleteSSHPublicKey": _delete_thing(Thing.SSH_KEY, "SSHPublicKeyId", "SSH Public Key"),
    "ListSigningCertificates": _list_things(Thing.CERTIFICATE, "Certificates", _certificate),
    "DeleteSigningCertificate": _delete_thing(Thing.CERTIFICATE, "CertificateId", "Certificate"),
    "ListServiceSpecificCredentials": _list_things(
        Thing.SERVICE_CREDENTIAL, "ServiceSpecificCredentials", _service_credential
    ),
    "DeleteServiceSpecificCredential": _delete_thing(
        Thing.SERVICE_CREDENTIAL, "ServiceSpecificCredentialId", "Service Specific Credential"
    ),
    "GetAccountSummary": _account_summary,
    "GetCallerIdentity": _caller_identity,
}
"""Every action of the model, by its name on the wire."""

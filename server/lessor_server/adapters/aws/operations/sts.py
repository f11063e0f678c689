"""Converts the calls of STS to botocore operations, and the answers to values."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Any

from lessor_server.adapters.aws.operations.base import (
    ACCESS_KEY_ID,
    ACCOUNT,
    ARN,
    Answer,
    Operation,
    Params,
    epoch_us,
    nothing,
    read_text,
)
from lessor_server.domain.aws import sts_calls
from lessor_server.domain.aws.iam_calls import Call
from lessor_server.domain.aws.sts_calls import AwsIdentity
from lessor_server.domain.secret import Secret


def _no_params(_: object) -> Params:
    return {}


def _identity(answer: Answer) -> AwsIdentity:
    arn, account = read_text(answer, "Arn", ARN), read_text(answer, "Account", ACCOUNT)
    return AwsIdentity(f"{arn.split(':')[1]}:{account}", arn, read_text(answer, "UserId"))


def _date(answer: Answer) -> int:
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    return epoch_us(parsedate_to_datetime(headers["date"])) if headers.get("date") else 0


def _policies(call: sts_calls.AssumeRole | sts_calls.GetFederationToken) -> Params:
    params: Params = {"DurationSeconds": call.seconds}
    if call.policy:
        params["Policy"] = call.policy
    if call.policy_arns:
        params["PolicyArns"] = [{"arn": arn} for arn in call.policy_arns]
    if call.tags:
        params["Tags"] = [{"Key": key, "Value": value} for key, value in call.tags]
    return params


def _device(device: sts_calls.Device) -> Params:
    return {"SerialNumber": device.serial, "TokenCode": device.code.reveal()} if device.serial else {}


def _assume_role(call: sts_calls.AssumeRole) -> Params:
    params: Params = {"RoleArn": call.role_arn, "RoleSessionName": call.session_name}
    params |= _policies(call) | _device(call.device)
    if call.transitive_keys:
        params["TransitiveTagKeys"] = list(call.transitive_keys)
    if call.source_identity:
        params["SourceIdentity"] = call.source_identity
    if call.external_id:
        params["ExternalId"] = call.external_id
    return params


def _web_identity(call: sts_calls.AssumeRoleWithWebIdentity) -> Params:
    return {
        "RoleArn": call.role_arn,
        "RoleSessionName": call.session_name,
        "DurationSeconds": call.seconds,
        "WebIdentityToken": call.token.reveal(),
    }


def _federation(call: sts_calls.GetFederationToken) -> Params:
    return {"Name": call.name} | _policies(call)


def _session_token(call: sts_calls.GetSessionToken) -> Params:
    return {"DurationSeconds": call.seconds} | _device(call.device)


def session(answer: Answer) -> sts_calls.Session:
    """Read the credentials in an answer of STS, and their identity if it is there."""
    made = answer["Credentials"]
    whose = answer.get("AssumedRoleUser") or answer.get("FederatedUser")
    return sts_calls.Session(
        read_text(made, "AccessKeyId", ACCESS_KEY_ID),
        Secret(read_text(made, "SecretAccessKey")),
        Secret(read_text(made, "SessionToken")),
        epoch_us(made["Expiration"]),
        read_text(whose, "Arn", ARN) if whose else "",
        int(answer.get("PackedPolicySize", 0)),
    )


def _is_of_session(call: Any, answer: Answer) -> bool:
    """Compare the session's ARN, if there is one, with the call.

    It has no path of the role. Case counts (IAM User Guide, "Troubleshoot IAM roles").
    """
    whose = answer.get("AssumedRoleUser") or answer.get("FederatedUser")
    if not whose:
        return True
    *_, account, resource = read_text(whose, "Arn", ARN).split(":", 5)
    if isinstance(call, sts_calls.GetFederationToken):
        return resource == f"federated-user/{call.name}"
    *_, role_account, role = call.role_arn.split(":", 5)
    name = role.rpartition("/")[2]
    return (account, resource) == (role_account, f"assumed-role/{name}/{call.session_name}")


OPERATIONS: dict[type[Call[Any]], Operation] = {
    sts_calls.GetCallerIdentity: Operation("sts", "GetCallerIdentity", _no_params, _identity),
    sts_calls.GetServerTime: Operation("sts", "GetCallerIdentity", _no_params, _date),
    sts_calls.VerifyKey: Operation("sts", "GetCallerIdentity", _no_params, nothing),
    sts_calls.AssumeRole: Operation("sts", "AssumeRole", _assume_role, session, _is_of_session),
    sts_calls.AssumeRoleWithWebIdentity: Operation(
        "sts", "AssumeRoleWithWebIdentity", _web_identity, session, _is_of_session
    ),
    sts_calls.GetFederationToken: Operation(
        "sts", "GetFederationToken", _federation, session, _is_of_session
    ),
    sts_calls.GetSessionToken: Operation("sts", "GetSessionToken", _session_token, session),
}
"""Every call to STS that Lessor sends."""

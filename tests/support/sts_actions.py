"""The actions of STS that create sessions: read parameters, check trust, create the session's key.

Each follows the API page of its own name, ``https://docs.aws.amazon.com/STS/latest/APIReference/API_…``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tests.support import sts_rules as rules
from tests.support.iam_actions import Action, Params
from tests.support.iam_rules import RefusalError, Result
from tests.support.iam_user import draw_id, draw_secret, iso
from tests.support.sts_state import Made, SessionKey, TrustedRole

if TYPE_CHECKING:
    from tests.support.iam_account import Account


@dataclass(frozen=True, slots=True)
class _Asked:
    """The parameters of a session: its policies, tags and duration in seconds."""

    seconds: int
    policy: str
    policy_arns: tuple[str, ...]
    tags: tuple[tuple[str, str], ...]
    transitive: tuple[str, ...]
    percent: int


def _asked(iam: Account, p: Params, longest: int, default: int) -> _Asked:
    tags, transitive = tuple(p.pairs("Tags")), tuple(p.texts("TransitiveTagKeys"))
    policy, arns = p.text("Policy"), tuple(p.texts("PolicyArns", "arn"))
    seconds = rules.duration(p.text("DurationSeconds"), default, longest)
    rules.check_policies(policy, arns)
    rules.check_session_tags(tags, transitive, p.caller.session)
    percent = rules.packed_percent(policy, arns, tags, iam.sts.packed_limit)
    return _Asked(seconds, policy, arns, tags, transitive, percent)


def _key(iam: Account, asked: _Asked, made: Made, arn: str, user_id: str) -> SessionKey:
    return SessionKey(
        id=draw_id(iam.rng, "ASIA"),
        secret=draw_secret(iam.rng),
        token="".join(draw_secret(iam.rng) for _ in range(4)),
        made=made,
        ends=iam.now() + asked.seconds,
        arn=arn,
        user_id=user_id,
        tags=asked.tags,
        transitive=asked.transitive,
        policy=asked.policy,
        policy_arns=asked.policy_arns,
    )


def _credentials(iam: Account, key: SessionKey) -> Result:
    iam.sts.sessions[key.id] = key
    return {
        "AccessKeyId": key.id,
        "SecretAccessKey": key.secret,
        "SessionToken": key.token,
        "Expiration": iso(key.ends),
    }


def _check_mfa(iam: Account, p: Params) -> bool:
    """Return whether the caller gave a code of an MFA device; a wrong or used code is AccessDenied."""
    serial, code = p.text("SerialNumber"), p.text("TokenCode")
    if not serial and not code:
        return False
    rules.check_code(code)
    if not code or iam.sts.mfa_codes.get(serial) != code:
        raise rules.refused("MultiFactorAuthentication failed with invalid MFA one time pass code. ")
    del iam.sts.mfa_codes[serial]
    return True


def _may_assume(role: TrustedRole, p: Params, *, with_mfa: bool) -> bool:
    caller = p.caller
    names = {"*", caller.account, f"arn:aws:iam::{caller.account}:root", caller.arn, caller.role_arn}
    if role.audience or not names & set(role.trusts):
        return False
    if role.external_id and role.external_id != p.text("ExternalId"):
        return False
    return with_mfa or not role.needs_mfa


def _assume_role(iam: Account, p: Params) -> Result:
    arn, name = p.need("RoleArn"), p.need("RoleSessionName")
    rules.check_session_name(name)
    rules.check_external_id(p.text("ExternalId"))
    asked = _asked(iam, p, 43_200, 3600)
    if p.caller.arn.endswith(":root"):
        raise rules.refused("Roles may not be assumed by root accounts.")
    home = iam.peer(arn.split(":")[4]) if arn.count(":") == 5 else iam
    role = home.sts.roles.get(arn)
    with_mfa = _check_mfa(iam, p)
    if role is None or not _may_assume(role, p, with_mfa=with_mfa):
        raise rules.denied(p.caller.arn, "AssumeRole", arn)
    if asked.tags and not role.takes_tags:
        raise rules.denied(p.caller.arn, "TagSession", arn)
    before = p.caller.session
    rules.check_role_duration(asked.seconds, role.longest, chained=before is not None)
    source = p.text("SourceIdentity") or (before.source_identity if before else "")
    if before and before.source_identity not in ("", source):
        raise rules.denied(p.caller.arn, "SetSourceIdentity", arn)
    kept = [(key, value) for key, value in before.tags if key in before.transitive] if before else []
    asked = replace(
        asked,
        tags=(*asked.tags, *kept),
        transitive=(*asked.transitive, *(before.transitive if before else ())),
    )
    return _assumed(home, role, name, asked, source)


def _assumed(home: Account, role: TrustedRole, name: str, asked: _Asked, source: str) -> Result:
    arn = f"arn:aws:sts::{role.account}:assumed-role/{role.name}/{name}"
    key = replace(_key(home, asked, Made.ASSUMED, arn, f"{role.id}:{name}"), source_identity=source)
    result: Result = {
        "Credentials": _credentials(home, key),
        "AssumedRoleUser": {"AssumedRoleId": key.user_id, "Arn": arn},
        "PackedPolicySize": asked.percent,
    }
    return {**result, "SourceIdentity": source} if source else result


def _web_identity(iam: Account, p: Params) -> Result:
    """Answer AssumeRoleWithWebIdentity, which is not signed: the token identifies the caller."""
    arn, name = p.need("RoleArn"), p.need("RoleSessionName")
    rules.check_session_name(name)
    asked = _asked(iam, p, 43_200, 3600)
    claims = _claims(p.need("WebIdentityToken"))
    home = iam.peer(arn.split(":")[4]) if arn.count(":") == 5 else iam
    role = home.sts.roles.get(arn)
    if role is None or not role.audience:
        raise rules.refused("Not authorized to perform sts:AssumeRoleWithWebIdentity")
    ends = claims.get("exp")
    if isinstance(ends, int | float) and ends <= iam.now():
        raise RefusalError(400, "ExpiredTokenException", "Token expired")
    said = claims.get("aud")
    if role.audience not in (said if isinstance(said, list) else [said]):
        raise RefusalError(400, "InvalidIdentityToken", "Incorrect token audience")
    rules.check_role_duration(asked.seconds, role.longest, chained=False)
    return {
        **_assumed(home, role, name, asked, ""),
        "SubjectFromWebIdentityToken": str(claims.get("sub", "")),
        "Audience": role.audience,
    }


def _claims(token: str) -> Mapping[str, object]:
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError):
        raise RefusalError(400, "InvalidIdentityToken", "The ID Token provided is not a valid JWT.") from None
    if not isinstance(claims, dict):
        raise RefusalError(400, "InvalidIdentityToken", "The ID Token provided is not a valid JWT.")
    return claims


def _federation_token(iam: Account, p: Params) -> Result:
    name = p.need("Name")
    rules.check_federated_name(name)
    asked = _asked(iam, p, 3600 if p.caller.arn.endswith(":root") else 129_600, 43_200)
    who = f"{iam.account}:{name}"
    arn = f"arn:aws:sts::{iam.account}:federated-user/{name}"
    key = _key(iam, asked, Made.FEDERATED, arn, who)
    return {
        "Credentials": _credentials(iam, key),
        "FederatedUser": {"FederatedUserId": who, "Arn": arn},
        "PackedPolicySize": asked.percent,
    }


def _session_token(iam: Account, p: Params) -> Result:
    longest = 3600 if p.caller.arn.endswith(":root") else 129_600
    asked = _Asked(rules.duration(p.text("DurationSeconds"), 43_200, longest), "", (), (), (), 0)
    with_mfa = _check_mfa(iam, p)
    caller = p.caller
    key = _key(iam, asked, Made.SESSION_TOKEN, caller.arn, caller.user_id)
    key = replace(key, user_name=caller.user_name, with_mfa=with_mfa)
    return {"Credentials": _credentials(iam, key)}


STS_ACTIONS: dict[str, Action] = {
    "AssumeRole": _assume_role,
    "AssumeRoleWithWebIdentity": _web_identity,
    "GetFederationToken": _federation_token,
    "GetSessionToken": _session_token,
}
"""The actions of STS, except GetCallerIdentity."""

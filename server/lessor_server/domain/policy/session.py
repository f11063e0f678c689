"""Sessions: the options that a request may have, and the call to STS that creates one.

Sources: STS API Reference, AssumeRole, GetFederationToken, GetSessionToken; IAM User Guide, "Session
policies" and "Passing session tags in AWS STS".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from lessor_server.domain import user_names
from lessor_server.domain.aws import arn, tags
from lessor_server.domain.aws.iam_calls import Call
from lessor_server.domain.aws.sts_calls import (
    AssumeRole,
    Device,
    GetFederationToken,
    GetSessionToken,
    Session,
)
from lessor_server.domain.aws.tags import Tags
from lessor_server.domain.errors.base import SessionPolicyWouldWiden, Violation, require, shown
from lessor_server.domain.errors.preconditions import NoSessionPolicy, TemplateValueUnsafe
from lessor_server.domain.policy import policy, policy_merge
from lessor_server.domain.policy.policy_merge import GroupPolicies
from lessor_server.domain.policy.template import filled, filled_policy, none_violations
from lessor_server.domain.role import CredentialType, Role
from lessor_server.domain.secret import Secret
from lessor_server.domain.user_names import Named


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """The session options of a request; ``policy`` is canonical text; empty fields are unset."""

    role_arn: str = ""
    session_name: str = ""
    mfa_code: Secret = field(default_factory=Secret)
    policy: str = ""


@dataclass(frozen=True, slots=True)
class SessionInputs:
    """What the engine knows for a session: identity, policies of groups, name and duration."""

    identity: Named
    groups: tuple[GroupPolicies, ...]
    name: str
    seconds: int


NO_OPTIONS: Final = SessionOptions()

_ASSUMED: Final = frozenset({CredentialType.ASSUMED_ROLE})
_FEDERATED: Final = frozenset({CredentialType.FEDERATION_TOKEN})
_SESSION: Final = frozenset({CredentialType.SESSION_TOKEN})
_GOES_WITH: Final = {
    "role_arn": _ASSUMED,
    "role_session_name": _ASSUMED,
    "mfa_code": _ASSUMED | _SESSION,
    "session_policy": _ASSUMED | _FEDERATED,
}
_NAME: Final = re.compile(r"[A-Za-z0-9_+=,.@-]{2,64}")
_CODE: Final = re.compile(r"[0-9]{6}")
_CODE_FIX: Final = "send the 6 digits that the device shows now"
_SOURCE_IDENTITY: Final = _NAME


# --- the options ---------------------------------------------------------------------------------


def violations(role: Role, options: SessionOptions) -> list[Violation]:
    """Return every violation of the session options for ``role``; field paths are the request's."""
    if options is NO_OPTIONS and role.credential_type is CredentialType.IAM_USER:
        return []
    found = []
    given = {
        "role_arn": bool(options.role_arn),
        "role_session_name": bool(options.session_name),
        "mfa_code": bool(options.mfa_code),
        "session_policy": bool(options.policy),
    }
    for path, kinds in _GOES_WITH.items():
        if role.credential_type in kinds:
            found += _CHECKS[path](role, options)
        elif given[path]:
            others = " and ".join(kind.name for kind in CredentialType if kind in kinds)
            problem = f"is not allowed for a role of type {role.credential_type.name}"
            found.append(Violation(path, problem, f"leave it out: it is for {others}"))
    return found


def require_valid_options(role: Role, options: SessionOptions, others: list[Violation]) -> None:
    """Raise all violations of a request together; ``others`` are those found in the rest of it.

    Raises:
        SessionPolicyWouldWiden: Its session policy would add to what the role allows.
        Invalid: It has only other violations.
    """
    found = [*others, *violations(role, options)]
    if _would_widen(role, options):
        raise SessionPolicyWouldWiden(role.name, tuple(found))
    require(found)


def _role_arn_violations(role: Role, options: SessionOptions) -> list[Violation]:
    if not options.role_arn and _only(role):
        return []
    if not options.role_arn:
        problem = "is missing, and the role allows more than one IAM role"
        return [Violation("role_arn", problem, "name one that the role's role_arns allow")]
    if any(arn.allows(pattern, options.role_arn) for pattern in role.role_arns):
        return []
    problem = f"{shown(options.role_arn)} is not allowed by the role's role_arns"
    return [Violation("role_arn", problem, "name one that they allow")]


def _only(role: Role) -> str:
    """Return the only IAM role that ``role`` allows, or an empty text if the request must name one."""
    alone = len(role.role_arns) == 1 and arn.is_role(role.role_arns[0])
    return role.role_arns[0] if alone else ""


def role_arn_of(role: Role, options: SessionOptions) -> str:
    """Return the ARN of the IAM role to assume: the request's or the role's only one; empty if neither is."""
    return options.role_arn or _only(role)


def _name_violations(options: SessionOptions) -> list[Violation]:
    if not options.session_name or _NAME.fullmatch(options.session_name):
        return []
    fix = "use 2 to 64 letters, digits and _ + = , . @ -"
    return [Violation("role_session_name", f"{shown(options.session_name)} is not a valid session name", fix)]


def _code_violations(role: Role, options: SessionOptions) -> list[Violation]:
    if not role.mfa_serial_number:
        if not options.mfa_code:
            return []
        problem = "is not asked for: the role has no mfa_serial_number"
        return [Violation("mfa_code", problem, "leave it out")]
    if _CODE.fullmatch(options.mfa_code.reveal()):
        return []
    needed = "is needed: the role has an mfa_serial_number"
    problem = "is not a valid MFA code" if options.mfa_code else needed
    return [Violation("mfa_code", problem, _CODE_FIX)]


def _policy_violations(options: SessionOptions) -> list[Violation]:
    if not options.policy:
        return []
    field, document = "session_policy", json.loads(options.policy)
    return policy.violations(document, field=field) + none_violations(field, document)


_CHECKS: Final[Mapping[str, Callable[[Role, SessionOptions], list[Violation]]]] = {
    "role_arn": _role_arn_violations,
    "role_session_name": lambda _, options: _name_violations(options),
    "mfa_code": _code_violations,
    "session_policy": lambda _, options: _policy_violations(options),
}


def _would_widen(role: Role, options: SessionOptions) -> bool:
    if not options.policy or role.credential_type not in _GOES_WITH["session_policy"]:
        return False
    bounded = bool(role.policy_document or role.policy_arns or role.iam_groups)
    return bounded and not policy_merge.only_denies(json.loads(options.policy))


# --- the call -------------------------------------------------------------------------------------


def name(role: Role, options: SessionOptions, template: str, suffix: str, identity: Named) -> str:
    """Return the session's name: the requested one, or one by the mount's name template."""
    make = user_names.user_name
    if role.credential_type is CredentialType.FEDERATION_TOKEN:
        make = user_names.federation_name
    return options.session_name or make(template, role.mount, role.name, suffix, identity)


def call(role: Role, options: SessionOptions, making: SessionInputs) -> Call[Session]:
    """Return the call that creates a session of ``role``; its options passed ``require_valid_options``.

    Raises:
        TemplateLabelUnknown, TemplateValueUnsafe: The role's templates cannot be filled in for this caller.
        SessionTooLarge, RoleNotUsable, NoSessionPolicy: AWS would refuse its policies together.
    """
    device = Device(role.mfa_serial_number, options.mfa_code if role.mfa_serial_number else Secret())
    if role.credential_type is CredentialType.SESSION_TOKEN:
        return GetSessionToken(making.seconds, device)
    own = filled_policy(role.policy_document, making.identity)
    theirs = [document for group in making.groups for document in group.documents]
    document = policy_merge.united((own, *theirs, options.policy))
    of_groups = [one for group in making.groups for one in group.arns]
    arns = policy_merge.managed((*role.policy_arns, *of_groups))
    federated = role.credential_type is CredentialType.FEDERATION_TOKEN
    if (federated or role.iam_groups) and not document and not arns:
        # Without a policy, an assumed role's session may do everything that the IAM role may.
        raise NoSessionPolicy(f"role {role.name} and its groups have no policy for a session")
    session_tags = _filled_tags(role.session_tags, making.identity)
    if federated:
        return GetFederationToken(making.name, making.seconds, document, arns, session_tags)
    return AssumeRole(
        role_arn=role_arn_of(role, options),
        session_name=making.name,
        seconds=making.seconds,
        policy=document,
        policy_arns=arns,
        tags=session_tags,
        transitive_keys=role.transitive_tag_keys,
        source_identity=_filled_identity(role.source_identity, making.identity),
        external_id=role.external_id,
        device=device,
    )


def _filled_tags(session_tags: Tags, identity: Named) -> Tags:
    made = tuple((key, filled(value, identity)) for key, value in session_tags)
    if tags.violations("session_tags", made, tags.SESSION_LIMIT):
        raise TemplateValueUnsafe("AWS does not accept a session tag filled in from the caller")
    return made


def _filled_identity(source_identity: str, identity: Named) -> str:
    made = filled(source_identity, identity)
    if made and not _SOURCE_IDENTITY.fullmatch(made):
        raise TemplateValueUnsafe("AWS does not accept the source identity filled in from the caller")
    return made

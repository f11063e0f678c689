"""A role: the type and permissions of its credentials, and the rules for storing one.

The rules are IAM's and STS's, from their API references and "IAM and AWS STS quotas". They are checked when a
role is stored, so that an unusable role is not first reported when a caller asks for credentials.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Final

from lessor_server.domain import durations, user_names
from lessor_server.domain.aws import arn, partition, tags
from lessor_server.domain.errors.base import Violation, shown
from lessor_server.domain.lease_id import name_violations
from lessor_server.domain.mount import Mount
from lessor_server.domain.policy import policy, template


class CredentialType(Enum):
    """The kind of credential that a role issues."""

    IAM_USER = "IAM_USER"
    ASSUMED_ROLE = "ASSUMED_ROLE"
    FEDERATION_TOKEN = "FEDERATION_TOKEN"
    SESSION_TOKEN = "SESSION_TOKEN"

    __hash__ = object.__hash__  # Enum's is written in Python, and each issue needs it


@dataclass(frozen=True, slots=True)
class Role:
    """Hold a role as stored; spans are whole seconds, ``None`` if unset.

    ``policy_document`` is the canonical text (``policy.canonical``) or empty; tags are pairs sorted
    by key (``tags.of``); ``max_leases`` 0 means no limit. ``wait_usable`` is how long a request that names no
    wait waits until AWS accepts its key.
    """

    mount: str
    name: str
    credential_type: CredentialType
    role_arns: tuple[str, ...] = ()
    policy_arns: tuple[str, ...] = ()
    policy_document: str = ""
    iam_groups: tuple[str, ...] = ()
    iam_tags: tags.Tags = ()
    session_tags: tags.Tags = ()
    transitive_tag_keys: tuple[str, ...] = ()
    source_identity: str = ""
    external_id: str = ""
    user_path: str = ""
    permissions_boundary_arn: str = ""
    default_sts_ttl: timedelta | None = None
    max_sts_ttl: timedelta | None = None
    default_ttl: timedelta | None = None
    max_ttl: timedelta | None = None
    max_leases: int = 0
    mfa_serial_number: str = ""
    etag: str = ""
    wait_usable: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Review:
    """The result of a review of a role: violations, which refuse it, and warnings, which don't."""

    violations: tuple[Violation, ...]
    warnings: tuple[str, ...]


_USER: Final = frozenset({CredentialType.IAM_USER})
_ASSUMED: Final = frozenset({CredentialType.ASSUMED_ROLE})
_FEDERATED: Final = frozenset({CredentialType.FEDERATION_TOKEN})
_SESSION: Final = frozenset({CredentialType.SESSION_TOKEN})
_GOES_WITH: Final = {
    "role_arns": _ASSUMED,
    "policy_arns": _USER | _ASSUMED | _FEDERATED,
    "policy_document": _USER | _ASSUMED | _FEDERATED,
    "iam_groups": _USER | _ASSUMED | _FEDERATED,
    "iam_tags": _USER,
    "session_tags": _ASSUMED | _FEDERATED,
    "transitive_tag_keys": _ASSUMED,
    "source_identity": _ASSUMED,
    "external_id": _ASSUMED,
    "user_path": _USER,
    "permissions_boundary_arn": _USER,
    "default_sts_ttl": _ASSUMED | _FEDERATED | _SESSION,
    "max_sts_ttl": _ASSUMED | _FEDERATED | _SESSION,
    "default_ttl": _USER,
    "max_ttl": _USER,
    "mfa_serial_number": _ASSUMED | _SESSION,
}

STS_FLOOR: Final = timedelta(seconds=900)
STS_CEILINGS: Final = {
    CredentialType.ASSUMED_ROLE: timedelta(seconds=43_200),
    CredentialType.FEDERATION_TOKEN: timedelta(seconds=129_600),
    CredentialType.SESSION_TOKEN: timedelta(seconds=129_600),
}
"""AWS's longest session, by type: AssumeRole 12 h, the other two 36 h."""

MAX_WAIT_USABLE: Final = timedelta(seconds=60)
"""The longest wait that a role may have: callers without a deadline of their own have 60 s."""
ROLE_ARNS_LIMIT: Final = 100
USER_POLICIES_LIMIT: Final = 20
USER_POLICIES_DEFAULT: Final = 10
"""AWS's default quota of managed policies on a user; an account can have it raised to 20."""
SESSION_POLICIES_LIMIT: Final = 10
GROUPS_LIMIT: Final = 10
PATH_LIMIT: Final = 512
MAX_PARTITION_WARNINGS: Final = 3
INSTANCE_DIGITS: Final = 16
"""The length of an instance id, which is part of the path of all our users."""

_GROUP: Final = re.compile(r"[A-Za-z0-9_+=,.@-]{1,128}")
_EXTERNAL_ID: Final = re.compile(r"[A-Za-z0-9_+=,.@:/-]{2,1224}")
_PATH: Final = re.compile(r"/|/[!-~]+/")
_GRAMMARS: Final = {
    "source_identity": (
        re.compile(r"[A-Za-z0-9_+=,.@-]{2,64}"),
        "use 2 to 64 letters, digits and _ + = , . @ -",
    ),
    "mfa_serial_number": (
        re.compile(r"[A-Za-z0-9_+=/:,.@-]{9,256}"),
        "give a device's serial number or its ARN, 9 to 256 characters",
    ),
}
"""By field: the STS API reference's pattern, and the fix for a value that does not match."""


def review(role: Role, mount: Mount) -> Review:
    """Return every violation of ``role`` on ``mount``, and warnings for its author."""
    found = name_violations("name", role.name)
    found += _type_violations(role) + _arn_violations(role) + _ttl_violations(role, mount)
    found += _group_violations(role) + _tag_violations(role) + _text_violations(role)
    if role.max_leases < 0:
        found.append(Violation("max_leases", f"{role.max_leases} is below 0", "give 0 for no limit"))
    problems, warnings = _review_policy(role)
    found += problems
    warnings += _grant_warnings(role)
    count = len(role.policy_arns)
    if role.credential_type is CredentialType.IAM_USER and count > USER_POLICIES_DEFAULT:
        warnings.append(
            f"policy_arns has {count} policies: AWS accepts {USER_POLICIES_DEFAULT} on a user "
            "unless the account's quota was raised"
        )
    return Review(tuple(found), tuple(warnings))


def _grant_warnings(role: Role) -> list[str]:
    """Warn of a role whose credentials may do nothing, or everything."""
    found = []
    if role.credential_type is CredentialType.IAM_USER and not (
        role.policy_document or role.policy_arns or role.iam_groups
    ):
        found.append(
            "the role has no policy: its credentials may do nothing;"
            " set policy_document, policy_arns or iam_groups"
        )
    found += [
        f"policy_arns[{index}] is AdministratorAccess: its holder is allowed everything, and can create"
        " users, keys or roles that outlive the lease"
        for index, text in enumerate(role.policy_arns)
        if arn.is_administrator_access(text)
    ]
    if arn.is_administrator_access(role.permissions_boundary_arn):
        found.append("permissions_boundary_arn is AdministratorAccess, which limits nothing")
    return found


def arns(role: Role) -> dict[str, str]:
    """Return every ARN in ``role``, in fields and in resources of its policy, by its path."""
    found = {f"role_arns[{index}]": text for index, text in enumerate(role.role_arns)}
    found |= {f"policy_arns[{index}]": text for index, text in enumerate(role.policy_arns)}
    if role.permissions_boundary_arn:
        found["permissions_boundary_arn"] = role.permissions_boundary_arn
    return found | (policy.resources(json.loads(role.policy_document)) if role.policy_document else {})


def partition_warnings(role: Role, own: str) -> list[str]:
    """Warn of ARNs in ``role`` of another partition than ``own``, the root's (empty: not known yet)."""
    found = [
        f"{path} is in the partition {named}, and the root in {own}, where AWS refuses it: write arn:{own}:…"
        for path, named in (partition.others(own, arns(role)) if own else {}).items()
    ]
    more = len(found) - MAX_PARTITION_WARNINGS
    return [*found[:MAX_PARTITION_WARNINGS], f"and {more} more ARNs"] if more > 0 else found


def _review_policy(role: Role) -> tuple[list[Violation], list[str]]:
    """Return the violations of the policy, or if there are none its warnings."""
    if not role.policy_document:
        return [], []
    document = json.loads(role.policy_document)
    problems = policy.violations(document) + template.policy_violations("policy_document", document)
    return problems, [] if problems else policy.warnings(document)


def external_id_violations(field: str, text: str) -> list[Violation]:
    """Return the violations of an external id, by the STS API reference; empty means that none is sent."""
    if not text or _EXTERNAL_ID.fullmatch(text):
        return []
    fix = "use 2 to 1224 letters, digits and _ + = , . @ : / -"
    return [Violation(field, f"{shown(text)} is not a valid value", fix)]


def _type_violations(role: Role) -> list[Violation]:
    """Check which fields the role's type allows, and which it needs."""
    kind = role.credential_type
    found = []
    for field, kinds in _GOES_WITH.items():
        if getattr(role, field) not in ("", (), None) and kind not in kinds:
            others = " and ".join(other.name for other in CredentialType if other in kinds)
            problem = f"is not allowed for {kind.name}"
            found.append(Violation(field, problem, f"leave it out: it is for {others}"))
    if kind is CredentialType.ASSUMED_ROLE and not role.role_arns:
        found.append(Violation("role_arns", "is needed for ASSUMED_ROLE", "name at least one IAM role"))
    if kind is CredentialType.FEDERATION_TOKEN and not (
        role.policy_arns or role.policy_document or role.iam_groups
    ):
        fix = "give policy_document, policy_arns or iam_groups: without one the token may do nothing"
        found.append(Violation("policy_document", "FEDERATION_TOKEN needs at least one policy", fix))
    return found


def _arn_violations(role: Role) -> list[Violation]:
    is_user = role.credential_type is CredentialType.IAM_USER
    found = _list_violations("role_arns", role.role_arns, ROLE_ARNS_LIMIT)
    for index, text in enumerate(role.role_arns[:ROLE_ARNS_LIMIT]):
        if not arn.is_role_pattern(text):
            fix = "write arn:aws:iam::123456789012:role/name, one per item; * only in the last segment"
            found.append(
                Violation(f"role_arns[{index}]", f"{shown(text)} is not the ARN of an IAM role", fix)
            )
    limit = USER_POLICIES_LIMIT if is_user else SESSION_POLICIES_LIMIT
    found += _list_violations("policy_arns", role.policy_arns, limit)
    paths = [(f"policy_arns[{index}]", text) for index, text in enumerate(role.policy_arns[:limit])]
    if role.permissions_boundary_arn:
        paths.append(("permissions_boundary_arn", role.permissions_boundary_arn))
    for path, text in paths:
        if not arn.is_policy(text):
            fix = "write arn:aws:iam::123456789012:policy/name or arn:aws:iam::aws:policy/name, one per item"
            found.append(Violation(path, f"{shown(text)} is not the ARN of an IAM policy", fix))
    return found


def _group_violations(role: Role) -> list[Violation]:
    found = _list_violations("iam_groups", role.iam_groups, GROUPS_LIMIT)
    for index, name in enumerate(role.iam_groups[:GROUPS_LIMIT]):
        if not _GROUP.fullmatch(name):
            fix = "use 1 to 128 letters, digits and _ + = , . @ -"
            found.append(Violation(f"iam_groups[{index}]", f"{shown(name)} is not a valid group name", fix))
    return found


def _tag_violations(role: Role) -> list[Violation]:
    found = tags.violations("iam_tags", role.iam_tags, tags.IAM_LIMIT)
    found += _session_tag_violations(role.session_tags)
    found += _list_violations("transitive_tag_keys", role.transitive_tag_keys, tags.SESSION_LIMIT)
    keys = {key for key, _ in role.session_tags}
    for index, key in enumerate(role.transitive_tag_keys[: tags.SESSION_LIMIT]):
        if key not in keys:
            problem = f"{shown(key)} is not a key of session_tags"
            fix = "add the tag, or leave its key out"
            found.append(Violation(f"transitive_tag_keys[{index}]", problem, fix))
    return found


def _session_tag_violations(session_tags: tags.Tags) -> list[Violation]:
    """Check the tags with values filled in, because their values are templates."""
    found = []
    for key, value in session_tags[: tags.SESSION_LIMIT]:
        found += template.violations(f"session_tags[{shown(key)}]", value)
    samples = tuple((key, template.sample(value)) for key, value in session_tags)
    return found or tags.violations("session_tags", samples, tags.SESSION_LIMIT)


def _text_violations(role: Role) -> list[Violation]:
    found = template.violations("source_identity", role.source_identity)
    identity = "" if found else template.sample(role.source_identity)
    for field, text in (("source_identity", identity), ("mfa_serial_number", role.mfa_serial_number)):
        grammar, fix = _GRAMMARS[field]
        if text and not grammar.fullmatch(text):
            found.append(Violation(field, f"{shown(text)} is not a valid value", fix))
    found += external_id_violations("external_id", role.external_id)
    path = role.user_path
    longest = PATH_LIMIT - len(user_names.user_path("x" * INSTANCE_DIGITS, "/")) + 1
    if path and len(path) <= longest and not _PATH.fullmatch(path):
        fix = "write / or a path that begins and ends with /, of printable ASCII without spaces"
        found.append(Violation("user_path", f"{shown(path)} is not a valid path", fix))
    if len(path) > longest:
        problem = f"has {len(path)} characters, and Lessor's own path comes before it"
        found.append(Violation("user_path", problem, f"shorten it to {longest}"))
    return found


def _ttl_violations(role: Role, mount: Mount) -> list[Violation]:
    found = []
    for field in ("default_ttl", "max_ttl", "default_sts_ttl", "max_sts_ttl", "wait_usable"):
        found += durations.violations(field, getattr(role, field))
    found += durations.order_violations("wait_usable", role.wait_usable, MAX_WAIT_USABLE, "the longest wait")
    mounts = (mount.max_lease_ttl, "the mount's max_lease_ttl")
    found += durations.order_violations("max_ttl", role.max_ttl, *mounts)
    if role.max_ttl is None:
        found += durations.order_violations("default_ttl", role.default_ttl, *mounts)
    found += durations.order_violations("default_ttl", role.default_ttl, role.max_ttl, "max_ttl")
    found += durations.order_violations(
        "default_sts_ttl", role.default_sts_ttl, role.max_sts_ttl, "max_sts_ttl"
    )
    ceiling = STS_CEILINGS.get(role.credential_type)
    for field, value in (("default_sts_ttl", role.default_sts_ttl), ("max_sts_ttl", role.max_sts_ttl)):
        if ceiling is not None and value is not None:
            found += durations.order_violations(field, value, ceiling, "AWS's ceiling")
            if durations.SECOND <= value < STS_FLOOR:
                problem = (
                    f"{durations.format_duration(value)} is below 900s, the shortest session that AWS gives"
                )
                found.append(Violation(field, problem, "give at least 900s"))
    return found


def _list_violations(field: str, items: tuple[str, ...], limit: int) -> list[Violation]:
    """Check the number of items, and that none of the first ``limit`` is a duplicate."""
    found = []
    if len(items) > limit:
        found.append(Violation(field, f"has {len(items)} items", f"give at most {limit}"))
    seen: set[str] = set()
    for index, item in enumerate(items[:limit]):
        if item in seen:
            found.append(Violation(f"{field}[{index}]", f"{shown(item)} is listed twice", "leave it out"))
        seen.add(item)
    return found

"""The controls of a role, and roles to begin with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lessor.v1 import role_pb2
from lessor_server.http_edge.console.forms import Control, ControlKind, known_controls

USER, ASSUMED, FEDERATED, SESSION = "IAM_USER", "ASSUMED_ROLE", "FEDERATION_TOKEN", "SESSION_TOKEN"
_WITH_POLICY: Final = (USER, ASSUMED, FEDERATED)
_STS: Final = (ASSUMED, FEDERATED, SESSION)

TYPES: Final = (
    (USER, "IAM user: a new user with one key for each lease"),
    (ASSUMED, "Assumed role: a session of an IAM role"),
    (FEDERATED, "Federation token: a session of the root, limited by a policy"),
    (SESSION, "Session token: a session of the root itself"),
)
_ALL_IDENTITY: Final = (
    Control("name", "Name", required=True, hint="Letters, digits and . _ -, at most 64."),
    Control("credential_type", "Credentials", ControlKind.CHOICE, choices=TYPES, required=True),
    Control(
        "role_arns",
        "IAM roles to assume",
        ControlKind.LINES,
        "One ARN a line. A * is allowed in the last segment.",
        only=(ASSUMED,),
    ),
    Control(
        "policy_document",
        "Policy",
        ControlKind.JSON,
        "An IAM policy in JSON, at most 2,048 characters without white space.",
        only=_WITH_POLICY,
    ),
)
_ALL_RIGHTS: Final = (
    Control("policy_arns", "Managed policies", ControlKind.LINES, "One ARN a line.", only=_WITH_POLICY),
    Control("iam_groups", "IAM groups", ControlKind.LINES, "One name a line.", only=_WITH_POLICY),
    Control(
        "permissions_boundary_arn", "Permissions boundary", hint="ARN of a managed policy.", only=(USER,)
    ),
)
_ALL_LIFE: Final = (
    Control(
        "default_ttl", "Lease", ControlKind.DURATION, "If the request sets none, as in 1h.", only=(USER,)
    ),
    Control("max_ttl", "Longest lease", ControlKind.DURATION, "Renewals included.", only=(USER,)),
    Control(
        "default_sts_ttl",
        "Session",
        ControlKind.DURATION,
        "If the request sets none; 15m or more.",
        only=_STS,
    ),
    Control(
        "max_sts_ttl", "Longest session", ControlKind.DURATION, "At most 12h for assumed roles.", only=_STS
    ),
    Control("max_leases", "Most leases", ControlKind.INTEGER, "At the same time. Empty means no limit."),
    Control(
        "wait_usable",
        "Wait until usable",
        ControlKind.DURATION,
        "For callers that can't ask for it themselves.",
    ),
)
_ALL_MORE: Final = (
    Control("iam_tags", "Tags of the user", ControlKind.PAIRS, "One KEY=VALUE a line.", only=(USER,)),
    Control("user_path", "Path of the user", hint="Begins and ends with /.", only=(USER,)),
    Control(
        "session_tags",
        "Tags of the session",
        ControlKind.PAIRS,
        "One KEY=VALUE a line; values may hold {{identity.name}}.",
        only=(ASSUMED, FEDERATED),
    ),
    Control("transitive_tag_keys", "Transitive tag keys", ControlKind.LINES, "One a line.", only=(ASSUMED,)),
    Control("source_identity", "Source identity", hint="May hold {{identity.name}}.", only=(ASSUMED,)),
    Control("external_id", "External id", only=(ASSUMED,)),
    Control(
        "mfa_serial_number",
        "MFA device",
        hint="Serial number or ARN; each request then needs its code.",
        only=(ASSUMED, SESSION),
    ),
)
IDENTITY, RIGHTS, LIFE, MORE = (
    known_controls(one, role_pb2.Role) for one in (_ALL_IDENTITY, _ALL_RIGHTS, _ALL_LIFE, _ALL_MORE)
)
CONTROLS: Final = (*IDENTITY, *RIGHTS, *LIFE, *MORE)
CHANGEABLE: Final = tuple(one.name for one in CONTROLS if one.name != "name")


@dataclass(frozen=True, slots=True)
class RoleTemplate:
    """A role to begin with: what its form is filled with."""

    title: str
    typed: dict[str, str]


_POLICY: Final = """\
{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Action": %s,
      "Resource": %s
    }
  ]
}"""
TEMPLATES: Final = {
    "describe": RoleTemplate(
        "Describe EC2",
        {
            "credential_type": USER,
            "policy_document": _POLICY % ('"ec2:Describe*"', '"*"'),
            "default_ttl": "1h",
            "max_ttl": "24h",
        },
    ),
    "bucket": RoleTemplate(
        "Read one bucket",
        {
            "credential_type": USER,
            "policy_document": _POLICY
            % (
                '[\n        "s3:GetObject",\n        "s3:ListBucket"\n      ]',
                '[\n        "arn:aws:s3:::BUCKET",\n        "arn:aws:s3:::BUCKET/*"\n      ]',
            ),
            "default_ttl": "1h",
            "max_ttl": "24h",
        },
    ),
    "assume": RoleTemplate(
        "Assume a role",
        {
            "credential_type": ASSUMED,
            "role_arns": "arn:aws:iam::123456789012:role/NAME",
            "default_sts_ttl": "1h",
            "source_identity": "{{identity.name}}",
        },
    ),
    "federate": RoleTemplate(
        "Federate a session",
        {
            "credential_type": FEDERATED,
            "policy_document": _POLICY % ('"s3:ListAllMyBuckets"', '"*"'),
            "default_sts_ttl": "1h",
        },
    ),
}

"""The values that IAM accepts as a ``Resource`` of a policy.

Source: "IAM JSON policy elements: Resource" and "… Variables and tags" in the IAM User Guide (variables may
be in the last part of an ARN, and in ``Condition``); resource types: Service Authorization Reference. The
messages quoted below are IAM's own, of MalformedPolicyDocument. IAM checks few services, and only in part;
values that it is not known to refuse are accepted here.
"""

from __future__ import annotations

import re
from typing import Final

from lessor_server.domain.aws import partition
from lessor_server.domain.errors.base import shown

_IAM_TYPES: Final = (
    "user/",
    "federated-user/",
    "role/",
    "group/",
    "instance-profile/",
    "mfa/",
    "server-certificate/",
    "policy/",
    "sms-mfa/",
    "saml-provider/",
    "oidc-provider/",
    "report/",
    "access-report/",
)
"""'IAM resource path must either be "*", root, or start with user/, …', as IAM's message lists them."""
_IAM_NEWER: Final = re.compile(r"(?!account-alias/)[a-z]+(?:-[a-z]+)+/")
"""Types that IAM accepts although its message omits them: delegation-request, role-template, future ones."""
_S3_REGIONAL: Final = (
    "accesspoint",
    "job/",
    "storage-lens",
    "async-request/",
    "access-grants",
    "*",
    "?",
    "$",
)
"""The S3 resources with a region in the ARN; "Resource … can not contain region information" of a bucket."""
_ROUTE53_OF_ACCOUNT: Final = ("domain/", "*", "?", "$")
"""The Route 53 resources with an account in the ARN: registered domains."""
_PLACEHOLDER: Final = re.compile(r"[<>_\s]")
_LITERAL: Final = re.compile(r"[a-z0-9-]+")
_ACCOUNT: Final = re.compile(r"[0-9]+")


def problem(resource: str) -> str:
    """Return why IAM refuses ``resource``, as a predicate for a message; empty if it is not known to."""
    if resource == "*":
        return ""
    if not resource.startswith("arn:"):
        return 'is not an ARN, and not "*"'
    name, *rest = resource.removeprefix("arn:").split(":", 1)
    if name != "*" and name not in partition.NAMES:
        return f"names the partition {shown(name)}, which AWS does not have"
    if not rest or not rest[0].partition(":")[0]:
        return "names no service"
    fields = rest[0].split(":", 3)
    if set("*?") & set(fields[0]):
        return "has a wildcard in its service"
    if len(fields) < 4:
        # "The policy failed legacy parsing": short forms pass as long as no field is empty.
        return "has fewer than six fields" if "::" in resource else ""
    return _problem_of_fields(*fields)


def _problem_of_fields(service: str, region: str, account: str, name: str) -> str:
    if _PLACEHOLDER.search(f"{region.replace('_', '')}{account}"):
        return f"has a placeholder in its region or account, {shown(f'{region}:{account}')}"
    regional = _LITERAL.fullmatch(region) is not None
    match service:
        case "iam":
            if regional:
                return "names a region, and IAM has none"
            if not _is_iam_resource(name):
                if "${" in f"{region} {account}":
                    return "has a policy variable in its region or account; only its last part may have one"
                return f"does not name a type of IAM resource: {shown(name)}"
        case "s3":
            if regional and not name.startswith(_S3_REGIONAL):
                return "names a region, and buckets have none in their ARNs"
        case "route53":
            if regional:
                return "names a region, and Route 53 has none"
            if _ACCOUNT.fullmatch(account) and not name.startswith(_ROUTE53_OF_ACCOUNT):
                return "names an account, and ARNs of Route 53 have none"
    return ""


def _is_iam_resource(name: str) -> bool:
    known = name in ("*", "root") or name.startswith((*_IAM_TYPES, "${"))
    return known or _IAM_NEWER.match(name) is not None


FIX: Final = 'write "*" or an ARN, as "arn:aws:s3:::bucket/*" or "arn:aws:iam::123456789012:role/name"'

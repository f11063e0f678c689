"""The rules of IAM for names, paths, tags, policy documents and quotas, with its error messages.

Sources, cited below by their last part: ``https://docs.aws.amazon.com/IAM/latest/APIReference/API_…``,
``…/IAM/latest/APIReference/CommonErrors.html`` and ``…/IAM/latest/UserGuide/reference_….html``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

Value: TypeAlias = "str | int | bool | Sequence[Value] | Mapping[str, Value]"
Result: TypeAlias = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Answer:
    """AWS's answer to one call: a result with status 200, or a code and a message."""

    status: int = 200
    code: str = ""
    message: str = ""
    result: Result = field(default_factory=dict, repr=False)

    @property
    def ok(self) -> bool:
        """Return whether the call was carried out."""
        return not self.code


class RefusalError(Exception):
    """An error answer that a rule raises; ``Iam.handle`` turns it into an ``Answer``."""

    def __init__(self, status: int, code: str, message: str) -> None:
        """Carry this answer."""
        super().__init__(f"{code}: {message}")
        self.answer = Answer(status, code, message)


@dataclass(frozen=True, slots=True)
class Quotas:
    """How many objects of a kind an account or a user may have (reference_iam-quotas)."""

    users: int = 5000
    access_keys: int = 2
    attached_policies: int = 10
    groups: int = 10
    inline_bytes: int = 2048
    managed_bytes: int = 6144
    tags: int = 50


def missing(message: str) -> RefusalError:
    """Make NoSuchEntity, 404 (each API page's "Errors")."""
    return RefusalError(404, "NoSuchEntity", message)


def no_user(name: str) -> RefusalError:
    """Return the NoSuchEntity error for a user."""
    return missing(f"The user with name {name} cannot be found.")


def exists(message: str) -> RefusalError:
    """Make EntityAlreadyExists, 409."""
    return RefusalError(409, "EntityAlreadyExists", message)


def conflict(what: str) -> RefusalError:
    """Return DeleteConflict, 409 (API_DeleteUser); ``what`` must be deleted first."""
    return RefusalError(409, "DeleteConflict", f"Cannot delete entity, must {what} first.")


def over_quota(name: str, limit: int) -> RefusalError:
    """Make LimitExceeded, 409, for the quota of this name (reference_iam-quotas)."""
    return RefusalError(409, "LimitExceeded", f"Cannot exceed quota for {name}: {limit}")


def invalid(message: str) -> RefusalError:
    """Make ValidationError, 400 (CommonErrors)."""
    return RefusalError(400, "ValidationError", message)


def bad_token() -> RefusalError:
    """Return InvalidClientTokenId, 403 (CommonErrors): the key is deleted or inactive."""
    return RefusalError(403, "InvalidClientTokenId", "The security token included in the request is invalid.")


def _constraint(value: str, at: str, rule: str) -> RefusalError:
    failed = "failed to satisfy constraint: Member must"
    return invalid(f"1 validation error detected: Value '{value}' at '{at}' {failed} {rule}")


_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]+")
_PATH = re.compile(r"/|/[\x21-\x7e]+/")
_ARN = re.compile(r"arn:[a-z-]+:iam::(\d{12}|aws):policy/[\x21-\x7e]+")


def check_name(name: str, at: str = "userName", longest: int = 64) -> None:
    r"""Refuse a name outside ``[\w+=,.@-]+`` or longer than ``longest`` characters (API_CreateUser)."""
    if not _NAME.fullmatch(name):
        raise _constraint(name, at, r"satisfy regular expression pattern: [\w+=,.@-]+")
    if len(name) > longest:
        raise _constraint(name, at, f"have length less than or equal to {longest}")


def check_path(path: str) -> None:
    """Refuse a path that doesn't begin and end with ``/`` or has over 512 characters (API_CreateUser)."""
    if len(path) > 512 or not _PATH.fullmatch(path):
        raise invalid(
            "The specified value for path is invalid. It must begin and end with / and contain only "
            "alphanumeric characters and/or / characters."
        )


def check_policy_arn(arn: str) -> None:
    """Refuse an invalid ARN of a managed policy (API_AttachUserPolicy, InvalidInput)."""
    if not _ARN.fullmatch(arn):
        raise RefusalError(400, "InvalidInput", f"ARN {arn} is not valid.")


def check_tags(tags: Iterable[tuple[str, str]], quota: int) -> dict[str, str]:
    """Return the tags as a dict; refuse too many, too long, and keys equal but for case (API_TagUser)."""
    pairs = list(tags)
    if len(pairs) > quota:
        raise _constraint(f"{len(pairs)} tags", "tags", f"have length less than or equal to {quota}")
    if len({key.casefold() for key, _ in pairs}) < len(pairs):
        raise RefusalError(
            400, "InvalidInput", "Duplicate tag keys found. Please note that Tag keys are case insensitive."
        )
    for key, value in pairs:
        if not 1 <= len(key) <= 128:
            raise _constraint(key, "tags.1.member.key", "have length less than or equal to 128")
        if len(value) > 256:
            raise _constraint(value, "tags.1.member.value", "have length less than or equal to 256")
        if key.casefold().startswith("aws:"):
            raise RefusalError(
                400, "InvalidInput", "aws: prefixed tag key names are not allowed for external use."
            )
    return dict(pairs)


def policy_size(document: str) -> int:
    """Count a document's characters as IAM does: white space is free (reference_iam-quotas)."""
    return sum(not character.isspace() for character in document)


_VERSIONS = ("2012-10-17", "2008-10-17")
_ORDER = ("Version", "Id", "Statement")
"""IAM refuses a lone statement object before its version (terraform-provider-aws#22879); here every document
must have the order of the grammar page, so that none is sent in another.
"""
_TOP = set(_ORDER)
_STATEMENT = {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"}


def _malformed(message: str) -> RefusalError:
    return RefusalError(400, "MalformedPolicyDocument", message)


def _strings(value: object) -> list[str]:
    items = value if isinstance(value, list) else [value]
    if not items or not all(isinstance(item, str) for item in items):
        raise _malformed("Syntax errors in policy.")
    return [str(item) for item in items]


def check_document(document: str) -> None:
    """Refuse a document that is no identity policy (API_PutUserPolicy, reference_policies_grammar).

    A document without ``Version`` counts as 2008-10-17 (reference_policies_elements_version).
    """
    try:
        policy = json.loads(document)
    except ValueError:
        raise _malformed("Syntax errors in policy.") from None
    if not isinstance(policy, dict) or not policy.keys() <= _TOP:
        raise _malformed("Syntax errors in policy.")
    if policy.get("Version", _VERSIONS[1]) not in _VERSIONS:
        raise _malformed("Policy document must be version 2012-10-17 or greater.")
    if list(policy) != [member for member in _ORDER if member in policy]:
        raise _malformed("The policy failed legacy parsing")
    statements = policy.get("Statement")
    statements = statements if isinstance(statements, list) else [statements]
    if not statements:
        raise _malformed("Syntax errors in policy.")
    for statement in statements:
        _check_statement(statement)
    sids = [statement["Sid"] for statement in statements if statement.get("Sid")]
    if len(set(sids)) < len(sids):
        raise _malformed("Statement IDs (SID) in a single policy must be unique.")


def _check_statement(statement: object) -> None:
    if not isinstance(statement, dict):
        raise _malformed("Syntax errors in policy.")
    if statement.keys() & {"Principal", "NotPrincipal"}:
        raise _malformed("Policy document should not specify a principal.")
    known = statement.keys() <= _STATEMENT and isinstance(statement.get("Sid", ""), str)
    if not known or statement.get("Effect") not in ("Allow", "Deny"):
        raise _malformed("Syntax errors in policy.")
    if ("Action" in statement) == ("NotAction" in statement):
        raise _malformed("Policy statement must contain actions.")
    if ("Resource" in statement) == ("NotResource" in statement):
        raise _malformed("Policy statement must contain resources.")
    _check_targets(statement)


def _check_targets(statement: Mapping[str, object]) -> None:
    for action in _strings(statement.get("Action", statement.get("NotAction"))):
        if action != "*" and ":" not in action:
            raise _malformed("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
    for resource in _strings(statement.get("Resource", statement.get("NotResource"))):
        if resource != "*" and not resource.startswith("arn:"):
            raise _malformed(f'Resource {resource} must be in ARN format or "*".')

"""Merges the policies of a session: those of its role, of the role's groups, and of the request.

STS accepts one policy document and up to 10 managed policies for a session. The session may do what any of
them allows, if the assumed role or federating user may do it too (IAM User Guide, "Session policies"). So a
request can narrow a role that has policies only by Deny statements.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from lessor_server.domain.errors.preconditions import RoleNotUsable, SessionTooLarge
from lessor_server.domain.policy import policy
from lessor_server.domain.policy.policy import JsonValue
from lessor_server.domain.role import SESSION_POLICIES_LIMIT

_ITEMS: Final = ("Action", "NotAction", "Resource", "NotResource")


@dataclass(frozen=True, slots=True)
class GroupPolicies:
    """The policies of one IAM group: documents as JSON texts, and ARNs of managed policies."""

    documents: tuple[str, ...] = ()
    arns: tuple[str, ...] = ()


def only_denies(document: Mapping[str, JsonValue]) -> bool:
    """Return whether every statement of a policy denies."""
    return all(statement.get("Effect") == "Deny" for statement in _statements(document))


def united(documents: Iterable[str]) -> str:
    """Return the canonical text of one policy with the statements of all ``documents``.

    Documents without a statement add nothing; if there are no others, the text is empty. A single document is
    unchanged. If there are several, the first Id is kept, and a repeated Sid gets a number.

    Raises:
        RoleNotUsable: A document is not a policy. SessionTooLarge: All together are too large.
    """
    parsed = [_read(text) for text in documents if text.strip()]
    speaking = [document for document in parsed if _statements(document)]
    if not speaking:
        return ""
    text = policy.canonical(speaking[0] if len(speaking) == 1 else _merged(speaking))
    if len(text) > policy.LIMIT:
        raise SessionTooLarge(
            f"the session's policies have {len(text)} characters together, and AWS accepts {policy.LIMIT}"
        )
    return text


def managed(arns: Iterable[str]) -> tuple[str, ...]:
    """Return ``arns`` without duplicates, or raise ``SessionTooLarge`` if they are too many for AWS."""
    once = tuple(dict.fromkeys(arns))
    if len(once) > SESSION_POLICIES_LIMIT:
        problem = f"the session would have {len(once)} managed policies"
        raise SessionTooLarge(f"{problem}, and AWS accepts {SESSION_POLICIES_LIMIT}")
    return once


def _read(text: str) -> Mapping[str, JsonValue]:
    try:
        document = json.loads(text)
    except ValueError:
        raise RoleNotUsable("a policy of one of the role's groups is not valid JSON") from None
    if not isinstance(document, dict) or not _well_formed(document.get("Statement", [])):
        raise RoleNotUsable("a policy of one of the role's groups is not an IAM policy")
    return document


def _well_formed(value: JsonValue) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list) and all(isinstance(item, Mapping) for item in value)
    )


def _statements(document: Mapping[str, JsonValue]) -> list[Mapping[str, JsonValue]]:
    value = document.get("Statement", [])
    items = [value] if isinstance(value, Mapping) else value
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []


def _merged(documents: list[Mapping[str, JsonValue]]) -> dict[str, JsonValue]:
    sids: dict[str, int] = {}
    statements = [
        _named_once({name: _listed(name, statement[name]) for name in statement}, sids)
        for document in documents
        for statement in _statements(_of_today(document))
    ]
    merged: dict[str, JsonValue] = {"Version": policy.VERSIONS[0], "Statement": statements}
    ids = [document["Id"] for document in documents if document.get("Id")]
    return merged | ({"Id": ids[0]} if ids else {})


def _of_today(document: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Return a policy translated to the current version of the policy language.

    Before 2012-10-17 there were no variables: a literal ``${`` is now written ``${$}{``.
    """
    if document.get("Version") == policy.VERSIONS[0]:
        return document
    return policy.in_places(document, "", lambda _, text: text.replace("${", "${$}{"))


def _listed(name: str, value: JsonValue) -> JsonValue:
    return [value] if name in _ITEMS and isinstance(value, str) else value


def _named_once(statement: dict[str, JsonValue], sids: dict[str, int]) -> dict[str, JsonValue]:
    """Return a statement whose Sid is not in ``sids``, and add it there; an empty Sid is removed.

    ``sids`` maps each Sid to the last number given to a duplicate.
    """
    sid = str(statement.pop("Sid", ""))
    if not sid:
        return statement
    fresh = sid
    while fresh in sids:
        sids[sid] += 1
        fresh = f"{sid}{sids[sid]}"
    sids[fresh] = 1
    return statement | {"Sid": fresh}

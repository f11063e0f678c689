"""Templates that are filled in from the caller's identity.

Their fields are ``{{identity.name}}``, ``{{identity.labels.KEY}}`` and ``{{identity.name_sha256}}``, the
SHA-256 of the name in hexadecimal. They are allowed in session tags, the source identity, the name template,
and in a policy where IAM allows variables. A label that the caller lacks is an error: with an empty text,
callers without a team could share ``home/{{identity.labels.team}}/*``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Final

from lessor_server.domain.errors.base import Violation, shown, too_long
from lessor_server.domain.errors.preconditions import RoleNotUsable, TemplateLabelUnknown, TemplateValueUnsafe
from lessor_server.domain.policy import placeholders, policy
from lessor_server.domain.policy.placeholders import MAX_TEMPLATE
from lessor_server.domain.policy.policy import JsonValue
from lessor_server.domain.user_names import IDENTITY, Named

_SAFE: Final = re.compile(r"[A-Za-z0-9_.@+=,-]{1,128}")
"""The values allowed in a policy: there ``*``, ``?``, ``$``, ``/`` and ``:`` have a meaning."""
_FIX: Final = "use {{identity.name}}, {{identity.labels.KEY}}, {{identity.name_sha256}}"
_LABEL: Final = "identity.labels."


def identity_fields(name: str, labels: Mapping[str, str]) -> Named:
    """Return the function that gives a template the value of a field of the caller's identity.

    It raises ``TemplateLabelUnknown`` if the caller lacks a label.
    """

    def value(named: str) -> str:
        if named == "identity.name":
            return name
        if named == "identity.name_sha256":
            return sha256(name.encode()).hexdigest()
        key = named.removeprefix(_LABEL)
        if label := labels.get(key):
            return label
        raise TemplateLabelUnknown(f"the caller has no label {shown(key)}, which the role needs")

    return value


def holds(text: str) -> bool:
    """Return whether ``text`` has a placeholder."""
    return any(IDENTITY.fullmatch(named) for named in placeholders.fields(text))


def violations(path: str, text: str, limit: int = MAX_TEMPLATE) -> list[Violation]:
    """Return the violations of a template: its length, unknown fields, stray braces."""
    if len(text) > limit:
        return [too_long(path, text, limit)]
    found = [
        Violation(path, f"{{{{{shown(named)[1:-1]}}}}} is not a field", _FIX)
        for named in placeholders.fields(text)
        if not IDENTITY.fullmatch(named)
    ]
    if placeholders.has_stray_braces(text):
        found.append(Violation(path, "has braces that belong to no field", _FIX))
    return found


def policy_violations(path: str, document: Mapping[str, JsonValue]) -> list[Violation]:
    """Return the violations of the templates in a policy, including their places."""
    found: list[Violation] = []
    used = False

    def look(spot: str, text: str) -> str:
        nonlocal used, found
        used = used or holds(text)
        found += violations(spot, text, policy.LIMIT)
        return ""

    rest = policy.in_places(document, path, look)
    found += none_violations(path, rest, "write it in a resource or in the value of a condition")
    if used and document.get("Version") != policy.VERSIONS[0]:
        problem = "is not allowed together with a template"
        found.append(Violation(f"{path}.Version", problem, f'write "{policy.VERSIONS[0]}"'))
    return found


def none_violations(
    path: str, document: Mapping[str, JsonValue], fix: str = "write the value itself"
) -> list[Violation]:
    """Return violations for templates that are not filled in: AWS would use their literal text."""
    return [
        Violation(spot, "holds a template, or braces, where none is allowed", fix)
        for spot, value in policy.walk(document, path)
        if isinstance(value, str) and ("{{" in value or "}}" in value)
    ]


def sample(text: str) -> str:
    """Return ``text`` filled in with short values, to be checked by the rules of its place."""
    return placeholders.fill(text, lambda _: "xx")


def filled(text: str, identity: Named) -> str:
    """Return ``text`` filled in, or raise ``TemplateLabelUnknown``; other placeholders stay."""
    return placeholders.fill(text, lambda named: identity(named) if IDENTITY.fullmatch(named) else None)


def filled_policy(document: str, identity: Named) -> str:
    """Return the canonical text of a policy filled in.

    Raises:
        TemplateLabelUnknown: The caller lacks a label that is used.
        TemplateValueUnsafe: A value has characters with a meaning in IAM.
        RoleNotUsable: The policy has become too long.
    """
    if "{{" not in document:
        return _canonical(document)

    def safe(named: str) -> str:
        value = identity(named)
        if not _SAFE.fullmatch(value):
            raise TemplateValueUnsafe(
                f"the caller's {named} holds characters with a special meaning in a policy"
            )
        return value

    def fill(_: str, text: str) -> str:
        return placeholders.fill(text, lambda named: safe(named) if IDENTITY.fullmatch(named) else None)

    made = policy.canonical(policy.in_places(json.loads(document), "policy_document", fill))
    if len(made) > policy.LIMIT:
        raise RoleNotUsable(
            f"the role's policy has {len(made)} characters for this caller, and AWS accepts {policy.LIMIT}"
        )
    return made


@lru_cache(maxsize=64)
def _canonical(document: str) -> str:
    """Return the canonical text of a stored policy without templates; earlier versions stored other texts."""
    return policy.canonical(json.loads(document)) if document else ""

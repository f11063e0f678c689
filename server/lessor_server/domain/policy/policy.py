"""IAM policy documents: their canonical form, IAM's grammar, and warnings about them.

Source: "Grammar of the IAM JSON policy language" and "IAM JSON policy elements" in the IAM User
Guide; the characters are those of ``policyDocumentType`` in the IAM API reference. The rules refuse
what IAM refuses; if its answer depends on the service, they accept the document.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from lessor_server.domain.aws import resource_arn
from lessor_server.domain.errors.base import Violation, shown
from lessor_server.domain.policy import condition, wildcard

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
Statement: TypeAlias = Mapping[str, JsonValue]

LIMIT: Final = 2_048
"""The maximum length of a user's inline policies together, and of one session policy."""
EXACT: Final = 2**53
"""The highest whole number up to which all are exact as a double."""
VERSIONS: Final = ("2012-10-17", "2008-10-17")

_TOP: Final = ("Version", "Id", "Statement")
_MEMBERS: Final = (
    "Sid",
    "Effect",
    "Action",
    "NotAction",
    "Resource",
    "NotResource",
    "Condition",
)
_SID: Final = re.compile(r"[A-Za-z0-9]*")
_STATEMENT_ORDER: Final = (
    "Sid",
    "Principal",
    "NotPrincipal",
    "Effect",
    "Action",
    "NotAction",
    "Resource",
    "NotResource",
    "Condition",
)
"""The members of a statement in the order of IAM's grammar page."""
_ACTION: Final = re.compile(r"\*|(?:\*|[A-Za-z0-9.-]+):[^:]*")
_PLAIN_KEY: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_FOREIGN: Final = re.compile(r"[^\x00-\xff]")


# --- the canonical form ---------------------------------------------------------------------------


def canonical(document: Mapping[str, JsonValue]) -> str:
    """Return the text that is sent to AWS, without white space and not ASCII-escaped.

    ``Version`` comes first and ``Statement`` is a list: IAM refuses a single statement object before the
    version, "failed legacy parsing" (terraform-provider-aws#22879). Members have the order of IAM's grammar
    page, other keys are sorted, whole numbers up to 2^53 have no ``.0``: equal documents give equal texts.
    """
    ordered = _in_order(_plain(document), _TOP)
    statements = ordered.get("Statement")
    if isinstance(statements, Mapping):
        statements = [statements]
    if _is_list(statements):
        ordered["Statement"] = [
            _in_order(one, _STATEMENT_ORDER) if isinstance(one, Mapping) else one
            for _, one in _items(statements, "")
        ]
    return json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))


def _in_order(object_: JsonValue, order: tuple[str, ...]) -> dict[str, JsonValue]:
    assert isinstance(object_, Mapping)
    return {**{key: object_[key] for key in order if key in object_}, **object_}


def _plain(value: JsonValue) -> JsonValue:
    if isinstance(value, Mapping):
        return {key: _plain(value[key]) for key in sorted(value)}
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= EXACT else value
    if isinstance(value, str) or not isinstance(value, Sequence):
        return value
    return [_plain(inner) for inner in value]


# --- the grammar ----------------------------------------------------------------------------------


def violations(
    document: Mapping[str, JsonValue], *, limit: int = LIMIT, field: str = "policy_document"
) -> list[Violation]:
    """Return every violation of an identity policy; ``limit`` bounds the characters of its canonical form.

    If it is too long, nothing else is checked.
    """
    size = len(canonical(document))
    if size > limit:
        problem = f"has {size} characters without white space"
        return [Violation(field, problem, f"shorten it to {limit}, or move a part to a managed policy")]
    found = _unknown_members(document, _TOP, field)
    version = document.get("Version", VERSIONS[0])
    if version not in VERSIONS:
        fix = f'write "{VERSIONS[0]}" (or, for the old language, "{VERSIONS[1]}")'
        found.append(
            Violation(f"{field}.Version", f"IAM does not know the version {_shown_value(version)}", fix)
        )
    if not isinstance(document.get("Id", ""), str):
        found.append(Violation(f"{field}.Id", "is not a string", "write a string, or leave it out"))
    found += _statement_list_violations(document, f"{field}.Statement")
    for path, value in walk(document, field):
        found += _scalar_violations(path, value)
    return found


def _statement_list_violations(document: Mapping[str, JsonValue], path: str) -> list[Violation]:
    value = document.get("Statement")
    if value is None or (_is_list(value) and not value):
        return [Violation(path, "is missing or empty", "write at least one statement")]
    found = []
    sids: Counter[str] = Counter()
    for where, statement in _items(value, path):
        if not isinstance(statement, Mapping):
            fix = "write {…} with Effect, Action and Resource"
            found.append(Violation(where, f"{_shown_value(statement)} is not an object", fix))
            continue
        found += _statement_violations(statement, where)
        sid = statement.get("Sid")
        if isinstance(sid, str) and sid:
            sids[sid] += 1
            if sids[sid] > 1:
                problem = f"{shown(sid)} is used twice"
                found.append(Violation(f"{where}.Sid", problem, "give each statement its own"))
    return found


def _statement_violations(statement: Statement, path: str) -> list[Violation]:
    found = []
    for name in ("Principal", "NotPrincipal"):
        if name in statement:
            problem = (
                "is not allowed in an identity policy: the identity that holds the policy is its principal"
            )
            found.append(Violation(f"{path}.{name}", problem, "leave it out"))
    found += _unknown_members(statement, (*_MEMBERS, "Principal", "NotPrincipal"), path)
    sid = statement.get("Sid", "")
    if not isinstance(sid, str) or not _SID.fullmatch(sid):
        found.append(
            Violation(f"{path}.Sid", f"{_shown_value(sid)} is not a valid Sid", "use letters and digits only")
        )
    effect = statement.get("Effect")
    if effect not in ("Allow", "Deny"):
        problem = f"{_shown_value(effect)} is not a valid effect" if effect is not None else "is missing"
        found.append(Violation(f"{path}.Effect", problem, 'write "Allow" or "Deny"'))
    found += _either_violations(statement, path, "Action", _action_problem, _ACTION_FIX)
    found += _either_violations(statement, path, "Resource", resource_arn.problem, resource_arn.FIX)
    if "Condition" in statement:
        found += _condition_violations(statement["Condition"], f"{path}.Condition")
    return found


_ACTION_FIX: Final = 'write "*" or, as an example, "s3:Get*"'


def _action_problem(text: str) -> str:
    return "" if _ACTION.fullmatch(text) else "is not an action"


def _either_violations(
    statement: Statement, path: str, name: str, problem: Callable[[str], str], fix: str
) -> list[Violation]:
    """Check that either ``name`` or ``Not<name>`` is there: a text or a list of texts without a problem."""
    present = [member for member in (name, f"Not{name}") if member in statement]
    if len(present) != 1:
        wrong = f"is used together with Not{name}" if present else "is missing"
        return [Violation(f"{path}.{name}", wrong, f"write exactly one of {name} and Not{name}")]
    where = f"{path}.{present[0]}"
    value = statement[present[0]]
    if _is_list(value) and not value:
        return [Violation(where, "is an empty list", fix)]
    found = []
    for spot, item in _items(value, where):
        wrong = problem(item) if isinstance(item, str) else "is not a string"
        if wrong:
            found.append(Violation(spot, f"{_shown_value(item)} {wrong}", fix))
    return found


def _condition_violations(conditions: JsonValue, path: str) -> list[Violation]:
    if not isinstance(conditions, Mapping):
        return [
            Violation(
                path, f"{_shown_value(conditions)} is not an object", 'write {"Operator": {"key": "value"}}'
            )
        ]
    found = []
    for operator, block in conditions.items():
        where = _member(path, operator)
        kind = condition.family(operator)
        if not isinstance(block, Mapping):
            found.append(Violation(where, "is not an object with keys", 'write {"aws:key": "value"}'))
            continue
        if block and not kind:  # IAM does not check the operator of an empty block
            fix = "use one of IAM's operators, such as StringEquals, ArnLike, Bool or Null"
            found.append(Violation(where, f"{shown(operator)} is not a valid condition operator", fix))
        for key, value in block.items():
            found += _condition_value_violations(kind, value, _member(where, key))
    return found


def _condition_value_violations(kind: str, value: JsonValue, path: str) -> list[Violation]:
    """Check the values of one condition key; an empty list is valid, and matches nothing."""
    found = []
    for spot, item in _items(value, path):
        if not isinstance(item, str | int | float):
            fix = "write a string, a number or a boolean"
            found.append(Violation(spot, f"{_shown_value(item)} is not a valid condition value", fix))
        elif kind == "Date" and not condition.is_date(_spelled(item)):
            fix = "write it as 2027-01-31T12:00:00Z, or in seconds since 1970"
            found.append(Violation(spot, f"{_shown_value(item)} is not a valid date", fix))
    return found


def _spelled(value: str | float) -> str:
    """Return a condition's value as the text that IAM compares."""
    return value if isinstance(value, str) else json.dumps(_plain(value))


def _scalar_violations(path: str, value: JsonValue) -> list[Violation]:
    """Check a text (keys too) or number at any place in the document."""
    if isinstance(value, str) and (letter := _FOREIGN.search(value)):
        problem = f"IAM does not accept the character U+{ord(letter.group()):04X}"
        return [Violation(path, problem, "use characters up to U+00FF")]
    if isinstance(value, int | float) and not (abs(value) <= EXACT and float(value).is_integer()):
        return [Violation(path, f"{value} is not a whole number up to 2^53", "write it as a string")]
    return []


def _unknown_members(object_: Mapping[str, JsonValue], known: tuple[str, ...], path: str) -> list[Violation]:
    by_case = {name.lower(): name for name in known}
    return [
        Violation(
            _member(path, key),
            f"{shown(key)} is not a valid key here",
            f"write {by_case[key.lower()]}" if key.lower() in by_case else f"use {', '.join(known)}",
        )
        for key in object_
        if key not in known
    ]


# --- walking --------------------------------------------------------------------------------------


def _is_list(value: JsonValue) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _items(value: JsonValue, path: str) -> list[tuple[str, JsonValue]]:
    """Return each item of a list with its path; a single value is a list of one, as for IAM."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    return [(path, value)]


def _member(path: str, key: str) -> str:
    return f"{path}.{key}" if _PLAIN_KEY.fullmatch(key) else f"{path}[{shown(key)}]"


def walk(value: JsonValue, path: str) -> Iterator[tuple[str, JsonValue]]:
    """Yield every key, text, number, boolean and null of a document with its path."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield _member(path, key), key
            yield from walk(inner, _member(path, key))
    elif _is_list(value):
        for spot, inner in _items(value, path):
            yield from walk(inner, spot)
    else:
        yield path, value


Change: TypeAlias = Callable[[str, str], str]
"""Returns the replacement of a text, given its path."""

_PLACES: Final = ("Resource", "NotResource", "Condition")


def in_places(document: Mapping[str, JsonValue], field: str, change: Change) -> dict[str, JsonValue]:
    """Return ``document`` with changes to each text in which IAM replaces variables.

    Those are resources and values of conditions, not their keys (IAM User Guide, "IAM policy elements:
    variables and tags").
    """
    path, value = f"{field}.Statement", document.get("Statement")
    lone = not _is_list(value)
    changed = [_changed(statement, spot, change) for spot, statement in _items(value, path)]
    return {**document, "Statement": changed[0] if lone else changed}


def _changed(statement: JsonValue, path: str, change: Change) -> JsonValue:
    if not isinstance(statement, Mapping):
        return statement
    return {
        name: _texts_changed(value, f"{path}.{name}", change) if name in _PLACES else value
        for name, value in statement.items()
    }


def _texts_changed(value: JsonValue, path: str, change: Change) -> JsonValue:
    if isinstance(value, str):
        return change(path, value)
    if isinstance(value, Mapping):
        return {key: _texts_changed(inner, _member(path, key), change) for key, inner in value.items()}
    if _is_list(value):
        return [_texts_changed(item, spot, change) for spot, item in _items(value, path)]
    return value


def _shown_value(value: JsonValue) -> str:
    """Return a value for a message: a text is quoted, of a larger value only its type is named."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, Mapping):
        return "an object"
    if _is_list(value):
        return "a list"
    return json.dumps(value)


# --- warnings -------------------------------------------------------------------------------------

_OUTLIVING: Final = (
    "iam:CreateUser",
    "iam:CreateAccessKey",
    "iam:CreateLoginProfile",
    "iam:CreateRole",
    "iam:UpdateAssumeRolePolicy",
    "iam:PassRole",
)
_BROAD_ONLY: Final = ("sts:AssumeRole",)
"""Actions with a warning only if the resource contains ``*``, not for a single role."""


def warnings(document: Mapping[str, JsonValue], *, field: str = "policy_document") -> list[str]:
    """Return warnings about a ``document`` without ``violations``, for its author."""
    found = []
    if document.get("Version") != VERSIONS[0]:
        problem = "has no Version, which means" if "Version" not in document else "is of the old Version"
        rest = f'"{VERSIONS[1]}": policy variables do not work; write "{VERSIONS[0]}"'
        found.append(f"{field} {problem} {rest}")
    for path, statement in _items(document.get("Statement"), f"{field}.Statement"):
        if not isinstance(statement, Mapping):
            continue
        if names := _outliving(statement):
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            found.append(
                f"{path} allows {', '.join(names[:3])}{more}: its holder can create users, keys or roles, "
                "so what such a lease gives can outlive its revocation"
            )
        found += _condition_warnings(statement.get("Condition"), f"{path}.Condition")
    return found


def _condition_warnings(conditions: JsonValue, path: str) -> list[str]:
    """Return warnings about conditions that IAM stores although they cannot match."""
    found = []
    for operator, block in conditions.items() if isinstance(conditions, Mapping) else ():
        where = _member(path, operator)
        if not isinstance(block, Mapping) or not block:
            found.append(f"{where} is empty: IAM accepts it, but it compares nothing")
            continue
        kind = condition.family(operator)
        for key, value in block.items():
            found += _key_warnings(kind, key, value, _member(where, key))
    return found


def _key_warnings(kind: str, key: str, value: JsonValue, path: str) -> list[str]:
    found = []
    if ":" not in key:
        found.append(f"{path} has no service prefix, unlike aws:SourceIp: AWS sets no such key")
    if _is_list(value) and not value:
        found.append(f"{path} lists no values: it matches nothing")
    for spot, item in _items(value, path):
        wanted = condition.cannot_match(kind, _spelled(item)) if isinstance(item, str | int | float) else ""
        if wanted:
            found.append(f"{spot} is {_shown_value(item)}, which is not {wanted}: it matches nothing")
    return found


def resources(document: Mapping[str, JsonValue], *, field: str = "policy_document") -> dict[str, str]:
    """Return each text of a Resource or NotResource by its path."""
    return {
        spot: text
        for path, statement in _items(document.get("Statement"), f"{field}.Statement")
        if isinstance(statement, Mapping)
        for name in ("Resource", "NotResource")
        for spot, text in _items(statement.get(name), f"{path}.{name}")
        if isinstance(text, str)
    }


def _outliving(statement: Statement) -> list[str]:
    """Return the allowed actions by which a holder can create access that outlives the lease."""
    if statement.get("Effect") != "Allow":
        return []
    broad = "Resource" not in statement or any("*" in text for text in _texts(statement, "Resource"))
    candidates = (*_OUTLIVING, *(_BROAD_ONLY if broad else ()))
    named = "Action" in statement
    patterns = _texts(statement, "Action" if named else "NotAction")
    return [
        action
        for action in candidates
        if any(wildcard.matches(pattern.lower(), action.lower()) for pattern in patterns) is named
    ]


def _texts(statement: Statement, name: str) -> list[str]:
    return [item for _, item in _items(statement.get(name), "") if isinstance(item, str)]

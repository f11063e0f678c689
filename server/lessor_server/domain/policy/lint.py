"""Findings that need the list of AWS's actions, not only the grammar: typing errors and broad grants.

Source: AWS Service Authorization Reference, "Actions, resources, and condition keys for AWS services", which
lists each action's access level and resource types. ``policy.py`` already warns of actions that create users,
keys and roles, so this module does not check broad grants of IAM and STS.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lessor_server.domain.errors.base import shown
from lessor_server.domain.policy import wildcard
from lessor_server.domain.policy.policy import JsonValue

MAX_FINDINGS: Final = 10
"""The maximum number of findings reported for one policy; the last says how many more there are."""

NAMED: Final = 3
_ELSEWHERE: Final = ("iam:", "sts:")


@dataclass(frozen=True, slots=True)
class Action:
    """One action of AWS, ``service:Name``.

    Attributes:
        name: As AWS writes it.
        changes: Its access level is Write, Tagging or Permissions management.
        narrows: It has resource types, so that a policy can name resources.
    """

    name: str
    changes: bool
    narrows: bool


class Catalogue:
    """All actions of AWS that a linter knows."""

    def __init__(self, actions: Iterable[Action]) -> None:
        """Hold ``actions``."""
        self._services: dict[str, dict[str, Action]] = defaultdict(dict)
        for action in actions:
            self._services[action.name.partition(":")[0].lower()][action.name.lower()] = action

    def matching(self, pattern: str) -> list[Action]:
        """Return the actions that an ``Action`` of a policy matches, by name, regardless of case."""
        service, _, _ = pattern.lower().partition(":")
        known = self._services.get(service)
        lowered = pattern.lower()
        within = [known] if known is not None else [*self._services.values()] if "*" in service else []
        found = [
            action for part in within for name, action in part.items() if wildcard.matches(lowered, name)
        ]
        return sorted(found, key=lambda action: action.name)

    def unknown(self, pattern: str) -> str:
        """Return the finding about a pattern that matches no action, with the most similar name, if any."""
        service, _, name = pattern.partition(":")
        known = self._services.get(service.lower())
        if known is None:
            near = difflib.get_close_matches(service.lower(), self._services, n=1)
            return f"{shown(service)} is not a service{_or_rather(near)}"
        if "*" in name or "?" in name:
            return f"{shown(pattern)} matches no action"
        near = difflib.get_close_matches(pattern.lower(), known, n=1)
        return f"{shown(pattern)} is not an action{_or_rather([known[one].name for one in near])}"


def findings(document: Mapping[str, JsonValue], catalogue: Catalogue) -> list[str]:
    """Return the findings about a policy without ``policy.violations``."""
    found: list[str] = []
    for number, statement in enumerate(_listed(document.get("Statement"))):
        if isinstance(statement, Mapping):
            path = f"policy_document.Statement[{number}]"
            found += _of_statement(statement, path, catalogue, MAX_FINDINGS - len(found))
    if len(found) > MAX_FINDINGS:
        found[MAX_FINDINGS - 1 :] = [f"and {len(found) - MAX_FINDINGS + 1} more findings in policy_document"]
    return found


def _of_statement(
    statement: Mapping[str, JsonValue], path: str, catalogue: Catalogue, room: int
) -> list[str]:
    """Return the findings about a statement; the caller only counts those past ``room``."""
    found: list[str] = []
    allowed: list[Action] = []
    for member in ("Action", "NotAction"):
        for pattern in _texts(statement.get(member)):
            actions = catalogue.matching(pattern)
            if not actions:
                # Finding a similar name is slow.
                said = catalogue.unknown(pattern) if len(found) < room else ""
                found.append(f"{path}.{member}: {said}")
            if member == "Action":
                allowed += actions
    if statement.get("Effect") == "Allow" and "Condition" not in statement and _everywhere(statement):
        names = sorted({action.name for action in allowed if _reaches_far(action)})
        if names:
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            listed = f"{', '.join(names[:NAMED])}{more}"
            found.append(f"{path} allows {listed} on every resource; name the intended resources in Resource")
    return found


def _reaches_far(action: Action) -> bool:
    return action.changes and action.narrows and not action.name.startswith(_ELSEWHERE)


def _everywhere(statement: Mapping[str, JsonValue]) -> bool:
    return "Resource" not in statement or "*" in _texts(statement["Resource"])


def _or_rather(names: Sequence[str]) -> str:
    return f"; did you mean {names[0]}?" if names else ""


def _listed(value: JsonValue) -> Sequence[JsonValue]:
    """Return a list; a single value becomes a list of one, as for IAM."""
    return value if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def _texts(value: JsonValue) -> list[str]:
    return [one for one in _listed(value) if isinstance(one, str)]

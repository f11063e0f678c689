"""Policies, and what the policies of one caller allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain
from typing import Final
from weakref import WeakValueDictionary

from lessor_server.domain.access.issue_limits import NO_LIMITS, IssueLimits
from lessor_server.domain.access.path_pattern import PathPattern
from lessor_server.domain.errors.preconditions import TemplateLabelUnknown
from lessor_server.domain.policy import placeholders
from lessor_server.domain.user_names import Named

MAX_DECIDED: Final = 8
"""How many decisions an ACL keeps: there may be 10,000 ACLs, one for each caller."""


class Capability(Enum):
    """What a caller may do on a path; the names are Vault's."""

    CREATE = "create"
    READ = "read"
    UPDATE = "update"
    DELETE = "delete"
    LIST = "list"
    SUDO = "sudo"
    DENY = "deny"

    __hash__ = object.__hash__  # Enum's is written in Python, and each call looks for capabilities


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a policy; ``location`` is its path in the file.

    ``pattern`` may have fields of the identity.
    """

    pattern: str
    capabilities: frozenset[Capability]
    limits: IssueLimits = NO_LIMITS
    location: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """A named list of rules."""

    name: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Grant:
    """All rules of one caller that have the same pattern, united: one ``deny`` wins over all others."""

    pattern: str
    capabilities: frozenset[Capability]
    limits: IssueLimits = NO_LIMITS
    locations: tuple[str, ...] = ()
    parsed: PathPattern = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Parse the pattern."""
        object.__setattr__(self, "parsed", PathPattern(self.pattern))

    @property
    def content(self) -> tuple[object, ...]:
        """Return what makes two grants equal."""
        return self.pattern, self.capabilities, self.limits, self.locations

    @property
    def denies(self) -> bool:
        """Return whether it denies everything."""
        return Capability.DENY in self.capabilities

    def allows(self, wanted: Iterable[Capability]) -> bool:
        """Return whether it allows all of ``wanted``."""
        return not self.denies and self.capabilities.issuperset(wanted)


EVERYTHING = Grant("", frozenset(Capability) - {Capability.DENY})
"""What the root token's holder has on every path."""
NOTHING = Grant("", frozenset())
"""What a caller has before it is authorised."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Acl:
    """The grants of one caller: those of one path by that path, and the others by falling priority."""

    exact: dict[str, Grant] = field(default_factory=dict)
    others: tuple[Grant, ...] = ()
    own_grants: int = 0
    """The number of grants whose patterns have fields of the caller, so that few callers share them."""
    _decided: dict[tuple[str, Capability], Grant | None] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )
    """The last decisions: most callers ask for the same credentials again."""

    def find(self, path: str, capability: Capability) -> Grant | None:
        """Return the grant that decides about ``capability`` on ``path``; None if no pattern matches."""
        asked = (path, capability)
        if asked not in self._decided:
            if len(self._decided) >= MAX_DECIDED:
                self._decided.clear()
            self._decided[asked] = next(self.candidates(path, capability), None)
        return self._decided[asked]

    def candidates(self, path: str, capability: Capability) -> chain[Grant]:
        """Return every grant whose pattern matches, the deciding one first."""
        exact = [self.exact.get(path)]
        if capability is Capability.LIST:
            exact.append(self.exact.get(path.removesuffix("/")))
        found = dict.fromkeys(grant for grant in exact if grant is not None)
        return chain(found, (grant for grant in self.others if grant.parsed.matches(path)))


class Acls:
    """The ACLs of all callers under the same policies; callers for whom they are equal share one."""

    def __init__(self, policies: Mapping[str, Policy]) -> None:
        """Judge by ``policies``."""
        self._policies = policies
        self._acls: WeakValueDictionary[tuple[str | None, ...], Acl] = WeakValueDictionary()
        self._grants: WeakValueDictionary[tuple[object, ...], Grant] = WeakValueDictionary()

    def find(self, names: Iterable[str], identity: Named) -> Acl:
        """Return what the policies of these names allow the caller whose fields ``identity`` returns.

        A rule whose pattern has a field that the caller lacks, or whose value has a ``/``, ``*`` or ``+``,
        matches nothing.
        """
        names = tuple(names)
        rules = [rule for name in names for rule in self._policies[name].rules]
        patterns = [_filled(rule.pattern, identity) for rule in rules]
        key = (*names, None, *patterns)
        acl = self._acls.get(key)
        if acl is None:
            grants = _unite(zip(patterns, rules, strict=True))
            filled = sum(pattern != rule.pattern for pattern, rule in zip(patterns, rules, strict=True))
            # The key must not be the grant itself, which would keep it alive.
            acl = _sort([self._grants.setdefault(grant.content, grant) for grant in grants], filled)
            self._acls[key] = acl
        return acl


def acl_of(policies: Iterable[Policy], identity: Named) -> Acl:
    """Return what ``policies`` allow one caller; for many callers use ``Acls``."""
    numbered = {str(number): policy for number, policy in enumerate(policies)}
    return Acls(numbered).find(numbered, identity)


def _unite(rules: Iterable[tuple[str | None, Rule]]) -> Iterable[Grant]:
    """Return a grant for each pattern, which unites the rules that have it."""
    grants: dict[str, Grant] = {}
    for pattern, rule in rules:
        if pattern is not None:
            before = grants.get(pattern, Grant(pattern, frozenset()))
            grants[pattern] = Grant(
                pattern,
                before.capabilities | rule.capabilities,
                before.limits.both(rule.limits),
                (*before.locations, *([rule.location] if rule.location else [])),
            )
    return grants.values()


def _sort(grants: Iterable[Grant], own_grants: int) -> Acl:
    wild = [grant for grant in grants if not grant.parsed.is_exact]
    wild.sort(key=lambda grant: grant.parsed.priority, reverse=True)
    exact = {grant.pattern: grant for grant in grants if grant.parsed.is_exact}
    return Acl(exact, tuple(wild), own_grants)


def _filled(pattern: str, identity: Named) -> str | None:
    """Return a pattern with the caller's values; None if one is missing or would change its meaning."""

    class Unusable(Exception): ...

    def value(named: str) -> str:
        text = identity(named)
        if not text or any(letter in text for letter in "/*+"):
            raise Unusable
        return text

    try:
        return placeholders.fill(pattern, value)
    except (Unusable, TemplateLabelUnknown):
        return None

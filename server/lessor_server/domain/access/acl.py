"""Policies, and what the policies of one caller allow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from itertools import chain

from lessor_server.domain.access.path_pattern import PathPattern
from lessor_server.domain.errors.preconditions import TemplateLabelUnknown
from lessor_server.domain.policy import placeholders
from lessor_server.domain.user_names import Named


class Capability(Enum):
    """What a caller may do on a path; the names are Vault's."""

    CREATE = "create"
    READ = "read"
    UPDATE = "update"
    DELETE = "delete"
    LIST = "list"
    SUDO = "sudo"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class IssueLimits:
    """Limits on what is issued under a rule.

    ``max_ttl`` bounds the whole life of a lease, and ``max_leases`` the live leases of one owner. A session's
    role ARN must match one pattern of each list in ``role_arns``. ``require`` and ``forbid`` name fields of
    the request.
    """

    max_ttl: timedelta | None = None
    max_leases: int | None = None
    role_arns: tuple[tuple[str, ...], ...] = ()
    require: frozenset[str] = frozenset()
    forbid: frozenset[str] = frozenset()

    def both(self, other: IssueLimits) -> IssueLimits:
        """Return the limits that hold both these and ``other``."""
        return IssueLimits(
            max_ttl=min(filter(None, (self.max_ttl, other.max_ttl)), default=None),
            max_leases=min(
                (count for count in (self.max_leases, other.max_leases) if count is not None), default=None
            ),
            role_arns=tuple(dict.fromkeys((*self.role_arns, *other.role_arns))),
            require=self.require | other.require,
            forbid=self.forbid | other.forbid,
        )


NO_LIMITS = IssueLimits()


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a policy; ``pattern`` may have fields of the identity; ``place`` is its place in the file."""

    pattern: str
    capabilities: frozenset[Capability]
    limits: IssueLimits = NO_LIMITS
    place: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """A named list of rules."""

    name: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Grant:
    """All rules of one caller that have the same pattern, united: one ``deny`` wins over all others."""

    pattern: str
    capabilities: frozenset[Capability]
    limits: IssueLimits = NO_LIMITS
    places: tuple[str, ...] = ()

    @property
    def denies(self) -> bool:
        """Return whether it denies everything."""
        return Capability.DENY in self.capabilities

    def allows(self, wanted: Iterable[Capability]) -> bool:
        """Return whether it allows all of ``wanted``."""
        return not self.denies and self.capabilities.issuperset(wanted)


EVERYTHING = Grant("", frozenset(Capability) - {Capability.DENY})
"""What the root token's holder has on every path."""


@dataclass(frozen=True, slots=True)
class Acl:
    """The grants of one caller: those of one path by that path, and the others by falling priority."""

    exact: dict[str, Grant] = field(default_factory=dict)
    others: tuple[tuple[PathPattern, Grant], ...] = ()

    def find(self, path: str, capability: Capability) -> Grant | None:
        """Return the grant that decides about ``capability`` on ``path``; None if no pattern matches."""
        return next(self.candidates(path, capability), None)

    def candidates(self, path: str, capability: Capability) -> chain[Grant]:
        """Return every grant whose pattern matches, the deciding one first."""
        exact = [self.exact.get(path)]
        if capability is Capability.LIST:
            exact.append(self.exact.get(path.removesuffix("/")))
        found = dict.fromkeys(grant for grant in exact if grant is not None)
        return chain(found, (grant for pattern, grant in self.others if pattern.matches(path)))


def acl_of(policies: Iterable[Policy], identity: Named) -> Acl:
    """Return what ``policies`` allow the caller whose name and labels ``identity`` returns.

    A rule whose pattern has a field that the caller lacks, or whose value has a ``/``, ``*`` or ``+``,
    matches nothing.
    """
    grants: dict[str, Grant] = {}
    for rule in chain.from_iterable(policy.rules for policy in policies):
        pattern = _filled(rule.pattern, identity)
        if pattern is None:
            continue
        before = grants.get(pattern, Grant(pattern, frozenset()))
        grants[pattern] = Grant(
            pattern,
            before.capabilities | rule.capabilities,
            before.limits.both(rule.limits),
            (*before.places, *([rule.place] if rule.place else [])),
        )
    patterns = {text: PathPattern(text) for text in grants}
    wild = sorted(
        (one for one in patterns.values() if not one.is_exact), key=lambda one: one.priority, reverse=True
    )
    return Acl(
        {text: grants[text] for text, one in patterns.items() if one.is_exact},
        tuple((one, grants[one.text]) for one in wild),
    )


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

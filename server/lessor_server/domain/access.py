"""Who may do what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType


class Capability(Enum):
    """What a call needs its caller to be allowed to do."""

    READ = "read"
    CONFIGURE = "configure"
    ISSUE = "issue"
    LEASE = "lease"
    OPERATE = "operate"


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller that was identified; ``name`` becomes the owner of the leases it is issued.

    ``labels`` are further facts of its identity; templates of roles may use them.
    """

    name: str
    capabilities: frozenset[Capability]
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Keep the labels as they are now, whatever becomes of the mapping that was given."""
        object.__setattr__(self, "labels", MappingProxyType(dict(self.labels)))

    def may(self, capability: Capability) -> bool:
        """Return whether the caller may make calls that need ``capability``."""
        return capability in self.capabilities

    @property
    def sees_root(self) -> bool:
        """Return whether the caller may read what AWS says: texts, ARNs and account ids."""
        return Capability.CONFIGURE in self.capabilities


ROOT = Principal("root", frozenset(Capability))
"""The holder of the root token."""

ANONYMOUS = Principal("", frozenset())
"""A caller of a method that needs no credential: health and reflection."""

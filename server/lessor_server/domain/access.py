"""Who may do what."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Capability(Enum):
    """What a call needs its caller to be allowed to do."""

    READ = "read"
    CONFIGURE = "configure"
    ISSUE = "issue"
    LEASE = "lease"
    OPERATE = "operate"


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller that was identified; ``name`` becomes the owner of the leases it is issued."""

    name: str
    capabilities: frozenset[Capability]

    def may(self, capability: Capability) -> bool:
        """Tell whether the caller may make calls that need ``capability``."""
        return capability in self.capabilities

    @property
    def sees_root(self) -> bool:
        """Tell whether the caller may read what AWS says: texts, ARNs and account ids."""
        return Capability.CONFIGURE in self.capabilities


ROOT = Principal("root", frozenset(Capability))
"""Whoever presents the root token."""

"""Callers and their capabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType


class Capability(Enum):
    """A permission that a call needs."""

    READ = "read"
    CONFIGURE = "configure"
    ISSUE = "issue"
    LEASE = "lease"
    OPERATE = "operate"


@dataclass(frozen=True, slots=True)
class Principal:
    """An identified caller; ``name`` is the owner of its leases, and templates can use its ``labels``."""

    name: str
    capabilities: frozenset[Capability]
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Copy the labels, so that later changes of the mapping have no effect."""
        object.__setattr__(self, "labels", MappingProxyType(dict(self.labels)))

    def may(self, capability: Capability) -> bool:
        """Return whether the caller may make calls that need ``capability``."""
        return capability in self.capabilities

    @property
    def sees_root(self) -> bool:
        """Return whether the caller may read AWS's texts, ARNs and account ids."""
        return Capability.CONFIGURE in self.capabilities


ROOT = Principal("root", frozenset(Capability))
"""The holder of the root token."""

ANONYMOUS = Principal("", frozenset())
"""A caller of a method that needs no credential: health and reflection."""

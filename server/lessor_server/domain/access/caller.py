"""Callers: what they present, who they are, and what they may do."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final

from lessor_server.domain.access.acl import EVERYTHING, Acl, Capability, Grant
from lessor_server.domain.access.login_token import LoginToken
from lessor_server.domain.access.names import ROOT_NAME

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

UNIX: Final = "unix"
"""The address of callers on a unix socket, in ``from`` too."""


class AuthMethod(Enum):
    """How a caller was identified."""

    ROOT = "root"
    TOKEN = "token"
    X509 = "x509"
    JWT = "jwt"
    LOGIN = "login"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection, which ``connection`` identifies while it lasts.

    ``address`` is ``UNIX`` for a unix socket, and None if it is not known. An IPv4-mapped address is given as
    IPv4.
    """

    connection: str
    address: IpAddress | str | None = None


@dataclass(frozen=True, slots=True)
class Credential:
    """What a caller presents: the values of ``authorization``, and its certificates in PEM, its own first."""

    peer: Peer
    authorization: tuple[str | bytes, ...] = field(default=(), repr=False)
    certificates: bytes = b""


@dataclass(frozen=True, slots=True)
class Principal:
    """An identified caller; ``name`` is the owner of its leases, and templates can use its ``labels``.

    ``expires_at`` is when its credential ends, in seconds since the epoch. ``evidence`` identified it, and is
    judged again when the access file changes.
    """

    name: str
    auth_method: AuthMethod
    acl: Acl | None = field(default=Acl(), hash=False, repr=False)
    """None: it may do everything."""
    policies: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    expires_at: float = math.inf
    evidence: object = field(default=None, hash=False, compare=False, repr=False)
    login: LoginToken | None = field(default=None, hash=False, compare=False)
    """The login token with which it calls, as long-lived as it is now by its ancestors and the rules."""

    def __post_init__(self) -> None:
        """Copy the labels, so that later changes of the mapping have no effect."""
        object.__setattr__(self, "labels", MappingProxyType(dict(self.labels)))

    def find_grant(self, path: str, capability: Capability) -> Grant | None:
        """Return the grant that decides about ``capability`` on ``path``; None if no pattern matches."""
        return EVERYTHING if self.acl is None else self.acl.find(path, capability)

    def find_right(self, path: str, capabilities: Sequence[Capability]) -> Grant | None:
        """Return the grant that gives all these capabilities on ``path``; None if the caller lacks one."""
        grant = self.find_grant(path, capabilities[0])
        return grant if grant is not None and grant.allows(capabilities) else None

    def may(self, path: str, *capabilities: Capability) -> bool:
        """Return whether the caller has all these capabilities on ``path``."""
        return self.find_right(path, capabilities) is not None

    def sees_root(self, mount: str) -> bool:
        """Return whether the caller may read AWS's texts, ARNs and account ids of a mount."""
        return self.acl is None or (bool(mount) and self.may(f"{mount}/config/root", Capability.READ))


ROOT = Principal(ROOT_NAME, AuthMethod.ROOT, acl=None, policies=(ROOT_NAME,))
"""The holder of the root token."""

ANONYMOUS = Principal("", AuthMethod.NONE)
"""A caller of a method that needs no credential: health and reflection."""

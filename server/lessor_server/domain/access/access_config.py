"""The content of an access file: policies, identities, and issuers of JWTs."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from lessor_server.domain.access.acl import Policy

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
)  # fmt: skip
DEFAULT_ALGORITHMS: Final = ("RS256", "ES256")


@dataclass(frozen=True, slots=True)
class TokenMatch:
    """A caller with a fixed token, by the SHA-256 of the token; ``expires_at`` in seconds since the epoch."""

    digests: tuple[bytes, ...]
    expires_at: float = math.inf


@dataclass(frozen=True, slots=True)
class SpiffeMatch:
    """A caller with an X.509-SVID: its one URI SAN matches ``uri``, in which ``{x}`` is a whole segment.

    Source: SPIFFE, "The X.509 SPIFFE Verifiable Identity Document".
    """

    uri: str
    ca_file: str = ""


@dataclass(frozen=True, slots=True)
class DnsMatch:
    """A caller whose certificate has a DNS SAN that matches ``name``, in which ``{x}`` is a whole label."""

    name: str
    ca_file: str = ""


@dataclass(frozen=True, slots=True)
class JwtMatch:
    """A caller with a JWT of the issuer with the name ``issuer``, all of whose ``claims`` match.

    A key is the name of a claim, or a JSON pointer (RFC 6901) that begins with ``/``.
    """

    issuer: str
    claims: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Identity:
    """One identity; ``name`` and the values of ``labels`` may have placeholders such as ``{ns}``.

    ``sources`` are where a call may come from; everywhere if there are none. ``location`` is its path in the
    file.
    """

    name: str
    match: TokenMatch | SpiffeMatch | DnsMatch | JwtMatch
    policies: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    sources: tuple[IpNetwork | str, ...] = ()
    token_max_ttl: timedelta | None = None
    location: str = ""


@dataclass(frozen=True, slots=True)
class JwtIssuer:
    """An issuer of JWTs: ``url`` is its ``iss``.

    Its keys are at ``jwks_url`` or in ``jwks_file``; with neither, OpenID Connect discovery finds them.
    """

    name: str
    url: str
    audiences: tuple[str, ...]
    jwks_url: str = ""
    jwks_file: str = ""
    ca_file: str = ""
    algorithms: tuple[str, ...] = DEFAULT_ALGORITHMS
    max_age: timedelta | None = None
    leeway: timedelta = timedelta(seconds=30)

    @property
    def key_source(self) -> tuple[str, ...]:
        """Return what says where the keys are: as long as it stays, so do the keys that were read."""
        return self.url, self.jwks_url, self.jwks_file, self.ca_file


@dataclass(frozen=True, slots=True)
class AccessConfig:
    """Everything that an access file says; the default says that nobody but root may call."""

    policies: Mapping[str, Policy] = field(default_factory=dict)
    identities: tuple[Identity, ...] = ()
    issuers: tuple[JwtIssuer, ...] = ()

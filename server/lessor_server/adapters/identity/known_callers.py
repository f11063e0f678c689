"""Callers that were identified before, so that the next call of each costs a look-up."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

from lessor_server.domain.access.acl import Acls
from lessor_server.domain.access.caller import AuthMethod, IpAddress, Principal
from lessor_server.domain.access.claims import Validity
from lessor_server.domain.access.identify import Identified, comes_from
from lessor_server.domain.access.login_token import LoginToken
from lessor_server.domain.errors.base import Unauthenticated
from lessor_server.domain.policy.template import identity_fields

MAX_REMEMBERED: Final = 10_000
"""The maximum number of JWTs that are remembered, and of certificate chains."""
MAX_BYTES: Final = 64 << 20
"""The approximate maximum size of all JWTs that are remembered, and of all certificate chains."""
CALLER_BYTES, GRANT_BYTES = 2_000, 1_500
"""The approximate size of a caller, and of each of its rules that no other caller shares."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What identified a caller: its address, and ``proof``, which is judged again."""

    address: IpAddress | str | None
    proof: object


class KnownCaller:
    """A caller whose credential is verified; ``issuer`` is the name of a JWT's issuer."""

    def __init__(
        self,
        acls: Acls | None,
        identified: Identified,
        method: AuthMethod,
        validity: Validity,
        proof: object,
        issuer: str = "",
        proof_bytes: int = 0,
        login: LoginToken | None = None,
    ) -> None:
        """Find what the caller may do in ``acls``; without them it may do everything."""
        identity, name, labels = identified.identity, identified.name, identified.labels
        self.issuer = issuer
        self.identity = identity
        self.validity = validity
        self._evidence = Evidence(None, proof)
        acl = None if acls is None else acls.find(identity.policies, identity_fields(name, labels))
        self.size = CALLER_BYTES + proof_bytes + GRANT_BYTES * (0 if acl is None else acl.own_grants)
        self._principal = Principal(
            name=name,
            auth_method=method,
            acl=acl,
            policies=identity.policies,
            labels=labels,
            expires_at=validity.expires_at,
            evidence=self._evidence,
            login=login,
        )

    def admit(self, address: IpAddress | str | None, now: float) -> Principal:
        """Return the principal of a call from ``address``.

        Raises:
            Unauthenticated: The credential is not valid at ``now``, or the identity's ``from`` does not
                include the address. Another identity that matches is not considered.
        """
        self.validity.check(now)
        sources = self.identity.sources
        if sources and not comes_from(sources, address):
            raise Unauthenticated("the identity's `from` does not include the caller's address")
        if address != self._evidence.address:
            # Most callers have one address, whose principal is kept.
            self._evidence = Evidence(address, self._evidence.proof)
            self._principal = replace(self._principal, evidence=self._evidence)
        return self._principal


class KnownCallers:
    """Callers by the SHA-256 of their credential; of too many, the one that called first is forgotten."""

    def __init__(self) -> None:
        """Begin empty."""
        self._callers: OrderedDict[bytes, KnownCaller] = OrderedDict()
        self._bytes = 0

    def find(self, digest: bytes) -> KnownCaller | None:
        """Return the caller of a credential, and keep it longer than the others."""
        caller = self._callers.get(digest)
        if caller is not None:
            self._callers.move_to_end(digest)
        return caller

    def add(self, digest: bytes, caller: KnownCaller) -> None:
        """Remember a caller."""
        self._remove(digest)
        self._callers[digest] = caller
        self._bytes += caller.size
        while len(self._callers) > MAX_REMEMBERED or (self._bytes > MAX_BYTES and len(self._callers) > 1):
            self._remove(next(iter(self._callers)))

    def _remove(self, digest: bytes) -> None:
        if (caller := self._callers.pop(digest, None)) is not None:
            self._bytes -= caller.size

    def forget_issuer(self, issuer: str) -> None:
        """Forget all callers with a JWT of this issuer."""
        for digest in [digest for digest, caller in self._callers.items() if caller.issuer == issuer]:
            self._remove(digest)

    def clear(self) -> None:
        """Forget all callers."""
        self._callers.clear()
        self._bytes = 0

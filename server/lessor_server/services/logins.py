"""Logins, and the calls of a token on itself, for any transport.

Each method identifies or takes an identified caller, writes the audit records of the call itself, and answers
with values. A transport only parses fields and formats answers. Limits of calls are the guard's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from lessor_server.domain.access.caller import Peer, Principal
from lessor_server.domain.secret import Secret


@dataclass(frozen=True, slots=True)
class TokenStatus:
    """What a caller may know of the credential with which it calls, also if it is not a login token.

    Instants are microseconds since the epoch, lives whole seconds. ``expires_us`` is None if it does not end.
    ``ttl`` is what is left, 0 if it does not end. ``creation_ttl`` is the life that a login token was created
    with, ``max_ttl`` its longest one; both are 0 for other credentials. ``is_orphan``: no other login token
    created it.
    """

    principal: Principal
    accessor: str = ""
    ttl: int = 0
    creation_ttl: int = 0
    max_ttl: int = 0
    created_us: int = 0
    renewed_us: int = 0
    expires_us: int | None = None
    renewable: bool = False
    is_orphan: bool = True


@dataclass(frozen=True, slots=True)
class NewToken:
    """The answer to a login or a creation: the token, which is shown once, and its status."""

    token: Secret
    status: TokenStatus


class Logins:
    """Serves logins and the calls of a token on itself."""

    async def log_in(self, peer: Peer, name: str, fields: Mapping[str, object]) -> NewToken:
        """Exchange a credential for a login token, as ``auth/NAME/login`` does.

        ``name`` is the name of an issuer of the access file, and ``fields`` then has ``jwt``, and ``role``,
        which must be empty or the name of the caller's identity. Or it is ``approle``, and ``fields`` has
        ``role_id``, the name of an identity, and ``secret_id``, its fixed token. Other fields are ignored.

        Raises:
            NotFound: There is no such issuer.
            Invalid: A field is missing, too long or not a text; ``role`` is another identity; ``role_id`` or
                ``secret_id`` is wrong.
            Unauthenticated, IssuerUnavailable, TryLater: The JWT is not accepted, as for a call with it.
            RateLimited: Too many logins come from this peer, or from all peers together.
            TooManyLoginTokens: The identity has its maximum of live tokens.
            AuditUnavailable, StoreUnavailable: Nothing was created.
        """
        raise NotImplementedError

    async def create_child(
        self,
        principal: Principal,
        peer: Peer,
        *,
        ttl: timedelta | None = None,
        max_ttl: timedelta | None = None,
        renewable: bool = True,
    ) -> NewToken:
        """Create a login token with the caller's identity and policies, as ``auth/token/create`` does.

        If the caller has a login token, the new one is its child: it ends with it. Otherwise it is what a
        login with the caller's root token, fixed token or JWT gives. ``ttl`` is the first life, 1 h if it is
        None or zero. ``max_ttl`` lowers the longest life, renewals included. Both are capped to what the
        credential allows.

        Raises:
            Invalid: ``ttl`` or ``max_ttl`` is not in whole seconds, or negative.
            LoginNotPossible: The caller has a client certificate, or its token has too many ancestors.
            TooManyLoginTokens, AuditUnavailable, StoreUnavailable: As for ``log_in``.
            Unauthenticated: The caller's credential has just ended.
        """
        raise NotImplementedError

    async def renew_self(
        self, principal: Principal, peer: Peer, increment: timedelta | None = None
    ) -> TokenStatus:
        """Let the caller's login token end ``increment`` from now, at most at its maximum.

        None or zero stands for the life with which it was created.

        Raises:
            Invalid: ``increment`` is not in whole seconds, or negative.
            TokenNotRenewable: It is not a login token, or was created as one that is not renewable.
            Unauthenticated: It has just ended.
            AuditUnavailable, StoreUnavailable: It is unchanged.
        """
        raise NotImplementedError

    async def revoke_self(self, principal: Principal, peer: Peer) -> None:
        """End the caller's login token and all that it has created. It goes on without audit.

        On this server it counts for the next call, and open streams end. Other servers on the same database
        notice it within 10 s, and end open streams within 20 s.

        Raises:
            TokenNotRevocable: It is not a login token.
            StoreUnavailable: It is not known whether it has ended; call again.
        """
        raise NotImplementedError

    async def look_up(self, principal: Principal, peer: Peer) -> TokenStatus:
        """Return the status of the caller's credential, and record that it was asked for."""
        raise NotImplementedError

    async def withdraw(self, new: NewToken) -> None:
        """End a token whose answer could not be delivered. Raises ``StoreUnavailable``."""
        raise NotImplementedError

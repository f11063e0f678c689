"""Logins, and the calls of a token on itself, for any transport.

Each method identifies or takes an identified caller, writes the audit records of the call itself, and answers
with values. A transport only parses fields and formats answers. Limits of calls are the guard's.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from lessor_server.domain.access.caller import AuthMethod, Credential, IpAddress, Peer, Principal
from lessor_server.domain.access.login_token import LoginTerms, LoginToken
from lessor_server.domain.access.names import MAX_NAME
from lessor_server.domain.durations import SECOND, SECOND_US
from lessor_server.domain.errors.access import (
    RateLimited,
    TokenNotRenewable,
    TokenNotRevocable,
    TryLater,
)
from lessor_server.domain.errors.base import (
    DeadlineExceeded,
    Invalid,
    LessorError,
    NotFound,
    Unauthenticated,
    Violation,
    require,
    shown,
    too_long,
)
from lessor_server.domain.secret import Secret
from lessor_server.engine.logins import LoginTokens, TokenOptions
from lessor_server.engine.ports import Report
from lessor_server.services.audit import CallAudit
from lessor_server.services.effects import Effect
from lessor_server.services.login_records import LoginRecords

APPROLE: Final = "approle"
"""The name of logins by an identity's name and its fixed token."""
MAX_CREDENTIAL: Final = 16_384
"""The maximum length of a JWT or a secret in characters, as of a call's metadata."""
IDENTIFY_SECONDS: Final = 10.0
_WRONG: Final = "role_id is not the name of an identity, or secret_id is not its token"


class LoginAccess(Protocol):
    """Identifies callers and their login tokens by the current rules."""

    async def identify(self, credential: Credential) -> Principal:
        """Return the caller that presents a credential; raise ``Unauthenticated`` if it is not known."""
        ...

    def has_issuer(self, name: str) -> bool:
        """Return whether the access file has an issuer of this name."""
        ...

    def is_of_issuer(self, principal: Principal, name: str) -> bool:
        """Return whether a caller has presented a JWT of the issuer of this name."""
        ...

    async def find_login_terms(self, principal: Principal) -> LoginTerms:
        """Return what kind of login token an identified caller may get, and for how long.

        Raises:
            LoginNotPossible: It is a client certificate.
            Unauthenticated: It has ended, or the rules no longer accept it.
        """
        ...

    async def identify_new_login(self, token: LoginToken, address: IpAddress | str | None) -> Principal:
        """Return the caller of a token that was just created, or renewed, here."""
        ...

    def end_logins(self, digests: Iterable[str]) -> None:
        """Refuse tokens that were ended here from now on, and end their open streams."""
        ...


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

    def __init__(
        self,
        access: LoginAccess,
        tokens: LoginTokens,
        audit: CallAudit,
        admit: Callable[[IpAddress | str | None], None],
        report: Report,
    ) -> None:
        """Identify callers by ``access`` and keep their ``tokens``.

        ``admit`` counts a login of a peer, and raises ``TryLater`` past a limit. ``report`` logs an
        unexpected exception, which becomes an ``InternalError``.
        """
        self._access = access
        self._tokens = tokens
        self._audit = audit
        self._admit = admit
        self._report = report

    async def log_in(self, peer: Peer, name: str, fields: Mapping[str, object]) -> NewToken:
        """Exchange a credential for a login token, as ``auth/NAME/login`` does.

        ``name`` is the name of an issuer of the access file, and ``fields`` then has ``jwt``, and ``role``,
        which must be empty or the name of the caller's identity. Or it is ``approle``, and ``fields`` has
        ``role_id``, the name of an identity, and ``secret_id``, its fixed token. Other fields are ignored.

        Raises:
            NotFound: There is no such issuer.
            Invalid: A field is missing, too long or not a text; ``role`` is another identity; ``role_id`` or
                ``secret_id`` is wrong.
            Unauthenticated, IssuerUnavailable: The JWT is not accepted, as for a call with it.
            RateLimited: Too many logins or new JWTs come from this peer, or from all peers together.
            TooManyLoginTokens: The identity has its maximum of live tokens.
            DeadlineExceeded: The issuer's keys were not read in time.
            AuditUnavailable, StoreUnavailable: Nothing was created.
        """
        path = f"auth/{name[:MAX_NAME]}/login"
        records = LoginRecords(self._audit, Effect.CHANGE, "Token.Login", path, peer)
        async with records.record_end(self._report):
            principal = await self._identify(peer, name, fields)
            return await self._create(records, principal, peer, TokenOptions())

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
        records = LoginRecords(self._audit, Effect.CHANGE, "Token.Create", "auth/token/create", peer)
        async with records.record_end(self._report):
            records.principal = principal
            return await self._create(records, principal, peer, TokenOptions(ttl, max_ttl, renewable))

    async def renew_self(
        self, principal: Principal, peer: Peer, increment: timedelta | None = None
    ) -> TokenStatus:
        """Let the caller's login token end ``increment`` from now, at most at its maximum.

        None or zero stands for the life with which it was created.

        Raises:
            Invalid: ``increment`` is not in whole seconds, or negative.
            TokenNotRenewable: It is not a login token, or was created as one that is not renewable.
            Unauthenticated: It has just ended.
            AuditUnavailable, StoreUnavailable: The answer must not be given; it may have been renewed.
        """
        records = LoginRecords(self._audit, Effect.CHANGE, "Token.RenewSelf", "auth/token/renew-self", peer)
        async with records.record_end(self._report):
            records.principal = principal
            if principal.login is None:
                raise TokenNotRenewable("the caller's credential is not a login token")
            terms = await self._access.find_login_terms(principal)
            await records.begin(principal)
            renewed = await self._tokens.renew(principal.login, increment)
            status = self._status(await self._access.identify_new_login(renewed, peer.address), terms)
            await records.answer()
            return status

    async def read_whether_renewed(self, token: LoginToken) -> bool:
        """Return whether a login token was renewed before, on any server, or has ended.

        A caller's ``login`` can be 10 s old. Raises ``StoreUnavailable``.
        """
        return await self._tokens.read_whether_renewed(token)

    async def revoke_self(self, principal: Principal, peer: Peer) -> None:
        """End the caller's login token and all that it has created. It goes on without audit.

        On this server it counts for the next call, and open streams end. Other servers on the same database
        notice it within 10 s, and end open streams within 20 s.

        Raises:
            TokenNotRevocable: It is not a login token.
            StoreUnavailable: It is not known whether it has ended; call again.
        """
        records = LoginRecords(self._audit, Effect.REVOKE, "Token.RevokeSelf", "auth/token/revoke-self", peer)
        async with records.record_end(self._report):
            records.principal = principal
            if principal.login is None:
                raise TokenNotRevocable("the caller's credential is not a login token")
            await records.begin(principal)
            await self._end(principal.login)
            await records.answer()

    async def look_up(self, principal: Principal, peer: Peer) -> TokenStatus:
        """Return the status of the caller's credential, and record that it was asked for."""
        records = LoginRecords(self._audit, Effect.READ, "Token.LookupSelf", "auth/token/lookup-self", peer)
        async with records.record_end(self._report):
            await records.begin(principal)
            terms = await self._access.find_login_terms(principal) if principal.login else None
            status = self._status(principal, terms)
            await records.answer()
            return status

    async def withdraw(self, new: NewToken, peer: Peer) -> None:
        """End a token whose answer could not be delivered. Raises ``StoreUnavailable``."""
        principal = new.status.principal
        assert principal.login is not None
        records = LoginRecords(self._audit, Effect.REVOKE, "Token.Withdraw", "auth/token/withdraw", peer)
        async with records.record_end(self._report):
            await records.begin(principal)
            await self._end(principal.login)
            await records.answer()

    async def _identify(self, peer: Peer, name: str, fields: Mapping[str, object]) -> Principal:
        """Return who logs in, by the fields of the login."""
        is_issuer = self._access.has_issuer(name)
        if not is_issuer and name != APPROLE:
            raise NotFound(
                "issuer", name, fix="log in at the name of an issuer of the access file, or approle"
            )
        try:
            self._admit(peer.address)
            async with asyncio.timeout(IDENTIFY_SECONDS):
                if is_issuer:
                    return await self._identify_jwt(peer, name, fields)
                return await self._identify_approle(peer, fields)
        except TryLater as error:
            fix = "log in again in a second; renew a token instead of logging in for each call"
            raise RateLimited(error.message, retry_in=error.retry_in, fix=fix) from None
        except TimeoutError:
            raise DeadlineExceeded("the caller was not identified in time") from None

    async def _identify_jwt(self, peer: Peer, name: str, fields: Mapping[str, object]) -> Principal:
        violations: list[Violation] = []
        jwt = _read_text(fields, "jwt", MAX_CREDENTIAL, violations)
        role = _read_text(fields, "role", MAX_NAME, violations, needed=False)
        if jwt and jwt.count(".") != 2:
            violations.append(Violation("jwt", "is not a JWT", "send a JWT of the issuer"))
        require(violations)
        principal = await self._access.identify(_bearer(peer, jwt))
        if not self._access.is_of_issuer(principal, name):
            raise Unauthenticated(f"the JWT is not one of the issuer {shown(name)}")
        if role not in ("", principal.name):
            fix = f"leave it empty, or send {shown(principal.name)}"
            raise Invalid((Violation("role", f"{shown(role)} is not the JWT's identity", fix),))
        return principal

    async def _identify_approle(self, peer: Peer, fields: Mapping[str, object]) -> Principal:
        violations: list[Violation] = []
        role_id = _read_text(fields, "role_id", MAX_NAME, violations)
        secret_id = _read_text(fields, "secret_id", MAX_CREDENTIAL, violations)
        require(violations)
        wrong = Invalid((Violation("secret_id", _WRONG, "send an identity's name and its fixed token"),))
        try:
            principal = await self._access.identify(_bearer(peer, secret_id))
        except Unauthenticated as error:
            if isinstance(error, TryLater):
                raise
            raise wrong from None
        if principal.auth_method is not AuthMethod.TOKEN or principal.name != role_id:
            raise wrong
        return principal

    async def _create(
        self, records: LoginRecords, principal: Principal, peer: Peer, options: TokenOptions
    ) -> NewToken:
        """Create a token and return it; a token whose answer can't be given is ended."""
        records.principal = principal
        terms = await self._access.find_login_terms(principal)
        await records.begin(principal)
        created = await self._tokens.create(principal.name, terms, options, principal.login)
        try:
            caller = await self._access.identify_new_login(created.token, peer.address)
            await records.answer(created.token.accessor)
        except BaseException:  # also a cancellation: nobody has the token
            with suppress(LessorError):
                await self._end(created.token)
            raise
        return NewToken(created.text, self._status(caller, terms))

    async def _end(self, token: LoginToken) -> None:
        ended = await self._tokens.end(token.digest)
        self._access.end_logins(dict.fromkeys((token.digest, *ended)))

    def _status(self, principal: Principal, terms: LoginTerms | None = None) -> TokenStatus:
        """Return the status of a caller's credential; ``terms`` lower the longest life."""
        now, token = self._tokens.now(), principal.login
        if token is None:
            if principal.expires_at == math.inf:
                return TokenStatus(principal)
            expires_us = int(principal.expires_at * 1e6)
            return TokenStatus(principal, ttl=_seconds_left(expires_us, now), expires_us=expires_us)
        max_ttl = timedelta(microseconds=token.max_expires_us - token.created_us)
        return TokenStatus(
            principal,
            accessor=token.accessor,
            ttl=_seconds_left(token.expires_us, now),
            creation_ttl=token.ttl // SECOND,
            max_ttl=(min(max_ttl, terms.max_ttl) if terms else max_ttl) // SECOND,
            created_us=token.created_us,
            renewed_us=token.renewed_us,
            expires_us=token.expires_us,
            renewable=token.renewable,
            is_orphan=not token.parent,
        )


def _bearer(peer: Peer, token: str) -> Credential:
    return Credential(peer, (f"Bearer {token}",))


def _read_text(
    fields: Mapping[str, object], name: str, limit: int, violations: list[Violation], *, needed: bool = True
) -> str:
    """Return a field, or an empty text after adding its violation, which never shows its value."""
    value = fields.get(name)
    if value is None or value == "":
        if needed:
            violations.append(Violation(name, "is missing", f"send {name}"))
    elif not isinstance(value, str):
        violations.append(Violation(name, "is not a text", "send a string"))
    elif len(value) > limit:
        violations.append(too_long(name, value, limit))
    elif not value.isascii() or not value.isprintable() or " " in value:
        violations.append(
            Violation(
                name,
                "has characters that it can't have",
                "send it as it was issued, without a line break at its end",
            )
        )
    else:
        return value
    return ""


def _seconds_left(expires_us: int, now_us: int) -> int:
    """Return the whole seconds until a credential ends, at least 1: 0 means that it does not end."""
    return max((expires_us - now_us) // SECOND_US, 1)

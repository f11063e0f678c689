"""Sessions of the console: each is a login token, sealed in a cookie, which lives 8 h at most.

A sealed token has no effect outside of the console, and one that was not sealed here begins no session.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

from aiohttp.web import BaseRequest

from lessor_server.domain.access.caller import Principal
from lessor_server.domain.errors.base import ErrorKind, LessorError, Unauthenticated
from lessor_server.http_edge.calls import CallRefused
from lessor_server.http_edge.exchange import peer_from, token_credential
from lessor_server.services.guard import Guard
from lessor_server.services.logins import Logins
from lessor_server.services.sign_in_links import (
    LINK_REFUSED,
    NEW_LINK,
    SESSION_TTL,
    SignInLinks,
    open_token,
    seal_token,
)

_PLACE: Final = "console session"


class ConsoleSessions(Protocol):
    """Begins and ends sessions."""

    def open(self, cookie: str) -> str:
        """Return the token of the session that a cookie's value holds; empty if it holds none."""
        ...

    async def begin(self, request: BaseRequest, token: str) -> str:
        """Return the cookie's value of a new session for the holder of ``token``: a token, or a JWT.

        Raises:
            CallRefused: The token is not accepted.
        """
        ...

    async def begin_by_link(self, request: BaseRequest, code: str) -> str:
        """Return the cookie's value of a new session for the person who created a link, which works once.

        Raises:
            CallRefused: The link was used before, has expired, or was never created.
        """
        ...

    async def find_link_owner(self, request: BaseRequest, code: str) -> str:
        """Return the identity that a link signs in as; empty if it can't be used any more."""
        ...

    async def end(self, request: BaseRequest, session: str) -> None:
        """End the session with this token, unless it has ended already.

        Raises:
            CallRefused: It is not known whether it has ended.
        """
        ...


class LoginSessions:
    """Sessions that are login tokens."""

    def __init__(self, guard: Guard, logins: Logins, links: SignInLinks) -> None:
        """Identify people by ``guard``, and create their sessions by ``logins`` and ``links``."""
        self._guard = guard
        self._logins = logins
        self._links = links

    def open(self, cookie: str) -> str:
        """Return the login token that was sealed for a cookie: no other value works as one."""
        token = open_token(self._links.sealer, cookie, _PLACE)
        return "" if token is None else token.reveal()

    async def begin(self, request: BaseRequest, token: str) -> str:
        """Seal a login token that the presented token buys; it can't be renewed."""
        async with self._admit(request, token) as principal:
            new = await self._logins.create_child(
                principal, peer_from(request), ttl=SESSION_TTL, max_ttl=SESSION_TTL, renewable=False
            )
            return seal_token(self._links.sealer, new.token, _PLACE)

    async def begin_by_link(self, request: BaseRequest, code: str) -> str:
        """Seal the login token of a link."""
        try:
            token = self._links.open(code)
            async with self._admit(request, token.reveal()) as principal:
                await self._links.use(principal, peer_from(request))
                return seal_token(self._links.sealer, token, _PLACE)
        except CallRefused as refused:
            if refused.kind is not ErrorKind.UNAUTHENTICATED:
                raise
        except Unauthenticated:
            pass
        # Its token has ended, or never was: for the person that is all the same.
        raise CallRefused(Unauthenticated(LINK_REFUSED, fix=NEW_LINK))

    async def find_link_owner(self, request: BaseRequest, code: str) -> str:
        """Identify who created a link, which stays unused: somebody else may have sent it."""
        try:
            async with self._admit(request, self._links.open(code).reveal()) as principal:
                is_new = principal.login is not None and not principal.login.renewed_us
                return principal.name if is_new else ""
        except (CallRefused, Unauthenticated):
            return ""

    async def end(self, request: BaseRequest, session: str) -> None:
        """Revoke the login token."""
        try:
            async with self._admit(request, session) as principal:
                await self._logins.revoke_self(principal, peer_from(request))
        except CallRefused as failed:
            if failed.kind is not ErrorKind.UNAUTHENTICATED:
                raise

    @asynccontextmanager
    async def _admit(self, request: BaseRequest, token: str) -> AsyncIterator[Principal]:
        """Identify a person within the guard's limits; an error of the block fails the call."""
        try:
            async with self._guard.admit(token_credential(request, token)) as principal:
                yield principal
        except LessorError as error:
            raise CallRefused(error) from None

"""Login tokens: creates, renews, ends and purges them."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NoReturn

from lessor_server.domain import durations
from lessor_server.domain.access.login_token import (
    ACCESSOR_BITS,
    DEFAULT_TTL,
    MAX_DEPTH,
    MAX_LIVE_TOKENS,
    TOKEN_BITS,
    LoginTerms,
    LoginToken,
    NewLoginToken,
    accessor_of,
    login_digest,
    renew_token,
    token_of,
)
from lessor_server.domain.durations import MICROSECOND, SECOND_US
from lessor_server.domain.errors.access import LoginNotPossible, TokenNotRenewable
from lessor_server.domain.errors.base import StoreUnavailable, Unauthenticated, require
from lessor_server.engine.login_ports import LoginStore

PURGE_SECONDS: Final = 60.0
TOKENS_PER_PURGE: Final = 1_000
ENDED: Final = "the login token has ended"


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """What a caller asks of a new token; None or zero stands for what its credential gives."""

    ttl: timedelta | None = None
    max_ttl: timedelta | None = None
    renewable: bool = True


class LoginTokens:
    """The login tokens of all callers."""

    def __init__(self, store: LoginStore, rng: random.Random, limit: int = MAX_LIVE_TOKENS) -> None:
        """Keep them in ``store``; an identity has at most ``limit`` live ones."""
        self._store = store
        self._rng = rng
        self._limit = limit

    def now(self) -> int:
        """Return the service's time, by which tokens end."""
        return self._store.now()

    async def create(
        self, identity: str, terms: LoginTerms, options: TokenOptions, parent: LoginToken | None = None
    ) -> NewLoginToken:
        """Store a new token of an identity, as the child of ``parent`` if there is one.

        Raises:
            Invalid: A span of ``options`` is negative or not in whole seconds.
            LoginNotPossible: The parent has too many ancestors.
            TooManyLoginTokens: The identity has its maximum.
            Unauthenticated: The parent has ended.
        """
        asked = (("ttl", options.ttl), ("max_ttl", options.max_ttl))
        require(one for field, span in asked for one in durations.violations(field, span or None))
        if parent is not None and parent.depth >= MAX_DEPTH:
            raise LoginNotPossible(f"the caller's token has {MAX_DEPTH} ancestors, the maximum")
        now, text = self._store.now(), token_of(self._rng.getrandbits(TOKEN_BITS))
        max_ttl = min(terms.max_ttl, options.max_ttl or terms.max_ttl)
        max_expires_us = now + max_ttl // MICROSECOND
        if parent is not None:
            max_expires_us = min(max_expires_us, parent.max_expires_us)
        if max_expires_us - now < SECOND_US:
            raise Unauthenticated(ENDED)
        ttl = min(options.ttl or DEFAULT_TTL, timedelta(microseconds=max_expires_us - now))
        token = LoginToken(
            digest=login_digest(text.reveal()),
            accessor=accessor_of(self._rng.getrandbits(ACCESSOR_BITS)),
            identity=identity,
            credential=terms.credential,
            created_us=now,
            expires_us=now + ttl // MICROSECOND,
            max_expires_us=max_expires_us,
            ttl=ttl,
            renewable=options.renewable,
            parent=parent.digest if parent else "",
            depth=parent.depth + 1 if parent else 0,
        )
        if not await self._store.add_login_token(token, self._limit):
            raise Unauthenticated(ENDED)
        return NewLoginToken(text, token)

    async def renew(self, token: LoginToken, increment: timedelta | None) -> LoginToken:
        """Return a token with its new expiry, which is stored.

        Raises:
            Invalid: ``increment`` is negative or not in whole seconds.
            TokenNotRenewable: It was created so.
            Unauthenticated: It has ended.
        """
        require(durations.violations("increment", increment or None))
        if not token.renewable:
            raise TokenNotRenewable("the login token was created as not renewable")
        renewed = renew_token(token, self._store.now(), increment)
        if not await self._store.renew_login_token(renewed):
            raise Unauthenticated(ENDED)
        return renewed

    async def read_whether_renewed(self, token: LoginToken) -> bool:
        """Return whether a token was renewed before, on any server of the store, or has ended."""
        chain = await self._store.read_login_chain(token.digest)
        return not chain or bool(chain[0].renewed_us)

    async def end(self, digest: str) -> list[str]:
        """End a token and all that descend from it; return the digests of those that were there."""
        return await self._store.end_login_token(digest)

    async def run(self) -> NoReturn:
        """Delete rows of ended tokens each minute, until cancelled."""
        while True:
            with suppress(StoreUnavailable):  # they grant nothing: the next minute is early enough
                await self.purge()
            await asyncio.sleep(PURGE_SECONDS)

    async def purge(self) -> int:
        """Delete the rows of ended tokens in batches, so that no other write waits long; return how many."""
        purged, last = 0, TOKENS_PER_PURGE
        while last == TOKENS_PER_PURGE:
            last = await self._store.purge_login_tokens(TOKENS_PER_PURGE)
            purged += last
        return purged

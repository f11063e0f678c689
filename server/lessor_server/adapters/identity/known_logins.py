"""Login tokens that were looked up before, so that a call with one reads the store at most every 10 s.

Other servers may share the store. What one of them ends or renews is noticed here when a token is read again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from lessor_server.adapters.identity.jwt_limiter import JwtLimiter, JwtLimits
from lessor_server.adapters.identity.known_callers import CALLER_BYTES, KnownCaller
from lessor_server.domain.access.caller import IpAddress
from lessor_server.domain.access.login_token import KeptJwt, LoginToken
from lessor_server.domain.errors.base import StoreUnavailable, Unauthenticated
from lessor_server.engine.login_ports import LoginStore

REREAD_SECONDS: Final = 10.0
"""How long what was read of a token counts: one that was revoked on another server ends within this time."""
MAX_KNOWN: Final = 10_000
"""The maximum number of tokens that are remembered, and of digests of tokens that do not exist."""
MAX_BYTES: Final = 64 << 20
"""The approximate maximum size of all tokens that are remembered."""
UNKNOWN: Final = "the token is unknown, or has ended"


@dataclass(slots=True)
class KnownLogin:
    """A token with its ancestors, as they were read at ``read_at`` (the loop's time).

    ``caller`` is who it is by ``rules``.
    """

    chain: tuple[LoginToken, ...]
    read_at: float
    rules: object = None
    caller: KnownCaller | None = None

    @property
    def size(self) -> int:
        """Return the approximate size in bytes."""
        credential = self.chain[0].credential
        claims = credential.claims if isinstance(credential, KeptJwt) else {}
        texts = (len(str(one)) for pair in claims.items() for one in pair)
        return CALLER_BYTES * len(self.chain) + sum(texts)


class KnownLogins:
    """Finds login tokens by their digests."""

    def __init__(self, store: LoginStore, limits: JwtLimits | None = None) -> None:
        """Read them from ``store``; ``limits`` bounds how many that were not seen before are looked up."""
        self._store = store
        self._limiter = JwtLimiter(limits or JwtLimits(), "login tokens")
        self._known: OrderedDict[str, KnownLogin] = OrderedDict()
        self._bytes = 0
        self._unknown: OrderedDict[str, None] = OrderedDict()
        """Digests of tokens that do not exist: none of them will, because nobody can guess a token."""
        self._reads: dict[str, asyncio.Event] = {}
        self._version = 0
        """A number that changes when tokens are ended here, so that no read from before counts."""

    def now_us(self) -> int:
        """Return the service's time, by which tokens end."""
        return self._store.now()

    async def find(self, digest: str, address: IpAddress | str | None, *, is_new: bool = True) -> KnownLogin:
        """Return a token; calls with the same token share a read.

        The limit counts a token that is not remembered, unless ``is_new`` says that it was seen before.

        Raises:
            Unauthenticated: There is none, or it was revoked. It can have expired.
            TryLater: Too many tokens that were not seen before have to be looked up.
            StoreUnavailable, RowTampered, RowUnreadable: As the store raises them.
        """
        while True:
            if digest in self._unknown:
                raise Unauthenticated(UNKNOWN)
            known = self._known.get(digest)
            if known is not None and asyncio.get_running_loop().time() - known.read_at < REREAD_SECONDS:
                self._known.move_to_end(digest)
                return known
            reading = self._reads.get(digest)
            if reading is not None:
                await reading.wait()
                continue
            if known is None and is_new:
                self._limiter.admit(address)
            reading = self._reads[digest] = asyncio.Event()
            try:
                await self._read(digest)
            finally:
                del self._reads[digest]
                reading.set()

    async def find_or_keep(self, digest: str, address: IpAddress | str | None) -> KnownLogin:
        """Return a token for a call that lasts; while the store fails, as it was last read."""
        try:
            return await self.find(digest, address)
        except StoreUnavailable:
            known = self._known.get(digest)
            if known is None:
                raise
            return known

    def add(self, token: LoginToken) -> None:
        """Remember a token that was just created here."""
        above = self._known.get(token.parent)
        if above is not None or not token.parent:
            chain = (token, *above.chain) if above is not None else (token,)
            read_at = above.read_at if above is not None else asyncio.get_running_loop().time()
            self._keep(token.digest, KnownLogin(chain, read_at))

    def forget(self, digest: str) -> None:
        """Read a token again at its next call, because it was renewed here, and all that descend from it."""
        self._version += 1
        for one in self._of(digest):
            self._remove(one)

    def end(self, digests: Iterable[str]) -> None:
        """Remember that tokens were ended here, and with them all that descend from them."""
        self._version += 1
        for digest in digests:
            for one in (digest, *self._of(digest)):
                self._remove(one)
                self._note_unknown(one)

    def _of(self, digest: str) -> list[str]:
        """Return the digests of the remembered tokens that have this token among them and their ancestors."""
        return [
            one for one, known in self._known.items() if any(token.digest == digest for token in known.chain)
        ]

    async def _read(self, digest: str) -> None:
        """Read a token; what others end meanwhile here makes the read count for nothing."""
        version, began = self._version, asyncio.get_running_loop().time()
        chain = await self._store.read_login_chain(digest)
        if not chain:
            self._remove(digest)
            self._note_unknown(digest)
        elif version == self._version:
            self._keep(digest, KnownLogin(chain, began))

    def _keep(self, digest: str, known: KnownLogin) -> None:
        self._remove(digest)
        self._known[digest] = known
        self._bytes += known.size
        while len(self._known) > MAX_KNOWN or (self._bytes > MAX_BYTES and len(self._known) > 1):
            self._remove(next(iter(self._known)))

    def _remove(self, digest: str) -> None:
        if (known := self._known.pop(digest, None)) is not None:
            self._bytes -= known.size

    def _note_unknown(self, digest: str) -> None:
        self._unknown[digest] = None
        self._unknown.move_to_end(digest)
        if len(self._unknown) > MAX_KNOWN:
            self._unknown.popitem(last=False)

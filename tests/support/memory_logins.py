"""The part of the store in memory with login tokens, by the rules of ``adapters/sql/logins.py``."""

from __future__ import annotations

from dataclasses import replace

from lessor_server.domain.access.login_token import LoginToken
from lessor_server.domain.errors.access import TooManyLoginTokens
from tests.support.memory_config import At
from tests.support.memory_replicas import MemoryReplicas
from tests.support.memory_rows import Clock


class MemoryLogins(MemoryReplicas):
    """Implements ``engine.login_ports.LoginStore``."""

    def __init__(self, clock: Clock, at: At, instance: str) -> None:
        """Begin without tokens."""
        super().__init__(clock, at, instance)
        self.login_tokens: dict[str, LoginToken] = {}
        self.chains_read = 0
        """How often a token was looked up."""

    def _drop_login_tokens(self) -> None:
        self.login_tokens.clear()

    async def add_login_token(self, token: LoginToken, limit: int) -> bool:
        """Store a new token."""
        await self._before("add_login_token")
        live = [one for one in self.login_tokens.values() if one.expires_us > self.now()]
        if sum(one.identity == token.identity for one in live) >= limit:
            raise TooManyLoginTokens.of(token.identity, limit)
        if token.parent and token.parent not in {one.digest for one in live}:
            return False
        self.login_tokens[token.digest] = token
        await self._at("add_login_token done")
        return True

    async def read_login_chain(self, digest: str) -> tuple[LoginToken, ...]:
        """Return a token and its ancestors."""
        self.chains_read += 1
        await self._before("read_login_chain", reads=True)
        chain: list[LoginToken] = []
        while digest:
            if digest not in self.login_tokens:
                return ()
            self._require_authentic("login_tokens", digest)
            chain.append(self.login_tokens[digest])
            digest = chain[-1].parent
        return tuple(chain)

    async def renew_login_token(self, token: LoginToken) -> bool:
        """Write a new expiry."""
        await self._before("renew_login_token")
        before = self.login_tokens.get(token.digest)
        if before is None or before.expires_us <= self.now():
            return False
        self.login_tokens[token.digest] = replace(
            before, expires_us=token.expires_us, renewed_us=token.renewed_us
        )
        await self._at("renew_login_token done")
        return True

    async def end_login_token(self, digest: str) -> list[str]:
        """Delete a token and its descendants."""
        await self._before("end_login_token")
        ended = [digest] if digest in self.login_tokens else []
        for one in ended:
            ended += [child.digest for child in self.login_tokens.values() if child.parent == one]
        for one in ended:
            del self.login_tokens[one]
        await self._at("end_login_token done")
        return ended

    async def purge_login_tokens(self, limit: int) -> int:
        """Delete tokens that have ended."""
        await self._before("purge_login_tokens")
        now = self.now()
        ended = [
            one.digest
            for one in self.login_tokens.values()
            if one.expires_us <= now or (one.parent and one.parent not in self.login_tokens)
        ][:limit]
        for digest in ended:
            del self.login_tokens[digest]
        await self._at("purge_login_tokens done")
        return len(ended)

    async def reseal_login_tokens(self, after: str, limit: int) -> str | None:
        """Pass the next tokens: they have no MACs here."""
        await self._before("reseal_login_tokens")
        page = [digest for digest in sorted(self.login_tokens) if digest > after][:limit]
        await self._at("reseal_login_tokens done")
        return page[-1] if page else None

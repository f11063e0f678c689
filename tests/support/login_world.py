"""Servers that share a store of login tokens, with the rules, clocks and audit that they depend on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from lessor_server.adapters.identity.jwt_limiter import JwtLimiter, JwtLimits
from lessor_server.adapters.identity.known_logins import KnownLogins
from lessor_server.domain.access.access_config import AccessConfig, Identity
from lessor_server.domain.access.caller import Principal
from lessor_server.engine.logins import LoginTokens
from lessor_server.services.audit import CallAudit
from lessor_server.services.logins import Logins, NewToken
from tests.support.fake_audit import FakeAudit
from tests.support.identifier_world import KEY, RULES, TOKEN, World, bearer, call, world
from tests.support.json_web_tokens import NOW, claims
from tests.support.memory_store import MemoryStore
from tests.support.reports import Reports

PEER = call().peer
APPROLE = {"role_id": "ci", "secret_id": TOKEN}


class LoopClock:
    """The virtual time of the loop, as both clocks of a machine."""

    def boot_us(self) -> int:
        """Return the loop's time."""
        return round(asyncio.get_running_loop().time() * 1e6)

    def wall_us(self) -> int:
        """Return the time that tests sign JWTs at, and the loop's since."""
        return round(NOW * 1e6) + self.boot_us()


@dataclass(slots=True)
class Server:
    """One server: its identifier, its logins and its audit."""

    world: World
    store: MemoryStore
    tokens: LoginTokens
    logins: Logins
    audit: FakeAudit
    reports: Reports

    async def who(self, token: str, **more: Any) -> Principal:
        """Return who calls with a bearer token."""
        return await self.world.who(bearer(token, **more))

    async def refusal(self, token: str, **more: Any) -> str:
        """Return why a call with a bearer token is refused."""
        return await self.world.refusal(bearer(token, **more))

    async def log_in(self) -> NewToken:
        """Log in as ``ci`` by its fixed token."""
        return await self.logins.log_in(PEER, "approle", APPROLE)

    async def log_in_by_jwt(self, **changed: Any) -> NewToken:
        """Log in by a JWT of the issuer ``ci``."""
        return await self.logins.log_in(PEER, "ci", {"jwt": KEY.sign(claims(**changed)), "role": ""})

    def use(self, *identities: Identity, **changed: Any) -> None:
        """Use rules with these identities, as a reload does."""
        self.world.identifier.use(replace(RULES, identities=identities or RULES.identities, **changed))


@asynccontextmanager
async def login_server(
    store: MemoryStore | None = None,
    rules: AccessConfig = RULES,
    *,
    limits: JwtLimits | None = None,
    max_tokens: int = 1000,
    **options: Any,
) -> AsyncIterator[Server]:
    """Run one server; give it the ``store`` of another one to make them replicas."""
    shared = store or MemoryStore(LoopClock())
    async with world(rules, **options) as here:
        audit, reports = FakeAudit(), Reports()
        numbers = iter(range(1, 10**6))
        calls = CallAudit(audit, shared.now, lambda: f"id-{next(numbers)}")
        here.identifier.logins = KnownLogins(shared, limits)
        tokens = LoginTokens(shared, random.SystemRandom(), max_tokens)
        admit = JwtLimiter(limits or JwtLimits(), "logins").admit
        logins = Logins(here.identifier, tokens, calls, admit, reports)
        yield Server(here, shared, tokens, logins, audit, reports)

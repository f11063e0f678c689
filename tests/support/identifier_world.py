"""An identifier for tests, with the rules, keys and clock that it depends on."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lessor_server.adapters.identity.identifier import Identifier
from lessor_server.adapters.identity.jwt_limiter import JwtLimits
from lessor_server.domain.access.access_config import (
    AccessConfig,
    Identity,
    JwtMatch,
    SpiffeMatch,
    TokenMatch,
)
from lessor_server.domain.access.acl import Capability, Policy, Rule
from lessor_server.domain.access.caller import Credential, Peer, Principal
from lessor_server.domain.errors.base import Unauthenticated
from lessor_server.domain.secret import TokenHash
from tests.support.json_web_tokens import NOW, FakeReader, SigningKey, issuer, key_set

KEY = SigningKey()
ROOT_TOKEN = "root-token-of-tests"
TOKEN = "lsr_fixed-token"
TEAM = "aws/creds/{{identity.labels.team}}"
POLICIES = {"deploy": Policy("deploy", (Rule(TEAM, frozenset({Capability.READ})),))}
CI = Identity("ci", TokenMatch((TokenHash.of(TOKEN).digest,)), ("deploy",), {"team": "blue"})
JOB = Identity("gh/{sub}", JwtMatch("ci"), ("deploy",), {"team": "red"})
POD = Identity("k8s/{ns}", SpiffeMatch("spiffe://example.org/{ns}"), ("deploy",), {"team": "{ns}"})
RULES = AccessConfig(POLICIES, (CI, JOB, POD), (issuer(),))
HERE = ipaddress.ip_address("192.0.2.1")


def call(*values: str | bytes, certificates: bytes = b"", address: Any = HERE) -> Credential:
    """Return what a call presents."""
    return Credential(Peer("connection", address), values, certificates)


def bearer(token: str, **more: Any) -> Credential:
    """Return what a call with a token presents."""
    return call(f"Bearer {token}", **more)


class World:
    """An identifier, and all that it depends on."""

    def __init__(self, rules: AccessConfig, *, root: bool = True, limits: JwtLimits | None = None) -> None:
        self.reader = FakeReader(key_set(KEY))
        self.client_cas = 1
        self.ahead = 0.0
        self.reports: list[str] = []
        self.identifier = Identifier(
            TokenHash.of(ROOT_TOKEN) if root else None,
            rules,
            lambda: self.client_cas,
            self.now,
            self.reader,
            limits,
            self.reports.append,
        )

    def now(self) -> float:
        return NOW + asyncio.get_running_loop().time() + self.ahead

    async def who(self, credential: Credential) -> Principal:
        return await self.identifier.identify(credential)

    async def refusal(self, credential: Credential) -> str:
        """Return why a call is refused."""
        with pytest.raises(Unauthenticated) as caught:
            await self.identifier.identify(credential)
        return f"{caught.value.reason}: {caught.value.message}"


@asynccontextmanager
async def world(rules: AccessConfig = RULES, **options: Any) -> AsyncIterator[World]:
    """Yield a world whose identifier runs."""
    made = World(rules, **options)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made.identifier.run())
        await asyncio.sleep(0.001)
        yield made
        running.cancel()

"""Checks every method with every kind of credential, and with policies that grant it, lack it or deny it.

The guard, the identification of callers, TLS and the wire are real; the services behind them are not.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from lessor_server.adapters.clock import SystemClock
from lessor_server.adapters.identity.identifier import Identifier
from lessor_server.adapters.tls import Certificates
from lessor_server.app import SERVICES
from lessor_server.domain.access.access_config import (
    AccessConfig,
    Identity,
    JwtMatch,
    SpiffeMatch,
    TokenMatch,
)
from lessor_server.domain.access.acl import Capability, Policy, Rule
from lessor_server.domain.secret import TokenHash
from lessor_server.grpc_server import build_server, open_ports
from lessor_server.services.call import Caller
from lessor_server.services.channel_options import ConnectionLimits
from lessor_server.services.grpc_handlers import GrpcHandlers
from lessor_server.services.guard import Guard
from lessor_server.services.permissions import PERMISSIONS, path_of
from lessor_server.settings.parsers import Address, Listener
from tests.support.call_notes import CallNotes
from tests.support.certificates import Authority, KeyPair
from tests.support.json_web_tokens import FakeReader, SigningKey, claims, issuer, key_set
from tests.unit.services.test_guard import LIMITS
from tests.unit.services.test_permissions import NEEDS, C

CODES = grpc.StatusCode
ROOT_TOKEN = "root-token-of-the-matrix"
METHODS = {f"{service.name}.{method.name}": method for service in SERVICES for method in service.methods}
REQUESTS: dict[str, Message] = {
    "ConfigService.SetRoot": C.SetRootRequest(config=C.RootConfig(access_key="A", secret_key="s"))
}
for _method, _request, _ in NEEDS:
    REQUESTS.setdefault(_method, _request)
RIGHTS = ("right", "none", "deny")
KINDS = ("token", "certificate", "jwt")
STRANGERS = ("no credential", "wrong token", "wrong jwt", "unknown certificate")


class Anything:
    """Every method of every service; each answers, and notes its caller."""

    def __init__(self, methods: list[MethodDescriptor]) -> None:
        """Serve ``methods``."""
        self.callers: list[Caller] = []
        for method in methods:
            setattr(self, method.name, self._stream(method) if method.server_streaming else self._one(method))

    def _one(self, method: MethodDescriptor) -> Callable[[Message, Caller], Any]:
        async def serve(_: Message, caller: Caller) -> Message:
            self.callers.append(caller)
            return GetMessageClass(method.output_type)()

        return serve

    def _stream(self, method: MethodDescriptor) -> Callable[[Message, Caller], Any]:
        async def serve(_: Message, caller: Caller) -> AsyncIterator[Message | None]:
            self.callers.append(caller)
            if method.name.startswith("Watch"):
                yield None
            yield GetMessageClass(method.output_type)()

        return serve


@dataclass
class Matrix:
    """The server, its two addresses, and the credentials of all callers."""

    identifier: Identifier
    services: dict[str, Anything]
    plain: str
    """The address that asks for no certificate."""
    mutual: str
    """The address that requires one."""
    authority: Authority
    certificates: dict[str, KeyPair]
    key: SigningKey

    async def call(self, method: str, kind: str, right: str = "") -> CODES:
        """Call a method and return its status."""
        token, pair = self._credential(kind, right)
        address = self.plain if pair is None else self.mutual
        pem = self.authority.ca.read_bytes()
        own = (None, None) if pair is None else (pair.key.read_bytes(), pair.cert.read_bytes())
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        async with grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(pem, *own)) as channel:
            return await _status(channel, method, metadata)

    def _credential(self, kind: str, right: str) -> tuple[str, KeyPair | None]:
        match kind:
            case "root":
                return ROOT_TOKEN, None
            case "token":
                return f"token-{right}", None
            case "certificate":
                return "", self.certificates[right]
            case "unknown certificate":
                return "", self.certificates["unknown"]
            case "jwt":
                now = SystemClock().wall()
                return self.key.sign(claims(sub=right, iat=now - 1, exp=now + 600)), None
            case "wrong jwt":
                now = SystemClock().wall()
                other = SigningKey(number=1)
                return other.sign(claims(sub="right", iat=now - 1, exp=now + 600)), None
            case "wrong token":
                return "token-of-nobody", None
            case _:
                return "", None


async def _status(channel: grpc.aio.Channel, method: str, metadata: Any) -> CODES:
    service, _, name = method.partition(".")
    path = f"/lessor.v1.{service}/{name}"
    data = REQUESTS[method].SerializeToString()
    try:
        async with asyncio.timeout(30):
            if METHODS[method].server_streaming:
                async for _ in channel.unary_stream(path)(data, metadata=metadata):
                    pass
            else:
                await channel.unary_unary(path)(data, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return CODES.OK


def rules_of(method: str) -> AccessConfig:
    """Return rules under which callers named ``right`` may call ``method``, and others may not."""
    request = REQUESTS[method]
    granted = tuple(
        Rule(path_of(need.path, request), frozenset(need.capabilities))
        for need in PERMISSIONS[method]
        if need.when(request)
    )
    unrelated = Rule("another/path", frozenset({Capability.READ}))
    denied = tuple(Rule(rule.pattern, frozenset({Capability.DENY})) for rule in granted)
    policies = {
        "right": Policy("right", granted),
        "none": Policy("none", (unrelated,)),
        "deny": Policy("deny", denied),
    }
    identities = []
    for right in RIGHTS:
        held = ("right", "deny") if right == "deny" else (right,)
        digest = hashlib.sha256(f"token-{right}".encode()).digest()
        identities += [
            Identity(f"token-{right}", TokenMatch((digest,)), held),
            Identity(f"certificate-{right}", SpiffeMatch(f"spiffe://example.org/{right}"), held),
            Identity(f"jwt-{right}", JwtMatch("ci", {"sub": right}), held),
        ]
    return AccessConfig(policies, tuple(identities), (issuer(),))


@pytest.fixture(name="m", scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, dict[str, KeyPair], KeyPair]:
    """Sign the certificates of all callers and of the server."""
    folder: Path = tmp_path_factory.mktemp("matrix")
    authority = Authority(folder)
    made = {
        name: authority.sign(name, names=[x509.UniformResourceIdentifier(f"spiffe://example.org/{name}")])
        for name in (*RIGHTS, "unknown")
    }
    return authority, made, authority.sign("server")


@pytest.fixture(name="matrix")
async def served(m: tuple[Authority, dict[str, KeyPair], KeyPair]) -> AsyncIterator[Matrix]:
    """Serve all services on one address with client certificates and one without."""
    authority, certificates, own = m
    key = SigningKey()
    tls = Certificates(own.cert, own.key, authority.ca)
    clock, reader = SystemClock().wall, FakeReader(key_set(key))
    identifier = Identifier(
        TokenHash.of(ROOT_TOKEN), AccessConfig(), lambda: tls.client_ca_count, clock, reader
    )
    guard = Guard(identifier, CallNotes(), clock)
    services = {one.name: Anything(list(one.methods)) for one in SERVICES}
    handlers = [GrpcHandlers(guard).service(one, services[one.name]) for one in SERVICES]
    server = build_server(LIMITS, handlers)
    places = [Listener(Address("127.0.0.1"), "none"), Listener(Address("127.0.0.1"))]
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(identifier.run())
        plain, mutual = await open_ports(server, places, tls)
        yield Matrix(identifier, services, plain, mutual, authority, certificates, key)
        await server.stop(0)
        reading.cancel()


def test_every_method_has_a_request() -> None:
    """A new RPC needs a case in tests/unit/services/test_permissions.py, and is then in the matrix."""
    assert set(REQUESTS) == set(METHODS) == set(PERMISSIONS)
    assert isinstance(LIMITS, ConnectionLimits)


@pytest.mark.parametrize("method", METHODS)
async def test_a_method_serves_exactly_the_callers_that_have_the_right(matrix: Matrix, method: str) -> None:
    matrix.identifier.use(rules_of(method))
    service = matrix.services[method.partition(".")[0]]
    found = {stranger: await matrix.call(method, stranger) for stranger in STRANGERS}
    assert found == dict.fromkeys(STRANGERS, CODES.UNAUTHENTICATED)
    assert service.callers == []
    assert await matrix.call(method, "root") is CODES.OK
    for kind, right in product(KINDS, RIGHTS):
        service.callers.clear()
        wanted, only_owner = expected(method, kind, right)
        assert await matrix.call(method, kind, right) is wanted, (kind, right)
        callers = [(one.principal.name, one.only_owner) for one in service.callers]
        assert callers == ([(f"{kind}-{right}", only_owner)] if wanted is CODES.OK else []), (kind, right)


def expected(method: str, kind: str, right: str) -> tuple[CODES, str | None]:
    """Return the status of a call, and whose leases it may see."""
    needs = PERMISSIONS[method]
    if right == "right" or not needs:
        return CODES.OK, None
    if right == "none" and needs[0].for_others:
        return CODES.OK, f"{kind}-{right}"
    return CODES.PERMISSION_DENIED, None

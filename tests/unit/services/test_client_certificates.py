"""Checks over real TLS which of the certificates that a caller sends says who it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from lessor.v1 import system_pb2
from lessor_server.adapters.clock import SystemClock
from lessor_server.adapters.identity.identifier import Identifier
from lessor_server.adapters.tls import Certificates
from lessor_server.domain.access.access_config import AccessConfig, Identity, SpiffeMatch
from lessor_server.grpc_server import build_server, open_ports
from lessor_server.services.call import Caller
from lessor_server.services.grpc_handlers import GrpcHandlers, peer_of
from lessor_server.services.guard import Guard
from lessor_server.settings.parsers import Address, Listener
from tests.support.call_notes import CallNotes
from tests.support.certificate_chains import ChainAuthority, leaf_key
from tests.support.certificates import Authority
from tests.support.json_web_tokens import FakeReader
from tests.unit.services.test_guard import LIMITS

WhoAmI = Callable[[bytes], Awaitable[str]]
NOW = SystemClock().wall()
CA = ChainAuthority("client CA", NOW)
INTERMEDIATE = ChainAuthority("intermediate CA", NOW, parent=CA)
FORGER = ChainAuthority("client CA", NOW, variant="forged")


def spiffe(name: str, authority: ChainAuthority = CA) -> bytes:
    """Return the certificate of a workload, and the intermediate ones."""
    return authority.issue(uris=(f"spiffe://example.org/{name}",))


class System:
    """Says who its caller is."""

    async def WhoAmI(self, _: object, caller: Caller) -> system_pb2.WhoAmIResponse:  # noqa: N802
        return system_pb2.WhoAmIResponse(identity=caller.principal.name)


@pytest.fixture(name="who", params=["one CA", "a ca_file of the identity"])
async def served(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[WhoAmI]:
    """Serve with client certificates; return a call with a chain, all of whose leaves have one key."""
    server = Authority(tmp_path, "server")
    own, ca_file = server.sign("one"), CA.write(tmp_path)
    both = CA.write(tmp_path, ChainAuthority("other CA", NOW))
    single = request.param == "one CA"
    tls = Certificates(own.cert, own.key, Path(ca_file if single else both))
    match = SpiffeMatch("spiffe://example.org/{name}", "" if single else ca_file)
    rules = AccessConfig({}, (Identity("pod/{name}", match),))
    clock = SystemClock().wall
    identifier = Identifier(None, rules, lambda: tls.client_ca_count, clock, FakeReader(b""))
    guard = Guard(identifier, CallNotes(), clock)
    handlers = GrpcHandlers(guard).service(system_pb2.DESCRIPTOR.services_by_name["SystemService"], System())
    grpc_server = build_server(LIMITS, [handlers])
    (address,) = await open_ports(grpc_server, [Listener(Address("127.0.0.1"))], tls)
    key = leaf_key("P-256").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    async def who(chain: bytes) -> str:
        credentials = grpc.ssl_channel_credentials(server.ca.read_bytes(), key, chain)
        async with grpc.aio.secure_channel(address, credentials) as channel, asyncio.timeout(30):
            answer = await channel.unary_unary("/lessor.v1.SystemService/WhoAmI")(b"")
        return system_pb2.WhoAmIResponse.FromString(answer).identity

    yield who
    await grpc_server.stop(0)


async def test_a_caller_is_the_one_of_its_own_certificate(who: WhoAmI) -> None:
    assert await who(spiffe("app")) == "pod/app"


async def test_a_certificate_behind_an_intermediate_authority_is_accepted(who: WhoAmI) -> None:
    assert await who(spiffe("app", INTERMEDIATE)) == "pod/app"


@pytest.mark.parametrize("other", [spiffe("admin"), spiffe("admin", FORGER)], ids=["issued", "forged"])
async def test_other_certificates_that_a_caller_sends_are_never_who_it_is(who: WhoAmI, other: bytes) -> None:
    assert await who(spiffe("app") + other) == "pod/app"


async def test_a_forged_certificate_is_nobody(who: WhoAmI) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await who(spiffe("admin", FORGER) + spiffe("app"))


def test_the_chains_of_these_tests_begin_with_the_own_certificate() -> None:
    first, second = x509.load_pem_x509_certificates(spiffe("app") + spiffe("admin"))
    assert first.issuer == second.issuer


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ipv4:192.0.2.1:443", "192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:443", "2001:db8::1"),
        ("ipv6:[2001:db8::1]:443", "2001:db8::1"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:443", "192.0.2.1"),
        ("ipv6:[fe80::1%25eth0]:443", "fe80::1"),
        ("unix:", "unix"),
        ("unix:/run/lessor.sock", "unix"),
        ("unix-abstract:x", "unix"),
        ("", "None"),
        ("unknown", "None"),
        ("vsock:1:2", "None"),
        ("ipv4:nonsense:1", "None"),
        ("fd:127.0.0.1:1", "None"),
    ],
)
def test_the_address_of_a_peer_is_known_only_if_it_is_of_a_known_kind(text: str, address: str) -> None:
    peer = peer_of(text)
    assert (peer.connection, str(peer.address)) == (text, address)

"""Checks the errors of the command line when it can't connect, for each cause."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.certificates import Authority
from tests.support.command_line import CommandLine, Done
from tests.support.server_process import TOKEN, ServerProcess, serving

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]


@dataclass(frozen=True)
class Reach:
    """Servers without TLS, with it, and with client certificates; two authorities; and how to call them."""

    folder: Path
    plain: ServerProcess
    tls: ServerProcess
    mutual: ServerProcess
    expired: ServerProcess
    ours: Authority
    theirs: Authority

    async def whoami(self, address: str, **variables: str) -> Done:
        """Ask the server at ``address`` who we are."""
        command = CommandLine(self.folder, {"LESSOR_ADDR": address, "LESSOR_TOKEN": TOKEN})
        done = await command("whoami", **variables)
        assert done.out == ""
        return done

    async def unreached(self, address: str, **variables: str) -> str:
        """Return what is said of a server that is not reached."""
        done = await self.whoami(address, **variables)
        assert done.code == 6
        start = f"lessor: can't reach a server at {address}: "
        assert done.err.startswith(start)
        return done.err.removeprefix(start)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reach(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Reach]:
    """Start all servers."""
    folder = tmp_path_factory.mktemp("reach")
    ours, theirs = Authority(folder, "ours"), Authority(folder, "theirs")
    pair, old = ours.sign("server"), ours.sign("old", expired=True)
    tls = {"LESSOR_TLS_CERT_FILE": str(pair.cert), "LESSOR_TLS_KEY_FILE": str(pair.key)}
    settings = {
        "plain": {},
        "tls": {**tls, "LESSOR_LISTEN": "0.0.0.0:0"},
        "mutual": {**tls, "LESSOR_TLS_CLIENT_CA_FILE": str(ours.ca)},
        "expired": {"LESSOR_TLS_CERT_FILE": str(old.cert), "LESSOR_TLS_KEY_FILE": str(old.key)},
    }
    async with AsyncExitStack() as stack:
        servers = {
            name: await stack.enter_async_context(serving(tmp_path_factory.mktemp(name), one))
            for name, one in settings.items()
        }
        yield Reach(folder, ours=ours, theirs=theirs, **servers)


async def test_a_wrong_token_and_a_missing_one_have_different_errors(reach: Reach) -> None:
    file = reach.folder / "token"
    file.write_text("another-token-for-tests", encoding="ascii")
    for variables, said in (
        (
            {"LESSOR_TOKEN": "another-token-for-tests", "LESSOR_TOKEN_FILE": str(file)},
            ("the token is unknown; ", f"the token in LESSOR_TOKEN, not the token in {file}"),
        ),
        (
            {"LESSOR_TOKEN": "", "LESSOR_TOKEN_FILE": str(file)},
            ("the token is unknown; ", f"the token in {file}"),
        ),
        (
            {"LESSOR_TOKEN": ""},
            ("the call has neither a token nor a client certificate; ", "none; set LESSOR_TOKEN, "),
        ),
    ):
        done = await reach.whoami(reach.plain.address, **variables)
        assert done.code == 4
        message, credential, reason = done.err.splitlines()
        assert message.startswith(f"lessor: {said[0]}")
        assert credential.startswith(f"  credential: {said[1]}")
        assert reason == "  reason: UNAUTHENTICATED"


async def test_plaintext_to_a_server_with_tls(reach: Reach) -> None:
    for address in (f"127.0.0.1:{reach.tls.port}", reach.mutual.address):
        assert (await reach.unreached(address)).startswith(
            "the server uses TLS, and this call does not; write https:// before the address"
        )


async def test_tls_to_a_server_without_it(reach: Reach) -> None:
    for address, variables in (
        (f"https://{reach.plain.address}", {}),
        (reach.plain.address, {"LESSOR_CACERT": str(reach.ours.ca)}),
    ):
        said = await reach.unreached(address, **variables)
        assert said.startswith("the server does not use TLS, and this call does; ")


async def test_a_missing_client_certificate(reach: Reach) -> None:
    said = await reach.unreached(f"https://localhost:{reach.mutual.port}", LESSOR_CACERT=str(reach.ours.ca))
    assert said.startswith(
        "the server asks for a client certificate, and none was given; set LESSOR_CLIENT_CERT"
    )


@pytest.mark.parametrize("signed_by", ["theirs", "ours, but expired"])
async def test_a_client_certificate_that_is_not_accepted(reach: Reach, signed_by: str) -> None:
    pair = reach.theirs.sign("client") if signed_by == "theirs" else reach.ours.sign("client", expired=True)
    said = await reach.unreached(
        f"https://localhost:{reach.mutual.port}",
        LESSOR_CACERT=str(reach.ours.ca),
        LESSOR_CLIENT_CERT=str(pair.cert),
        LESSOR_CLIENT_KEY=str(pair.key),
    )
    assert said.startswith("the server does not accept the client certificate")
    assert "LESSOR_CLIENT_CERT" in said


async def test_a_server_of_another_authority(reach: Reach) -> None:
    address = f"https://localhost:{reach.tls.port}"
    said = await reach.unreached(address, LESSOR_CACERT=str(reach.theirs.ca))
    assert said.startswith("the server's certificate is not signed by an authority in LESSOR_CACERT ")
    said = await reach.unreached(address)
    assert said.startswith("the server's certificate is not signed by an authority of gRPC's own list ")


async def test_a_certificate_of_the_server_s_that_has_expired(reach: Reach) -> None:
    said = await reach.unreached(f"https://localhost:{reach.expired.port}", LESSOR_CACERT=str(reach.ours.ca))
    assert said.startswith("the server's certificate has expired; ")


async def test_a_name_that_the_certificate_is_not_for(reach: Reach) -> None:
    said = await reach.unreached(f"https://127.0.0.2:{reach.tls.port}", LESSOR_CACERT=str(reach.ours.ca))
    assert said.startswith("the server's certificate is for localhost, 127.0.0.1, ")
    assert "not for 127.0.0.2; " in said


async def test_a_port_without_a_listener(reach: Reach) -> None:
    for address in ("127.0.0.1:1", f"unix:{reach.folder}/none.sock", "https://127.0.0.1:1"):
        assert (await reach.unreached(address)).startswith("nothing listens there; start the server, or set ")


async def test_a_host_that_does_not_exist(reach: Reach) -> None:
    assert (await reach.unreached("https://nowhere.invalid:1")).startswith("there is no host of that name; ")


async def test_a_listener_that_is_not_a_grpc_server(reach: Reach) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        said = await reach.unreached(f"127.0.0.1:{http.server_port}")
        http.shutdown()
    assert said.startswith("the process that listens there is not a gRPC server; ")

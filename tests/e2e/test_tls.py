"""Checks TLS between real clients and servers."""

from __future__ import annotations

import asyncio
import operator
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

import lessor
from tests.support.certificates import Authority, KeyPair
from tests.support.clients import until
from tests.support.command_line import CommandLine, Done
from tests.support.server_process import TOKEN, ServerProcess, serving

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

NOT_REACHED = 6
THREADS, HANDSHAKES, RELOADS = 6, 300, 3


@dataclass(frozen=True, slots=True)
class Certificates:
    """Two authorities that don't know each other, and what they signed."""

    ours: Authority
    theirs: Authority
    server: KeyPair
    client: KeyPair
    expired: KeyPair
    strange: KeyPair


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Draw all keys and certificates of this module."""
    folder = tmp_path_factory.mktemp("certificates")
    ours, theirs = Authority(folder, "ours"), Authority(folder, "theirs")
    return Certificates(
        ours=ours,
        theirs=theirs,
        server=ours.sign("server"),
        client=ours.sign("client"),
        expired=ours.sign("expired", expired=True),
        strange=theirs.sign("client"),
    )


def settings_of(pair: KeyPair, client_ca: Path | None = None) -> dict[str, str]:
    """Return the settings of a server with this certificate, which asks for one of ``client_ca``."""
    settings = {"LESSOR_TLS_CERT_FILE": str(pair.cert), "LESSOR_TLS_KEY_FILE": str(pair.key)}
    return settings if client_ca is None else {**settings, "LESSOR_TLS_CLIENT_CA_FILE": str(client_ca)}


def variables_of(pair: KeyPair) -> dict[str, str]:
    """Return the variables of a client that shows this certificate."""
    return {"LESSOR_CLIENT_CERT": str(pair.cert), "LESSOR_CLIENT_KEY": str(pair.key)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plain(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerProcess]:
    """Run a server with TLS and without client certificates."""
    async with serving(tmp_path_factory.mktemp("plain"), settings_of(certificates.server)) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mutual(
    certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerProcess]:
    """Run a server with TLS and without client certificates."""
    settings = settings_of(certificates.server, certificates.ours.ca)
    async with serving(tmp_path_factory.mktemp("mutual"), settings) as server:
        yield server


async def whoami(folder: Path, address: str, variables: Mapping[str, str]) -> Done:
    """Ask a server who we are, by the command line."""
    lessor = CommandLine(folder, {"LESSOR_ADDR": address, "LESSOR_TOKEN": TOKEN})
    return await lessor("whoami", "--timeout", "10s", **variables)


async def test_a_caller_that_knows_the_authority_is_served(
    plain: ServerProcess, certificates: Certificates, tmp_path: Path
) -> None:
    ca = {"LESSOR_CACERT": str(certificates.ours.ca)}
    for address in (f"https://localhost:{plain.port}", f"127.0.0.1:{plain.port}"):
        done = await whoami(tmp_path, address, ca)
        assert (done.code, done.fields["identity"]) == (0, "root"), done.err


@pytest.mark.parametrize("known", ["theirs", "none"])
async def test_a_server_of_an_unknown_authority_gets_no_token(
    plain: ServerProcess, certificates: Certificates, tmp_path: Path, known: str
) -> None:
    """The error names the variable for the authority."""
    ca = {"LESSOR_CACERT": str(certificates.theirs.ca)} if known == "theirs" else {}
    done = await whoami(tmp_path, f"https://localhost:{plain.port}", ca)
    assert done.code == NOT_REACHED
    assert "LESSOR_CACERT" in done.err


async def test_a_server_with_an_expired_certificate_gets_no_token(
    certificates: Certificates, tmp_path: Path
) -> None:
    async with serving(tmp_path, settings_of(certificates.expired)) as server:
        ca = {"LESSOR_CACERT": str(certificates.ours.ca)}
        done = await whoami(tmp_path, f"https://localhost:{server.port}", ca)
    assert done.code == NOT_REACHED
    assert "certificate has expired" in done.err


async def test_plaintext_to_a_server_with_tls_is_refused_with_the_fix(
    plain: ServerProcess, tmp_path: Path
) -> None:
    """On loopback an address without a scheme means plaintext."""
    done = await whoami(tmp_path, plain.address, {})
    assert done.code == NOT_REACHED
    assert "https://" in done.err


async def test_a_caller_with_a_valid_client_certificate_is_served(
    mutual: ServerProcess, certificates: Certificates, tmp_path: Path
) -> None:
    address = f"https://localhost:{mutual.port}"
    variables = {"LESSOR_CACERT": str(certificates.ours.ca), **variables_of(certificates.client)}
    done = await whoami(tmp_path, address, variables)
    assert (done.code, done.fields["identity"]) == (0, "root"), done.err
    stranger = CommandLine(tmp_path, {"LESSOR_ADDR": address, "LESSOR_TOKEN": "another-token-for-tests"})
    assert (await stranger("whoami", **variables)).code == 4


@pytest.mark.parametrize("shown", ["none", "strange", "expired"])
async def test_a_caller_without_a_valid_client_certificate_is_not_served(
    mutual: ServerProcess, certificates: Certificates, tmp_path: Path, shown: str
) -> None:
    pairs = {"strange": certificates.strange, "expired": certificates.expired}
    variables = variables_of(pairs[shown]) if shown in pairs else {}
    variables["LESSOR_CACERT"] = str(certificates.ours.ca)
    done = await whoami(tmp_path, f"https://localhost:{mutual.port}", variables)
    assert done.code == NOT_REACHED
    assert "LESSOR_CLIENT_CERT" in done.err


async def test_health_and_reflection_need_the_certificate_too(
    mutual: ServerProcess, certificates: Certificates, tmp_path: Path
) -> None:
    lessor = CommandLine(tmp_path, {"LESSOR_ADDR": f"https://localhost:{mutual.port}", "LESSOR_TOKEN": TOKEN})
    ca = {"LESSOR_CACERT": str(certificates.ours.ca)}
    assert (await lessor("health", **ca)).code == 1
    assert (await lessor("health", **ca, **variables_of(certificates.client))).code == 0


# --- what is sent to another machine --------------------------------------------------------------------

SETTINGS_FRAME = bytes.fromhex("000000040000000000")  # RFC 9113, 6.5; a client sends its call after it


async def heard_from_a_call(folder: Path, scheme: str) -> tuple[bytes, Done]:
    """Call a plaintext listener at 0.0.0.0, which does not count as loopback; return all it received."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        call = asyncio.create_task(whoami(folder, f"{scheme}0.0.0.0:{listener.getsockname()[1]}", {}))
        connection, _ = await loop.sock_accept(listener)
    with connection:
        connection.setblocking(False)
        heard = await loop.sock_recv(connection, 65536)
        if heard.startswith(b"PRI"):
            await loop.sock_sendall(connection, SETTINGS_FRAME)
            while TOKEN.encode() not in heard and (more := await loop.sock_recv(connection, 65536)):
                heard += more
    return heard, await call


@pytest.mark.parametrize("scheme", ["", "grpc://", "http://"])
async def test_a_token_is_sent_in_plaintext_to_another_machine_only_with_http(
    tmp_path: Path, scheme: str
) -> None:
    plaintext = scheme == "http://"
    heard, done = await heard_from_a_call(tmp_path, scheme)
    assert heard.startswith(b"PRI * HTTP/2.0" if plaintext else b"\x16\x03")
    assert (TOKEN.encode() in heard) is plaintext
    assert ("means plaintext" in done.err) is plaintext


async def test_refused_handshakes_leave_the_log_json(certificates: Certificates, tmp_path: Path) -> None:
    async with serving(tmp_path, settings_of(certificates.server, certificates.ours.ca)) as server:
        variables = {"LESSOR_CACERT": str(certificates.ours.ca), **variables_of(certificates.strange)}
        await whoami(tmp_path, f"https://localhost:{server.port}", variables)
        await whoami(tmp_path, server.address, {})
        await server.stop()
    lines = server.log_file.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("{")] == []


async def test_the_python_clients_show_their_certificate_and_verify_the_servers(
    mutual: ServerProcess, certificates: Certificates
) -> None:
    """A server of an unknown authority gets no token, and the error says what to set."""
    # Not localhost: of its two addresses, only one is listened on, and gRPC's error may be that of the other.
    address, pair = f"https://127.0.0.1:{mutual.port}", certificates.client
    known: dict[str, Path] = {"ca": certificates.ours.ca, "cert": pair.cert, "key": pair.key}
    async with lessor.Client(address, token=TOKEN, **known) as client:
        assert (await client.who_am_i()).identity == "root"
    with lessor.sync.Client(address, token=TOKEN, **known) as blocking:
        assert (await asyncio.to_thread(blocking.who_am_i)).identity == "root"
    known["ca"] = certificates.theirs.ca
    async with lessor.Client(address, token=TOKEN, timeout=2, **known) as stranger:
        with pytest.raises(lessor.Unavailable, match="set LESSOR_CACERT"):
            await stranger.who_am_i()


def shake_hands(port: int, count: int) -> set[str | None]:
    """Make handshakes like those of gRPC; return the protocols that were agreed on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    agreed: set[str | None] = set()
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain) as secure:
            agreed.add(secure.selected_alpn_protocol() if secure.recv(1) else "closed")
    return agreed


@pytest.mark.slow
async def test_handshakes_at_the_same_time_do_not_end_the_server(
    certificates: Certificates, tmp_path: Path
) -> None:
    """Whoever connects could end the process while each handshake replaced what others were using."""
    ours = certificates.ours

    async def reloads() -> int:
        return sum(line.get("what") == "certificates" for line in server.log())

    async with serving(tmp_path, settings_of(ours.sign("busy"))) as server, asyncio.TaskGroup() as group:
        threads = [
            group.create_task(asyncio.to_thread(shake_hands, server.port, HANDSHAKES)) for _ in range(THREADS)
        ]
        for count in range(1, RELOADS + 1):
            ours.sign("busy")  # into the same files
            server.hang_up()
            await until(reloads, partial(operator.le, count))
        assert [await thread for thread in threads] == [{"h2"}] * THREADS
        ca = {"LESSOR_CACERT": str(ours.ca)}
        assert (await whoami(tmp_path, f"https://localhost:{server.port}", ca)).code == 0

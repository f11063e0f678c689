"""Checks that ``lessor doctor`` names each broken set-up of a caller, with its fix."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509

from lessor.channel import Connection
from lessor.cli.examination import _judge_caller, _judge_clock, _judge_versions, examine
from lessor.findings import Finding, Grade
from lessor.v1 import system_pb2 as pb
from tests.support.certificates import Authority, KeyPair
from tests.support.command_line import CommandLine
from tests.support.server_process import TOKEN, ServerProcess, serving

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.asyncio(loop_scope="module")]

LONG = timedelta(days=400)


@dataclass(frozen=True)
class Ways:
    """A server without TLS and one with client certificates, and the files of callers."""

    folder: Path
    plain: ServerProcess
    mutual: ServerProcess
    ours: Authority
    theirs: Authority
    caller: KeyPair

    @property
    def tls(self) -> dict[str, str]:
        """Return the variables of a caller of the server with client certificates."""
        return {
            "LESSOR_ADDR": f"https://127.0.0.1:{self.mutual.port}",
            "LESSOR_CACERT": str(self.ours.ca),
            "LESSOR_CLIENT_CERT": str(self.caller.cert),
            "LESSOR_CLIENT_KEY": str(self.caller.key),
            "LESSOR_TOKEN": TOKEN,
        }

    def file(self, name: str, text: str, mode: int = 0o600) -> str:
        """Write a file, and return its path."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return str(path)


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="ways")
async def open_ways(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ways]:
    """Start both servers."""
    folder = tmp_path_factory.mktemp("ways")
    ours, theirs = Authority(folder, "ours"), Authority(folder, "theirs")
    pair = ours.sign("server", life=LONG)
    tls = {
        "LESSOR_TLS_CERT_FILE": str(pair.cert),
        "LESSOR_TLS_KEY_FILE": str(pair.key),
        "LESSOR_TLS_CLIENT_CA_FILE": str(ours.ca),
    }
    async with AsyncExitStack() as stack:
        plain = await stack.enter_async_context(serving(tmp_path_factory.mktemp("plain")))
        mutual = await stack.enter_async_context(serving(tmp_path_factory.mktemp("mutual"), tls))
        yield Ways(folder, plain, mutual, ours, theirs, ours.sign("caller", life=LONG))


def examined(**variables: str) -> list[Finding]:
    """Return what is found with these variables; each finding that is not ok has a fix."""
    found = list(examine(variables, Connection.from_environ(variables)))
    assert [one for one in found if (one.grade is Grade.OK) != (one.fix == "")] == []
    return found


def only_failure(found: list[Finding]) -> Finding:
    """Return the last finding, which alone is a failure."""
    assert [one.grade for one in found].count(Grade.FAIL) == 1
    assert found[-1].grade is Grade.FAIL
    return found[-1]


def warnings_of(found: list[Finding], check: str) -> list[Finding]:
    """Return the warnings of one check; there is no failure."""
    assert Grade.FAIL not in {one.grade for one in found}
    return [one for one in found if one.grade is Grade.WARN and one.check == check]


async def test_a_sound_set_up_has_no_failure(ways: Ways) -> None:
    plain = examined(LESSOR_ADDR=ways.plain.address, LESSOR_TOKEN=TOKEN)
    assert [one.check for one in plain if one.grade is Grade.OK] == [
        *("variables", "tcp", "server", "token", "clock", "versions")
    ]
    named = {"LESSOR_ADDR": f"https://localhost:{ways.mutual.port}"}
    mutual = examined(**ways.tls | named)
    assert [one.check for one in mutual if one.grade is Grade.OK] == [
        *("variables", "dns", "tcp", "tls", "server", "token", "clock", "versions")
    ]
    # The server has no audit, and says so to its root.
    assert [one.text for one in warnings_of(plain, "server")] == [
        "there is no audit: set audit.file, audit.stdout or audit.socket"
    ]


# --- variables ------------------------------------------------------------------------------------------


async def test_a_misspelt_variable(ways: Ways) -> None:
    for wrong, right in (("ADDRESS", "ADDR"), ("CA_CERT", "CACERT"), ("TOKENFILE", "TOKEN_FILE")):
        variables = {f"LESSOR_{wrong}": "x", "LESSOR_ADDR": ways.plain.address, "LESSOR_TOKEN": TOKEN}
        [found] = warnings_of(examined(**variables), "variables")
        assert (found.text, found.fix) == (f"LESSOR_{wrong} has no meaning", f"write LESSOR_{right}")


async def test_variables_of_a_server_are_not_taken_for_misspelt_ones(ways: Ways) -> None:
    own = {"LESSOR_ADDR": ways.plain.address, "LESSOR_TOKEN": TOKEN, "LESSOR_ROOT_TOKEN": "x"}
    more = {"LESSOR_DATA_DIR": "x", "LESSOR_TLS_CERT_FILE": "x", "LESSOR_LISTEN": "x"}
    assert warnings_of(examined(**own, **more), "variables") == []


async def test_two_tokens(ways: Ways) -> None:
    both = {"LESSOR_TOKEN": TOKEN, "LESSOR_TOKEN_FILE": ways.file("second", "another-token")}
    [found] = warnings_of(examined(LESSOR_ADDR=ways.plain.address, **both), "variables")
    assert "LESSOR_TOKEN is sent" in found.text


async def test_a_token_beside_a_certificate(ways: Ways) -> None:
    [found] = warnings_of(examined(**ways.tls), "variables")
    assert "the server looks at the token only" in found.text


async def test_a_token_that_every_user_can_read(ways: Ways) -> None:
    path = ways.file("open", TOKEN, 0o644)
    [found] = warnings_of(examined(LESSOR_ADDR=ways.plain.address, LESSOR_TOKEN_FILE=path), "variables")
    assert found.fix == f"run chmod 600 {path}"


@pytest.mark.parametrize(
    ("variables", "text", "fix"),
    [
        ({"LESSOR_ADDR": "ftp://host"}, "has an unknown scheme", "write host:port"),
        ({"LESSOR_TOKEN_FILE": "/nowhere/token"}, "/nowhere/token can't be read", "name a readable file"),
        ({"LESSOR_TOKEN": "two\nlines"}, "has more than one line", "keep only the token"),
        ({"LESSOR_CACERT": "/nowhere/ca"}, "/nowhere/ca can't be read", "name a readable file"),
        ({"LESSOR_ADDR": "http://h:1", "LESSOR_CACERT": "/ca"}, "means plaintext", "write https://"),
    ],
)
async def test_variables_that_no_connection_can_be_made_with(
    variables: dict[str, str], text: str, fix: str
) -> None:
    found = only_failure(examined(**variables))
    assert found.check == "variables"
    assert text in found.text
    assert fix in found.fix
    assert "two\nlines" not in str(found)


async def test_plaintext_beyond_this_machine_is_warned_of() -> None:
    found = examined(LESSOR_ADDR="http://a..b:50051")
    assert [one.fix for one in found if one.grade is Grade.WARN] == ["write https://"]


# --- network --------------------------------------------------------------------------------------------


async def test_a_name_that_can_not_be_resolved() -> None:
    found = only_failure(examined(LESSOR_ADDR="https://a..b:50051"))
    assert found.check == "dns"
    assert "correct the name in LESSOR_ADDR" in found.fix


async def test_a_server_that_is_away(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"unix:{tmp_path}/socket"):
        found = only_failure(examined(LESSOR_ADDR=address))
        assert found.check == "tcp"
        assert "start the server" in found.fix


async def test_a_process_that_is_no_server_of_grpc(ways: Ways) -> None:
    with other_server() as port:
        found = only_failure(examined(LESSOR_ADDR=f"127.0.0.1:{port}", LESSOR_TOKEN=TOKEN))
    assert found.check == "server"
    assert "is not a gRPC server" in found.text


@contextmanager
def other_server(pair: KeyPair | None = None) -> Iterator[int]:
    """Serve HTTP/1.1 on a port, with TLS if there is a certificate."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    if pair is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert, pair.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# --- TLS ------------------------------------------------------------------------------------------------


async def test_plaintext_to_a_server_with_tls(ways: Ways) -> None:
    found = only_failure(examined(LESSOR_ADDR=f"127.0.0.1:{ways.mutual.port}", LESSOR_TOKEN=TOKEN))
    assert found.check == "server"
    assert "write https:// before the address" in found.fix


async def test_tls_to_a_server_without_it(ways: Ways) -> None:
    found = only_failure(examined(LESSOR_ADDR=f"https://127.0.0.1:{ways.plain.port}"))
    assert found.check == "tls"
    assert "the server does not use TLS" in found.text


async def test_an_authority_that_did_not_sign_the_server_s_certificate(ways: Ways) -> None:
    found = only_failure(examined(**ways.tls | {"LESSOR_CACERT": str(ways.theirs.ca)}))
    assert found.check == "tls"
    assert "is not signed by an authority in LESSOR_CACERT" in found.text
    assert "set LESSOR_CACERT" in found.fix


async def test_a_missing_client_certificate(ways: Ways) -> None:
    without = {name: one for name, one in ways.tls.items() if "CLIENT" not in name}
    found = only_failure(examined(**without))
    assert found.check == "tls"
    assert found.fix == "set LESSOR_CLIENT_CERT and LESSOR_CLIENT_KEY"


async def test_a_client_certificate_of_another_authority(ways: Ways) -> None:
    pair = ways.theirs.sign("caller")
    own = {"LESSOR_CLIENT_CERT": str(pair.cert), "LESSOR_CLIENT_KEY": str(pair.key)}
    found = only_failure(examined(**ways.tls | own))
    assert found.check == "tls"
    assert "does not accept the client certificate" in found.text


@pytest.mark.parametrize(
    ("name", "text"),
    [("expired", "certificate has expired"), ("elsewhere", "is not for localhost")],
)
async def test_a_certificate_that_is_not_the_server_s_now(ways: Ways, name: str, text: str) -> None:
    names = [x509.DNSName("elsewhere.example")] if name == "elsewhere" else None
    pair = ways.ours.sign(name, expired=name == "expired", names=names)
    with other_server(pair) as port:
        found = only_failure(
            examined(LESSOR_ADDR=f"https://localhost:{port}", LESSOR_CACERT=str(ways.ours.ca))
        )
    assert found.check == "tls"
    assert text in found.text


async def test_a_certificate_that_ends_soon_is_warned_of(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.sign("server", life=timedelta(days=2))
    settings = {"LESSOR_TLS_CERT_FILE": str(pair.cert), "LESSOR_TLS_KEY_FILE": str(pair.key)}
    async with serving(tmp_path, settings) as server:
        variables = {"LESSOR_ADDR": f"https://{server.address}", "LESSOR_CACERT": str(authority.ca)}
        found = examined(**variables, LESSOR_TOKEN=TOKEN)
    [warning] = warnings_of(found, "tls")
    assert "valid for 47 more hours" in warning.text


# --- server ---------------------------------------------------------------------------------------------


async def test_a_token_that_the_server_does_not_know(ways: Ways) -> None:
    found = only_failure(examined(LESSOR_ADDR=ways.plain.address, LESSOR_TOKEN="another-token-of-tests"))
    assert found.check == "token"
    assert "(credential: the token in LESSOR_TOKEN)" in found.text
    assert "another-token-of-tests" not in str(found)


async def test_no_token_at_all(ways: Ways) -> None:
    found = only_failure(examined(LESSOR_ADDR=ways.plain.address))
    assert (found.check, "(credential: none)" in found.text) == ("token", True)
    assert found.fix.startswith("set LESSOR_TOKEN, or LESSOR_TOKEN_FILE")


@pytest.mark.parametrize(
    ("ahead", "grade"),
    [(0.2, Grade.OK), (-29, Grade.OK), (40, Grade.WARN), (-301, Grade.FAIL), (3600, Grade.FAIL)],
)
async def test_a_clock_that_differs_from_the_server_s(ahead: float, grade: Grade) -> None:
    assert _judge_clock(ahead).grade is grade


async def test_versions_that_differ() -> None:
    assert _judge_versions("1.4.2", "1.4.9").grade is Grade.OK
    assert _judge_versions("1.4.2", "1.5.0").grade is Grade.WARN


async def test_a_token_that_ends_soon() -> None:
    who = pb.WhoAmIResponse(identity="app", auth_method="token")
    assert _judge_caller(who, 0).grade is Grade.OK
    who.expire_time.FromSeconds(86_400)
    assert _judge_caller(who, 0).grade is Grade.WARN
    who.auth_method = "jwt"
    assert _judge_caller(who, 0).grade is Grade.OK


# --- the command ----------------------------------------------------------------------------------------


async def test_the_command_exits_with_1_after_a_failure_and_prints_json(ways: Ways, tmp_path: Path) -> None:
    command = CommandLine(tmp_path, {"LESSOR_ADDR": ways.plain.address, "LESSOR_TOKEN": TOKEN})
    sound = await command("doctor")
    assert (sound.code, sound.err) == (0, "")
    assert {line.split()[0] for line in sound.out.splitlines()} == {"ok", "warn"}
    broken = await command("doctor", "--address", f"unix:{tmp_path}/none", "--format", "json")
    assert broken.code == 1
    last = json.loads(broken.out)["checks"][-1]
    assert (last["check"], last["status"]) == ("tcp", "FAIL")
    assert last["fix"]

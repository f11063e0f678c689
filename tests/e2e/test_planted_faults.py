"""Plants faults in the way of a caller, one at a time; ``lessor doctor`` names each, with its fix.

``test_doctor`` has the faults of variables and of certificates that a server refuses, ``test_deep_check``
those of a server, and ``test_deploy`` those that an alert finds.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from lessor.channel import Connection
from lessor.cli import examination
from lessor.cli.examination import examine
from lessor.findings import Finding, Grade
from tests.support.broken_listeners import (
    Serve,
    answer_http1,
    answer_http2,
    broken_listener,
    close,
    drip,
    stay_silent,
)
from tests.support.certificates import Authority, KeyPair
from tests.support.server_process import TOKEN, ServerProcess, serving

pytestmark = [pytest.mark.e2e, pytest.mark.clients, pytest.mark.asyncio(loop_scope="module")]

LONG = timedelta(days=400)
Variables = dict[str, str]


@dataclass(frozen=True)
class Site:
    """A server with TLS that admits callers without a certificate, and the files of a caller."""

    folder: Path
    server: ServerProcess
    authority: Authority
    own: KeyPair
    """The certificate of a listener at the server's place."""

    @property
    def sound(self) -> Variables:
        """Return the variables of a caller who has no problem."""
        return {
            "LESSOR_ADDR": f"https://localhost:{self.server.port}",
            "LESSOR_CACERT": str(self.authority.ca),
            "LESSOR_TOKEN": TOKEN,
        }

    def write(self, name: str, text: str) -> str:
        """Write a private file, and return its path."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return str(path)

    def certificate(self, name: str, *, life: timedelta = LONG, expired: bool = False) -> Variables:
        """Return the variables of a caller with a certificate."""
        pair = self.authority.sign(name, life=life, expired=expired)
        return {"LESSOR_CLIENT_CERT": str(pair.cert), "LESSOR_CLIENT_KEY": str(pair.key)}


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="site")
async def build_site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """Start the server."""
    folder = tmp_path_factory.mktemp("site")
    authority = Authority(folder)
    own = authority.sign("server", life=LONG)
    settings = {"LESSOR_TLS_CERT_FILE": str(own.cert), "LESSOR_TLS_KEY_FILE": str(own.key)}
    async with serving(folder, settings) as server:
        yield Site(folder, server, authority, own)


@dataclass(frozen=True)
class Fault:
    """A fault: ``plant`` changes the variables of a caller who has no problem, while its block runs."""

    name: str
    plant: Callable[[Site], AbstractContextManager[Variables]]
    check: str
    text: str
    fix: str
    grade: Grade = Grade.FAIL

    def __str__(self) -> str:
        """Return its name, which is that of its test."""
        return self.name


def instead(**variables: str) -> Callable[[Site], AbstractContextManager[Variables]]:
    """Set variables."""
    return lambda _: nullcontext(variables)


def of_site(find: Callable[[Site], Variables]) -> Callable[[Site], AbstractContextManager[Variables]]:
    """Set variables that depend on the site."""
    return lambda site: nullcontext(find(site))


def token_file(text: str) -> Callable[[Site], AbstractContextManager[Variables]]:
    """Have the token in a file with this text."""
    return of_site(lambda site: {"LESSOR_TOKEN": "", "LESSOR_TOKEN_FILE": site.write("token", text)})


def listener(
    serve: Serve, scheme: str = "http", *, tls: bool = False, alpn: str = "h2"
) -> Callable[[Site], AbstractContextManager[Variables]]:
    """Have another process where the server should be."""

    @contextmanager
    def plant(site: Site) -> Iterator[Variables]:
        with broken_listener(serve, site.own if tls else None, alpn) as port:
            address = {"LESSOR_ADDR": f"{scheme}://localhost:{port}"}
            yield address if scheme == "https" else {**address, "LESSOR_CACERT": ""}

    return plant


def proxy(serve: Serve) -> Callable[[Site], AbstractContextManager[Variables]]:
    """Have a proxy in the variables; a host that is not loopback is reached through it."""

    @contextmanager
    def plant(_: Site) -> Iterator[Variables]:
        with broken_listener(serve) as port:
            way = f"http://user:the-proxy-password@127.0.0.1:{port}"
            yield {"https_proxy": way, "LESSOR_ADDR": "https://lessor.example.org:50051"}

    return plant


@contextmanager
def closed_port(_: Site) -> Iterator[Variables]:
    """Use a port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    yield {"LESSOR_ADDR": f"https://localhost:{port}"}


@contextmanager
def closed_proxy(site: Site) -> Iterator[Variables]:
    """Name a proxy that does not run."""
    with closed_port(site) as found:
        place = found["LESSOR_ADDR"].rpartition("/")[2]
    yield {"https_proxy": place, "LESSOR_ADDR": "https://lessor.example.org:50051"}


@contextmanager
def stopped_server(site: Site) -> Iterator[Variables]:
    """Stop the process of the server."""
    os.kill(site.server.pid, signal.SIGSTOP)
    try:
        yield {}
    finally:
        os.kill(site.server.pid, signal.SIGCONT)


def mixed_pair(site: Site) -> Variables:
    """Return the key of another certificate."""
    return site.certificate("caller") | {"LESSOR_CLIENT_KEY": str(site.own.key)}


def swapped_pair(site: Site) -> Variables:
    """Return a certificate and its key, each in the variable of the other."""
    found = site.certificate("caller")
    return {
        "LESSOR_CLIENT_CERT": found["LESSOR_CLIENT_KEY"],
        "LESSOR_CLIENT_KEY": found["LESSOR_CLIENT_CERT"],
    }


def broken_authority(site: Site) -> Variables:
    """Return a file that begins like a certificate."""
    text = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    return {"LESSOR_CACERT": site.write("broken.pem", text)}


WARN = Grade.WARN
SILENT, SILENT_PROXY = "accepts connections at", "does not answer in time"
AUTHORITY_FIX = "set LESSOR_CACERT to a PEM file of certificates"
PAIR_FIX = "set LESSOR_CLIENT_CERT and LESSOR_CLIENT_KEY to a pair"
FAULTS = (
    Fault("a stopped process", stopped_server, "tls", SILENT, "is not stopped or overloaded"),
    Fault("silence", listener(stay_silent), "server", SILENT, "what is between here and it"),
    Fault("silence under TLS", listener(stay_silent, "https"), "tls", SILENT, "what is between here and it"),
    Fault(
        "silence after a handshake", listener(stay_silent, "https", tls=True), "tls", SILENT, "is not stopped"
    ),
    Fault("a closed port", closed_port, "tcp", "nothing listens", "start the server"),
    Fault("an end of each connection", listener(close), "server", "is not a gRPC server", "set LESSOR_ADDR"),
    Fault(
        "an end of each handshake",
        listener(close, "https"),
        "tls",
        "ends the connection during the TLS handshake",
        "must pass TLS on",
    ),
    Fault("a page of HTTP/1.1", listener(answer_http1), "server", "is not a gRPC server", "set LESSOR_ADDR"),
    Fault(
        "a web server with TLS",
        listener(answer_http1, "https", tls=True, alpn="http/1.1"),
        "tls",
        "is not a gRPC server",
        "set LESSOR_ADDR",
    ),
    Fault("a page of HTTP/2", listener(answer_http2), "server", "HTTP status 502", "must pass gRPC on"),
    Fault("a proxy that refuses", proxy(answer_http1), "tcp", "HTTP status 502", "to no_proxy"),
    Fault("a proxy that is silent", proxy(stay_silent), "tcp", SILENT_PROXY, "unset https_proxy"),
    Fault("a proxy without an end", proxy(drip), "tcp", SILENT_PROXY, "unset https_proxy"),
    Fault("a proxy that is away", closed_proxy, "tcp", "can't be reached", "unset https_proxy"),
    Fault(
        "an unknown name", instead(LESSOR_ADDR="https://a.invalid"), "dns", "can't be resolved", "LESSOR_ADDR"
    ),
    Fault(
        "a path behind the port",
        instead(LESSOR_ADDR="https://h:1/v1"),
        "variables",
        "h:1/v1",
        "https://host[:port]",
    ),
    Fault(
        "a key for an authority",
        of_site(lambda site: {"LESSOR_CACERT": str(site.own.key)}),
        "tls",
        "has no usable certificate",
        AUTHORITY_FIX,
    ),
    Fault("a broken authority", of_site(broken_authority), "tls", "has no usable certificate", AUTHORITY_FIX),
    Fault("no authority", instead(LESSOR_CACERT=""), "tls", "of gRPC's own list", "set LESSOR_CACERT"),
    Fault("a key of another certificate", of_site(mixed_pair), "tls", "is not the key of", PAIR_FIX),
    Fault("a swapped pair", of_site(swapped_pair), "tls", "no usable key", PAIR_FIX),
    Fault(
        "an expired certificate of the caller",
        of_site(lambda site: site.certificate("expired", expired=True)),
        "tls",
        "expired on",
        "renew it",
    ),
    Fault("a wrong token", instead(LESSOR_TOKEN="x" * 20), "token", "unknown", "get a new credential"),
    Fault("no token", instead(LESSOR_TOKEN=""), "token", "credential: none", "set LESSOR_TOKEN"),
    Fault("an empty token file", token_file("\n"), "variables", "is empty", "write the token to it"),
    Fault("a header for a token", token_file(f"Bearer {TOKEN}"), "variables", "blanks", "write it again"),
    Fault(
        "a quoted token", token_file(f'"{TOKEN}"'), "variables", "like a quoted text", "only the token", WARN
    ),
    Fault("a digest for a token", token_file("ab" * 32), "variables", "or a digest", "only the token", WARN),
    Fault(
        "a line of a shell for a token",
        token_file(f"LESSOR_TOKEN={TOKEN}"),
        "variables",
        "does not look like a token",
        "only the token",
        WARN,
    ),
    Fault(
        "a directory for a token file",
        of_site(lambda site: {"LESSOR_TOKEN": "", "LESSOR_TOKEN_FILE": str(site.folder)}),
        "variables",
        "is not a file",
        "name a regular file",
    ),
    Fault(
        "a certificate of the caller that ends soon",
        of_site(lambda site: site.certificate("soon", life=timedelta(hours=6))),
        "tls",
        "valid for 5 more hours",
        "renew it",
        WARN,
    ),
)


def find(variables: Mapping[str, str]) -> list[Finding]:
    """Return what ``lessor doctor`` finds."""
    return list(examine(variables, Connection.from_environ(variables)))


async def test_there_are_more_than_twenty_faults() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) > 20


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_doctor_names_a_fault_with_its_fix(
    site: Site, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault.text in {SILENT, SILENT_PROXY}:  # nothing answers, however long one waits
        monkeypatch.setattr(examination, "STEP_SECONDS", 0.5)
    with fault.plant(site) as changed:
        found = find(site.sound | changed)
    named = [one for one in found if one.grade is fault.grade and one.check == fault.check]
    assert [fault.text in one.text and fault.fix in one.fix for one in named] == [True], found
    assert TOKEN not in str(found)
    assert "the-proxy-password" not in str(found)


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
async def test_a_token_file_may_end_its_line(site: Site, ending: str) -> None:
    with token_file(f"{TOKEN}{ending}")(site) as changed:
        assert [one for one in find(site.sound | changed) if one.grade is Grade.FAIL] == []

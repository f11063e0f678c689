"""Examines the way of a caller to its server, one step after the other, as far as it leads."""

from __future__ import annotations

import difflib
import ipaddress
import re
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final, cast

import grpc

from lessor import errors
from lessor.channel import BadConnection, Connection, PlaintextWarning
from lessor.cli import diagnosis
from lessor.cli.proxies import Proxy, ProxyRefuses, find_proxy
from lessor.cli.system import HEALTH_METHOD, SERVING
from lessor.cli.validity import read_validity
from lessor.findings import Finding, Grade, count_left
from lessor.v1 import system_pb2 as pb
from lessor.v1.system_pb2_grpc import SystemServiceStub

STEP_SECONDS: Final = 5.0
"""The timeout of each step."""
LOW_CERTIFICATE_DAYS, LOW_TOKEN_DAYS = 14, 3
DOUBTFUL_CLOCK_SECONDS, BAD_CLOCK_SECONDS = 30.0, 300.0
"""AWS refuses requests whose time is five minutes wrong (AWS General Reference, "Signature Version 4")."""
DAY_SECONDS: Final = 86_400.0
PREFIX: Final = "LESSOR_"
NAMES: Final = ("ADDR", "TOKEN", "TOKEN_FILE", "CACERT", "CLIENT_CERT", "CLIENT_KEY")
"""The variables of the client, without their prefix."""
NOT_MEANT: Final = (
    *("CONTEXT", "FORMAT", "LEASE_ID", "ROLE"),
    *("ROOT_TOKEN", "ROOT_TOKEN_FILE", "TLS_CERT_FILE", "TLS_KEY_FILE"),
)
"""Other variables, of the client and of the server, whose names are like these."""
_SIMILAR: Final = 0.7
_SHORT_LIFE: Final = 0.25
"""The share of its life from which on a client's certificate of short life ends soon."""
_NOT_A_TOKEN: Final = re.compile(r"[\"'`]|LESSOR_TOKEN|sha256:|[0-9a-f]{64}$")
"""How texts begin that are not a token: quotes, a line of a shell, a digest of the access file."""
_CLOCK_FIX: Final = "set this machine's clock by NTP, and check the server's"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the server is: a host and a port, or the path of a socket."""

    host: str
    port: int
    path: str = ""

    @classmethod
    def of(cls, target: str) -> Place:
        """Return the place of a target of gRPC."""
        if target.startswith("unix:"):
            return cls("", 0, target.removeprefix("unix:").removeprefix("//"))
        host, _, port = target.rpartition(":")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        """Return it as people write it."""
        return self.path or f"{self.host}:{self.port}"


def examine(environ: Mapping[str, str], connection: Connection) -> Iterator[Finding]:
    """Yield what was found; a step that needs an earlier one is left out if that failed."""
    yield from _check_spelling(environ)
    yield from _check_token_sources(environ, connection)
    try:
        place = Place.of(connection.target)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", PlaintextWarning)
            is_tls = connection.credentials() is not None
            connection.metadata()
    except BadConnection as error:
        yield Finding.of_error("variables", str(error), "set LESSOR_ADDR to the server's address")
        return
    way = "with TLS" if is_tls else "without TLS"
    yield Finding.good("variables", f"the server is {connection.address}, {way}")
    for one in caught:
        problem, _, fix = str(one.message).partition("; ")
        yield Finding.doubtful("variables", problem, fix)
    yield from _check_token_form(connection)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # it trusts nobody yet
    files = _check_files(context, connection) if is_tls else []
    yield from files
    if _has_failed(files):
        return
    proxy = (
        None
        if place.path or "grpc.enable_http_proxy" in dict(connection.options)
        else find_proxy(environ, place.host)
    )
    steps = _check_way(place, proxy)
    if is_tls and not _has_failed(steps):
        steps.append(_check_tls(context, connection, place, proxy))
    yield from steps
    if not _has_failed(steps):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PlaintextWarning)  # it is reported above
            steps = [*_check_server(connection)]
        yield from steps


def _check_way(place: Place, proxy: Proxy | None) -> list[Finding]:
    """Check whether something listens where the connection leads to."""
    if place.path:
        return [_check_socket(place)]
    return [_check_proxy(place, proxy)] if proxy is not None else [*_check_network(place)]


def _has_failed(steps: Iterable[Finding]) -> bool:
    return any(one.grade is Grade.FAIL for one in steps)


# --- variables ------------------------------------------------------------------------------------------


def _check_spelling(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Warn of variables whose names are nearly those of the client."""
    for name in sorted(environ):
        own = name.removeprefix(PREFIX)
        if own == name or own in NAMES or own in NOT_MEANT:
            continue
        if close := difflib.get_close_matches(own, NAMES, 1, _SIMILAR):
            yield Finding.doubtful("variables", f"{name} has no meaning", f"write {PREFIX}{close[0]}")


def _check_token_sources(environ: Mapping[str, str], connection: Connection) -> Iterator[Finding]:
    if connection.token.strip() and connection.token_file is not None:
        text = "LESSOR_TOKEN and LESSOR_TOKEN_FILE are set, and LESSOR_TOKEN is sent"
        yield Finding.doubtful("variables", text, "unset the one that you don't need")
    has_token = bool(connection.token.strip() or connection.token_file)
    if has_token and environ.get("LESSOR_CLIENT_CERT"):
        text = "a token and a client certificate are set, and the server looks at the token only"
        yield Finding.doubtful("variables", text, "unset the one that you don't need")
    file = connection.token_file
    if not connection.token.strip() and file is not None and file.is_file() and file.stat().st_mode & 0o007:
        yield Finding.doubtful("variables", f"every user can read {file}", f"run chmod 600 {file}")


def _check_token_form(connection: Connection) -> Iterator[Finding]:
    """Warn of a text that is hardly a token."""
    for _, value in connection.metadata():
        if _NOT_A_TOKEN.match(value.removeprefix("Bearer ")):
            source = "LESSOR_TOKEN" if connection.token.strip() else connection.token_file
            text = f"the text in {source} does not look like a token, but like a quoted text or a digest"
            yield Finding.doubtful("variables", text, "keep only the token, as `lessor token new` prints it")


def _check_files(context: ssl.SSLContext, connection: Connection) -> list[Finding]:
    """Load the caller's files of TLS into the context, and check how long its certificate is valid."""
    if cause := diagnosis.load_files(context, connection):
        return [Finding.bad("tls", cause.problem, cause.fix)]
    if connection.cert_file is None:
        return []
    validity = read_validity(connection.cert_file.read_text(encoding="ascii", errors="replace"))
    if validity is None:
        return []
    name, left = f"the certificate in {connection.cert_file}", validity.end.timestamp() - _read_clock()
    if left <= 0:
        return [Finding.bad("tls", f"{name} expired on {validity.end:%Y-%m-%d %H:%M} UTC", "renew it")]
    if validity.begin.timestamp() > _read_clock():
        text = f"{name} is valid from {validity.begin:%Y-%m-%d %H:%M} UTC on"
        return [Finding.bad("tls", text, "check this machine's clock, or wait")]
    # Workloads get certificates for hours, which are renewed before their last quarter.
    soon = min(
        LOW_CERTIFICATE_DAYS * DAY_SECONDS, _SHORT_LIFE * (validity.end - validity.begin).total_seconds()
    )
    if left < soon:
        return [Finding.doubtful("tls", f"{name} is valid for {count_left(left)}", "renew it")]
    return []


# --- network --------------------------------------------------------------------------------------------


def _check_socket(place: Place) -> Finding:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(STEP_SECONDS)
            connection.connect(place.path)
    except OSError as error:
        fix = "start the server, or set LESSOR_ADDR to its socket"
        if isinstance(error, PermissionError):
            fix = "have the socket's directory opened for your user"
        return Finding.bad("tcp", f"{place} can't be connected to: {error.strerror}", fix)
    return Finding.good("tcp", f"a process listens at {place}")


def _check_network(place: Place) -> Iterator[Finding]:
    addresses = _resolve(place)
    if addresses is None:
        text = f"the name {place.host} was not resolved within {STEP_SECONDS:g} s"
        yield Finding.bad("dns", text, "check the name servers of this machine")
        return
    if not isinstance(addresses, list):
        said = addresses.strerror if isinstance(addresses, OSError) else addresses
        text = f"the name {place.host} can't be resolved: {said}"
        yield Finding.bad("dns", text, "correct the name in LESSOR_ADDR, or the name servers of this machine")
        return
    if not _is_literal(place.host):
        yield Finding.good("dns", f"{place.host} is {', '.join(addresses)}")
    yield _check_tcp(place)


def _resolve(place: Place) -> list[str] | OSError | UnicodeError | None:
    """Return the addresses of a host, or the error; None if there is no answer in time.

    The system's resolver has no timeout of its own, so it runs on a thread that may stay behind.
    """
    found: list[list[str] | OSError | UnicodeError] = []

    def work() -> None:
        try:
            answers = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # a label is too long or empty
            found.append(error)
        else:
            found.append(list(dict.fromkeys(str(answer[4][0]) for answer in answers)))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(STEP_SECONDS)
    return found[0] if found else None


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _check_tcp(place: Place) -> Finding:
    try:
        with socket.create_connection((place.host, place.port), STEP_SECONDS):
            return Finding.good("tcp", f"a process listens at {place}")
    except TimeoutError:
        text = f"{place} does not answer within {STEP_SECONDS:g} s"
        return Finding.bad("tcp", text, "check the address, and the firewalls between here and the server")
    except ConnectionRefusedError:
        fix = "start the server, or set LESSOR_ADDR to its address"
        return Finding.bad("tcp", f"nothing listens at {place}", fix)
    except OSError as error:
        text = f"{place} can't be reached: {error.strerror}"
        return Finding.bad("tcp", text, "check the address, and the routes of this machine")


def _check_proxy(place: Place, proxy: Proxy) -> Finding:
    """Check that the proxy of gRPC connects to the server: the server's name is resolved there."""
    named = f"the proxy {proxy} ({proxy.variable})"
    try:
        with proxy.connect(str(place), STEP_SECONDS):
            return Finding.good("tcp", f"{named} connects to {place}")
    except ProxyRefuses as error:
        fix = f"allow it in the proxy, or add {place.host} to no_proxy"
        return Finding.bad("tcp", f"{named} does not connect to {place}: {error}", fix)
    except OSError as error:
        said = "it does not answer in time" if isinstance(error, TimeoutError) else error.strerror or error
        fix = f"correct or unset {proxy.variable}, or add {place.host} to no_proxy"
        return Finding.bad("tcp", f"{named} can't be reached: {said}", fix)


# --- TLS ------------------------------------------------------------------------------------------------


def _check_tls(context: ssl.SSLContext, connection: Connection, place: Place, proxy: Proxy | None) -> Finding:
    """Make a handshake with the caller's own files, and look at the server's certificate."""
    context.set_alpn_protocols([diagnosis.HTTP2])
    try:
        with (
            _connect(place, proxy) as plain,
            context.wrap_socket(plain, server_hostname=place.host) as secure,
        ):
            certificate = secure.getpeercert() or {}
            if secure.selected_alpn_protocol() != diagnosis.HTTP2:
                return Finding.bad("tls", diagnosis.NO_GRPC.problem, diagnosis.NO_GRPC.fix)
            # A server that refuses the client's certificate closes the connection after the handshake.
            if not secure.recv(1):
                raise ConnectionResetError("Socket closed")
    except TimeoutError:
        return _silent("tls", place)
    except (OSError, ValueError) as error:
        if "Hostname mismatch" in str(error) or "IP address mismatch" in str(error):
            fix = "set LESSOR_ADDR to a name in the certificate, or have one issued for this name"
            return Finding.bad("tls", f"the server's certificate is not for {place.host}", fix)
        cause = diagnosis.cause_of(connection, f"{error}, handshake")
        if cause is not None:
            return Finding.bad("tls", cause.problem, cause.fix)
        fix = "check LESSOR_CACERT, LESSOR_CLIENT_CERT and LESSOR_CLIENT_KEY, and the server's certificate"
        return Finding.bad("tls", f"the handshake with {place} fails: {error}", fix)
    left = ssl.cert_time_to_seconds(str(certificate["notAfter"])) - _read_clock()
    text = f"the server's certificate is trusted, and valid for {count_left(left)}"
    if left < LOW_CERTIFICATE_DAYS * DAY_SECONDS:
        return Finding.doubtful("tls", text, "have it renewed")
    return Finding.good("tls", text)


def _connect(place: Place, proxy: Proxy | None) -> socket.socket:
    if proxy is not None:
        return proxy.connect(str(place), STEP_SECONDS)
    return socket.create_connection((place.host, place.port), STEP_SECONDS)


def _silent(check: str, place: Place | str) -> Finding:
    """Return that a process accepts connections, and does not answer."""
    text = f"a process accepts connections at {place}, and does not answer within {STEP_SECONDS:g} s"
    fix = "check that the server's process is not stopped or overloaded, and what is between here and it"
    return Finding.bad(check, text, fix)


# --- server ---------------------------------------------------------------------------------------------


def _check_server(connection: Connection) -> Iterator[Finding]:
    """Call the server: its health, who the caller is for it, its clock and its version."""
    channel = connection.open(retries=False)
    try:
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(HEALTH_METHOD)
        if check(b"", timeout=STEP_SECONDS) == SERVING:
            yield Finding.good("server", "it serves")
        else:
            fix = "look at its log, or run lessor server --check --deep on its machine"
            yield Finding.bad("server", "it does not serve now", fix)
    except grpc.RpcError as error:
        yield _of_call("server", connection, error)
        return
    finally:
        channel.close()
    with connection.open(retries=False) as channel:
        yield from _check_caller(connection, SystemServiceStub(channel))


def _check_caller(connection: Connection, system: SystemServiceStub) -> Iterator[Finding]:
    credential = diagnosis.credential_of(connection)
    began = _read_clock()
    try:
        who = system.WhoAmI(pb.WhoAmIRequest(), timeout=STEP_SECONDS, metadata=connection.metadata())
    except grpc.RpcError as error:
        finding = _of_call("token", connection, error)
        sent, _, missing = credential.partition("; ")
        fix = missing if sent == "none" else finding.fix
        yield Finding.bad("token", f"{finding.text} (credential: {sent})", fix)
        return
    between = (began + _read_clock()) / 2
    yield _judge_caller(who, between)
    if who.HasField("server_time"):
        yield _judge_clock(between - who.server_time.ToMilliseconds() / 1e3)
    try:
        info = system.GetInfo(pb.GetInfoRequest(), timeout=STEP_SECONDS, metadata=connection.metadata())
    except grpc.RpcError as error:
        yield _of_call("versions", connection, error)
        return
    yield _judge_versions(version("lessor"), info.version)
    for warning in info.warnings:
        problem, _, fix = warning.partition("; ")
        yield Finding.doubtful("server", problem, fix or "ask its operator")


def _judge_caller(who: pb.WhoAmIResponse, now: float) -> Finding:
    text = f"you are {who.identity}, by {who.auth_method}"
    if not who.HasField("expire_time"):
        return Finding.good("token", text)
    days = (who.expire_time.ToSeconds() - now) / DAY_SECONDS
    # A JWT lives for minutes or hours and is renewed by whatever wrote it.
    if who.auth_method == "token" and days < LOW_TOKEN_DAYS:
        return Finding.doubtful("token", f"{text}; the token ends in {days:.1f} days", "ask for a new one")
    return Finding.good("token", text)


def _judge_clock(ahead: float) -> Finding:
    text = f"this machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the server's"
    if abs(ahead) > BAD_CLOCK_SECONDS:
        return Finding.bad("clock", f"{text}: AWS refuses what is signed here", _CLOCK_FIX)
    if abs(ahead) > DOUBTFUL_CLOCK_SECONDS:
        return Finding.doubtful("clock", text, _CLOCK_FIX)
    return Finding.good("clock", text)


def _judge_versions(own: str, servers: str) -> Finding:
    text = f"this client is {own}, the server {servers}"
    if own.split(".")[:2] != servers.split(".")[:2]:
        return Finding.doubtful("versions", text, "install the version of the server")
    return Finding.good("versions", text)


def _of_call(check: str, connection: Connection, error: grpc.RpcError) -> Finding:
    """Return the failure that a call ended with."""
    failure = cast("errors.Failure", error)
    refused = errors.of(failure, connection.address)
    if not refused.reason_name:
        if refused.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return _silent(check, connection.address)
        cause = diagnosis.cause_of(connection, failure.details() or "")
        if cause is not None:
            return Finding.bad(check, cause.problem, cause.fix)
    return Finding.of_error(check, refused.message, refused.fix or "look at the server's log")


def _read_clock() -> float:
    """Return this machine's time in seconds since the epoch: it is what is checked."""
    return time.time()  # noqa: TID251

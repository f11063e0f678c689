"""Finds out why a server is unreachable, and says which credential a call sent.

For several causes gRPC reports only "Socket closed".

If gRPC's message is not enough, the client makes a TLS handshake with Python's own library. That shows
certificates and alerts (RFC 8446, section 6.2) that gRPC does not pass on.
"""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lessor.channel import BadConnection, Connection

PROBE_SECONDS: Final = 3.0
HTTP2: Final = "h2"
ROOTS_VARIABLE: Final = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"
"""The file of authorities that gRPC trusts instead of its own list (gRPC, "gRPC environment variables")."""


@dataclass(frozen=True, slots=True)
class Cause:
    """The cause of a failed connection, and its fix."""

    problem: str
    fix: str

    def __str__(self) -> str:
        """Return both in one line."""
        return f"{self.problem}; {self.fix}"


_NOBODY: Final = Cause("nothing listens there", "start the server, or set LESSOR_ADDR to its address")
_NO_HOST: Final = Cause("there is no host of that name", "set LESSOR_ADDR to the server's address")
_SERVER_HAS_TLS: Final = Cause(
    "the server uses TLS, and this call does not",
    "write https:// before the address, and set LESSOR_CACERT to the certificate of its authority",
)
_SERVER_HAS_NO_TLS: Final = Cause(
    "the server does not use TLS, and this call does",
    "give the server a certificate, or write http:// before the address and unset LESSOR_CACERT",
)
NO_GRPC: Final = Cause(
    "the process that listens there is not a gRPC server", "set LESSOR_ADDR to the server's address"
)
_ENDS_HANDSHAKES: Final = Cause(
    "the process that listens there ends the connection during the TLS handshake",
    "set LESSOR_ADDR to the server's address; a load balancer before it must pass TLS on",
)
_NO_CLIENT_CERTIFICATE: Final = Cause(
    "the server asks for a client certificate, and none was given",
    "set LESSOR_CLIENT_CERT and LESSOR_CLIENT_KEY",
)
_BY_WORDS: Final = {
    "Connection refused": _NOBODY,
    "No such file or directory": _NOBODY,
    "errors resolving": _NO_HOST,
    "DNS resolution failed": _NO_HOST,
    "Failed parsing HTTP/2": NO_GRPC,
    "WRONG_VERSION_NUMBER": _SERVER_HAS_NO_TLS,
}
"""Causes that gRPC's message names."""
_HTTP_STATUS: Final = re.compile(r"Received http2 header with status: (\d+)")
"""What gRPC says of an answer that has a status of HTTP, and none of gRPC."""
_UNTOLD: Final = ("Socket closed", "Connection reset", "Broken pipe", "CERTIFICATE", "Hostname", "handshake")
"""Messages of gRPC that have more than one cause."""


def cause_of(connection: Connection, text: str) -> Cause | None:
    """Return why a server is unreachable, from gRPC's ``text`` or a handshake; None if unknown."""
    for words, cause in _BY_WORDS.items():
        if words in text:
            return cause
    if found := _HTTP_STATUS.search(text):
        return Cause(
            f"a proxy or another web server answers there, with HTTP status {found[1]}",
            "set LESSOR_ADDR to the server's address; a proxy before it must pass gRPC on",
        )
    if not any(words in text for words in _UNTOLD) or connection.target.startswith("unix:"):
        return None
    try:
        return _probed(connection, text)
    except (OSError, BadConnection):
        return None


def credential_of(connection: Connection) -> str:
    """Return which of the caller's credentials a call presents, never its content; how to set one if none.

    A token in LESSOR_TOKEN is sent instead of one in a file, and a server looks at no certificate beside a
    token.
    """
    certificate = ""
    if connection.cert_file is not None and not connection.target.startswith("unix:"):
        certificate = f"the certificate {connection.cert_file}"
    if connection.token.strip():
        chosen = "the token in LESSOR_TOKEN"
        others = [f"the token in {connection.token_file}" if connection.token_file else "", certificate]
    elif connection.token_file is not None:
        chosen, others = f"the token in {connection.token_file}", [certificate]
    elif certificate:
        return f'{certificate}; a listener with client_auth = "none" does not ask for it'
    else:
        return (
            "none; set LESSOR_TOKEN, or LESSOR_TOKEN_FILE to a file with the token, or LESSOR_CLIENT_CERT and"
            " LESSOR_CLIENT_KEY"
        )
    return ", not ".join((chosen, *filter(None, others)))


def _probed(connection: Connection, text: str) -> Cause | None:
    """Return the cause that a handshake shows."""
    host, _, port = connection.target.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS) as plain:
        plain.settimeout(PROBE_SECONDS)
        if connection.credentials() is None:
            return _SERVER_HAS_TLS if _speaks_tls(plain) else NO_GRPC
        return _refusal(connection, plain, host.strip("[]"), is_mismatch="Hostname" in text)


def _speaks_tls(plain: socket.socket) -> bool:
    """Return whether the listener accepts a handshake, or refuses one by an alert."""
    try:
        with _context(verify=False).wrap_socket(plain):
            return True
    except ssl.SSLError as error:
        return "ALERT" in str(error.reason)
    except OSError:
        return False


def _refusal(connection: Connection, plain: socket.socket, host: str, *, is_mismatch: bool) -> Cause | None:
    """Return why a handshake with the caller's own files fails, on either side."""
    context = _context(verify=True)
    if cause := load_files(context, connection):
        return cause
    try:
        with context.wrap_socket(plain, server_hostname=host) as secure:
            names = _names(secure.getpeercert())
            is_http2 = secure.selected_alpn_protocol() == HTTP2
            # In TLS 1.3 a server checks the client's certificate after the client's handshake. If it speaks
            # HTTP/2 it then sends the first frame (RFC 9113, section 3.4), or closes the connection.
            refused = is_http2 and not secure.recv(1)
    except ssl.SSLCertVerificationError as error:
        return _unverified(connection, error)
    except ssl.SSLError as error:
        reason = str(error.reason)
        if isinstance(error, ssl.SSLEOFError) or "UNEXPECTED_EOF" in reason:
            return _ENDS_HANDSHAKES
        return _refused(connection, reason) if "ALERT" in reason else None
    except ConnectionResetError:
        return _ENDS_HANDSHAKES
    if not is_http2:
        return NO_GRPC
    if refused:
        return _refused(connection, "")
    if is_mismatch:
        return Cause(
            f"the server's certificate is for {', '.join(names) or 'no name'}, not for {host}",
            "set LESSOR_ADDR to a name in the certificate, or give the server a certificate for this name",
        )
    return None


def _unverified(connection: Connection, error: ssl.SSLCertVerificationError) -> Cause:
    """Return why this side does not trust the server."""
    said = error.verify_message
    if "expired" in said or "not yet valid" in said:
        return Cause(f"the server's {said}", "renew the server's certificate, and check both clocks")
    trusted = "an authority in LESSOR_CACERT" if connection.ca_file else "an authority of gRPC's own list"
    return Cause(
        f"the server's certificate is not signed by {trusted} ({said})",
        "set LESSOR_CACERT to the certificate of the authority that signed it",
    )


def _refused(connection: Connection, alert: str) -> Cause:
    """Return why the server refuses this caller; ``alert`` is its TLS alert, if any."""
    if connection.cert_file is None:
        return _NO_CLIENT_CERTIFICATE
    said = alert.partition("ALERT_")[2].lower().replace("_", " ")
    return Cause(
        f"the server does not accept the client certificate{f' ({said})' if said else ''}",
        "set LESSOR_CLIENT_CERT and LESSOR_CLIENT_KEY to one that its tls.client_ca_file has signed",
    )


def _context(*, verify: bool) -> ssl.SSLContext:
    """Return a context like gRPC's: TLS 1.2 or newer, and HTTP/2. Host names are checked later."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    context.set_alpn_protocols([HTTP2])
    return context


def load_files(context: ssl.SSLContext, connection: Connection) -> Cause | None:
    """Load the caller's files of TLS into a context; return why one of them can't be used.

    Without ``ca_file`` the context trusts what gRPC trusts, which is not the list of this system.
    """
    trusted = connection.ca_file or _default_roots()
    try:
        context.load_verify_locations(trusted)
    except (ssl.SSLError, OSError):
        where = "LESSOR_CACERT" if connection.ca_file else ROOTS_VARIABLE
        return Cause(f"{trusted} has no usable certificate", f"set {where} to a PEM file of certificates")
    cert, key = connection.cert_file, connection.key_file
    if cert is None or key is None:
        return None
    try:
        context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        problem = f"{cert} has no usable certificate, or {key} no usable key"
        if "KEY_VALUES_MISMATCH" in str(error.reason):
            problem = f"{key} is not the key of the certificate in {cert}"
        return Cause(
            problem, "set LESSOR_CLIENT_CERT and LESSOR_CLIENT_KEY to a pair, both PEM, without a password"
        )
    except OSError as error:
        return Cause(f"{cert} or {key} can't be read: {error.strerror}", "name readable files")
    return None


def _default_roots() -> Path:
    """Return the file of the authorities that gRPC trusts by default."""
    if given := os.environ.get(ROOTS_VARIABLE):
        return Path(given)
    spec = importlib.util.find_spec("grpc")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "_cython" / "_credentials" / "roots.pem"


def _names(certificate: object) -> list[str]:
    """Return the names and addresses that a verified certificate is for."""
    found = certificate.get("subjectAltName", ()) if isinstance(certificate, dict) else ()
    return [str(value) for _, value in found]

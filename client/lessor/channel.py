"""The connection of a client to its server: the address, TLS, and the caller's token.

Six variables configure it: LESSOR_ADDR, LESSOR_TOKEN or LESSOR_TOKEN_FILE, LESSOR_CACERT, LESSOR_CLIENT_CERT
and LESSOR_CLIENT_KEY. An address is ``host:port``, ``[::1]:port`` or ``unix:/path``. ``https://`` (or
``grpcs://``) before the host means TLS, ``http://`` means plaintext.

Without a scheme, the connection is plaintext only if it can't leave this machine: to a unix socket, a literal
loopback address or the name ``localhost``. Every other connection uses TLS, because any other name may
resolve to another machine later. ``http://`` to another machine works, with a ``PlaintextWarning``.
"""

from __future__ import annotations

import ipaddress
import os
import select
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lessor.service_config import service_config

if TYPE_CHECKING:
    import grpc

DEFAULT_ADDRESS: Final = "127.0.0.1:50051"
DEFAULT_PORT, HTTPS_PORT = 50051, 443
_TLS_OF_SCHEME: Final = {"https": True, "grpcs": True, "http": False, "grpc": None}
"""Whether a scheme means TLS; None: the host decides. Only ``http://`` allows plaintext to any host."""
_FIX: Final = "write host:port, https://host[:port] or unix:/path"

Options = tuple[tuple[str, int | str], ...]
KEEPALIVE: Final[Options] = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)
"""A ping every 30 s while a call is open, so that a stream notices a server that vanished.

Source: gRPC's guide "Keepalive"; without the last option gRPC stops after two pings on an idle stream.
"""

PIPE_SECONDS: Final = 10.0
MAX_PIPED_BYTES: Final = 1 << 20

Metadata = tuple[tuple[str, str], ...]


class PlaintextWarning(UserWarning):
    """The token and the credentials cross a network in plaintext, because the address has ``http://``."""


class BadConnection(ValueError):
    """An address, a file or a token can't be used to connect to a server."""


@dataclass(frozen=True, slots=True)
class Connection:
    """The server's address and the caller's token or certificate; its repr contains no token.

    Attributes:
        address: As in LESSOR_ADDR.
        token: The caller's token; overrides ``token_file``. If it is empty, the one in the file is sent.
        token_file: A file with the token, read again at each use, so that it may be replaced.
        ca_file: PEM certificates of the authorities to trust. Without it TLS trusts gRPC's own list.
        cert_file: The caller's own certificate, PEM, for a server that requires one. Needs ``key_file``.
            Beside a token it does not say who the caller is. If any of these three files is set, loopback
            uses TLS as well.
        key_file: The key of ``cert_file``, PEM.
    """

    address: str = DEFAULT_ADDRESS
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Connection:
        """Return the connection that the six variables describe; an empty variable counts as not set."""

        def path(name: str) -> Path | None:
            value = environ.get(name)
            return Path(value) if value else None

        return cls(
            address=environ.get("LESSOR_ADDR") or DEFAULT_ADDRESS,
            token=environ.get("LESSOR_TOKEN", ""),
            token_file=path("LESSOR_TOKEN_FILE"),
            ca_file=path("LESSOR_CACERT"),
            cert_file=path("LESSOR_CLIENT_CERT"),
            key_file=path("LESSOR_CLIENT_KEY"),
        )

    @property
    def target(self) -> str:
        """Return the target for gRPC; raises ``BadConnection`` if the address is malformed."""
        return _parsed(self.address)[1]

    @property
    def options(self) -> Options:
        """Return the channel's options: a connection on this machine uses no proxy."""
        return (*KEEPALIVE, ("grpc.enable_http_proxy", 0)) if _is_local(self.target) else KEEPALIVE

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Return TLS credentials, or None if the connection is plaintext.

        Issues a ``PlaintextWarning`` for ``http://`` to another machine.

        Raises:
            BadConnection: A file can't be read or contains no PEM, a certificate has no key, or the address
                means plaintext although files for TLS are set.
        """
        if not self._uses_tls():
            if not _is_local(self.target):
                problem = f"{self.address} means plaintext: others can read the token and all credentials"
                warnings.warn(f"{problem}; write https://", PlaintextWarning, stacklevel=2)
            return None
        if (self.cert_file is None) != (self.key_file is None):
            raise BadConnection(
                "a client certificate needs its key, and a key its certificate; set both or neither"
            )
        import grpc  # noqa: PLC0415 - it takes its time to load, and a cache is read without it

        root, key, cert = (_pem(path) for path in (self.ca_file, self.key_file, self.cert_file))
        return grpc.ssl_channel_credentials(root, key, cert)

    def metadata(self) -> Metadata:
        """Return the metadata with the caller's token (RFC 6750); empty if there is no token.

        Raises:
            BadConnection: The token's file can't be read or is empty, or the token can't be sent.
        """
        source, token = "LESSOR_TOKEN", self.token.strip()
        if not token:
            source, token = str(self.token_file), self._token_of_file()
        if not token:
            return ()
        if not token.isascii() or not token.isprintable() or " " in token:
            raise BadConnection(_not_sendable(source, token))
        return (("authorization", f"Bearer {token}"),)

    def open(self, *, retries: bool = True, has_request_ids: bool = False) -> grpc.Channel:
        """Return a blocking channel, which connects at its first call; raises as ``credentials`` does.

        With ``retries`` it retries calls that are safe to repeat while the server is briefly unreachable.
        ``has_request_ids`` adds those that issue credentials: each of them must then have a ``request_id``.
        """
        import grpc  # noqa: PLC0415

        credentials = self.credentials()
        options = self._options_with_retries(has_request_ids=has_request_ids) if retries else self.options
        if credentials is None:
            return grpc.insecure_channel(self.target, options)
        return grpc.secure_channel(self.target, credentials, options)

    def open_async(self) -> grpc.aio.Channel:
        """Return a channel with retries for the running event loop; raises as ``credentials`` does.

        Each call that issues credentials must have a ``request_id``, because it may be repeated.
        """
        import grpc  # noqa: PLC0415

        credentials = self.credentials()
        options = self._options_with_retries(has_request_ids=True)
        if credentials is None:
            return grpc.aio.insecure_channel(self.target, options)
        return grpc.aio.secure_channel(self.target, credentials, options)

    def _options_with_retries(self, *, has_request_ids: bool) -> Options:
        return (*self.options, ("grpc.service_config", service_config(has_request_ids=has_request_ids)))

    def _uses_tls(self) -> bool:
        asked, target = _parsed(self.address)
        if target.startswith("unix:"):
            return False
        has_files = any((self.ca_file, self.cert_file, self.key_file))
        if asked is False and has_files:
            raise BadConnection(f"{self.address} means plaintext, but files for TLS are set; write https://")
        if asked is None:
            return has_files or not _is_local(target)
        return asked

    def _token_of_file(self) -> str:
        content = _content(self.token_file)
        if content is None:
            return ""
        token = content.decode("ascii", "replace").strip()
        if not token:
            raise BadConnection(f"{self.token_file} is empty; write the token to it")
        return token


def _not_sendable(source: str, text: str) -> str:
    """Return what is wrong with the text in ``source``, and the fix, but never the text itself."""
    if "token_sha256" in text:
        return f"{source} has both lines of `lessor token new`; keep only the first, the token"
    if len(text.splitlines()) > 1:
        return f"{source} has more than one line; keep only the token"
    return f"the token in {source} can't be sent: it has blanks or characters outside ASCII; write it again"


def _is_local(target: str) -> bool:
    """Return whether a connection to ``target`` can't leave this machine, without resolving a name.

    The only name that counts is ``localhost`` (RFC 6761, 6.3). Address formats that only a resolver
    understands do not count.
    """
    if target.startswith("unix:"):
        return True
    host = target.rpartition(":")[0].removeprefix("[").removesuffix("]")
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _parsed(address: str) -> tuple[bool | None, str]:
    """Return whether an address means TLS (None: it has no scheme that decides), and the target for gRPC."""
    before, colon, path = address.partition(":")
    if colon and before.lower() == "unix":  # schemes are case-insensitive (RFC 3986, 3.1)
        if path in {"", "//"}:
            raise BadConnection(f"{address!r} has no path; {_FIX}")
        return False, f"unix:{path}"
    scheme, separator, rest = address.partition("://")
    scheme = scheme.lower()
    if separator and scheme not in _TLS_OF_SCHEME:
        raise BadConnection(f"{address!r} has an unknown scheme; {_FIX}")
    asked = _TLS_OF_SCHEME[scheme] if separator else None
    return asked, _with_port(
        rest.rstrip("/") if separator else address, HTTPS_PORT if asked else DEFAULT_PORT
    )


def _with_port(place: str, default: int) -> str:
    """Return ``host:port`` of an address that may have no port."""
    host, colon, port = place.rpartition(":")
    if not colon or place.endswith("]"):
        host, port = place, str(default)
    bare = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not bare or any(sign in host for sign in "/@ ") or (":" in host and host == bare):
        raise BadConnection(f"{place!r} is not a valid address; {_FIX}")
    if not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise BadConnection(f"{place!r} has no port from 1 to 65535; {_FIX}")
    return f"{host}:{port}"


def _content(path: Path | None) -> bytes | None:
    """Return the bytes of a regular file; None if there is no path."""
    if path is None:
        return None
    try:
        if path.is_fifo():
            return _piped(path)
        if path.exists() and not path.is_file():
            raise BadConnection(f"{path} is not a file; name a regular file")
        return path.read_bytes()
    except OSError as error:
        raise BadConnection(f"{path} can't be read: {error.strerror}; name a readable file") from None


def _piped(path: Path) -> bytes:
    """Return the content of a pipe, such as a shell's ``<(command)``."""
    data = b""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
        while select.select([file], [], [], PIPE_SECONDS)[0]:
            part = file.read(MAX_PIPED_BYTES)
            data += part or b""
            if part == b"" or len(data) > MAX_PIPED_BYTES:
                return data
    raise BadConnection(f"{path} delivered nothing for {PIPE_SECONDS:g} s; name a regular file")


def _pem(path: Path | None) -> bytes | None:
    """Return the bytes of a PEM file, None if there is no path; gRPC's own error for other files is vague."""
    content = _content(path)
    if content is not None and b"-----BEGIN " not in content:
        raise BadConnection(f"{path} is not a PEM file; name a file with lines -----BEGIN … and -----END …")
    return content

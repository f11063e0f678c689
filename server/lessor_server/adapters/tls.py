"""Reloads the server's certificate, its key and the authority of client certificates when they change.

``grpc.ssl_server_credentials`` reads them once. ``grpc.dynamic_ssl_server_credentials`` requests new ones at
each handshake, also with grpc.aio; open connections keep the old ones.
"""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from lessor_server.adapters.file_reads import FileReads, ReadTimedOut, read_bounded

SETTLE_SECONDS: Final = 0.5
"""A handshake of gRPC has what it needs of a configuration a millisecond after it asked for a new one."""

_PUBLIC: Final = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


class CertificateUnusable(Exception):
    """A file can't be read, has no PEM of the right kind, or the key is another certificate's."""


@dataclass(frozen=True, slots=True)
class Content:
    """The files' content; ``client_ca`` is None if callers need no certificate. Its repr has no key."""

    certificates: bytes
    key: bytes
    client_ca: bytes | None

    def __repr__(self) -> str:
        """Show nothing."""
        return "Content(***)"


class NewConfigurations:
    """Gives gRPC a new configuration for one port, once, at a handshake.

    gRPC frees the old configuration then, although a handshake that asked just before may not hold
    a reference yet. That ends the process (grpc/grpc#36693). gRPC lets one handshake ask at a time. So
    the one that gets the new configuration waits until the last one before it holds its reference.
    """

    def __init__(
        self,
        newest: Callable[[], grpc.ServerCertificateConfiguration],
        clock: Callable[[], float] = time.monotonic,  # noqa: TID251 - threads of gRPC have no loop
        sleep: Callable[[float], object] = time.sleep,  # noqa: TID251
    ) -> None:
        """Begin with gRPC using what ``newest`` returns now: always the newest one."""
        self._given = newest()
        self._newest = newest
        self._clock = clock
        self._sleep = sleep
        self._asked = -math.inf

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the newest configuration, None if gRPC uses it already; called by threads of gRPC."""
        newest = self._newest()
        is_new = newest is not self._given
        if is_new:
            self._sleep(max(0.0, self._asked + SETTLE_SECONDS - self._clock()))
        self._asked, self._given = self._clock(), newest
        return newest if is_new else None


class Certificates:
    """Provides the newest usable content of the files."""

    def __init__(self, cert_file: Path, key_file: Path, client_ca_file: Path | None) -> None:
        """Read the files; raises ``CertificateUnusable``."""
        self._reads = FileReads()
        self._files = (cert_file, key_file, client_ca_file)
        self._seen = self._read()
        self._current = _configuration(self._seen)
        self._client_ca_count = _count_authorities(self._seen)
        self._requires: bool | None = None
        """Whether callers over HTTP need a certificate; None if there is no listener for HTTP."""
        self._context: ssl.SSLContext | None = None

    @property
    def expires_at(self) -> float:
        """Return when the server's certificate expires, in seconds since the epoch."""
        certificate = _certificates(self._seen.certificates, "the certificate file")[0]
        return certificate.not_valid_after_utc.timestamp()

    def credentials(self, *, client_auth: bool) -> grpc.ServerCredentials:
        """Return credentials that use the newest content at each handshake.

        With ``client_auth`` callers need a certificate, if there is an authority of client certificates.
        """
        required = client_auth and self._files[2] is not None
        return grpc.dynamic_ssl_server_credentials(
            self._current,
            NewConfigurations(lambda: self._current),  # type: ignore[arg-type] # may be None
            require_client_authentication=required,
        )

    def http_context(self, *, client_auth: bool) -> ssl.SSLContext:
        """Return the context of a listener for HTTP/1.1, which uses the newest content at each handshake.

        With ``client_auth`` callers need a certificate, if there is an authority of client certificates.

        Raises:
            CertificateUnusable: OpenSSL can't use the files.
        """
        self._requires = client_auth and self._files[2] is not None
        self._context = self._build_context(self._seen)
        listening = self._build_context(self._seen)
        assert listening is not None
        # Called at each handshake, also without a server name. The new context has the certificate, its key
        # and the authorities; whether callers need a certificate does not change.
        listening.sni_callback = self._use_newest
        return listening

    def _use_newest(self, connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        if self._context is not None:
            connection.context = self._context

    def _build_context(self, content: Content) -> ssl.SSLContext | None:
        """Return a context with the files' content, None without a listener for HTTP.

        The files are read again, as Python takes certificates from files only. If they change in between, the
        next reading finds that.
        """
        if self._requires is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._files[0], self._files[1], password=lambda: "")
            if content.client_ca is not None and self._requires:
                context.load_verify_locations(cadata=content.client_ca.decode("ascii", "ignore"))
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ValueError) as error:
            raise CertificateUnusable(f"the files of tls can't be used for HTTP: {error}") from None
        return context

    @property
    def client_ca_count(self) -> int:
        """Return the number of certificates in the client CA file, 0 without one."""
        return self._client_ca_count

    async def reread(self) -> bool:
        """Use the files' current content if it is new; return whether it is.

        Raises:
            CertificateUnusable: The new content can't be used, or the files can't be read in time. The old
                content stays in use.
        """
        try:
            content, configuration, context = await self._reads.run("certificates", self._read_new)
        except ReadTimedOut:
            raise CertificateUnusable(
                f"the files of tls can't be read within {self._reads.seconds:g} s; check the file system that"
                " they are on"
            ) from None
        if configuration is None:
            return False
        self._seen, self._current, self._context = content, configuration, context
        self._client_ca_count = _count_authorities(content)
        return True

    def _read_new(
        self,
    ) -> tuple[Content, grpc.ServerCertificateConfiguration | None, ssl.SSLContext | None]:
        """Return the files' content, and if it is new its forms for gRPC and for HTTP."""
        content = self._read()
        if content == self._seen:
            return content, None, None
        return content, _configuration(content), self._build_context(content)

    def _read(self) -> Content:
        cert_file, key_file, client_ca_file = self._files
        client_ca = None if client_ca_file is None else _content(client_ca_file)
        return Content(_content(cert_file), _content(key_file), client_ca)


def _content(file: Path) -> bytes:
    """Return a file's content, of limited size, so that a wrong file does not fill the memory."""
    try:
        return read_bounded(file)
    except OSError as error:
        raise CertificateUnusable(f"{file} can't be read: {error.strerror}") from None
    except ValueError as error:
        raise CertificateUnusable(str(error)) from None


def _configuration(content: Content) -> grpc.ServerCertificateConfiguration:
    """Check the content and return its form for gRPC, whose own errors are not usable."""
    certificate = _certificates(content.certificates, "the certificate file")[0]
    try:
        key = serialization.load_pem_private_key(content.key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CertificateUnusable("the key file holds no unencrypted private key in PEM") from None
    if key.public_key().public_bytes(*_PUBLIC) != certificate.public_key().public_bytes(*_PUBLIC):
        raise CertificateUnusable("the key is not the certificate's")
    if content.client_ca is not None:
        _certificates(content.client_ca, "the client CA file")
    return grpc.ssl_server_certificate_configuration(
        [(content.key, content.certificates)], root_certificates=content.client_ca
    )


def _count_authorities(content: Content) -> int:
    return 0 if content.client_ca is None else len(_certificates(content.client_ca, "the client CA file"))


def _certificates(pem: bytes, what: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise CertificateUnusable(f"{what} holds no certificate in PEM, or a broken one") from None

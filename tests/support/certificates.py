"""Certificate authorities for tests, and the certificates that they sign; each test generates its keys."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from lessor_server.adapters.clock import SystemClock

LIFE = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its key, as PEM files; the key's mode is 0600."""

    cert: Path
    key: Path


class Authority:
    """A new certificate authority; ``ca`` is its certificate, as a PEM file."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        """Generate its key; all files are in ``folder``, and their names begin with ``name``."""
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(name)
        builder = _builder(subject, subject, self._key, _now() + LIFE)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        certificate = builder.sign(self._key, hashes.SHA256())
        self.ca = folder / f"{name}.pem"
        self.ca.write_bytes(certificate.public_bytes(Encoding.PEM))

    def sign(
        self,
        name: str,
        *,
        expired: bool = False,
        names: Sequence[x509.GeneralName] | None = None,
        life: timedelta = LIFE,
    ) -> KeyPair:
        """Sign a certificate for ``names``: by default ``localhost`` and both loopback addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        end = _now() + (-LIFE if expired else life)
        places: Sequence[x509.GeneralName] = names or [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.IPAddress(ipaddress.ip_address("::1")),
        ]
        builder = _builder(_subject(name), _subject(self._name), key, end)
        builder = builder.add_extension(x509.SubjectAlternativeName(places), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        pair = KeyPair(self._folder / f"{self._name}-{name}.pem", self._folder / f"{self._name}-{name}.key")
        pair.cert.write_bytes(certificate.public_bytes(Encoding.PEM))
        pair.key.touch(mode=0o600)
        pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return pair


def _now() -> datetime:
    return datetime.fromtimestamp(SystemClock().wall_us() / 1e6, UTC)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, end: datetime
) -> x509.CertificateBuilder:
    """Return a builder for the certificates of tests; all of them have begun."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(end - 3 * LIFE, _now() - LIFE))
        .not_valid_after(end)
    )

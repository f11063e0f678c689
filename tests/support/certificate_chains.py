"""Certificates in memory with any names, keys, lifetimes and intermediate authorities, for tests."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

KEYS: dict[str, Callable[[], Any]] = {
    "RSA": lambda: rsa.generate_private_key(65_537, 2048),
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
}
DAY = timedelta(days=1)


@lru_cache
def _key(kind: str, owner: str) -> Any:
    return KEYS[kind]()


def leaf_key(kind: str) -> Any:
    """Return the key of every leaf of this kind."""
    return _key(kind, "leaf")


class ChainAuthority:
    """A certificate authority; with ``parent`` it is an intermediate one.

    ``now`` is in seconds since the epoch: certificates are valid from a day before to a day after it.
    ``variant`` gives an authority of the same name another key.
    """

    def __init__(
        self,
        name: str,
        now: float,
        kind: str = "P-256",
        parent: ChainAuthority | None = None,
        *,
        variant: str = "",
        ca: bool | None = True,
        extensions: tuple[x509.ExtensionType, ...] = (),
    ) -> None:
        self.name = name
        self.kind = kind
        self.parent = parent
        self._now = datetime.fromtimestamp(now, UTC)
        self.key = _key(kind, name + variant)
        basic = [] if ca is None else [x509.BasicConstraints(ca=ca, path_length=None)]
        self.certificate = (parent or self)._sign(name, self.key, [*basic, *extensions], -DAY, DAY)

    @property
    def pem(self) -> bytes:
        """Return its certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    def write(self, folder: Path, *others: ChainAuthority) -> str:
        """Write its certificate, and those of others, to a file; return the path."""
        path = folder / f"{self.name}-{len(list(folder.iterdir()))}.pem"
        path.write_bytes(b"".join(one.pem for one in (self, *others)))
        return str(path)

    def issue(
        self,
        *,
        uris: tuple[str, ...] = (),
        dns: tuple[str, ...] = (),
        start: timedelta = -DAY,
        end: timedelta = DAY,
        extensions: tuple[x509.ExtensionType, ...] = (),
    ) -> bytes:
        """Return a leaf and the intermediate certificates in PEM; ``start`` and ``end`` are from now."""
        names = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)]
        more = [x509.SubjectAlternativeName(names)] if names else []
        leaf = self._sign("leaf", leaf_key(self.kind), [*more, *extensions], start, end)
        pem, authority = leaf.public_bytes(Encoding.PEM), self
        while authority.parent is not None:
            pem += authority.pem
            authority = authority.parent
        return pem

    def _sign(
        self, name: str, key: Any, extensions: list[Any], start: timedelta, end: timedelta
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now + start)
            .not_valid_after(self._now + end)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self.key, hashes.SHA256())

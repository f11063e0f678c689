"""Who the caller is, as far as this machine knows without the server: part of the name of a cache entry."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lessor.channel import BadConnection, Connection

_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----\s(.*?)-----END CERTIFICATE-----", re.DOTALL)
_ALTERNATIVE_NAMES: Final = b"\x55\x1d\x11"
"""The content of the object identifier 2.5.29.17 (RFC 5280, 4.2.1.6)."""
_SEQUENCE, _VERSION, _EXTENSIONS, _OBJECT_ID = 0x30, 0xA0, 0xA3, 0x06


def caller_of(connection: Connection) -> str:
    """Return a digest of who the caller is.

    This is the digest of a fixed token; the issuer, subject and audience of a JWT, which stay the same when
    the token is replaced; or else the subject and the alternative names of a certificate.

    Raises:
        BadConnection: The token or the certificate can't be read.
    """
    pairs = connection.metadata()
    if pairs:
        token = pairs[0][1].removeprefix("Bearer ")
        claims = _claims(token)
        return _digest("token", token) if claims is None else _digest("jwt", *claims)
    if connection.cert_file is not None:
        return _digest("certificate", *_names(connection.cert_file))
    return _digest("nobody")


def _digest(kind: str, *parts: object) -> str:
    return hashlib.sha256(json.dumps([kind, *parts], sort_keys=True).encode()).hexdigest()


def _claims(token: str) -> tuple[object, object, object] | None:
    """Return ``iss``, ``sub`` and ``aud`` of a JWT (RFC 7519); None for any other token."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or "iss" not in found or "sub" not in found:
        return None
    return found["iss"], found["sub"], found.get("aud")


def _names(path: Path) -> tuple[str, str]:
    """Return subject and alternative names of the first certificate of a PEM file, in hexadecimal DER."""
    try:
        [encoded] = _CERTIFICATE.findall(path.read_bytes())[:1]
        der = base64.b64decode(encoded)
        [(_, certificate)] = _elements(der)
        [(_, signed), *_] = _elements(certificate)
        fields = [(tag, content) for tag, content in _elements(signed) if tag != _VERSION]
        # serial number, signature, issuer, validity, subject, key, extensions (RFC 5280, 4.1)
        subject = fields[4][1]
        names = b"".join(
            content
            for tag, extensions in fields[6:]
            if tag == _EXTENSIONS
            for _, one in _elements(next(_elements(extensions))[1])
            for content in _alternative_names(one)
        )
    except OSError as error:
        raise BadConnection(f"{path} can't be read: {error.strerror}; name a readable file") from None
    except (ValueError, IndexError, StopIteration, binascii.Error):
        raise BadConnection(f"{path} has no certificate; name a PEM file") from None
    return subject.hex(), names.hex()


def _alternative_names(extension: bytes) -> Iterator[bytes]:
    """Yield the content of an extension if it has the alternative names."""
    (tag, kind), *rest = _elements(extension)
    if (tag, kind) == (_OBJECT_ID, _ALTERNATIVE_NAMES):
        yield rest[-1][1]


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each element of DER (X.690, 8.1); raises ``ValueError`` or ``IndexError``."""
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length >= 0x80:
            count = length - 0x80
            length, at = int.from_bytes(data[at : at + count], "big"), at + count
        if at + length > len(data):
            raise ValueError("an element is longer than its certificate")
        yield tag, data[at : at + length]
        at += length

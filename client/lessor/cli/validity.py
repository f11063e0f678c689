"""Reads how long a certificate is valid, from its PEM file; Python's own library does so only for a peer's.

Sources: RFC 5280, section 4.1 (the fields of a certificate); ITU-T X.690, section 8.1 (their encoding).
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
_FIELDS_BEFORE: Final = 3
"""The serial number, the algorithm and the issuer come before the validity."""
_PIVOT: Final = 50
"""A year of two digits from 50 on is in the last century (RFC 5280, section 4.1.2.5.1)."""


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate is valid."""

    begin: datetime
    end: datetime


def read_validity(pem: str) -> Validity | None:
    """Return the validity of the first certificate of a PEM text; None if there is none that can be read."""
    found = _CERTIFICATE.search(pem)
    if found is None:
        return None
    try:
        certificate, _ = _read(ssl.PEM_cert_to_DER_cert(found[0]), _SEQUENCE)
        rest, _ = _read(certificate, _SEQUENCE)
        if rest[0] == _VERSION:
            _, rest = _read(rest)
        for _ in range(_FIELDS_BEFORE):
            _, rest = _read(rest)
        times, _ = _read(rest, _SEQUENCE)
        begin, times = _read_time(times)
        end, _ = _read_time(times)
    except (ValueError, IndexError):
        return None
    return Validity(begin, end)


def _read(data: bytes, tag: int | None = None) -> tuple[bytes, bytes]:
    """Return the content of the first value, and what follows it."""
    if tag is not None and data[0] != tag:
        raise ValueError("another field")
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start])
    if len(data) < start + length:
        raise ValueError("it is cut off")
    return data[start : start + length], data[start + length :]


def _read_time(data: bytes) -> tuple[datetime, bytes]:
    """Return the first time, and what follows it."""
    content, rest = _read(data)
    text = content.decode("ascii")
    if data[0] == _UTC_TIME:
        text = f"{'19' if int(text[:2]) >= _PIVOT else '20'}{text}"
    elif data[0] != _GENERALIZED_TIME:
        raise ValueError("not a time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC), rest

"""Removes secrets from log events: the last step before an event is written.

It protects against code that logs a secret by mistake. It checks types, the names of keys and the text
itself, also nested and in tracebacks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Final

from structlog.typing import EventDict, WrappedLogger

from lessor_server.domain.lease_id import CREDS

HIDDEN: Final = "***"
MAX_DEPTH: Final = 6
"""The maximum depth of nested values; deeper ones are cut, so that the size of an event is bounded."""

_SMELLS: Final = re.compile(
    r"secret|token|passw|passphrase|authorization|private|credentials|cookie|signature|mfa_code|sealing_key"
    r"|session_policy",
    re.IGNORECASE,
)
_HARMLESS: Final = re.compile(r"_(?:file|path|count|ttl)$", re.IGNORECASE)

# A secret access key has 40 characters of base64 (IAM, "Manage access keys for IAM users"): a run of exactly
# that length with upper case, lower case, and a digit or sign. A lease id may have that length too.
_SECRET_KEY: Final = (
    rf"(?<![A-Za-z0-9/+])(?![A-Za-z0-9+/]*{CREDS})(?=[A-Za-z0-9+/]*[A-Z])(?=[A-Za-z0-9+/]*[a-z])"
    r"(?=[A-Za-z0-9+/]*[0-9+/])[A-Za-z0-9+/]{40}(?![A-Za-z0-9/+=])"
)
# STS guarantees no format of session tokens; all known ones begin like these.
_SESSION_TOKEN: Final = r"(?:FwoG|FQoG|IQoJ|AQoD|AQoE)[A-Za-z0-9+/=%]{16,}"
# A secret's name, followed by the secret. Ten times slower than the others, and rarely needed.
_NAMED: Final = re.compile(
    r"(?P<name>(?i:(?:bearer|basic) |(?:secret|token|passw|passphrase|accesskey)[a-z_]{0,40}"
    r"(?:[\"']?\s*=\s*[\"']?|[\"']\s*:\s*[\"'])))[^\s&\"',;]+"
)
# A URL's user and password, as those of proxies and databases have.
_IN_URL: Final = re.compile(r"(?<=://)[^\s/@:\"']{0,128}:[^\s\"']{1,256}(?=@)")
# Fixed tokens and login tokens: a prefix, 43 random characters and a checksum of 6.
_OWN_TOKEN: Final = r"ls[rt]_[0-9A-Za-z]{49}"
_PRIVATE_KEY: Final = r"-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(?:-----END [A-Z ]*PRIVATE KEY-----)?"
_SHAPED: Final = re.compile(f"{_SECRET_KEY}|{_SESSION_TOKEN}|{_OWN_TOKEN}|{_PRIVATE_KEY}")
_SIGN_OF_NAMED: Final = re.compile(r"[ ='\"]")
# What each of the shapes has. Most texts have neither, and this is found four times faster.
_SIGN_OF_SHAPED: Final = re.compile(r"[A-Za-z0-9+/=%_]{20}|-----BEGIN")
_MIN_LEAK: Final = 8


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Return the event with ``***`` in place of each secret; a structlog processor."""
    return {
        key: scrub(value) if type(value) is str and not _smells(key) else _value(key, value, 0)
        for key, value in event.items()
    }


def scrub(text: str) -> str:
    """Return ``text`` with ``***`` in place of all that looks like a secret."""
    if len(text) < _MIN_LEAK:
        return text
    if "://" in text:
        text = _IN_URL.sub(HIDDEN, text)
    if _SIGN_OF_NAMED.search(text):
        text = _NAMED.sub(rf"\g<name>{HIDDEN}", text)
    return _SHAPED.sub(HIDDEN, text) if _SIGN_OF_SHAPED.search(text) else text


def _value(key: object, value: object, depth: int) -> object:
    """Return the redacted value of ``key``."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(key, str) and _smells(key):
        return HIDDEN
    return _shown(value, depth)


@lru_cache(maxsize=1024)
def _smells(key: str) -> bool:
    """Return whether the name of a key says that its value is secret."""
    return _SMELLS.search(key) is not None and _HARMLESS.search(key) is None


def _shown(value: object, depth: int) -> object:
    """Return the redacted value, in a form that every renderer can write."""
    match value:
        case _ if hasattr(value, "reveal"):
            return HIDDEN
        case str():
            return scrub(value)
        case None | bool() | int() | float():
            return value
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case _ if depth >= MAX_DEPTH:
            return "…"
        case Mapping():
            return {_key(key): _value(key, inner, depth + 1) for key, inner in value.items()}
        case list() | tuple() | AbstractSet():
            return [_shown(inner, depth + 1) for inner in value]
        case BaseException():
            return scrub(f"{type(value).__name__}: {value}")
        case _:
            return scrub(str(value))


def _key(key: object) -> str:
    """Return a nested key, redacted, because it may be a secret too."""
    return str(_shown(key, MAX_DEPTH))

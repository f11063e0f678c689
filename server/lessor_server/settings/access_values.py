"""Parsers of the values that only an access file has: from TOML to the value, or ``InvalidValue``.

No problem shows a value that may hold a secret by mistake: a digest, or a URL with a password.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from lessor_server.domain import durations
from lessor_server.domain.access import names, path_pattern
from lessor_server.domain.access.access_config import ALGORITHMS, IpNetwork
from lessor_server.domain.access.acl import Capability
from lessor_server.domain.access.caller import UNIX
from lessor_server.domain.access.issue_limits import REQUEST_FIELDS, role_arn_violations
from lessor_server.domain.access.login_token import MAX_MAX_TTL
from lessor_server.domain.errors.base import Violation, shown
from lessor_server.settings import parsers
from lessor_server.settings.parsers import InvalidValue

MAX_URL: Final = 2048
MAX_JWKS: Final = 1 << 20
MAX_LEEWAY: Final = timedelta(minutes=5)

_DIGEST: Final = re.compile(r"[0-9A-Fa-f]{64}")
_URL: Final = re.compile(r"[!-~]+")
_URL_FIX: Final = "write https://HOST[:PORT]/PATH; http is only for this machine's loopback"
_NETWORK: Final = re.compile(r"[0-9A-Fa-f.:]+(?:/[0-9]{1,3})?")
"""Without netmasks and zones, which the standard library accepts."""
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
_MAX_NUMBER: Final = 1 << 53


def as_list(value: object) -> list[object]:
    """Accept a list, which may be empty."""
    if not isinstance(value, list):
        fix = "write [[…]] above each table" if isinstance(value, dict) else "write it as [ … ]"
        raise InvalidValue(f"is {parsers.kind(value)}, not a list", fix)
    return value


def filled_list(value: object) -> list[object]:
    """Accept a list that is not empty."""
    if not as_list(value):
        raise InvalidValue("is empty", "give it an item, or leave it out")
    return as_list(value)


def whole_number(min_value: int, max_value: int) -> Callable[[object], int]:
    """Return a parser of TOML's whole numbers from ``least`` to ``most``."""

    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidValue(f"is {parsers.kind(value)}, not a whole number", "write it without quotes")
        if not min_value <= value <= max_value:
            number = str(value) if -_MAX_NUMBER <= value <= _MAX_NUMBER else "the number"
            raise InvalidValue(
                f"{number} is not from {min_value} to {max_value}", "give a number within that range"
            )
        return value

    return parse


def capability(value: object) -> Capability:
    """Accept the name of a capability."""
    return Capability(_word(value, [one.value for one in Capability]))


def algorithm(value: object) -> str:
    """Accept a signature algorithm of JWTs; its name is written as in RFC 7518."""
    return _word(value, ALGORITHMS)


def request_field(value: object) -> str:
    """Accept the name of a field of a request for credentials."""
    return _word(value, REQUEST_FIELDS)


def rule_path(value: object) -> str:
    """Accept the pattern of a path."""
    return _valid(value, path_pattern.violations)


def role_arn_pattern(value: object) -> str:
    """Accept a pattern of role ARNs."""
    return _valid(value, role_arn_violations)


def label_key(value: object) -> str:
    """Accept the key of a label."""
    return _valid(value, names.key_violations)


def label_value(value: object) -> str:
    """Accept the value of a label, which may have placeholders."""
    return _valid(value, names.label_violations)


def claim_name(value: object) -> str:
    """Accept the name of a claim, or a JSON pointer to one."""
    return _valid(value, names.claim_violations)


def claim_pattern(value: object) -> str:
    """Accept the pattern of a claim's value; a whole number or boolean is the text of it."""
    if isinstance(value, bool):
        return str(value).lower()
    written = str(
        whole_number(-_MAX_NUMBER, _MAX_NUMBER)(value) if isinstance(value, int) else parsers.text(value)
    )
    if not written.isprintable():
        raise InvalidValue("has characters that can't be printed", "remove them")
    return written


def spiffe_pattern(value: object) -> str:
    """Accept the pattern of a SPIFFE ID."""
    return _valid(value, names.spiffe_violations)


def host_pattern(value: object) -> str:
    """Accept the pattern of a DNS name; return its own text in lower case."""
    written = _valid(value, names.host_violations)
    return ".".join(label if label.startswith("{") else label.lower() for label in written.split("."))


def rule_duration(value: object) -> timedelta:
    """Accept a duration in whole seconds from one second to ten years."""
    given = parsers.duration("0s", "999999999h")(value)
    _require_none(durations.violations("", given))
    return given


def token_life(value: object) -> timedelta:
    """Accept a duration in whole seconds from one second to 30 days."""
    given = parsers.duration("0s", durations.format_duration(MAX_MAX_TTL))(value)
    _require_none(durations.violations("", given))
    return given


def leeway(value: object) -> timedelta:
    """Accept a duration of at most five minutes."""
    return parsers.duration("0s", durations.format_duration(MAX_LEEWAY))(value)


def token_digest(value: object) -> bytes:
    """Accept the SHA-256 of a token in hex."""
    written = parsers.text(value)
    if written.startswith("lsr_"):
        problem = "is a token, not the SHA-256 of one"
        raise InvalidValue(problem, "make another with `lessor token new`, and write its token_sha256 here")
    if not _DIGEST.fullmatch(written):
        raise InvalidValue("is not 64 hex digits", "write the token_sha256 that `lessor token new` prints")
    return bytes.fromhex(written)


def moment(value: object) -> float:
    """Accept a TOML time with an offset; return seconds since the epoch."""
    if not isinstance(value, datetime):
        problem = f"is {parsers.kind(value)}, not a date with a time"
        raise InvalidValue(problem, "write it as 2027-01-01T00:00:00Z, without quotes")
    if value.tzinfo is None:
        raise InvalidValue("has no offset from UTC", "end it with Z or an offset such as +02:00")
    return value.timestamp()


def source(value: object) -> IpNetwork | str:
    """Accept ``unix``, or a network in CIDR notation."""
    written = parsers.text(value)
    if written == UNIX:
        return UNIX
    fix = 'write a network such as "10.0.0.0/8", or "unix"'
    try:
        network = ipaddress.ip_network(written, strict=False)
    except ValueError:
        network = None
    if network is None or not _NETWORK.fullmatch(written):
        raise InvalidValue(f"{shown(written)} is not a network", fix)
    address = ipaddress.ip_interface(written).ip
    if address != network.network_address:
        raise InvalidValue(f"{shown(written)} has bits set after its prefix", f'write "{network}"')
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        mapped = ipaddress.IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
        raise InvalidValue(f"{shown(written)} is a network of IPv4 in IPv6's form", f'write "{mapped}"')
    return network


def issuer_url(value: object) -> str:
    """Accept the URL of an issuer, without query and fragment; it is returned as it is written."""
    return _url(value, query=False)


def jwks_url(value: object) -> str:
    """Accept the URL of a JSON Web Key Set."""
    return _url(value, query=True)


def _url(value: object, *, query: bool) -> str:
    written = parsers.text(value)
    if len(written) > MAX_URL:
        raise InvalidValue(f"has {len(written)} characters", f"give at most {MAX_URL}")
    try:
        parts = urlsplit(written)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        raise InvalidValue("is not a URL", _URL_FIX) from None
    if "@" in parts.netloc:
        raise InvalidValue("has a user or password", "write it without the part before the @")
    well_formed = _URL.fullmatch(written) and "\\" not in written and parts.hostname and has_port
    if not well_formed or parts.scheme not in {"http", "https"}:
        raise InvalidValue("is not an https URL", _URL_FIX)
    if parts.scheme == "http" and not parsers.Address(host=str(parts.hostname)).is_local:
        raise InvalidValue("has plain http to another machine", "write https://")
    if "#" in written or ("?" in written and not query):
        raise InvalidValue("has a query or a fragment", "write it without them")
    return written


def jwks_file(value: object) -> Path:
    """Accept a readable file that is a JSON object with ``keys``."""
    path = parsers.readable_file(value)
    try:
        with path.open("rb") as opened:
            content = opened.read(MAX_JWKS + 1)
        keys = json.loads(content[:MAX_JWKS]).get("keys")
    except (ValueError, AttributeError, RecursionError, OSError):
        keys = None
    if not isinstance(keys, list):
        problem = f"{shown(str(path))} is not a JSON Web Key Set"
        raise InvalidValue(problem, 'name a file of at most 1 MiB such as {"keys": […]}')
    return path


def _word(value: object, words: list[str] | tuple[str, ...]) -> str:
    """Return one of a few words, in the case that it is listed in."""
    written = parsers.text(value)
    if written not in words:
        raise InvalidValue(f"{shown(written)} is not a valid choice", f"write one of {', '.join(words)}")
    return written


def _valid(value: object, rule: Callable[[str, str], list[Violation]]) -> str:
    """Return a text without violations of a rule."""
    written = parsers.text(value)
    _require_none(rule("", written))
    return written


def _require_none(found: list[Violation]) -> None:
    """Raise all violations of one value as one problem."""
    if found:
        problem = ", and ".join(one.problem for one in found)
        raise InvalidValue(problem, "; ".join(dict.fromkeys(one.fix for one in found)))

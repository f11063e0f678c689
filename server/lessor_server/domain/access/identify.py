"""Who a caller is: the first identity that its certificate or JWT matches, its name and labels filled in.

A filled name is unambiguous: it can be split into the values again, so two callers never share one.

Source: SPIFFE, "The X.509 SPIFFE Verifiable Identity Document", section 5.2: a certificate has one URI SAN.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from lessor_server.domain.access.access_config import (
    AccessConfig,
    DnsMatch,
    Identity,
    IpNetwork,
    JwtMatch,
    SpiffeMatch,
)
from lessor_server.domain.access.caller import IpAddress
from lessor_server.domain.access.claims import ABSENT, Claims, claim_matches, claim_text, find_claim
from lessor_server.domain.access.name_template import NameTemplate, parse_template
from lessor_server.domain.access.names import (
    MAX_LABEL,
    MAX_NAME,
    MAX_NAME_VALUE,
    NAME_LETTER,
    ROOT_NAME,
    label_value_violations,
)
from lessor_server.domain.errors.base import Unauthenticated, shown

MAX_DNS_NAMES: Final = 100
"""The maximum number of DNS SANs: each is compared with every identity that has a ``dns_name``."""

_NAME_VALUE: Final = re.compile(rf"{NAME_LETTER}{{1,{MAX_NAME_VALUE}}}")

Values = Mapping[str, str]
"""The values of placeholders, by the placeholders' names."""


@dataclass(frozen=True, slots=True)
class CertificateNames:
    """The subject alternative names of a certificate, by their types."""

    uris: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Identified:
    """The identity that a credential matched, with its name and labels filled in."""

    identity: Identity
    name: str
    labels: Mapping[str, str]


def identify_certificate(
    config: AccessConfig, names: CertificateNames, is_trusted: Callable[[str], bool]
) -> Identified:
    """Return the first identity that a certificate matches.

    ``is_trusted`` returns whether its chain ends in a certificate of a ``ca_file``; it gets an empty text for
    an identity without one.

    Raises:
        Unauthenticated: None matches, the certificate is ambiguous, or a value is not accepted.
    """
    if len(names.uris) > 1:
        raise Unauthenticated("the certificate has more than one URI SAN; have it issued with one")
    if len(names.dns_names) > MAX_DNS_NAMES:
        raise Unauthenticated(
            f"the certificate has {len(names.dns_names)} DNS SANs; use one with at most {MAX_DNS_NAMES}"
        )
    hosts = [name.lower().split(".") for name in names.dns_names]
    for identity in config.identities:
        match = identity.match
        if isinstance(match, SpiffeMatch):
            found = [_segments(match.uri.split("/"), uri.split("/")) for uri in names.uris]
        elif isinstance(match, DnsMatch):
            wanted = [one if one.startswith("{") else one.lower() for one in match.name.split(".")]
            found = [_segments(wanted, labels) for labels in hosts if len(labels) == len(wanted)]
        else:
            continue
        values = [one for one in found if one is not None]
        if not values or not is_trusted(match.ca_file):
            continue
        if any(one != values[0] for one in values):
            raise Unauthenticated("the certificate has several DNS SANs that match one identity differently")
        return fill_identity(identity, values[0])
    raise Unauthenticated("no identity of the access file matches the certificate")


def identify_claims(
    config: AccessConfig, issuer: str, claims: Claims, find: Callable[[Claims, str], object] = find_claim
) -> Identified:
    """Return the first identity that the claims of a verified JWT match; ``issuer`` is the issuer's name.

    ``find`` returns the claim that a key names, or ABSENT.

    Raises:
        Unauthenticated: None matches, or a value is not accepted.
    """
    for identity in config.identities:
        match = identity.match
        if not isinstance(match, JwtMatch) or match.issuer != issuer:
            continue
        if not all(_meets(find(claims, key), pattern) for key, pattern in match.claims.items()):
            continue
        found = {key: find(claims, key) for key in _used_placeholders(identity)}
        if ABSENT in found.values():
            continue
        return fill_identity(identity, {key: _single_value(key, value) for key, value in found.items()})
    raise Unauthenticated("no identity of the access file matches the claims of the JWT")


def named_claims(config: AccessConfig, issuer: str) -> tuple[str, ...]:
    """Return the keys of all claims that the identities of an issuer match or put into names and labels."""
    keys: dict[str, None] = {}
    for identity in config.identities:
        if isinstance(identity.match, JwtMatch) and identity.match.issuer == issuer:
            keys |= dict.fromkeys(identity.match.claims) | _used_placeholders(identity)
    return tuple(keys)


def fill_identity(identity: Identity, values: Values) -> Identified:
    """Return an identity with its name and labels filled in; raises ``Unauthenticated`` for a bad value."""
    if not values.keys() >= _used_placeholders(identity).keys():
        raise Unauthenticated("the credential has no value for a placeholder of the identity")
    name = _filled_name(_template(identity.name), values)
    labels = {key: _filled_label(key, _template(text), values) for key, text in identity.labels.items()}
    return Identified(identity, name, labels)


def comes_from(sources: Iterable[IpNetwork | str], address: IpAddress | str | None) -> bool:
    """Return whether ``address`` is one of ``sources``, or in one; an unknown address is not."""
    if isinstance(address, str):
        return any(source == address for source in sources)
    return address is not None and any(
        not isinstance(source, str) and address in source for source in sources
    )


class NameIndex:
    """Finds the identity of a name: there is at most one, since names and their beginnings do not clash."""

    def __init__(self, identities: Iterable[Identity]) -> None:
        """Index names without placeholders, and the texts before the first placeholder of others."""
        self._by_start = {_template(identity.name).head: identity for identity in identities}

    def find(self, name: str) -> Identity | None:
        """Return the identity of which some credential could give this name; None if there is none."""
        starts = [name, *(name[: end + 1] for end, letter in enumerate(name) if letter == "/")]
        found = (self._by_start.get(start) for start in starts)
        return next(
            (one for one in found if one is not None and find_name_values(one, name) is not None), None
        )


def find_name_values(identity: Identity, name: str) -> dict[str, str] | None:
    """Return the values of placeholders that give ``name`` to a caller of this identity; None if none can."""
    template = _template(identity.name)
    values = split_by_template(template, name)
    if values is None:
        return None
    try:
        if _filled_name(template, values) != name:
            return None
    except Unauthenticated:
        return None
    match = identity.match
    if isinstance(match, JwtMatch):
        possible = all(claim_matches(match.claims.get(key, "*"), value) for key, value in values.items())
    elif isinstance(match, DnsMatch):
        possible = not any("." in value or value != value.lower() for value in values.values())
    else:
        possible = not any("/" in value for value in values.values())
    return values if possible else None


_template = lru_cache(4096)(parse_template)


def _meets(value: object, pattern: str) -> bool:
    return value is not ABSENT and claim_matches(pattern, value)


def _used_placeholders(identity: Identity) -> dict[str, None]:
    texts = (identity.name, *identity.labels.values())
    return dict.fromkeys(key for text in texts for key in _template(text).placeholders)


def _single_value(key: str, value: object) -> str:
    """Return the value that a claim gives a placeholder; a list has none."""
    text = claim_text(value)
    if text is None:
        raise Unauthenticated(
            f"the claim {shown(key)} is not text, a boolean or a whole number, so it can't be part of a name"
            " or label"
        )
    return text


def _segments(wanted: list[str], given: list[str]) -> dict[str, str] | None:
    """Return the segments that the placeholders of ``wanted`` stand for; None if the others differ."""
    if len(wanted) != len(given):
        return None
    values: dict[str, str] = {}
    for one, segment in zip(wanted, given, strict=True):
        parts = _template(one).parts
        if len(parts) == 1 and parts[0][0] == "" and (key := parts[0][1]) is not None:
            if not segment or values.setdefault(key, segment) != segment:
                return None
        elif one != segment:
            return None
    return values


def _filled_name(template: NameTemplate, values: Values) -> str:
    """Return a name that can be split into the same values again, or the text of a fixed name."""
    keys = template.placeholders
    if not keys:
        return template.head
    name = ""
    for index, (literal, key) in enumerate(template.parts):
        name += literal
        if key is not None:
            name += _name_value(key, values[key], slashes=index == len(keys) - 1)
    if len(name) > MAX_NAME:
        raise Unauthenticated(
            f"the caller's name would have {len(name)} characters, and at most {MAX_NAME} can be used"
        )
    if name == ROOT_NAME or not {".", ".."}.isdisjoint(name.split("/")):
        raise Unauthenticated(f"the caller's name would be {shown(name)}, which is not accepted")
    if split_by_template(template, name) != {key: values[key] for key in keys}:
        raise Unauthenticated(
            f"the caller's name would be {shown(name)}, which another caller could have too; the identity's"
            " name needs a / between its placeholders"
        )
    return name


def _name_value(key: str, value: str, *, slashes: bool) -> str:
    if not _NAME_VALUE.fullmatch(value):
        raise Unauthenticated(
            f"the value of {shown(key)} has characters that a name can't have, or not 1 to {MAX_NAME_VALUE}"
            f" characters: {shown(value)}"
        )
    if "/" in value and not slashes:
        raise Unauthenticated(f"the value of {shown(key)} has a /, and it is not the last part of the name")
    if not {".", ".."}.isdisjoint(value.split("/")):
        raise Unauthenticated(f"the value of {shown(key)} has a segment . or ..")
    return value


def _filled_label(label: str, template: NameTemplate, values: Values) -> str:
    pieces = [(literal, "" if key is None else values[key], key) for literal, key in template.parts]
    text = "".join(literal + value for literal, value, _ in pieces)
    empty = any(key is not None and not value for _, value, key in pieces)
    if empty or label_value_violations(label, text):
        raise Unauthenticated(f"the label {shown(label)} would not be 1 to {MAX_LABEL} printable characters")
    return text


def split_by_template(template: NameTemplate, name: str) -> dict[str, str] | None:
    """Return the values of which ``name``, or a label, consists; None if the template can't give it.

    A value ends at the first place where the next literal text begins, and the last value before the
    template's end.
    """
    parts = template.parts
    last = len(template.placeholders) - 1
    values: dict[str, str] = {}
    start = 0
    for index, (literal, key) in enumerate(parts):
        if not name.startswith(literal, start):
            return None
        start += len(literal)
        if key is None:
            break
        following = parts[index + 1][0] if index + 1 < len(parts) else ""
        end = len(name) - len(following) if index == last else name.find(following, start)
        if end <= start or values.setdefault(key, name[start:end]) != name[start:end]:
            return None
        start = end
    return values if start == len(name) else None

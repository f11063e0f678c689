"""Where the key-encryption key is: the format of the setting ``sealing.key``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from lessor_server.domain.aws import partition
from lessor_server.domain.aws.arn import parse_arn
from lessor_server.domain.errors.base import shown

FORMS: Final = "file:PATH, env:NAME or awskms:KEY_ARN"
SEALING_KEY_FIX: Final = f"write {FORMS}"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KMS_RESOURCE: Final = re.compile(r"(?:key|alias)/[A-Za-z0-9/_-]{1,256}")
_REGION: Final = re.compile(r"[a-z]{2}(?:-[a-z]+)+-[0-9]{1,2}")


class SealingKeyKind(Enum):
    """Where the key-encryption key is kept."""

    FILE = "file"
    ENVIRONMENT = "env"
    KMS = "awskms"


@dataclass(frozen=True, slots=True)
class SealingKeyPlace:
    """The place of a key-encryption key: ``name`` is a path, a variable, or the ARN of a key of AWS KMS.

    ``endpoint`` and ``region`` are those of KMS; without an endpoint it is AWS's own.
    """

    kind: SealingKeyKind
    name: str
    endpoint: str = ""
    region: str = ""

    def __str__(self) -> str:
        """Return the place as in the setting, without the options of KMS."""
        return f"{self.kind.value}:{self.name}"


def parse_sealing_key(written: str) -> SealingKeyPlace:
    """Return the place that a text names, or raise ``ValueError`` with what is wrong.

    A text that does not begin as a place does is not shown: it may be the key itself.
    """
    scheme, colon, rest = written.strip().partition(":")
    if not colon or not rest or scheme not in {kind.value for kind in SealingKeyKind}:
        raise ValueError("the text does not say where the sealing key is")
    kind = SealingKeyKind(scheme)
    if kind is SealingKeyKind.KMS:
        return _kms_place(rest)
    if "\0" in rest:
        raise ValueError(f"{shown(rest)} is not a path")
    if kind is SealingKeyKind.ENVIRONMENT and not _VARIABLE.fullmatch(rest):
        raise ValueError("what follows env: is not the name of a variable")
    return SealingKeyPlace(kind, rest)


def _kms_place(rest: str) -> SealingKeyPlace:
    arn, _, query = rest.partition("?")
    parts = parse_arn(arn)
    known = parts is not None and parts.partition in partition.NAMES and parts.service == "kms"
    if parts is None or not known or not parts.account or not _KMS_RESOURCE.fullmatch(parts.resource):
        named = shown(arn) if arn.startswith("arn:") else "what follows awskms:"
        raise ValueError(f"{named} is not the ARN of a key of AWS KMS")
    options = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    given = dict(options)
    if len(given) != len(options) or not given.keys() <= {"endpoint", "region"}:
        raise ValueError("only endpoint and region, each once, may follow the ARN")
    region = given.get("region", parts.region)
    if not _REGION.fullmatch(region):
        raise ValueError(f"{shown(region)} is not a region")
    return SealingKeyPlace(SealingKeyKind.KMS, arn, _endpoint(given.get("endpoint")), region)


def _endpoint(url: str | None) -> str:
    """Return ``scheme://host[:port]``, or an empty text if there is no endpoint."""
    if url is None:
        return ""
    problem = "its endpoint is not only a scheme, a host and a port"
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError(problem) from None
    if not valid or "@" in url or parts.path.rstrip("/") or parts.query or parts.fragment:
        raise ValueError(problem)
    return url.rstrip("/")


def may_ask(place: SealingKeyPlace, allowed_endpoints: tuple[str, ...]) -> bool:
    """Return whether KMS may be asked at the place's endpoint: AWS's own, or one that is allowed."""
    url = place.endpoint
    if not url or url in {one.rstrip("/") for one in allowed_endpoints}:
        return True
    arn = parse_arn(place.name)
    domains = [
        domain for one in partition.PARTITIONS if arn and one.name == arn.partition for domain in one.domains
    ]
    own = {f"{service}.{place.region}.{domain}" for service in ("kms", "kms-fips") for domain in domains}
    host = urlsplit(url)
    return host.scheme == "https" and host.port in (None, 443) and host.hostname in own

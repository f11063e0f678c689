"""Reads base64url and JSON strictly, so that no two readers see different content in one text.

Sources: RFC 7515, section 2 (base64url without padding) and section 4 (a member name occurs once).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from typing import Final

from lessor_server.domain.errors.base import shown

_BASE64URL: Final = re.compile("[A-Za-z0-9_-]+")


class Undecodable(Exception):
    """A text is not base64url without padding, or not a JSON object with each member once."""


def read_base64url(text: str) -> bytes:
    """Return the bytes of base64url without padding, of which each value has one spelling."""
    if not _BASE64URL.fullmatch(text):
        raise Undecodable("a part is empty or not base64url without padding")
    try:
        content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise Undecodable("a part is not base64url") from None
    if base64.urlsafe_b64encode(content).rstrip(b"=") != text.encode("ascii"):
        raise Undecodable("a part is not base64url in its canonical form")
    return content


def read_object(content: bytes) -> dict[str, object]:
    """Return a JSON object in UTF-8; a member that occurs twice, and NaN or Infinity, are refused."""
    try:
        value = json.loads(
            content.decode("utf-8"), object_pairs_hook=_unique_members, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError):
        raise Undecodable("a part is not JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise Undecodable("a part is not a JSON object")
    return value


def _unique_members(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    members: dict[str, object] = {}
    for name, value in pairs:
        if name in members:
            raise Undecodable(f"the member {shown(name)} occurs twice")
        members[name] = value
    return members


def _refuse_constant(name: str) -> object:
    raise Undecodable(f"{name} is not JSON")

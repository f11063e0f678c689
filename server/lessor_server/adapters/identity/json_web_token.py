"""Parses JWTs strictly, and verifies their signatures.

Only algorithms with a public key exist here, so neither ``none`` nor an HMAC with a public key can pass. The
header's ``jku``, ``jwk``, ``x5u`` and ``x5c`` are ignored: keys come from the access file's issuers alone.

Sources: RFC 7515 (JWS, compact form), RFC 7519 (JWT), RFC 8725 (JWT best current practices).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, cast

from jwt.algorithms import get_default_algorithms

from lessor_server.adapters.identity.key_set import VerifyingKey
from lessor_server.adapters.identity.strict_json import Undecodable, read_base64url, read_object
from lessor_server.domain.access.access_config import ALGORITHMS
from lessor_server.domain.access.claims import Claims
from lessor_server.domain.errors.base import Unauthenticated, shown

MAX_TOKEN: Final = 16_384
"""The maximum length in characters: that of a call's metadata."""

_VERIFIERS: Final = {
    name: verifier for name, verifier in get_default_algorithms().items() if name in ALGORITHMS
}


@dataclass(frozen=True, slots=True)
class JsonWebToken:
    """A JWT whose signature is not verified yet: ``signature`` is over the bytes ``signed``."""

    algorithm: str
    key_id: str | None
    issuer: str
    payload: bytes = field(repr=False)
    claims: Claims = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def parse_token(token: str) -> JsonWebToken:
    """Return the parts of a JWT.

    Raises:
        Unauthenticated: It is malformed, or demands an extension that is not supported.
    """
    parts = token.split(".")
    if len(token) > MAX_TOKEN or len(parts) != 3:
        raise Unauthenticated("the JWT is too long, or does not have three parts")
    try:
        header, payload, signature = (read_base64url(part) for part in parts)
        members, claims = read_object(header), read_object(payload)
    except Undecodable as error:
        raise Unauthenticated(f"the JWT is malformed: {error}") from None
    for extension in ("crit", "b64"):
        if extension in members:
            raise Unauthenticated(f"the JWT's header has {extension}, which is not supported")
    algorithm, issuer = members.get("alg"), claims.get("iss")
    if not isinstance(algorithm, str) or not isinstance(issuer, str):
        raise Unauthenticated("the JWT has no alg in its header or no iss claim, or they are not text")
    key_id = members.get("kid")
    if "kid" in members and not isinstance(key_id, str):
        raise Unauthenticated("the JWT's kid is not text")
    signed = token.rpartition(".")[0].encode("ascii")
    return JsonWebToken(algorithm, cast("str | None", key_id), issuer, payload, claims, signed, signature)


def verify_signature(token: JsonWebToken, key: VerifyingKey) -> None:
    """Raise ``Unauthenticated`` unless ``key`` made the signature of ``token`` with the token's algorithm."""
    verifier = _VERIFIERS.get(token.algorithm)
    if verifier is None or token.algorithm not in key.algorithms:
        raise Unauthenticated(f"the JWT's algorithm {shown(token.algorithm)} does not fit the issuer's key")
    try:
        verified = verifier.verify(token.signed, key.public_key, token.signature)
    except Exception:  # noqa: BLE001 - whatever a library raises, the caller is not identified
        verified = False
    if verified is not True:
        raise Unauthenticated("the signature of the JWT is wrong")

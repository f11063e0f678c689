"""Reads the keys of an issuer (JSON Web Key Set), and finds the one that verifies a JWT.

Sources: RFC 7517 (JWK and JWK Set), RFC 7518, section 6 (RSA and EC keys), RFC 8037 (Ed25519).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lessor_server.adapters.identity.strict_json import Undecodable, read_base64url, read_object

MAX_KEYS: Final = 100
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final[Mapping[object, tuple[ec.EllipticCurve, str, int]]] = {
    "P-256": (ec.SECP256R1(), "ES256", 32),
    "P-384": (ec.SECP384R1(), "ES384", 48),
}
"""The curve of a name, its algorithm, and the length of a coordinate in bytes."""

PublicKey = RSAPublicKey | ec.EllipticCurvePublicKey | Ed25519PublicKey


class KeySetUnusable(Exception):
    """A text is not a set of at most 100 keys; the message is a predicate."""


class _Unusable(Exception):
    """A key that verifies no JWT here."""


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key, and the algorithms that it may verify; ``encoded`` is the key in DER."""

    key_id: str | None
    algorithms: frozenset[str]
    encoded: bytes = field(repr=False)
    public_key: PublicKey = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of a set, and the size of the whole set."""

    keys: tuple[VerifyingKey, ...]
    size: int

    def find(self, key_id: str | None, algorithm: str) -> VerifyingKey | None:
        """Return the one key of this id that fits ``algorithm``; without an id the set must have one key."""
        if key_id is None and self.size != 1:
            return None
        fitting = [
            key
            for key in self.keys
            if algorithm in key.algorithms and (key_id is None or key.key_id == key_id)
        ]
        return fitting[0] if len(fitting) == 1 else None


def read_key_set(content: bytes) -> KeySet:
    """Return the keys of a JWKS document, without those that can't be used.

    Raises:
        KeySetUnusable: It is not a JWKS document, or has more than 100 keys.
    """
    try:
        members = read_object(content).get("keys")
    except Undecodable as error:
        raise KeySetUnusable(f"is malformed: {error}") from None
    if not isinstance(members, list):
        raise KeySetUnusable('has no list "keys"')
    if len(members) > MAX_KEYS:
        raise KeySetUnusable(f"has {len(members)} keys; at most {MAX_KEYS} are read")
    keys = []
    for member in members:
        try:
            keys.append(_key(member))
        except Exception:  # noqa: BLE001,S112 - whatever a library raises, this key can't be used
            continue
    return KeySet(tuple(keys), len(members))


def _key(member: object) -> VerifyingKey:
    if not isinstance(member, dict) or "d" in member:  # a private key that is published is nobody's secret
        raise _Unusable
    operations = member.get("key_ops", ["verify"])
    if member.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise _Unusable
    key_id = member.get("kid")
    if key_id is not None and not isinstance(key_id, str):
        raise _Unusable
    public_key, algorithms = _public_key(member)
    if "alg" in member:
        algorithms &= {member["alg"]}
    if not algorithms:
        raise _Unusable
    encoded = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return VerifyingKey(key_id, algorithms, encoded, public_key)


def _public_key(member: Mapping[str, object]) -> tuple[PublicKey, frozenset[str]]:
    """Return the key, and the algorithms that fit its type."""
    match member.get("kty"):
        case "RSA":
            return _rsa_key(member), _RSA
        case "EC":
            curve, algorithm, length = _CURVES[member.get("crv")]
            x, y = _bytes(member, "x", length), _bytes(member, "y", length)
            numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve)
            return numbers.public_key(), frozenset({algorithm})
        case "OKP" if member.get("crv") == "Ed25519":
            return Ed25519PublicKey.from_public_bytes(_bytes(member, "x", 32)), frozenset({"EdDSA"})
    raise _Unusable


def _rsa_key(member: Mapping[str, object]) -> RSAPublicKey:
    modulus, exponent = (int.from_bytes(_bytes(member, name)) for name in ("n", "e"))
    # A long exponent would make each verification slow.
    if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS or exponent.bit_length() > 64:
        raise _Unusable
    return RSAPublicNumbers(exponent, modulus).public_key()


def _bytes(member: Mapping[str, object], name: str, length: int | None = None) -> bytes:
    text = member.get(name)
    content = read_base64url(text) if isinstance(text, str) else b""
    if length is not None and len(content) != length:
        raise _Unusable
    return content

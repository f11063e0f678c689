"""The key of an installation's audit files: it signs checkpoints, and hashes the ids of access keys."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from lessor_server.adapters import private_file
from lessor_server.adapters.audit.state import STATE_FILE
from lessor_server.domain.audit.chain import checkpoint_text
from lessor_server.domain.errors.base import LessorError

KEY_FILE: Final = "audit-key"
KEY_SIZE: Final = 32
_HASH_KEY_OF: Final = b"lessor audit hash"
"""From this and the private key the key of the hashes is derived."""


class AuditKeyBroken(LessorError):
    """The file of the audit key exists but can't be used."""

    reason = "AUDIT_KEY_UNUSABLE"
    fix = "restore the previous file; checkpoints of another key don't verify with the old public one"


class NotAPublicKey(ValueError):
    """A text is not the base64 of an Ed25519 public key."""


@dataclass(frozen=True, slots=True)
class AuditKey:
    """An Ed25519 key (RFC 8032), and a key of HMAC-SHA256 that is derived from it."""

    private: Ed25519PrivateKey = field(repr=False)
    hasher: hmac.HMAC = field(repr=False)
    """Is copied for each value: ``hmac.digest`` lets other threads run, which takes longer than the hash."""

    @classmethod
    def load_or_make(cls, data_dir: Path) -> Self:
        """Return the key in a data directory; the first start creates it.

        Raises:
            AuditKeyBroken: Others may read the file, it does not have 32 bytes, or it is gone although there
                are positions of sinks. OSError: It can't be read.
        """
        if (data_dir / STATE_FILE).exists() and not (data_dir / KEY_FILE).exists():
            raise AuditKeyBroken(
                f"{data_dir / KEY_FILE} is missing, but {STATE_FILE} is there",
                fix="restore it from a backup; to begin a new chain, move"
                f" {STATE_FILE} and the audit files away",
            )
        return cls._of(data_dir / KEY_FILE, make=True)

    @classmethod
    def load(cls, data_dir: Path) -> Self:
        """Return the key in a data directory; raises as ``load_or_make``, and ``OSError`` if it has none."""
        return cls._of(data_dir / KEY_FILE, make=False)

    @classmethod
    def draw(cls) -> Self:
        """Return a new key, which no file keeps."""
        return cls._of_seed(Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def _of(cls, path: Path, *, make: bool) -> Self:
        try:
            if make:
                seed = private_file.read_or_make(
                    path, lambda: Ed25519PrivateKey.generate().private_bytes_raw()
                )
            else:
                seed = private_file.read_private(path)
        except private_file.NotPrivate as error:
            raise AuditKeyBroken(error.problem, fix=error.fix) from error
        if len(seed) != KEY_SIZE:
            raise AuditKeyBroken(f"{path} has {len(seed)} bytes, not {KEY_SIZE}")
        return cls._of_seed(seed)

    @classmethod
    def _of_seed(cls, seed: bytes) -> Self:
        hash_key = hmac.digest(seed, _HASH_KEY_OF, hashlib.sha256)
        return cls(Ed25519PrivateKey.from_private_bytes(seed), hasher_of(hash_key))

    def hashing_with(self, hash_key: bytes) -> Self:
        """Return this key with another one for hashes, which several servers share."""
        return replace(self, hasher=hasher_of(hash_key))

    @property
    def public(self) -> str:
        """Return the public key in base64, as ``lessor audit verify --key`` takes it."""
        return base64.b64encode(self.private.public_key().public_bytes_raw()).decode("ascii")

    def sign_checkpoint(self, seq: int, prev: str) -> str:
        """Return the signature of a checkpoint, in base64."""
        return base64.b64encode(self.private.sign(checkpoint_text(seq, prev))).decode("ascii")

    def hash_value(self, value: str) -> str:
        """Return what stands for a value in a record: its HMAC-SHA256, in hex."""
        hasher = self.hasher.copy()
        hasher.update(value.encode("utf-8", "surrogatepass"))
        return hasher.hexdigest()


def hasher_of(hash_key: bytes) -> hmac.HMAC:
    """Return what hashes values with a key."""
    return hmac.new(hash_key, digestmod=hashlib.sha256)


class PublicKey:
    """Checks signatures."""

    def __init__(self, text: str) -> None:
        """Parse a key in base64; raise ``NotAPublicKey`` for any other text."""
        try:
            self._key = Ed25519PublicKey.from_public_bytes(base64.b64decode(text.strip(), validate=True))
        except ValueError:
            raise NotAPublicKey("is not the base64 of an Ed25519 public key, 44 characters") from None

    def check(self, signature: bytes, signed: bytes) -> bool:
        """Return whether ``signature`` is this key's of ``signed``."""
        try:
            self._key.verify(signature, signed)
        except InvalidSignature:
            return False
        return True

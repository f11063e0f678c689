"""Seals secrets in the store with AES-256-GCM, under a key that is stored outside of the database.

A sealed blob is: version (1 byte, 0x01) | key id (8) | nonce (12) | ciphertext and tag (16 more than the
plain bytes). The context and the header are associated data, so a blob moved to another row cannot be
decrypted. Nonces are random: NIST SP 800-38D 8.3 allows 2^32 of them under one key.
"""

from __future__ import annotations

import hashlib
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lessor_server.domain.errors.preconditions import SealBroken

__all__ = ["AesGcmSealer", "SealBroken", "key_id", "key_id_of"]

KEY_SIZE: Final = 32
KEY_ID_SIZE: Final = 8
NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16
VERSION: Final = b"\x01"
HEADER_SIZE: Final = len(VERSION) + KEY_ID_SIZE


def key_id(key: bytes) -> bytes:
    """Return a key's id: 8 bytes of a digest, which reveal nothing about 32 random bytes."""
    return hashlib.sha256(b"lessor sealing key id\x00" + key).digest()[:KEY_ID_SIZE]


def key_id_of(sealed: bytes) -> str:
    """Return the id of the key that a blob was sealed under; empty if it is not a sealed blob."""
    return sealed[len(VERSION) : HEADER_SIZE].hex() if sealed.startswith(VERSION) else ""


class AesGcmSealer:
    """Seals and opens bytes under one key; a blob can be opened only with its own context."""

    def __init__(self, key: bytes) -> None:
        """Use a key of 32 bytes."""
        if len(key) != KEY_SIZE:
            raise ValueError(f"a sealing key has {KEY_SIZE} bytes, not {len(key)}")
        self._cipher = AESGCM(key)
        self._header = VERSION + key_id(key)

    def seal(self, plain: bytes, context: str) -> bytes:
        """Return ``plain`` sealed for ``context``; two seals of the same bytes differ."""
        nonce = os.urandom(NONCE_SIZE)
        return self._header + nonce + self._cipher.encrypt(nonce, plain, self._associated_data(context))

    def open(self, sealed: bytes, context: str) -> bytes:
        """Return the bytes sealed for ``context``.

        Raises:
            SealBroken: It was not sealed for this context under this key, or it was changed since.
        """
        if len(sealed) < HEADER_SIZE + NONCE_SIZE + TAG_SIZE or not sealed.startswith(VERSION):
            raise SealBroken(f"the value stored at {context} is not a sealed blob of this version")
        if not sealed.startswith(self._header):
            raise SealBroken(f"the value stored at {context} was sealed under another key")
        nonce = sealed[HEADER_SIZE : HEADER_SIZE + NONCE_SIZE]
        try:
            return self._cipher.decrypt(
                nonce, sealed[HEADER_SIZE + NONCE_SIZE :], self._associated_data(context)
            )
        except InvalidTag:
            raise SealBroken(
                f"the value stored at {context} was changed, or was sealed for another row"
            ) from None

    def _associated_data(self, context: str) -> bytes:
        """Return the associated data of a blob with ``context``."""
        return self._header + context.encode()

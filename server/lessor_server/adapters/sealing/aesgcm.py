"""AES-256-GCM under one key, in the two forms of sealed blobs.

Form 2, under a data key: 0x02 | key id (8) | nonce (12) | ciphertext and tag (16 more than the plain bytes).
The associated data are the header, the place, and the version of the row, so a blob that was moved to another
row, or is of an earlier version of its row, cannot be decrypted.
Form 1 is that of databases before data keys: 0x01, then the same; its associated data have no version. The
wrapped data keys of a key in a file or variable have this form too.

Nonces are random: NIST SP 800-38D 8.3 allows 2^32 of them under one key.
"""

from __future__ import annotations

import hashlib
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lessor_server.domain.errors.preconditions import SealBroken

KEY_SIZE: Final = 32
KEY_ID_SIZE: Final = 8
NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16
BEFORE_DATA_KEYS: Final = b"\x01"
UNDER_DATA_KEY: Final = b"\x02"
HEADER_SIZE: Final = 1 + KEY_ID_SIZE


def key_id(key: bytes) -> bytes:
    """Return a key's id: 8 bytes of a digest, which reveal nothing about 32 random bytes."""
    return hashlib.sha256(b"lessor sealing key id\x00" + key).digest()[:KEY_ID_SIZE]


def key_id_of(sealed: bytes, form: bytes = BEFORE_DATA_KEYS) -> str:
    """Return the id of the key that a blob of this form was sealed under; empty if it is not such a blob."""
    return sealed[1:HEADER_SIZE].hex() if sealed.startswith(form) and len(sealed) >= HEADER_SIZE else ""


class AesGcm:
    """Seals and opens bytes under one key, in one form."""

    def __init__(self, key: bytes, cipher_key: bytes, form: bytes) -> None:
        """Name blobs after ``key`` and encrypt with ``cipher_key``, both of 32 bytes."""
        for one in (key, cipher_key):
            if len(one) != KEY_SIZE:
                raise ValueError(f"a sealing key has {KEY_SIZE} bytes, not {len(one)}")
        self._cipher = AESGCM(cipher_key)
        self._header = form + key_id(key)

    def seal(self, plain: bytes, bound_to: bytes) -> bytes:
        """Return ``plain`` sealed with ``bound_to`` as associated data; two seals of it differ."""
        nonce = os.urandom(NONCE_SIZE)
        return self._header + nonce + self._cipher.encrypt(nonce, plain, self._header + bound_to)

    def open(self, sealed: bytes, bound_to: bytes, place: str) -> bytes:
        """Return the bytes sealed with ``bound_to``; errors name the ``place``.

        Raises:
            SealBroken: It was not sealed for this place under this key, or it was changed since.
        """
        if len(sealed) < HEADER_SIZE + NONCE_SIZE + TAG_SIZE or sealed[:1] != self._header[:1]:
            raise SealBroken(f"the value stored at {place} is not a sealed blob of this version")
        if not sealed.startswith(self._header):
            raise SealBroken(f"the value stored at {place} was sealed under another key")
        nonce = sealed[HEADER_SIZE : HEADER_SIZE + NONCE_SIZE]
        try:
            return self._cipher.decrypt(nonce, sealed[HEADER_SIZE + NONCE_SIZE :], self._header + bound_to)
        except InvalidTag:
            raise SealBroken(
                f"the value stored at {place} was changed, or was sealed for another row"
            ) from None

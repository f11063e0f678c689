"""Encrypts the cache with a key that lies in the user's keyring; needs ``lessor[keyring]``."""

from __future__ import annotations

import base64
import os
from typing import Final

import keyring
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from keyring.errors import KeyringError, NoKeyringError

SERVICE, NAME = "lessor", "cache-key"
NONCE_BYTES: Final = 12
KEY_BYTES: Final = 32


class NoKeyring(Exception):
    """There is no keyring, or it can't be used."""

    def __init__(self, message: str, *, is_broken: bool) -> None:
        """Say whether there is a keyring that does not work."""
        super().__init__(message)
        self.is_broken = is_broken


class KeyringCipher:
    """AES-256-GCM with a random nonce for each file (NIST SP 800-38D)."""

    def __init__(self, key: bytes) -> None:
        """Use ``key``, 32 bytes."""
        self._aead = AESGCM(key)

    def encrypt(self, content: bytes, name: str) -> bytes:
        """Return nonce and ciphertext."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, content, name.encode())

    def decrypt(self, content: bytes, name: str) -> bytes:
        """Return the content; raises ``ValueError`` if it is not what was encrypted under this name."""
        try:
            return self._aead.decrypt(content[:NONCE_BYTES], content[NONCE_BYTES:], name.encode())
        except InvalidTag:
            raise ValueError("the file was changed, or the key in the keyring is another one") from None


def open_cipher() -> KeyringCipher:
    """Return the cipher with the key of the keyring, which is created if there is none.

    Raises:
        NoKeyring: There is no keyring, or it refuses.
    """
    try:
        found = keyring.get_password(SERVICE, NAME)
        if found is None:
            keyring.set_password(SERVICE, NAME, base64.b64encode(os.urandom(KEY_BYTES)).decode())
            found = keyring.get_password(SERVICE, NAME)
        key = base64.b64decode(found or "", validate=True)
        if len(key) != KEY_BYTES:
            raise NoKeyring(
                f"its entry {SERVICE}/{NAME} is not a key of {KEY_BYTES} bytes; delete it", is_broken=True
            )
    except NoKeyringError as error:
        raise NoKeyring(str(error), is_broken=False) from None
    except (KeyringError, ValueError, OSError) as error:
        raise NoKeyring(f"{type(error).__name__}: {error}", is_broken=True) from None
    return KeyringCipher(key)

"""A key-encryption key of 32 bytes that this process holds: from a file, or from a variable."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from lessor_server.adapters.sealing.aesgcm import BEFORE_DATA_KEYS, KEY_SIZE, AesGcm, key_id
from lessor_server.domain.errors.preconditions import SealBroken
from lessor_server.domain.errors.sealing import SealingKeyMismatch, SealingKeyUnusable


class LocalKey:
    """Implements ``KeyEncryptionKey`` with AES-256-GCM; ``title`` says where the key is."""

    def __init__(self, key: bytes, title: str) -> None:
        """Wrap under 32 bytes."""
        self.id = key_id(key).hex()
        self.name = f"key:{self.id}"
        self.title = title
        self.cipher = AesGcm(key, key, BEFORE_DATA_KEYS)
        """Opens the values of a database that had no data keys, too."""

    async def wrap(self, data_key: bytes, key_id: str) -> bytes:
        """Return a data key encrypted, bound to its id."""
        return self.cipher.seal(data_key, _place(key_id).encode())

    async def unwrap(self, wrapped: bytes, key_id: str) -> bytes:
        """Return the data key with this id, or raise ``SealingKeyMismatch``."""
        try:
            return self.cipher.open(wrapped, _place(key_id).encode(), _place(key_id))
        except SealBroken as error:
            raise SealingKeyMismatch(
                f"{self.title} does not decrypt the data key {key_id} of the database"
            ) from error


def _place(key_id: str) -> str:
    """Return the place of a data key, whose table is named so; wrapped keys are bound to this text."""
    return f"sealing_keys/{key_id}"


def read_variable(name: str, environ: Mapping[str, str]) -> LocalKey:
    """Return the key in a variable, 32 bytes in base64.

    Raises:
        SealingKeyUnusable: There is no such variable, or it holds no such key; its value is not shown.
    """
    written = environ.get(name, "").strip()
    if not written:
        raise SealingKeyUnusable(f"the variable {name} of sealing.key is not set")
    key = read_key(written, f"the key in {name}")
    if key is None:
        raise SealingKeyUnusable(f"the variable {name} of sealing.key is not {KEY_SIZE} bytes in base64")
    return key


def read_key(written: str, title: str = "the given key") -> LocalKey | None:
    """Return a key that is written in base64, also with blanks or line ends; None if it is not one."""
    try:
        key = base64.b64decode("".join(written.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    return LocalKey(key, title) if len(key) == KEY_SIZE else None

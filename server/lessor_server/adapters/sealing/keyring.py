"""The keyring: data keys, wrapped by a key-encryption key, that seal values and authenticate rows.

From each data key of 32 random bytes HKDF-SHA-256 (RFC 5869) derives one key to seal with and one for MACs.
A MAC is: id of the data key (8) | HMAC-SHA-256 (32) over the place of the row and its content.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lessor_server.adapters.sealing.aesgcm import (
    BEFORE_DATA_KEYS,
    KEY_ID_SIZE,
    KEY_SIZE,
    UNDER_DATA_KEY,
    AesGcm,
    key_id,
    key_id_of,
)
from lessor_server.domain.errors.preconditions import SealBroken
from lessor_server.domain.errors.sealing import SealingKeyMismatch
from lessor_server.engine.store_types import WrappedKey

_COMPLETE: Final = "sealing_keys/complete"


class KeyEncryptionKey(Protocol):
    """Wraps data keys.

    ``name`` says which key it is, and is stored beside each data key; ``title`` says where it is.
    """

    name: str
    title: str

    async def wrap(self, data_key: bytes, key_id: str) -> bytes:
        """Return a data key encrypted, bound to its id.

        Raises:
            SealingKeyUnavailable: It can't be reached now.
        """
        ...

    async def unwrap(self, wrapped: bytes, key_id: str) -> bytes:
        """Return the data key with this id.

        Raises:
            SealingKeyMismatch: It was not wrapped by this key. SealingKeyUnavailable: As above.
        """
        ...


class DataKey:
    """One data key, as the two keys that are derived from it."""

    def __init__(self, key: bytes) -> None:
        """Derive from 32 bytes."""
        self.id = key_id(key).hex()
        self._raw_id = key_id(key)
        self._cipher = AesGcm(key, _derive(key, b"lessor sealing"), UNDER_DATA_KEY)
        self._mac_key = _derive(key, b"lessor row mac")

    def seal(self, plain: bytes, place: str, version: str) -> bytes:
        """Return ``plain`` sealed for a version of a place."""
        return self._cipher.seal(plain, _bound_to(place, version))

    def open(self, sealed: bytes, place: str, version: str) -> bytes:
        """Return the plain bytes, or raise ``SealBroken``."""
        return self._cipher.open(sealed, _bound_to(place, version), place)

    def mac(self, place: str, content: Sequence[object]) -> bytes:
        """Return the MAC of a row."""
        return self._raw_id + hmac.digest(self._mac_key, _encode(place, content), "sha256")


class Keyring:
    """Implements ``engine.ports.Sealer``, ``RowSeals`` and ``DataKeys``.

    ``before_data_keys`` opens the values of a database that had no data keys, for its upgrade.
    """

    def __init__(self, wrapping: KeyEncryptionKey, before_data_keys: AesGcm | None = None) -> None:
        """Begin without data keys; ``wrapping`` wraps and unwraps them."""
        self.wrapping = wrapping
        self._before = before_data_keys
        self._keys: dict[str, DataKey] = {}
        self._active: DataKey | None = None
        self._check: Callable[[], None] = lambda: None

    # --- data keys --------------------------------------------------------------------------------------

    @property
    def active_id(self) -> str:
        """Return the id of the data key in use."""
        return self._in_use.id

    @property
    def _in_use(self) -> DataKey:
        if self._active is None:
            raise AssertionError("no data key is in use")
        return self._active

    @property
    def _in_new_use(self) -> DataKey:
        """Return the data key in use for a new value."""
        self._check()
        return self._in_use

    async def load(self, stored: Iterable[WrappedKey]) -> None:
        """Unwrap the stored data keys and use the active one.

        Raises:
            SealingKeyMismatch: They are wrapped by another key, or were changed.
            SealingKeyUnavailable: The key-encryption key can't be reached now.
        """
        found = list(stored)
        await self.learn(found)
        self.use(next((one.id for one in found if one.is_active), ""))

    async def learn(self, stored: Iterable[WrappedKey]) -> None:
        """Unwrap the stored data keys that are not known, and go on using the same one.

        Raises:
            SealingKeyMismatch, SealingKeyUnavailable: As for ``load``.
        """
        for one in stored:
            if self.knows(one.id):
                continue
            if one.wrapped_by != self.wrapping.name:
                raise SealingKeyMismatch(
                    f"{self.wrapping.title} is not the sealing key of the database, which has data keys of"
                    f" {one.wrapped_by}"
                )
            key = DataKey(await self.wrapping.unwrap(one.wrapped, one.id))
            if key.id != one.id or not hmac.compare_digest(key.mac(_COMPLETE, ()), one.complete):
                raise SealingKeyMismatch(f"the data key {one.id} of the database was changed")
            self._keys[key.id] = key

    def knows(self, key_id: str) -> bool:
        """Return whether values under this data key can be opened."""
        return key_id in self._keys

    def require_before_use(self, check: Callable[[], None]) -> None:
        """Call ``check`` before each use of the data key for a new value."""
        self._check = check

    async def make(self) -> WrappedKey:
        """Return a new data key, wrapped, which is known from now on; ``use`` puts it to use."""
        plain = os.urandom(KEY_SIZE)
        key = DataKey(plain)
        wrapped = await self.wrapping.wrap(plain, key.id)
        self._keys[key.id] = key
        return WrappedKey(
            key.id, wrapped, self.wrapping.name, is_active=True, complete=key.mac(_COMPLETE, ())
        )

    def use(self, key_id: str) -> None:
        """Seal and authenticate with this data key from now on."""
        if key_id not in self._keys:
            raise SealingKeyMismatch("the database has no data key in use")
        self._active = self._keys[key_id]

    def forget_all_but(self, key_id: str) -> None:
        """Forget all other data keys: what they sealed can't be opened any more."""
        self._keys = {key_id: self._keys[key_id]}

    # --- values -----------------------------------------------------------------------------------------

    def seal(self, plain: bytes, context: str, version: str) -> bytes:
        """Return ``plain`` sealed under the data key in use."""
        return self._in_new_use.seal(plain, context, version)

    def open(self, sealed: bytes, context: str, version: str) -> bytes:
        """Return the bytes that were sealed for this version of ``context``, or raise ``SealBroken``."""
        key = self._keys.get(key_id_of(sealed, UNDER_DATA_KEY)) or self._in_use
        return key.open(sealed, context, version)

    def reseal(self, sealed: bytes, context: str, version: str) -> bytes:
        """Return a value sealed under the data key in use; unchanged if it is, or if it can't be opened."""
        if key_id_of(sealed, UNDER_DATA_KEY) == self._in_use.id:
            return sealed
        try:
            if sealed.startswith(BEFORE_DATA_KEYS) and self._before is not None:
                return self.seal(self._before.open(sealed, context.encode(), context), context, version)
            return self.seal(self.open(sealed, context, version), context, version)
        except SealBroken:
            return sealed

    # --- rows -------------------------------------------------------------------------------------------

    def mac(self, place: str, content: Sequence[object]) -> bytes:
        """Return the MAC of a row under the data key in use."""
        return self._in_new_use.mac(place, content)

    def is_authentic(self, place: str, content: Sequence[object], mac: object) -> bool:
        """Return whether ``mac`` is that of the row, under any known data key."""
        if not isinstance(mac, bytes):
            return False
        key = self._keys.get(mac[:KEY_ID_SIZE].hex())
        return key is not None and hmac.compare_digest(key.mac(place, content), mac)

    def is_newest(self, mac: object) -> bool:
        """Return whether a MAC is of the data key in use."""
        return isinstance(mac, bytes) and mac[:KEY_ID_SIZE].hex() == self._in_use.id


def _derive(key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_SIZE, salt=None, info=purpose).derive(key)


def _bound_to(place: str, version: str) -> bytes:
    """Return the associated data of a value; JSON shows where the place ends."""
    return json.dumps((place, version)).encode()


def _encode(place: str, content: Sequence[object]) -> bytes:
    """Return a row as bytes: ASCII JSON, the same in every version of Python; bytes are in hex."""
    return _ENCODER.encode((place, content)).encode()


def _hex(value: object) -> dict[str, str]:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    raise TypeError(f"a row does not hold a {type(value).__name__}")


_ENCODER: Final = json.JSONEncoder(default=_hex, check_circular=False)

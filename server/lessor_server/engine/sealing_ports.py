"""The Protocols of the keyring: what seals values and authenticates rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from lessor_server.engine.store_types import WrappedKey


class Sealer(Protocol):
    """Encrypts bytes so that they can be decrypted only with the same context and version of the row."""

    def seal(self, plain: bytes, context: str, version: str) -> bytes:
        """Return ``plain`` encrypted, with ``context`` and ``version`` as associated data."""
        ...

    def open(self, sealed: bytes, context: str, version: str) -> bytes:
        """Return the bytes that were sealed for this version of ``context``, or raise ``SealBroken``."""
        ...


class RowSeals(Protocol):
    """Authenticates rows, and seals their values again under the data key in use."""

    def mac(self, place: str, content: Sequence[object]) -> bytes:
        """Return the MAC of a row: texts, numbers, bytes and None at a place."""
        ...

    def is_authentic(self, place: str, content: Sequence[object], mac: object) -> bool:
        """Return whether ``mac`` is that of the row, under any data key of the keyring."""
        ...

    def is_newest(self, mac: object) -> bool:
        """Return whether a MAC is of the data key in use."""
        ...

    def reseal(self, sealed: bytes, context: str, version: str) -> bytes:
        """Return a value sealed under the data key in use; unchanged if it is, or if it can't be opened."""
        ...


class DataKeys(Protocol):
    """The keyring in memory."""

    @property
    def active_id(self) -> str:
        """Return the id of the data key in use."""
        ...

    async def make(self) -> WrappedKey:
        """Return a new data key, or raise ``SealingKeyUnavailable``; ``use`` puts it to use."""
        ...

    def use(self, key_id: str) -> None:
        """Seal and authenticate with this data key from now on."""
        ...

    def forget_all_but(self, key_id: str) -> None:
        """Forget all other data keys."""
        ...

    def knows(self, key_id: str) -> bool:
        """Return whether values under this data key can be opened."""
        ...

    async def learn(self, stored: Sequence[WrappedKey]) -> None:
        """Know the stored data keys too, without using another one.

        Raises:
            SealingKeyMismatch: One is wrapped by another key. SealingKeyUnavailable: KMS does not answer.
        """
        ...

    def require_before_use(self, check: Callable[[], None]) -> None:
        """Call ``check`` before each use of the data key for a new value; what it raises is raised."""
        ...


class KeyedSealer(Sealer, DataKeys, Protocol):
    """The keyring, as one object."""

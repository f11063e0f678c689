"""A keyring without cryptography, which checks that each value is opened as it was sealed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lessor_server.engine.store_types import WrappedKey
from lessor_server.store_start import OpenedStore

SEPARATORS = 3


class PlainKeyring:
    """Implements the engine's ``KeyedSealer`` and ``RowSeals``; a sealed value says how it was sealed."""

    def __init__(self) -> None:
        """Begin with one data key in use."""
        self._made = 0
        self._known = {"key-0"}
        self.active_id = "key-0"
        self._check: Callable[[], None] = lambda: None

    @property
    def first(self) -> WrappedKey:
        """Return the data key of the beginning, as a store keeps it."""
        return _stored("key-0")

    async def make(self) -> WrappedKey:
        """Return a new data key."""
        self._made += 1
        self._known.add(f"key-{self._made}")
        return _stored(f"key-{self._made}")

    def load(self, stored: Sequence[WrappedKey]) -> None:
        """Know only the stored keys, as a new process does."""
        self._known = {key.id for key in stored}
        self.use(next(key.id for key in stored if key.is_active))

    def knows(self, key_id: str) -> bool:
        """Return whether it has this data key."""
        return key_id in self._known

    async def learn(self, stored: Sequence[WrappedKey]) -> None:
        """Know the stored keys too."""
        self._known |= {key.id for key in stored}

    def require_before_use(self, check: Callable[[], None]) -> None:
        """Call ``check`` before each use of the data key for a new value."""
        self._check = check

    def use(self, key_id: str) -> None:
        """Seal with this data key from now on."""
        assert key_id in self._known
        self.active_id = key_id

    def forget_all_but(self, key_id: str) -> None:
        """Forget all other data keys."""
        self._known = {key_id}

    def seal(self, plain: bytes, context: str, version: str) -> bytes:
        """Return ``plain`` in hex, behind its key, context and version."""
        self._check()
        return f"{self.active_id}|{context}|{version}|{plain.hex()}".encode()

    def open(self, sealed: bytes, context: str, version: str) -> bytes:
        """Return what was sealed for this version of ``context``."""
        assert sealed.count(b"|") == SEPARATORS, f"{sealed!r} at {context} was not sealed by the tests"
        key_id, sealed_for, of_version, plain = sealed.decode().split("|")
        assert (sealed_for, of_version) == (context, version), f"{sealed_for} {of_version}, not {version}"
        assert key_id in self._known, f"{context} is sealed under {key_id}, which is gone"
        return bytes.fromhex(plain)

    def reseal(self, sealed: bytes, context: str, version: str) -> bytes:
        """Return the value under the data key in use."""
        if sealed.count(b"|") != SEPARATORS or sealed.startswith(f"{self.active_id}|".encode()):
            return sealed
        return self.seal(self.open(sealed, context, version), context, version)

    def mac(self, place: str, content: Sequence[object]) -> bytes:
        """Return a MAC of the row."""
        return f"{self.active_id} {place} {content!r}".encode()

    def is_authentic(self, place: str, content: Sequence[object], mac: object) -> bool:
        """Return whether a MAC is that of the row, under a known key."""
        return any(mac == f"{one} {place} {content!r}".encode() for one in self._known)

    def is_newest(self, mac: object) -> bool:
        """Return whether a MAC is of the data key in use."""
        return isinstance(mac, bytes) and mac.startswith(f"{self.active_id} ".encode())


def _stored(key_id: str) -> WrappedKey:
    return WrappedKey(key_id, b"wrapped", "key:tests", is_active=True, complete=b"complete")


async def open_keyring(store: OpenedStore) -> None:
    """Give a store the keyring of the tests, as a start does."""
    keyring = PlainKeyring()
    stored = await store.list_data_keys()
    if stored:
        keyring.load(stored)
        await store.unlock(keyring)
    else:
        await store.begin_keyring(keyring.first, keyring)

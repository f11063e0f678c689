"""Opens the keyring of a database at a start; the first start of this version seals all rows.

The key is verified before the database is opened. A key that does not fit ends the start, and nothing is
changed. While AWS KMS is away the start waits.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from lessor_server.adapters import private_file
from lessor_server.adapters.aws.kms import KmsKey
from lessor_server.adapters.sealing.aesgcm import AesGcm, key_id_of
from lessor_server.adapters.sealing.key_file import KeyFile
from lessor_server.adapters.sealing.keyring import KeyEncryptionKey, Keyring
from lessor_server.adapters.sealing.local_key import LocalKey, read_variable
from lessor_server.adapters.sql.stored_keys import LOST_DATA_KEYS, KeysChanged, StoredKeys
from lessor_server.domain.errors.sealing import (
    SealingKeyMismatch,
    SealingKeyUnavailable,
    SealingKeyUnusable,
)
from lessor_server.domain.events import RowsSealed, SealingKeyAway
from lessor_server.domain.sealing_key import SealingKeyKind, SealingKeyPlace
from lessor_server.engine.ports import KeyringStore, Observer
from lessor_server.engine.sealing_ports import RowSeals
from lessor_server.engine.store_types import WrappedKey
from lessor_server.settings.model import Settings

SEALING_KEY_FILE, MARKER_FILE = "sealing-key", "rows-sealed"
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 30.0


class StartedStore(KeyringStore, Protocol):
    """A store whose keyring is not open yet."""

    async def unlock(self, seals: RowSeals, *, accept: bool = False) -> None:
        """Check rows with ``seals`` from now on; with ``accept`` take rows as they are if that is unclear."""
        ...


def default_key_file(settings: Settings) -> Path:
    """Return the file of the key if ``sealing.key`` is not set."""
    return settings.data_dir / SEALING_KEY_FILE


def sealing_key_place(settings: Settings) -> SealingKeyPlace:
    """Return where the key-encryption key is."""
    return settings.sealing.key or SealingKeyPlace(SealingKeyKind.FILE, str(default_key_file(settings)))


def load_wrapping_key(settings: Settings, place: SealingKeyPlace, *, make: bool) -> KeyEncryptionKey:
    """Return the key-encryption key at ``place``; with ``make`` a missing file is created.

    Raises:
        SealingKeyMismatch: The file is missing. SealingKeyUnusable: The variable or endpoint can't be used.
        OSError: The file can't be read or created.
    """
    match place.kind:
        case SealingKeyKind.FILE:
            path = Path(place.name)
            return (KeyFile.load_or_make(path) if make else KeyFile.load(path)).wrapping
        case SealingKeyKind.ENVIRONMENT:
            return read_variable(place.name, os.environ)
        case SealingKeyKind.KMS:
            return KmsKey(place, settings.aws.allowed_endpoints)


def forget_variable(place: SealingKeyPlace) -> None:
    """Remove a key from the environment, so that no child process inherits it."""
    if place.kind is SealingKeyKind.ENVIRONMENT:
        os.environ.pop(place.name, None)


def is_there(place: SealingKeyPlace) -> bool:
    """Return whether a key need not be created."""
    return place.kind is not SealingKeyKind.FILE or Path(place.name).exists()


def require_shared_key(place: SealingKeyPlace) -> None:
    """Raise ``SealingKeyUnusable`` if a key is missing that no server creates: each would create another."""
    if not is_there(place):
        raise SealingKeyUnusable(
            f"{place.name} does not exist",
            fix="create a key of 32 random bytes there, and give it to all servers of the database",
        )


@dataclass(frozen=True, slots=True)
class Ready:
    """A keyring whose key was verified; ``first`` is its data key if the database has none."""

    keyring: Keyring
    first: WrappedKey | None = None
    is_upgrade: bool = False


class KeyringStart:
    """One start's opening of a keyring: ``verify`` before the database is opened, then ``open``."""

    def __init__(self, settings: Settings, logger: FilteringBoundLogger, notify: Observer) -> None:
        """Open by the key of ``settings``."""
        self._settings = settings
        self._logger = logger
        self._notify = notify
        self._stored: StoredKeys | None = None
        self._ready: Ready | None = None
        self._wrapping: KeyEncryptionKey | None = None
        self._is_shared = settings.store.is_shared

    async def verify(self, while_away: Callable[[], Awaitable[None]], stored: StoredKeys) -> Keyring | None:
        """Verify the sealing key; ``while_away`` is awaited once if KMS does not answer at first.

        Returns the keyring, or None if the database has no data keys yet.

        Raises:
            SealingKeyMismatch: It does not fit. SealingKeyUnusable, OSError: It is broken.
        """
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                ready = await self.verify_once(stored)
                forget_variable(sealing_key_place(self._settings))
                return ready.keyring if ready and ready.first is None else None
            except SealingKeyUnavailable as error:
                self._notify(SealingKeyAway(error.message))
            if pause == FIRST_PAUSE_SECONDS:
                await while_away()
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_PAUSE_SECONDS)

    async def verify_once(self, stored: StoredKeys) -> Ready | None:
        """Verify the sealing key; raises as ``verify``, and ``SealingKeyUnavailable``."""
        try:
            self._ready = await self._verify(stored)
        except SealingKeyMismatch as error:
            if self._is_shared:
                error = of_shared_database(error)
            if not self._settings.sealing.accept_mismatch:
                raise error from None
            self._logger.warning("sealing_key_mismatch_accepted", problem=error.message)
            self._ready = await self._begin(stored, None)
        self._stored = stored
        return self._ready

    async def _verify(self, stored: StoredKeys) -> Ready | None:
        place = sealing_key_place(self._settings)
        if self._is_shared:
            require_shared_key(place)
        if stored.data_keys:
            keyring = Keyring(self._load_wrapping_key(make=False))
            await keyring.load(stored.data_keys)
            return Ready(keyring)
        if stored.is_sealed:
            raise SealingKeyMismatch(LOST_DATA_KEYS)
        if not self._is_shared and self._marker.exists():
            raise SealingKeyMismatch(
                "lessor.db has no data keys, and the database of this data directory has had them: it is"
                " an older one, or somebody removed them"
            )
        before = None if self._is_shared else self._key_before_data_keys(stored, place)
        return await self._begin(stored, before)

    async def _begin(self, stored: StoredKeys, before: AesGcm | None) -> Ready | None:
        """Return a keyring with a first data key; None if its file would be there before the database.

        A key file without a database stops the next start.
        """
        place = sealing_key_place(self._settings)
        if stored.is_new and not is_there(place):
            return None
        keyring = Keyring(self._load_wrapping_key(make=True), before)
        first = await keyring.make()
        keyring.use(first.id)
        return Ready(keyring, first, before is not None)

    def _load_wrapping_key(self, *, make: bool) -> KeyEncryptionKey:
        """Return the key-encryption key; a second time without reading it: its variable was removed."""
        if self._wrapping is None:
            place = sealing_key_place(self._settings)
            self._wrapping = load_wrapping_key(self._settings, place, make=make)
        return self._wrapping

    async def open(self, store: StartedStore) -> Keyring:
        """Check the rows of ``store`` with the verified keyring; seal all of them if it has no data key yet.

        Raises:
            SealingKeyUnusable, OSError: The key file can't be created.
        """
        assert self._stored is not None, "the key was not verified"
        ready = self._ready or await self._begin(replace(self._stored, is_new=False), None)
        assert ready is not None
        values = 0
        try:
            if ready.first is None:
                await store.unlock(ready.keyring, accept=self._settings.sealing.accept_mismatch)
            else:
                values = await store.begin_keyring(ready.first, ready.keyring)
        except KeysChanged as changed:  # by another server
            await self.verify(_open_nothing, changed.stored)
            return await self.open(store)
        self._mark_sealed()
        if ready.first and (ready.is_upgrade or values):  # not a new database
            self._notify(RowsSealed(ready.first.id, values))
        return ready.keyring

    @property
    def _marker(self) -> Path:
        """Return the file that says that rows without MACs are not those of an earlier version.

        It is outside of the database: who can only write that can't have its rows sealed again.
        """
        return self._settings.data_dir / MARKER_FILE

    def _mark_sealed(self) -> None:
        if self._is_shared:
            return  # a database on PostgreSQL has had data keys from its first row on
        private_file.read_or_make(self._marker, lambda: b"the rows of lessor.db are sealed\n")

    def _key_before_data_keys(self, stored: StoredKeys, place: SealingKeyPlace) -> AesGcm | None:
        """Return the key of a database without data keys; None if it has no sealed values.

        It is in the data directory, or it is the one that ``sealing.key`` names now. The id of a damaged
        value is empty: it needs a key, but any key.

        Raises:
            SealingKeyMismatch: The key is missing, or is that of another database.
        """
        noted = stored.sealing_key_id
        known = {noted} if noted else set(map(key_id_of, stored.sealed_values))
        if not known:
            return None
        file = default_key_file(self._settings)
        found = [KeyFile.load(file).wrapping] if file.exists() else []
        if is_there(place):
            named = load_wrapping_key(self._settings, place, make=False)
            found += [named] if isinstance(named, LocalKey) else []
        if not found:
            raise SealingKeyMismatch(f"{file} is missing, and lessor.db has secrets sealed under that key")
        fits = next((one for one in found if one.id in known or not any(known)), None)
        if fits is None:
            titles = " and ".join(dict.fromkeys(one.title for one in found))
            raise SealingKeyMismatch(f"{titles} is not the key of lessor.db: it does not decrypt its secrets")
        return fits.cipher


async def _open_nothing() -> None:
    """Open no port while the key is away: they are open already, or the database is not shared."""


def of_shared_database(error: SealingKeyMismatch) -> SealingKeyMismatch:
    """Return an error about a sealing key with the fix for a PostgreSQL database."""
    fix = "set sealing.key to the key of the other servers, or of the backup that the database comes from"
    return SealingKeyMismatch(error.message, fix=fix)

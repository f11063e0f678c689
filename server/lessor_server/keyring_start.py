"""Opens the keyring of a database at a start; the first start of this version seals all rows.

It waits while AWS KMS is away. A key that does not fit the database ends the start, and nothing is changed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from lessor_server.adapters import private_file
from lessor_server.adapters.sealing.aesgcm import AesGcm, key_id_of
from lessor_server.adapters.sealing.key_file import KeyFile
from lessor_server.adapters.sealing.keyring import KeyEncryptionKey, Keyring
from lessor_server.adapters.sealing.kms import KmsKey
from lessor_server.adapters.sealing.local_key import LocalKey, read_variable
from lessor_server.adapters.sqlite.store import SqliteStore
from lessor_server.domain.errors.sealing import SealingKeyMismatch, SealingKeyUnavailable
from lessor_server.domain.events import RowsSealed, SealingKeyAway
from lessor_server.domain.sealing_key import SealingKeyKind, SealingKeyPlace
from lessor_server.engine.ports import Observer
from lessor_server.settings.model import Settings

SEALING_KEY_FILE, MARKER_FILE = "sealing-key", "rows-sealed"
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 30.0


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
        KeyFileBroken, OSError: The file can't be used.
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


@dataclass(frozen=True, slots=True)
class KeyringStart:
    """One start's opening of a keyring."""

    store: SqliteStore
    settings: Settings
    logger: FilteringBoundLogger
    notify: Observer

    async def wait(self, while_away: Callable[[], Awaitable[None]]) -> Keyring:
        """Return the open keyring; ``while_away`` is awaited once if KMS does not answer at first.

        Raises:
            SealingKeyMismatch: It does not fit. SealingKeyUnusable, KeyFileBroken, OSError: It is broken.
        """
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                keyring = await self.open()
                forget_variable(sealing_key_place(self.settings))
                return keyring
            except SealingKeyUnavailable as error:
                self.notify(SealingKeyAway(error.message))
            if pause == FIRST_PAUSE_SECONDS:
                await while_away()
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_PAUSE_SECONDS)

    async def open(self) -> Keyring:
        """Return the open keyring; raises as ``wait``, and ``SealingKeyUnavailable``."""
        try:
            return await self._open()
        except SealingKeyMismatch as error:
            if not self.settings.sealing.accept_mismatch:
                raise
            self.logger.warning("sealing_key_mismatch_accepted", problem=error.message)
        wrapping = load_wrapping_key(self.settings, sealing_key_place(self.settings), make=True)
        return await self._begin(wrapping, None)

    async def _open(self) -> Keyring:
        place = sealing_key_place(self.settings)
        stored = await self.store.list_data_keys()
        if stored:
            keyring = Keyring(load_wrapping_key(self.settings, place, make=False))
            await keyring.load(stored)
            await self.store.unlock(keyring)
            self._mark_sealed()
            return keyring
        if self._marker.exists():
            raise SealingKeyMismatch(
                "lessor.db has no data keys, and the database of this data directory has had them: it is"
                " an older one, or somebody removed them"
            )
        before = await self._key_before_data_keys(place)
        wrapping = load_wrapping_key(self.settings, place, make=True)
        return await self._begin(wrapping, before)

    @property
    def _marker(self) -> Path:
        """Return the file that says that rows without MACs are not those of an earlier version.

        It is outside of the database: who can only write that can't have its rows sealed again.
        """
        return self.settings.data_dir / MARKER_FILE

    def _mark_sealed(self) -> None:
        private_file.read_or_make(self._marker, lambda: b"the rows of lessor.db are sealed\n")

    async def _begin(self, wrapping: KeyEncryptionKey, before: AesGcm | None) -> Keyring:
        """Seal all rows under the first data key, in one transaction."""
        keyring = Keyring(wrapping, before)
        first = await keyring.make()
        keyring.use(first.id)
        values = await self.store.begin_keyring(first, keyring)
        self._mark_sealed()
        if before is not None or values:  # not a new database
            self.notify(RowsSealed(first.id, values))
        return keyring

    async def _key_before_data_keys(self, place: SealingKeyPlace) -> AesGcm | None:
        """Return the key of a database without data keys; None if it has no sealed values.

        It is in the data directory, or it is the one that ``sealing.key`` names now. The id of a damaged
        value is empty: it needs a key, but any key.

        Raises:
            SealingKeyMismatch: The key is missing, or is that of another database.
        """
        noted = await self.store.get_sealing_key_id()
        known = {noted} if noted else set(map(key_id_of, await self.store.list_sealed_values()))
        if not known:
            return None
        file = default_key_file(self.settings)
        found = [KeyFile.load(file).wrapping] if file.exists() else []
        if is_there(place):
            named = load_wrapping_key(self.settings, place, make=False)
            found += [named] if isinstance(named, LocalKey) else []
        if not found:
            raise SealingKeyMismatch(f"{file} is missing, and lessor.db has secrets sealed under that key")
        fits = next((one for one in found if one.id in known or not any(known)), None)
        if fits is None:
            titles = " and ".join(dict.fromkeys(one.title for one in found))
            raise SealingKeyMismatch(f"{titles} is not the key of lessor.db: it does not decrypt its secrets")
        return fits.cipher

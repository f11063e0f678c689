"""Checks the database and its sealing key, without a change of either."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final

from lessor.findings import Finding
from lessor_server.adapters.clock import SystemClock
from lessor_server.adapters.sealing.key_file import require_no_key_without_database
from lessor_server.adapters.sealing.keyring import Keyring
from lessor_server.adapters.sql.stored_keys import LOST_DATA_KEYS, StoredKeys
from lessor_server.adapters.sqlite.migrate import migrations
from lessor_server.adapters.sqlite.store import FILE as DATABASE_FILE
from lessor_server.adapters.sqlite.store import SqliteStore, open_store
from lessor_server.adapters.sqlite.stored_keys import read_stored_keys
from lessor_server.commands.deep_check.machine import MIN_FREE_BYTES
from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.errors.sealing import SealingKeyMismatch, SealingKeyUnavailable
from lessor_server.keyring_start import (
    MARKER_FILE,
    default_key_file,
    is_there,
    load_wrapping_key,
    of_shared_database,
    require_shared_key,
    sealing_key_place,
)
from lessor_server.settings.model import Settings

KEY_SECONDS: Final = 15.0
"""The timeout of AWS KMS."""
_MAX_ROWS: Final = 5
_LOST_DATABASE: Final = (
    f"{MARKER_FILE} says that the database had data keys, and it has none: it is another one, or was lost"
)
_KMS_FIX: Final = (
    "give the server's process AWS credentials that may call kms:Encrypt and kms:Decrypt with the key, enable"
    " the key, and check the network to AWS KMS"
)
_FILES: Final = (DATABASE_FILE, f"{DATABASE_FILE}-wal")


async def check_key(settings: Settings, stored: StoredKeys) -> tuple[Finding, Keyring | None]:
    """Check that the sealing key decrypts the data keys; return the keyring if it does."""
    place = sealing_key_place(settings)
    try:
        if settings.store.is_shared:
            require_shared_key(place)
        elif stored.is_new and settings.sealing.key is None:
            require_no_key_without_database(default_key_file(settings), settings.data_dir / DATABASE_FILE)
        if not stored.data_keys and stored.is_sealed:
            raise SealingKeyMismatch(LOST_DATA_KEYS)
        has_marker = not settings.store.is_shared and (settings.data_dir / MARKER_FILE).exists()
        if not stored.data_keys and has_marker:
            raise SealingKeyMismatch(_LOST_DATABASE)
        if not is_there(place) and stored.is_new:
            return Finding.good("key", f"{place} does not exist; the first start creates it"), None
        keyring = Keyring(load_wrapping_key(settings, place, make=False))
        async with asyncio.timeout(KEY_SECONDS):
            if stored.data_keys:
                await keyring.load(stored.data_keys)
            else:
                await keyring.make()
    except TimeoutError:
        return Finding.bad("key", f"{place} did not answer within {KEY_SECONDS:g} s", _KMS_FIX), None
    except SealingKeyUnavailable as error:
        return Finding.bad("key", error.message, _KMS_FIX), None
    except LessorError as error:
        if settings.store.is_shared and isinstance(error, SealingKeyMismatch):
            error = of_shared_database(error)
        return Finding.bad("key", error.message, error.fix), None
    except OSError as error:
        fix = "let the server's user read it"
        return Finding.bad("key", f"{place} can't be read: {error.strerror}", fix), None
    if not stored.data_keys:
        return Finding.good("key", f"{place} can be used"), None
    return Finding.good("key", f"{place} decrypts the data keys"), keyring


@asynccontextmanager
async def open_file_copies(folder: Path) -> AsyncIterator[Path]:
    """Copy the database of a data directory, and its log, to a directory below it while the block runs.

    Whatever opens a database may change it: SQLite finishes what a killed server began, and a start
    migrates. No lock is taken, because that would stop a server that starts meanwhile.

    Raises:
        OSError: There is no room, or a file can't be read.
    """
    files = [path for name in _FILES if (path := folder / name).exists()]
    size = sum(path.stat().st_size for path in files)
    if files and shutil.disk_usage(folder).free < size + MIN_FREE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    if not files:
        yield folder / ".check-nothing"  # there may be no directory that can be written to
        return
    with tempfile.TemporaryDirectory(prefix=".check-", dir=folder) as copy:
        for path in files:
            await asyncio.to_thread(shutil.copyfile, path, Path(copy) / path.name)
        yield Path(copy)


async def check_schema(copy: Path, *, may_migrate: bool) -> tuple[Finding, StoredKeys | None]:
    """Check that this version can use the database; return what it says of its keys if so.

    ``may_migrate`` says whether a start migrates an older database.
    """
    newest = migrations()[-1][0]
    try:
        version, stored = await asyncio.to_thread(_read_database, copy / DATABASE_FILE)
    except LessorError as error:
        return Finding.bad("schema", error.message.replace(f"{copy}/", ""), error.fix), None
    if stored.is_new:
        return Finding.good("schema", "there is no database; the first start creates it"), stored
    if version < newest and not may_migrate:
        text = f"the database has schema {version}, and this version needs {newest}"
        return Finding.bad("schema", text, "make a backup, and remove store.migrate = false"), None
    if version < newest:
        text = f"the database has schema {version}; the next start migrates it to {newest}"
        return Finding.doubtful("schema", text, "make a backup before that"), stored
    return Finding.good("schema", f"the database has schema {version}, which is this version's"), stored


def _read_database(file: Path) -> tuple[int, StoredKeys]:
    """Return the schema's number and the keys of a database that is a copy."""
    stored = read_stored_keys(file)
    if stored.is_new:
        return 0, stored
    with closing(sqlite3.connect(file)) as connection:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version, stored


@asynccontextmanager
async def open_copy(copy: Path, keyring: Keyring) -> AsyncIterator[SqliteStore]:
    """Serve the copy of a database while the block runs; raises ``LessorError`` if it can't be used."""

    async def verify(_: StoredKeys) -> Keyring:
        return keyring

    async with open_store(copy, SystemClock(), verify=verify) as store:
        await store.unlock(keyring)
        yield store


async def check_rows(store: SqliteStore) -> list[Finding]:
    """Check for a hold of expiry, for stuck revocations, and for rows that can't be read or were edited."""
    status, found = await store.status(), list[Finding]()
    if stuck := (await store.measure_leases()).stuck:
        text = f"AWS refuses to revoke {stuck} leases, whose keys may still work"
        found.append(Finding.doubtful("leases", text, "see docs/on-call.md, LessorLeasesStuck"))
    if status.expiry_hold:
        fix = "when its cause is gone, run lessor expiry resume"
        found.append(Finding.doubtful("expiry", f"expiries are held: {status.expiry_hold}", fix))
    for row in status.unreadable_rows[:_MAX_ROWS]:
        fix = "repair it: docs/running.md, When a row cannot be read"
        found.append(Finding.doubtful("rows", f"a row can't be read: {row}", fix))
    for row in status.tampered_rows[:_MAX_ROWS]:
        fix = "find out who edited it, then repair it: docs/sealing.md"
        found.append(Finding.bad("rows", f"a row was not written by Lessor: {row}", fix))
    return found

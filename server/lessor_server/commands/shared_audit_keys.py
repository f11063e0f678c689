"""The audit keys of servers that share a PostgreSQL database: the commands read them there."""

from __future__ import annotations

from lessor_server.adapters.audit.key import AuditKey, AuditKeyBroken
from lessor_server.adapters.postgres.store import StoredAuditKeys, read_audit_keys
from lessor_server.adapters.sealing.keyring import Keyring
from lessor_server.adapters.sql.keyring import HASH_KEY_CONTEXT, HASH_KEY_VERSION
from lessor_server.domain.errors.sealing import SealingKeyMismatch
from lessor_server.keyring_start import load_wrapping_key, of_shared_database, sealing_key_place
from lessor_server.settings.model import Settings
from lessor_server.store_start import target_of

_FIX = "start a server with audit.file, audit.stdout or audit.socket once"


async def hash_with_shared_key(settings: Settings, value: str) -> str:
    """Return what stands for a value in the records of all servers of the database.

    Raises:
        AuditKeyBroken: There is no key of the hashes yet. SealBroken: It was changed.
        DatabaseRefused: The database cannot be used.
        SealingKeyMismatch, SealingKeyUnusable, SealingKeyUnavailable, OSError: The sealing key can't be used.
    """
    stored = await _read(settings)
    if stored.sealed_hash_key is None:
        raise AuditKeyBroken("the database has no key of the hashes yet", fix=_FIX)
    try:
        keyring = Keyring(load_wrapping_key(settings, sealing_key_place(settings), make=False))
        await keyring.load(stored.data_keys)
    except SealingKeyMismatch as error:
        raise of_shared_database(error) from None
    hash_key = keyring.open(stored.sealed_hash_key, HASH_KEY_CONTEXT, HASH_KEY_VERSION)
    return AuditKey.draw().hashing_with(hash_key).hash_value(value)


async def list_public_keys(settings: Settings) -> list[tuple[str, int]]:
    """Return the public keys of all servers' checkpoints, each with its first use in microseconds.

    Raises:
        AuditKeyBroken: There are none yet. DatabaseRefused: The database cannot be used.
    """
    stored = await _read(settings)
    if not stored.public_keys:
        raise AuditKeyBroken("the database has no audit keys yet", fix=_FIX)
    return list(stored.public_keys)


async def _read(settings: Settings) -> StoredAuditKeys:
    return await read_audit_keys(target_of(settings.store))

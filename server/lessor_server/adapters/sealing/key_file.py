"""The file of a sealing key."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from lessor_server.adapters import private_file
from lessor_server.adapters.sealing.aesgcm import KEY_SIZE, key_id
from lessor_server.adapters.sealing.local_key import LocalKey
from lessor_server.domain.errors.sealing import SealingKeyMismatch, SealingKeyUnusable


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A sealing key and its file, mode 0600."""

    path: Path
    key: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """Return the key's id, which is stored in the database."""
        return key_id(self.key).hex()

    @property
    def wrapping(self) -> LocalKey:
        """Return it as a key-encryption key."""
        return LocalKey(self.key, str(self.path))

    @classmethod
    def load_or_make(cls, path: Path) -> Self:
        """Return the key in ``path``; the first start creates one of 32 random bytes, durably.

        Raises:
            SealingKeyUnusable: Others may read the file, or it does not have 32 bytes.
            OSError: It can't be read or created.
        """
        try:
            key = private_file.read_or_make(path, lambda: os.urandom(KEY_SIZE))
        except private_file.NotPrivate as error:
            raise SealingKeyUnusable(error.problem, fix=error.fix) from error
        if len(key) != KEY_SIZE:
            problem = f"{path} has {len(key)} bytes, not {KEY_SIZE}"
            raise SealingKeyUnusable(problem, fix="restore the previous key file")
        return cls(path, key)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the key in ``path``, which must be there.

        Raises:
            SealingKeyMismatch: The file is missing. SealingKeyUnusable, OSError: As above.
        """
        if not path.exists():
            raise SealingKeyMismatch(f"{path} is missing, and the database has secrets sealed under that key")
        return cls.load_or_make(path)


def require_no_key_without_database(key_file: Path, database: Path) -> None:
    """Refuse a key without a database, or with an empty one, because the database may have been lost.

    The key is checked first: another process that starts there creates its key after its database.

    Raises:
        SealingKeyMismatch: There is a key, but no database.
    """
    if key_file.exists() and not (database.exists() and database.stat().st_size):
        raise SealingKeyMismatch(f"{key_file} exists, but {database.name} is missing or empty")

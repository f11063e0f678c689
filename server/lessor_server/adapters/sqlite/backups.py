"""Writes complete, durable copies of the database below the data directory, under unused names.

A copy is written under another name in the same folder and then renamed, so a file with a backup's name is
complete. A failure leaves nothing behind, and no error text contains the server's paths.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from lessor_server.adapters import durability
from lessor_server.adapters.sql.login_statements import DROP_LOGIN_TOKENS
from lessor_server.adapters.sql.row_macs import RowMacs
from lessor_server.adapters.sqlite.transaction import SqliteTransaction, run_job
from lessor_server.domain.errors.base import (
    AlreadyExists,
    Invalid,
    StoreUnavailable,
    Violation,
    shown,
)
from lessor_server.domain.own_files import is_own_file

RESTORED: Final = "STORE_ROLLED_BACK"

_HALF: Final = "lessor.copy"
"""The name of an incomplete copy; it is reserved, and there is one at a time."""

_PART: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?")
_RESERVED: Final = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
"""Device names on Windows, also with an extension, as a copy may be moved there.

Source: Microsoft, "Naming Files, Paths, and Namespaces".
"""
_FIX: Final = (
    "give a path below the data directory: folders and a file, separated by /, whose names have letters,"
    " digits and . _ - alone, begin with a letter, a digit or _ and end without a ."
)

_OF_THE_DISK: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG))
_FULL: Final = frozenset((sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR))


def write(connection: sqlite3.Connection, folder: Path, name: str, macs: RowMacs) -> tuple[str, int]:
    """Copy one state of the whole database to ``name`` below ``folder``; return its path and size in bytes.

    Raises:
        Invalid: The path leads outside, names a file of the server's own, or no file can be created there.
        AlreadyExists: Something has the name.
        StoreUnavailable: The disk is full or fails.
    """
    try:
        folder = folder.resolve()
        target = _target(folder, name)
        if os.path.lexists(target):
            raise AlreadyExists("file", name)
        with _folders_of(target):
            size = copy_database(connection, target, macs)
        return str(target.relative_to(folder)), size
    except sqlite3.Error as error:
        code, said = (
            getattr(error, "sqlite_errorcode", 0),
            getattr(error, "sqlite_errorname", "SQLite failed"),
        )
        raise _failure(said, of_the_disk=code & 0xFF in _FULL) from None
    except (OSError, RuntimeError) as error:  # pathlib raises RuntimeError for a loop of links
        said = getattr(error, "strerror", None) or "its links form a loop"
        number = getattr(error, "errno", None)
        raise _failure(said, of_the_disk=number in _OF_THE_DISK) from None


def copy_database(connection: sqlite3.Connection, target: Path, macs: RowMacs) -> int:
    """Copy one state of the whole database to ``target``, which is replaced; return its size in bytes.

    A start with the copy holds expiries. Raises ``sqlite3.Error`` or ``OSError``, and leaves no partial file.
    """
    with _half_of(target) as half:
        size = _copy(connection, half, macs)
        half.rename(target)
        durability.sync(target.parent)
    return size


def _target(folder: Path, name: str) -> Path:
    """Return the path for ``name``, or raise ``Invalid``."""
    parts = name.split("/")
    if not all(map(_PART.fullmatch, parts)):
        raise Invalid((Violation("path", f"{shown(name)} has a name that some systems don't accept", _FIX),))
    if any(map(_RESERVED.fullmatch, parts)):
        raise Invalid((Violation("path", f"{shown(name)} is the name of a device on Windows", _FIX),))
    target = (folder / name).resolve()
    if target == folder or not target.is_relative_to(folder) or _is_ours(target, folder):
        raise Invalid(
            (
                Violation(
                    "path", f"{shown(name)} is outside the data directory, or is the server's own file", _FIX
                ),
            )
        )
    return target


def _is_ours(target: Path, folder: Path) -> bool:
    """Return whether a path is, or is below, that of one of the server's own files, regardless of case."""
    parts = target.relative_to(folder).parts
    return is_own_file(parts[0]) or parts[-1].lower() == _HALF


def _failure(why: str, *, of_the_disk: bool) -> StoreUnavailable | Invalid:
    """Return the error for a copy that was not written; ``why`` names no path."""
    if of_the_disk:
        return StoreUnavailable(f"the copy was not written: {why}", retry_in=60.0)
    return Invalid((Violation("path", f"no copy can be written there: {why}", "name another file"),))


@contextmanager
def _folders_of(target: Path) -> Iterator[None]:
    """Create the missing folders of ``target``; remove them if the block fails."""
    missing = [one for one in (target.parent, *target.parent.parents) if not one.exists()]
    made: list[Path] = []
    try:
        for one in reversed(missing):
            one.mkdir(mode=0o700)
            made.append(one)
        yield
    except BaseException:
        for one in reversed(made):
            with suppress(OSError):
                one.rmdir()
        raise


@contextmanager
def _half_of(target: Path) -> Iterator[Path]:
    """Yield the temporary file for the copy, next to ``target``; it is deleted after the block."""
    half = target.with_name(_HALF)
    _remove(half)  # a killed process may have left one
    try:
        os.close(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        yield half
    finally:
        _remove(half)


def _remove(half: Path) -> None:
    for one in (half, half.with_name(f"{half.name}-journal"), half.with_name(f"{half.name}-wal")):
        one.unlink(missing_ok=True)


def _copy(connection: sqlite3.Connection, half: Path, macs: RowMacs) -> int:
    connection.execute("VACUUM INTO ?", (str(half),))
    with closing(sqlite3.connect(half, isolation_level=None)) as copy:
        # A copy lacks later issues, renewals and revocations, so a start with it holds expiry.
        copy.execute("BEGIN")
        run_job(macs.put_hold(SqliteTransaction(copy), RESTORED))
        if copy.execute("SELECT 1 FROM sqlite_master WHERE name = 'login_tokens'").fetchone():
            copy.execute(DROP_LOGIN_TOKENS)  # one that is revoked later must not come back
        copy.execute("COMMIT")
    durability.sync(half)
    return half.stat().st_size

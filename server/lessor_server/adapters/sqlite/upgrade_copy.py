"""Writes a copy of the database before an upgrade, beside it, for the operator of this machine."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lessor_server.adapters.sql.row_macs import RowMacs
from lessor_server.adapters.sqlite.backups import copy_database
from lessor_server.domain.errors.base import LessorError


class CopyBeforeUpgradeFailed(LessorError):
    """The server does not start: the database of an earlier version can't be copied before its upgrade."""

    reason = "COPY_BEFORE_UPGRADE_FAILED"
    fix = "make room in the data directory for a second copy of lessor.db; nothing was changed"


def write_before_upgrade(connection: sqlite3.Connection, file: Path, first: int, macs: RowMacs) -> str:
    """Copy the database to a file beside it, before the migrations from ``first`` on; return its name.

    An earlier copy before the same migration is replaced.

    Raises:
        CopyBeforeUpgradeFailed: The disk is full or fails. The text has the file's path.
    """
    target = file.with_name(f"{file.name}.before-{first:04}")
    try:
        copy_database(connection, target, macs)
    except (sqlite3.Error, OSError) as error:
        raise CopyBeforeUpgradeFailed(f"{target} was not written: {error}") from error
    return target.name

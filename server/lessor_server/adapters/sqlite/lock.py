"""Allows one server for each data directory, by a lock that the kernel releases when the process ends."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lessor_server.domain.errors.base import LessorError

LOCK_FILE: Final = "lessor.lock"


class DirectoryLocked(LessorError):
    """Another server uses the data directory."""

    reason = "DATA_DIRECTORY_LOCKED"
    fix = "stop that server, or give this one a data directory of its own with LESSOR_DATA_DIR"


class LockUnusable(LessorError):
    """The lock file can't be used."""

    reason = "LOCK_FILE_UNUSABLE"
    fix = "remove the file of that name, or set another data directory with LESSOR_DATA_DIR"


@contextmanager
def directory_lock(folder: Path) -> Iterator[None]:
    """Hold ``folder/lessor.lock`` while the block runs.

    Raises:
        DirectoryLocked: Another server holds it, which the error names.
        LockUnusable: It is not a regular file, or cannot be opened.
    """
    path = folder / LOCK_FILE
    try:
        # O_NONBLOCK: the start must not wait for a device.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LockUnusable(f"{path} cannot be opened: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise LockUnusable(f"{path} is not a regular file")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise DirectoryLocked(f"{folder} is used by the server with pid {pid}") from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)

"""Small files that only their owner may read, created atomically, for keys and tokens."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from lessor_server.adapters import durability

MAX_BYTES: Final = 4096
"""The maximum size in bytes; a larger file is not ours."""
_FIX: Final = "restore the previous file, or set another data directory with LESSOR_DATA_DIR"


class NotPrivate(Exception):
    """The file is not private: another user may have read or written its content."""

    def __init__(self, problem: str, fix: str) -> None:
        """Keep both, for the error of the caller."""
        super().__init__(f"{problem}; {fix}")
        self.problem = problem
        self.fix = fix


def read_or_make(path: Path, draw: Callable[[], bytes]) -> bytes:
    """Return the content of ``path``; if it does not exist, create it durably with ``draw``'s bytes.

    If two processes create it at the same time, both return the content that stays.

    Raises:
        NotPrivate: Others may read or write it, except a group that root lets read. It is not a regular
            file, or it is larger than 4,096 bytes.
        OSError: It can't be read or created.
    """
    if not path.exists():
        _make(path, draw())
    return read_private(path)


def read_private(path: Path) -> bytes:
    """Return the content of a private file; raises as ``read_or_make``."""
    # The start must not wait for the writer of a pipe.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotPrivate(f"{path} is not a regular file", _FIX)
        if status.st_mode & (0o077 & ~_group_read(status)):
            mode = stat.S_IMODE(status.st_mode)
            raise NotPrivate(f"{path} is open to others (mode {mode:04o})", "run chmod 600 on it")
        if status.st_uid not in {os.geteuid(), 0}:
            raise NotPrivate(f"{path} belongs to another user", f"run chown {os.geteuid()} on it")
        content = os.read(descriptor, MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_BYTES:
        raise NotPrivate(f"{path} has more than {MAX_BYTES} bytes", _FIX)
    return content


def _group_read(status: os.stat_result) -> int:
    """Return the mode's bit for the group if the group may read, which root decides for files of its own.

    Kubernetes mounts a Secret as root:fsGroup 0440 (Kubernetes, "Configure a Security Context"). systemd
    gives a credential to the unit's user by an ACL, whose mask replaces the group's bits (acl(5)).
    """
    return stat.S_IRGRP if status.st_uid == 0 != os.geteuid() else 0


def _make(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` unless a file is there; a crash leaves no partial file.

    A link is atomic and fails if there is a file, which a rename would replace.
    """
    half = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        handle = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:  # an error names the file that somebody asked for
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _link(half, path)
    finally:
        half.unlink()
    durability.sync(path.parent)


def _link(half: Path, path: Path) -> None:
    """Give the partial file its name, unless another process was faster."""
    try:
        path.hardlink_to(half)
    except FileExistsError:
        return

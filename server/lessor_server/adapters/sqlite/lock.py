"""One server for each data directory, by a lock that the kernel drops when the process ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lessor_server.domain.errors import LessorError


class DirectoryLocked(LessorError):
    """Another server works on the data directory."""

    reason = "DATA_DIRECTORY_LOCKED"
    mend = "stop that server, or give this one a data directory of its own"


@contextmanager
def directory_lock(folder: Path) -> Iterator[None]:
    """Hold ``folder/lessor.lock`` while the block runs, or raise ``DirectoryLocked`` naming its holder."""
    descriptor = os.open(folder / "lessor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
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

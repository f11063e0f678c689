"""Sinks of a test: a file in memory that fails when a test wants, and the log that writes to it."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from lessor_server.adapters.audit.entries import AuditClock
from lessor_server.adapters.audit.key import AuditKey
from lessor_server.adapters.audit.log import AuditLog
from lessor_server.adapters.audit.state import AuditState
from lessor_server.adapters.audit.targets import Target
from tests.support.recording import Recording

TICK = 0.002


class FastClock:
    """A clock that goes on by a second whenever somebody looks."""

    def __init__(self) -> None:
        """Begin at a fixed instant."""
        self._seconds = itertools.count(1_700_000_000)

    def wall_us(self) -> int:
        """Return the next second."""
        return next(self._seconds) * 10**6

    def boot_us(self) -> int:
        """Return the next second."""
        return next(self._seconds) * 10**6


class HandClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        """Begin at a fixed instant."""
        self.seconds = 1_700_000_000.0

    def wall_us(self) -> int:
        """Return the time."""
        return int(self.seconds * 1e6)

    def boot_us(self) -> int:
        """Return the time."""
        return int(self.seconds * 1e6)


class MemoryFile:
    """A file in memory; ``room`` is how many bytes fit until it fails with ``error``."""

    is_stream = False
    is_new = False

    def __init__(self, content: bytes = b"", room: int = 1 << 60, name: str = "file") -> None:
        """Begin with ``content``."""
        self.name = name
        self.content = bytearray(content)
        self.old: list[bytes] = []
        self.room = room
        self.error = errno.ENOSPC
        self.short = 0
        """The maximum of one write; 0: none."""
        self.stuck = threading.Event()
        self.stuck.set()
        self.synced = 0
        self.fails_to_sync = False
        self.opens = 0

    def open(self) -> bytes:
        """Return the content."""
        self.opens += 1
        return bytes(self.content)

    def rotate(self) -> None:
        """Put the content aside, as logrotate does."""
        self.old.append(bytes(self.content))
        self.content = bytearray()

    def write(self, data: memoryview) -> int:
        """Take what fits, once the file is not stuck."""
        self.stuck.wait()
        fits = min(len(data), self.room, self.short or len(data))
        if not fits:
            raise OSError(self.error, os.strerror(self.error))
        self.room -= fits
        self.content += data[:fits]
        return fits

    def sync(self) -> None:
        """Count."""
        if self.fails_to_sync:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.synced += 1

    @property
    def mark(self) -> str:
        """Return the number of the file."""
        return str(len(self.old))

    def read_renamed(self, mark: str) -> bytes:
        """Return a file that was put aside."""
        return self.old[int(mark)]

    def confirm(self) -> None:
        """Do nothing."""

    def find_loss(self, _: int) -> str:
        """Return nothing."""
        return ""

    def count_added(self) -> int:
        """Return 0."""
        return 0

    def has_moved(self) -> bool:
        """Return False."""
        return False

    def close(self) -> None:
        """Do nothing."""


@asynccontextmanager
async def audit_log(
    folder: Path,
    *targets: Target,
    sync: bool = False,
    boot: str = "boot",
    clock: AuditClock | None = None,
) -> AsyncIterator[tuple[AuditLog, Recording]]:
    """Run a log with its key and state in ``folder``."""
    notes = Recording()
    key = AuditKey.load_or_make(folder)
    state = AuditState(folder, lambda: boot)
    log = AuditLog(targets, state, key, clock or FastClock(), notes, sync=sync, tick=TICK)
    await log.start()
    try:
        yield log, notes
    finally:
        for target in targets:
            if isinstance(target, MemoryFile):
                target.stuck.set()
        await log.close()


def public_key(folder: Path) -> str:
    """Return the public key of a data directory."""
    return AuditKey.load(folder).public

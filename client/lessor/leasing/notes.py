"""Notes of which leases a process holds, so that the leases of a process that was killed can be revoked.

A note has ids and no key. Its process holds a lock on it: if the lock is free, the process has ended.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from lessor.leasing.private_files import (
    MAX_BYTES,
    disk_folder,
    make_private_folder,
    runtime_folder,
    try_lock,
)

PATTERN: Final = "exec-*.json"


@dataclass(frozen=True, slots=True)
class Holder:
    """At which server, and as whom, leases are held: only there and by this caller can they be revoked."""

    address: str
    caller: str


class Note:
    """The note of this process."""

    def __init__(self, path: Path, descriptor: int, holder: Holder) -> None:
        """Keep an open file that this process has locked."""
        self._path = path
        self._descriptor = descriptor
        self._holder = holder

    @classmethod
    def create(cls, folder: Path, holder: Holder) -> Self:
        """Create the note of this process; raises ``OSError``."""
        # A process id alone would replace the note of a process that was killed, as in a container, where
        # ids begin again.
        descriptor, name = tempfile.mkstemp(".new", f"exec-{os.getpid()}-", folder)
        new = Path(name)
        path = new.with_suffix(".json")
        try_lock(descriptor)
        new.replace(path)  # a note is never seen without its lock
        return cls(path, descriptor, holder)

    def write(self, lease_ids: Iterable[str]) -> None:
        """Replace the leases in the note; a full disk is ignored, as the leases end by their lifetime."""
        holder = self._holder
        content = {"address": holder.address, "caller": holder.caller, "leases": list(lease_ids)}
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(content).encode(), 0)

    def close(self, *, remove: bool) -> None:
        """Release the lock, and remove the note if no lease is left."""
        if remove:
            _remove(self._path)
        os.close(self._descriptor)


@dataclass(frozen=True, slots=True)
class DeadNote:
    """The note of a process that has ended; locked until ``close``, so that only one process handles it."""

    path: Path
    descriptor: int
    holder: Holder
    lease_ids: tuple[str, ...]

    def close(self, *, remove: bool) -> None:
        """Release the lock, and remove the note if its leases are revoked."""
        if remove:
            _remove(self.path)
        os.close(self.descriptor)


def note_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of notes, created if it does not exist; raises ``NotPrivate``."""
    folder = runtime_folder(environ) or disk_folder(environ)
    make_private_folder(folder)
    return folder


def dead_notes(folder: Path) -> Iterator[DeadNote]:
    """Yield the notes of processes that have ended; remove those that can't be read."""
    for path in sorted(folder.glob(PATTERN)):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            continue
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not try_lock(descriptor):
            os.close(descriptor)
            continue
        note = _parsed(path, descriptor)
        if note is None:
            _remove(path)
            os.close(descriptor)
        else:
            yield note


def _parsed(path: Path, descriptor: int) -> DeadNote | None:
    try:
        found = json.loads(os.read(descriptor, MAX_BYTES))
        holder = Holder(str(found["address"]), str(found["caller"]))
        lease_ids = tuple(str(one) for one in found["leases"])
        "".join((*lease_ids, holder.address, holder.caller)).encode()  # half a character can't be sent
        return DeadNote(path, descriptor, holder, lease_ids)
    except (ValueError, LookupError, TypeError, OSError, RecursionError):
        return None


def _remove(path: Path) -> None:
    """Remove a note; one that stays is handled again by the next process."""
    with suppress(OSError):
        path.unlink(missing_ok=True)

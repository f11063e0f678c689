"""Where a sink writes its lines: a file, standard output, or a unix stream socket.

Each target is used by one thread, which may wait. A failure of any kind is an ``OSError``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import sys
import termios
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from lessor_server.adapters import durability

SOCKET_SECONDS: Final = 1.0
"""The timeout of each write to the socket."""
UNREAD_SECONDS: Final = 5.0
CONFIRM_POLL_SECONDS: Final = 0.002
SEND_BUFFER: Final = 16 << 10
"""How much the kernel may keep for a collector that does not read; Linux takes twice as much."""
TAIL_BYTES: Final = 4 << 20
"""How much of a file's end is read to find its last record."""
_FILE_MODE: Final = 0o600


class Target(Protocol):
    """The place of a sink's lines."""

    name: str
    is_stream: bool
    """Whether it goes on after an open where it ended, as one stream."""
    is_new: bool
    """Whether the last open created it: a new file can have the mark of one that is gone."""

    def open(self) -> bytes:
        """Open it; return the end of what it holds, at most 4 MiB from the start of a line."""
        ...

    def write(self, data: memoryview) -> int:
        """Write some bytes; return how many were written."""
        ...

    def sync(self) -> None:
        """Make durable what was written, if the target can."""
        ...

    @property
    def mark(self) -> str:
        """Return what identifies the open file, also after it was renamed; empty for a stream."""
        ...

    def read_renamed(self, mark: str) -> bytes:
        """Return the end of the file in the same folder that has this mark; empty if there is none."""
        ...

    def confirm(self) -> None:
        """Wait until the other side has taken what was written; raise ``OSError`` if it does not."""
        ...

    def find_loss(self, now_us: int) -> str:
        """Return what has happened to what was written by now, empty if it is still there.

        Raises:
            OSError: Nobody reads it.
        """
        ...

    def count_added(self) -> int:
        """Return how many bytes someone else has added since the open."""
        ...

    def has_moved(self) -> bool:
        """Return whether the path leads to another file by now, or to none."""
        ...

    def close(self) -> None:
        """Close it; ``open`` may follow."""
        ...


class FileTarget:
    """Appends to a file, which it creates with mode 0600."""

    name = "file"
    is_stream = False

    def __init__(self, path: Path) -> None:
        """Write to ``path``."""
        self.is_new = False
        self._path = path
        self._descriptor = -1
        self._size = 0
        """How long the file must be."""

    def open(self) -> bytes:
        """Open the file, and create it if it does not exist; return its end."""
        self.close()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        self.is_new = not os.path.lexists(self._path)
        self._descriptor = os.open(self._path, flags, _FILE_MODE)
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise OSError(errno.EINVAL, "it is not a regular file", str(self._path))
        self._size = status.st_size
        if self.is_new:
            with suppress(OSError):  # a folder that may be written to may not be read
                durability.sync(self._path.parent)
        return _read_end(self._descriptor, status.st_size)

    def write(self, data: memoryview) -> int:
        """Append some bytes."""
        count = os.write(self._descriptor, data)
        self._size += count
        return count

    def sync(self) -> None:
        """Make the content durable."""
        os.fdatasync(self._descriptor)

    @property
    def mark(self) -> str:
        """Return the file's inode."""
        return _mark_of(os.fstat(self._descriptor))

    def read_renamed(self, mark: str) -> bytes:
        """Look for the inode in the folder of the file."""
        for path in self._path.parent.iterdir():
            with suppress(OSError):
                status = path.lstat()
                if _mark_of(status) == mark and stat.S_ISREG(status.st_mode):
                    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
                    try:
                        return _read_end(descriptor, status.st_size)
                    finally:
                        os.close(descriptor)
        return b""

    def confirm(self) -> None:
        """Do nothing: the file has it."""

    def find_loss(self, _: int) -> str:
        """Look at the open file."""
        status = os.fstat(self._descriptor)
        if not status.st_nlink:
            return "it was removed while it was written to"
        if status.st_size < self._size:
            return f"it was cut from {self._size} to {status.st_size} bytes while it was written to"
        return ""

    def count_added(self) -> int:
        """Compare the size of the open file."""
        return max(0, os.fstat(self._descriptor).st_size - self._size)

    def has_moved(self) -> bool:
        """Compare the path with the open file."""
        try:
            return _mark_of(self._path.stat()) != self.mark
        except FileNotFoundError:
            return True

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with suppress(OSError):
                os.close(descriptor)


def _mark_of(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}"


def _read_end(descriptor: int, size: int) -> bytes:
    """Return the end of a file of this size, from the start of a line if one begins there."""
    start, tail = max(0, size - TAIL_BYTES), b""
    while start + len(tail) < size:
        piece = os.pread(descriptor, TAIL_BYTES, start + len(tail))
        if not piece:
            break
        tail += piece
    return (tail.partition(b"\n")[2] if start else b"") or tail


class _Stream:
    """What cannot be read again, and has no place that could be lost."""

    is_stream = True
    is_new = False
    mark = ""

    def sync(self) -> None:
        """Do nothing: a stream can't be made durable."""

    def read_renamed(self, _: str) -> bytes:
        """Return nothing."""
        return b""

    def confirm(self) -> None:
        """Do nothing."""

    def find_loss(self, _: int) -> str:
        """Return nothing: a reader that has gone shows at the next write."""
        return ""

    def count_added(self) -> int:
        """Return 0: only the server writes to it, or nobody knows."""
        return 0

    def has_moved(self) -> bool:
        """Return False."""
        return False


class StdoutTarget(_Stream):
    """Writes to standard output."""

    name = "stdout"

    def __init__(self, descriptor: int = 1) -> None:
        """Write to a descriptor of this process."""
        self._descriptor = descriptor

    def open(self) -> bytes:
        """Return nothing: what was written before can't be read."""
        return b""

    def write(self, data: memoryview) -> int:
        """Write some bytes."""
        return os.write(self._descriptor, data)

    def close(self) -> None:
        """Leave standard output open."""


class SocketTarget(_Stream):
    """Writes to a unix stream socket, on which a collector listens.

    What the collector has not read yet waits in the kernel, which says how much that is. So a collector that
    is stuck is noticed, although the kernel still takes what is written.
    """

    name = "socket"

    def __init__(
        self, path: Path, seconds: float = SOCKET_SECONDS, unread_seconds: float = UNREAD_SECONDS
    ) -> None:
        """Connect to ``path``; a write fails after ``seconds`` without progress.

        If nothing has been read for ``unread_seconds`` although something waits, the socket has failed.
        """
        self._path = path
        self._seconds = seconds
        self._unread_seconds = unread_seconds
        self._socket: socket.socket | None = None
        self._sent = self._sent_then = self._unread_then = 0
        self._read_us = 0
        """When something was last read, as far as is known, and what was sent and unread then."""

    def open(self) -> bytes:
        """Connect."""
        self.close()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self._seconds)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        try:
            connection.connect(str(self._path))
        except OSError as error:
            connection.close()
            full = isinstance(error, BlockingIOError)  # its queue of connections
            text = "the collector accepts no connection" if full else error.strerror or "it does not answer"
            raise OSError(error.errno, text, str(self._path)) from None
        self._socket = connection
        self._sent = self._sent_then = self._unread_then = 0
        return b""

    def write(self, data: memoryview) -> int:
        """Send some bytes."""
        assert self._socket is not None
        count = self._socket.send(data)
        self._sent += count
        return count

    def confirm(self) -> None:
        """Wait until the collector has read everything, as long as for a write."""
        pause = threading.Event()
        for _ in range(int(self._seconds / CONFIRM_POLL_SECONDS)):
            if not self._count_unread():
                return
            pause.wait(CONFIRM_POLL_SECONDS)
        raise OSError(errno.ETIMEDOUT, "the collector does not read", str(self._path))

    def find_loss(self, now_us: int) -> str:
        """Raise if nothing of what waits is read for too long; the socket itself can lose nothing."""
        unread = self._count_unread()
        progress = unread < self._unread_then or self._sent - self._sent_then > 2 * SEND_BUFFER
        if not unread or not self._unread_then or progress:
            self._unread_then, self._sent_then, self._read_us = unread, self._sent, now_us
        elif now_us - self._read_us >= self._unread_seconds * 1e6:
            raise OSError(
                errno.ETIMEDOUT, f"nothing was read for {self._unread_seconds:g} s", str(self._path)
            )
        return ""

    def _count_unread(self) -> int:
        """Return how much of the kernel's memory unread data takes; 0 where the system does not say."""
        assert self._socket is not None
        answer = bytearray(4)
        try:
            fcntl.ioctl(self._socket, termios.TIOCOUTQ, answer)
        except OSError:
            return 0
        return int.from_bytes(answer, sys.byteorder)

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

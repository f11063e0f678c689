"""Where a sink writes its lines: a file, standard output, or a unix stream socket.

Each target is used by one thread, which may wait. A failure of any kind is an ``OSError``.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

SOCKET_SECONDS: Final = 1.0
"""The timeout of each write to the socket."""
TAIL_BYTES: Final = 4 << 20
"""How much of a file's end is read to find its last record."""
_FILE_MODE: Final = 0o600


class Target(Protocol):
    """The place of a sink's lines."""

    name: str
    is_stream: bool
    """Whether it goes on after an open where it ended, as one stream."""

    def open(self) -> bytes:
        """Open it; return the end of what it holds, at most 4 MiB from the start of a line."""
        ...

    def write(self, data: memoryview) -> int:
        """Write some bytes; return how many were written."""
        ...

    def sync(self) -> None:
        """Make durable what was written, if the target can."""
        ...

    def was_removed(self) -> bool:
        """Return whether nobody can find what is written from now on."""
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
        self._path = path
        self._descriptor = -1

    def open(self) -> bytes:
        """Open the file, and create it if it does not exist; return its end."""
        self.close()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        self._descriptor = os.open(self._path, flags, _FILE_MODE)
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise OSError(errno.EINVAL, "it is not a regular file", str(self._path))
        start = max(0, status.st_size - TAIL_BYTES)
        tail = b""
        while start + len(tail) < status.st_size:
            piece = os.pread(self._descriptor, TAIL_BYTES, start + len(tail))
            if not piece:
                break
            tail += piece
        return tail.partition(b"\n")[2] if start else tail

    def write(self, data: memoryview) -> int:
        """Append some bytes."""
        return os.write(self._descriptor, data)

    def sync(self) -> None:
        """Make the content durable."""
        os.fdatasync(self._descriptor)

    def was_removed(self) -> bool:
        """Return whether the file has no name any more."""
        return os.fstat(self._descriptor).st_nlink == 0

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with suppress(OSError):
                os.close(descriptor)


class StdoutTarget:
    """Writes to standard output."""

    name = "stdout"
    is_stream = True

    def __init__(self, descriptor: int = 1) -> None:
        """Write to a descriptor of this process."""
        self._descriptor = descriptor

    def open(self) -> bytes:
        """Return nothing: what was written before can't be read."""
        return b""

    def write(self, data: memoryview) -> int:
        """Write some bytes."""
        return os.write(self._descriptor, data)

    def sync(self) -> None:
        """Do nothing: a pipe can't be made durable."""

    def was_removed(self) -> bool:
        """Return False."""
        return False

    def close(self) -> None:
        """Leave standard output open."""


class SocketTarget:
    """Writes to a unix stream socket, on which a collector listens."""

    name = "socket"
    is_stream = True

    def __init__(self, path: Path, seconds: float = SOCKET_SECONDS) -> None:
        """Connect to ``path``; a write fails after ``seconds`` without progress."""
        self._path = path
        self._seconds = seconds
        self._socket: socket.socket | None = None

    def open(self) -> bytes:
        """Connect."""
        self.close()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self._seconds)
        try:
            connection.connect(str(self._path))
        except OSError as error:
            connection.close()
            raise OSError(error.errno, error.strerror or "it does not answer", str(self._path)) from None
        self._socket = connection
        return b""

    def write(self, data: memoryview) -> int:
        """Send some bytes."""
        assert self._socket is not None
        return self._socket.send(data)

    def sync(self) -> None:
        """Do nothing."""

    def was_removed(self) -> bool:
        """Return False: a collector that has gone shows at the next write."""
        return False

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

"""Folders and files that only their owner may read: checked before they are read, replaced as a whole."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
MAX_BYTES: Final = 1 << 20
LOCK_POLL_SECONDS: Final = 0.03


class NotPrivate(Exception):
    """A folder or file can't be used, because others may read or change it; the text says the fix."""


class Busy(Exception):
    """Another process holds a lock for too long."""


def runtime_folder(environ: Mapping[str, str]) -> Path | None:
    """Return Lessor's folder below XDG_RUNTIME_DIR, which is in memory; None if there is none.

    Source: XDG Base Directory Specification.
    """
    path = Path(environ.get("XDG_RUNTIME_DIR", ""))
    return path / "lessor" if path.is_absolute() and path.is_dir() else None


def disk_folder(environ: Mapping[str, str]) -> Path:
    """Return Lessor's folder below XDG_CACHE_HOME, by default ``~/.cache``."""
    path = Path(environ.get("XDG_CACHE_HOME", ""))
    home = environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 - it does not raise without a home
    return (path if path.is_absolute() else Path(home) / ".cache") / "lessor"


def make_private_folder(folder: Path) -> None:
    """Create a folder with mode 0700 if it does not exist.

    Raises:
        NotPrivate: It can't be created, belongs to another user, or others may enter it.
    """
    try:
        folder.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir(mode=FOLDER_MODE)
        found = folder.lstat()
    except OSError as error:
        raise NotPrivate(f"{folder} can't be created: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise NotPrivate(f"{folder} is not a folder; remove it")
    _require_owner(folder, found)


def read_private(path: Path) -> bytes | None:
    """Return the content of a file; None if it does not exist.

    Raises:
        NotPrivate: It belongs to another user, others may read or change it, or it can't be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotPrivate(f"{path} can't be read: {error.strerror}; remove it") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise NotPrivate(f"{path} is not a file; remove it")
        _require_owner(path, found)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_BYTES)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes, mode: int = FILE_MODE, owner: str = "") -> None:
    """Replace a file as a whole; readers see the old content or the new one.

    ``owner`` is the name of a user, or ``user:group``; raises ``OSError`` or ``LookupError``.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if owner:
                _give(name, owner)
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(name, path)  # noqa: PTH105 - the name is a text
    except BaseException:
        with suppress(OSError):
            os.unlink(name)  # noqa: PTH108
        raise


@contextmanager
def locked(path: Path, seconds: float, wait: Callable[[float], object]) -> Iterator[None]:
    """Hold an exclusive lock on a file during the block; it ends with the process.

    Raises:
        Busy: Another process still holds it after about ``seconds``.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    try:
        for _ in range(max(int(seconds / LOCK_POLL_SECONDS), 1)):
            if try_lock(descriptor):
                break
            wait(LOCK_POLL_SECONDS)
        else:
            raise Busy(f"another process has held the lock {path} for {seconds:g} s")
        yield
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Take an exclusive lock on an open file; return False if another process holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _require_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise NotPrivate(f"{path} belongs to another user; remove it")
    if found.st_mode & 0o077:
        raise NotPrivate(f"others may use {path}; run `chmod go-rwx {path}`")


def _give(name: str, owner: str) -> None:
    import shutil  # noqa: PLC0415 - only for files with another owner

    user, _, group = owner.partition(":")
    shutil.chown(name, user or None, group or None)  # type: ignore[arg-type]

"""Credentials that are kept between two runs of a command: one private file for each kind of request.

With a keyring the files lie on disk, encrypted with a key from the keyring. Without one they lie in the
folder XDG_RUNTIME_DIR, which is in memory and removed at logout. This module does not import gRPC.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol

from lessor.leasing.issued import InvalidCredentials, Issued
from lessor.leasing.private_files import (
    NotPrivate,
    disk_folder,
    locked,
    make_private_folder,
    read_private,
    runtime_folder,
    write_atomically,
)
from lessor.refresh import Term

VERSION: Final = 1
LOCK_SECONDS: Final = 120.0
SUFFIX: Final = ".credentials"


@dataclass(frozen=True, slots=True)
class CacheKey:
    """What credentials were requested, where and by whom; other requests have other files."""

    address: str
    caller: str
    mount: str
    role: str
    ttl_seconds: int

    @property
    def name(self) -> str:
        """Return a name for a file."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:40]


@dataclass(frozen=True, slots=True)
class Entry:
    """A request and its credentials."""

    key: CacheKey
    issued: Issued


class Cipher(Protocol):
    """Encrypts what lies on a disk."""

    def encrypt(self, content: bytes, name: str) -> bytes:
        """Return the content, encrypted and bound to the ``name`` of its file."""
        ...

    def decrypt(self, content: bytes, name: str) -> bytes:
        """Return the content; raises ``ValueError`` if it was changed or belongs to another name."""
        ...


class Cache:
    """The files of one folder."""

    def __init__(self, folder: Path, cipher: Cipher | None) -> None:
        """Use a private folder; without a ``cipher`` its files are not encrypted."""
        self._folder = folder
        self._cipher = cipher

    def load(self, key: CacheKey) -> Issued | None:
        """Return the credentials of a request.

        None if there are none, or if the file is damaged, belongs to another user, or can be read by others.
        """
        with suppress(NotPrivate):
            entry = self._read(self._folder / f"{key.name}{SUFFIX}")
            if entry is not None and entry.key == key:
                return entry.issued
        return None

    def save(self, key: CacheKey, issued: Issued, now: datetime) -> None:
        """Keep credentials, and remove those that have ended; raises ``OSError``."""
        content = json.dumps(_record(key, issued)).encode()
        if self._cipher is not None:
            content = self._cipher.encrypt(content, key.name)
        path = self._folder / f"{key.name}{SUFFIX}"
        write_atomically(path, content)
        end = issued.term.end.timestamp()
        os.utime(path, (end, end))  # the end of the credentials, readable without the key
        for old in self._folder.glob(f"*{SUFFIX}"):
            with suppress(OSError):
                if old.stat().st_mtime < now.timestamp():
                    old.unlink()

    def lock(self, key: CacheKey, wait: Callable[[float], object]) -> AbstractContextManager[None]:
        """Hold the lock of a request during the block, so that one process fetches at a time.

        256 lock files serve all requests. Raises ``Busy``.
        """
        return locked(self._folder / f"{key.name[:2]}.lock", LOCK_SECONDS, wait)

    def entries(self) -> Iterator[Entry]:
        """Yield what can be read."""
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            with suppress(NotPrivate):
                entry = self._read(path)
                if entry is not None:
                    yield entry

    def clear(self) -> int:
        """Remove all credentials and return how many files these were."""
        removed = 0
        for path in self._folder.glob(f"*{SUFFIX}"):
            with suppress(OSError):
                path.unlink()
                removed += 1
        return removed

    def _read(self, path: Path) -> Entry | None:
        content = read_private(path)
        if content is None:
            return None
        try:
            if self._cipher is not None:
                content = self._cipher.decrypt(content, path.name.removesuffix(SUFFIX))
            return _parsed(json.loads(content))
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError, InvalidCredentials):
            return None


def load_from_memory(environ: Mapping[str, str], key: CacheKey) -> Issued | None:
    """Return the credentials of a request from the folder in memory, not asking the slow keyring.

    There are none if there is a keyring.
    """
    folder = runtime_folder(environ)
    if folder is None:
        return None
    try:
        make_private_folder(folder)
    except NotPrivate:
        return None
    return Cache(folder, None).load(key)


def open_caches(environ: Mapping[str, str], report: Callable[[str], None]) -> Iterator[Cache]:
    """Yield the caches that can be used, the best one first."""
    for folder, cipher in _places(environ, report):
        try:
            make_private_folder(folder)
        except NotPrivate as error:
            report(f"warning: not cached: {error}")
        else:
            yield Cache(folder, cipher)


def open_cache(environ: Mapping[str, str], report: Callable[[str], None]) -> Cache | None:
    """Return the cache of this user; None, with a warning, if there is no place for one."""
    found = next(open_caches(environ, report), None)
    if found is None:
        report(
            "warning: credentials are not cached, so each call issues new ones, for an IAM user's role a new "
            "user; set XDG_RUNTIME_DIR, or install lessor[keyring]"
        )
    return found


def _places(
    environ: Mapping[str, str], report: Callable[[str], None]
) -> Iterator[tuple[Path, Cipher | None]]:
    if find_spec("keyring") is not None and find_spec("cryptography") is not None:
        from lessor.leasing import keyring_cipher  # noqa: PLC0415 - an extra, which takes its time to load

        folder = disk_folder(environ)
        try:
            yield folder, keyring_cipher.open_cipher()
        except keyring_cipher.NoKeyring as error:
            if error.is_broken:
                report(f"warning: the keyring can't be used: {error}")
    in_memory = runtime_folder(environ)
    if in_memory is not None:
        yield in_memory, None


def _record(key: CacheKey, issued: Issued) -> dict[str, object]:
    term = issued.term
    return {
        "version": VERSION,
        "key": asdict(key),
        "lease_id": issued.lease_id,
        "access_key": issued.access_key,
        "secret_key": issued.secret_key,
        "session_token": issued.session_token,
        "start": term.start.isoformat(),
        "end": term.end.isoformat(),
        "ttl_seconds": term.ttl.total_seconds(),
        "renewable": term.renewable,
    }


def _parsed(found: Mapping[str, object]) -> Entry | None:
    """Return an entry; raises ``ValueError``, ``LookupError`` or ``TypeError`` for another shape."""
    if found["version"] != VERSION:
        return None
    key = found["key"]
    if not isinstance(key, dict):
        return None
    start, end = (datetime.fromisoformat(_text(found[name])).astimezone(UTC) for name in ("start", "end"))
    ttl = found["ttl_seconds"]
    if not isinstance(ttl, float | int):
        return None
    issued = Issued(
        lease_id=_text(found["lease_id"]),
        access_key=_text(found["access_key"]),
        secret_key=_text(found["secret_key"]),
        session_token=_text(found["session_token"]),
        term=Term(start, end, timedelta(seconds=ttl), bool(found["renewable"])),
    )
    return Entry(CacheKey(**key), issued)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value).__name__)
    return value

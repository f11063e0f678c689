"""Checks which other users can change or read the server's files: by owner, mode and directory.

A file on a read-only mount is not checked, because it cannot be changed. Kubernetes mounts secrets that way:
owned by root, mode 0644 unless ``defaultMode`` says otherwise, behind symbolic links (Kubernetes, "Secrets").
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

GROUP_OR_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH

Problem = tuple[str, str]
"""The problem, and the command that fixes it."""


def file_problem(path: Path) -> Problem | None:
    """Return why others can change or replace a file; follows links."""
    folders = dict.fromkeys((path.absolute().parent, path.resolve().parent))
    found = (_problem(folder, GROUP_OR_OTHERS, sticky_helps=True) for folder in folders)
    return _problem(path, GROUP_OR_OTHERS) or next(filter(None, found), None)


def kind_problem(path: Path) -> Problem | None:
    """Return the problem if the path is not a regular file: opening a pipe would wait for its writer."""
    return ("is not a regular file", "name a regular file") if path.exists() and not path.is_file() else None


def writers_problem(path: Path) -> Problem | None:
    """Return why others can change a file; its folder may be open to a group, as folders of logs are."""
    return _problem(path, GROUP_OR_OTHERS)


def data_dir_problem(path: Path) -> Problem | None:
    """Return why others can change or replace a data directory, or change a file in it.

    A group may write to the parent directory: Kubernetes gives volumes to pods that way (``fsGroup``).
    """
    found = _problem(path, GROUP_OR_OTHERS) or _problem(
        path.absolute().parent, stat.S_IWOTH, sticky_helps=True
    )
    if found:
        return found
    files = []
    with os.scandir(path) as entries:
        for entry in entries:
            try:
                if entry.is_file():
                    files.append(Path(entry.path))
            except OSError as error:  # for example a loop of links
                return f"{entry.path} can't be read: {error.strerror}", "remove it"
    for file in sorted(files):
        with suppress(FileNotFoundError):  # a running server may have removed one of its files
            if found := _problem(file, GROUP_OR_OTHERS):
                return found
    return None


def is_readable_by_all(path: Path) -> bool:
    """Return whether every user of this machine can read a file."""
    return not _is_read_only(path) and bool(path.stat().st_mode & stat.S_IROTH)


def _problem(path: Path, writable: int, *, sticky_helps: bool = False) -> Problem | None:
    """Return why a user other than the server's and root can change ``path``.

    In a directory with the sticky bit, users cannot replace files of others (chmod(1)).
    """
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    if _is_read_only(path):
        return None
    if status.st_uid not in {os.geteuid(), 0}:
        return f"{path} belongs to the user {status.st_uid}", f"run chown {os.geteuid()} {path}"
    if mode & writable and not (sticky_helps and mode & stat.S_ISVTX):
        return f"{path} can be written to by others (mode {mode:04o})", f"run chmod go-w {path}"
    return None


def _is_read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)

"""Reads a web identity token from its file at each use, because the file can be replaced at any time.

A caller who sets a root names the file. So only files in allowed places are read, also after links, and only
text in the form of a bearer token (RFC 6750, 2.1) is used. All errors have the same text, which does not
reveal which files exist. AWS verifies the token; only its ``aud`` claim is checked here (RFC 7519, 4.1.3).
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final

from lessor_server.adapters.file_reads import FileReads, ReadTimedOut
from lessor_server.domain.errors.preconditions import IdentityTokenUnusable
from lessor_server.domain.secret import Secret
from lessor_server.domain.token_places import TokenPlaces

MAX_TOKEN_LENGTH: Final = 20_000
"""AWS's maximum length (STS API Reference, AssumeRoleWithWebIdentity)."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750, 2.1, b64token; a JSON web token is one."""
UNUSABLE: Final = (
    "identity_token_file cannot be used: it must be a regular file with one name, below a directory of the "
    "setting aws.identity_token_dirs and outside the data directory, readable for the server, with one token "
    f"of at most {MAX_TOKEN_LENGTH} characters"
)


async def read_token(path: str, audience: str, places: TokenPlaces, reads: FileReads | None = None) -> Secret:
    """Return the token in the file at ``path``, which must be for ``audience`` if that is given.

    Raises:
        IdentityTokenUnusable: There is no such token, or its file cannot be read in time.
    """
    try:
        text = await (reads or FileReads()).run(path, partial(_read, path, places))
    except ReadTimedOut:
        raise _unusable(UNUSABLE) from None
    if audience and audience not in _audiences(text):
        raise _unusable("the token in identity_token_file is not for identity_token_audience")
    return Secret(text)


def _read(path: str, places: TokenPlaces) -> str:
    try:
        try:
            text = _content(path, places)
        except FileNotFoundError:
            # Kubernetes may have replaced the folder of a projected volume a moment ago.
            text = _content(path, places)
    except (OSError, ValueError):
        raise _unusable(UNUSABLE) from None
    if len(text) > MAX_TOKEN_LENGTH or not _TOKEN.fullmatch(text):
        raise _unusable(UNUSABLE)
    return text


def _content(path: str, places: TokenPlaces) -> str:
    """Return the file's content, or raise ``OSError`` or ``ValueError`` if it must not be read."""
    real = Path(os.path.realpath(path, strict=True))
    # Checked before, as opening a device may have effects, and after opening, when it can't change.
    _require_place(real.lstat(), real, path, places)
    with open(real, encoding="ascii", opener=_open) as file:
        status = os.fstat(file.fileno())
        _require_place(status, _path_of(file.fileno(), path, status), path, places)
        return file.read(MAX_TOKEN_LENGTH + 2).strip()


def _open(path: str, flags: int) -> int:
    """Open without following links, and without waiting for the writer of a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)


def _path_of(handle: int, path: str, status: os.stat_result) -> Path:
    """Return the path of an open file, even if its name was replaced."""
    link = Path(f"/proc/self/fd/{handle}")
    if link.is_symlink():
        return link.readlink()
    real = Path(os.path.realpath(path, strict=True))
    if not os.path.samestat(real.lstat(), status):
        raise FileNotFoundError(path)
    return real


def _require_place(status: os.stat_result, real: Path, named: str, places: TokenPlaces) -> None:
    """Raise ``PermissionError`` unless a file may hold a token, by its place and type."""
    # With a hard link, one name may be in an allowed place and another anywhere.
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise PermissionError(named)
    anywhere = places.is_left_from_before(named)
    if not anywhere and not any(real.is_relative_to(Path(one).resolve()) for one in places.dirs):
        raise PermissionError(named)
    private = (places.data_dir, *places.private_files) if places.data_dir else places.private_files
    forbidden = {(one.st_dev, one.st_ino) for one in _statuses(private)}
    # By identity, not by name: a mount may show the data directory at another path.
    for one in _statuses((real, *real.parents)):
        if (one.st_dev, one.st_ino) in forbidden:
            raise PermissionError(named)


def _statuses(paths: Iterable[str | Path]) -> Iterable[os.stat_result]:
    """Return the identities of the files at the paths that exist."""
    for path in paths:
        try:
            yield Path(path).stat()
        except OSError:
            continue


def _audiences(token: str) -> list[object]:
    """Return the audiences of a token."""
    try:
        body = token.split(".")[1]
        said = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["aud"]
    except (IndexError, ValueError, KeyError, TypeError, RecursionError):
        raise _unusable(UNUSABLE) from None
    return said if isinstance(said, list) else [said]


def _unusable(problem: str) -> IdentityTokenUnusable:
    return IdentityTokenUnusable(
        "the root's web identity token is not usable", subject="root", private=problem
    )

"""A web identity token: read from its file at each use, since the file may be replaced at any time.

Who may set a root names the file, so a file is read only where tokens may lie, wherever links lead, and what
has not the shape of a bearer token (RFC 6750, 2.1) goes nowhere. All that can be wrong with a file has one
text: it must not reveal which files exist. AWS verifies the token; only its ``aud`` claim is checked here
(RFC 7519, 4.1.3).
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
"""The most characters that AWS takes (STS API Reference, AssumeRoleWithWebIdentity)."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750, 2.1, b64token; a JSON web token is one."""
UNUSABLE: Final = (
    "identity_token_file cannot be used: it must be a regular file with one name, below a directory of the "
    "setting aws.identity_token_dirs and outside the data directory, readable for the server, with one token "
    f"of at most {MAX_TOKEN_LENGTH} characters"
)


async def read_token(path: str, audience: str, places: TokenPlaces, reads: FileReads | None = None) -> Secret:
    """Return the token in the file at ``path``, meant for ``audience`` where that is given.

    A file that hangs, as on a network mount, is none.

    Raises:
        IdentityTokenUnusable: There is no such token.
    """
    try:
        text = await (reads or FileReads()).run(path, partial(_read, path, places))
    except ReadTimedOut:
        raise _unusable(UNUSABLE) from None
    if audience and audience not in _audiences(text):
        raise _unusable("the token in identity_token_file is not meant for identity_token_audience")
    return Secret(text)


def _read(path: str, places: TokenPlaces) -> str:
    try:
        try:
            text = _content(path, places)
        except FileNotFoundError:
            # A projected volume puts a new folder in the place that its link led to a moment ago.
            text = _content(path, places)
    except (OSError, ValueError):
        raise _unusable(UNUSABLE) from None
    if len(text) > MAX_TOKEN_LENGTH or not _TOKEN.fullmatch(text):
        raise _unusable(UNUSABLE)
    return text


def _content(path: str, places: TokenPlaces) -> str:
    """Return what the file holds, or raise ``OSError`` or ``ValueError`` where it may not be read."""
    real = Path(os.path.realpath(path, strict=True))
    # Looked at first, as opening a device may do something; and again once it is open, when nothing changes.
    _require_place(real.lstat(), real, path, places)
    with open(real, encoding="ascii", opener=_open) as file:
        status = os.fstat(file.fileno())
        _require_place(status, _path_of(file.fileno(), path, status), path, places)
        return file.read(MAX_TOKEN_LENGTH + 2).strip()


def _open(path: str, flags: int) -> int:
    """Open no link; and don't block, as who opens a pipe waits for its writer, perhaps for ever."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)


def _path_of(handle: int, path: str, status: os.stat_result) -> Path:
    """Return where an open file is, whatever its name leads to by now."""
    link = Path(f"/proc/self/fd/{handle}")
    if link.is_symlink():
        return link.readlink()
    real = Path(os.path.realpath(path, strict=True))
    if not os.path.samestat(real.lstat(), status):
        raise FileNotFoundError(path)
    return real


def _require_place(status: os.stat_result, real: Path, named: str, places: TokenPlaces) -> None:
    """Raise ``PermissionError`` unless a file may hold a token: where it is, and what it is."""
    # A second name may be in a place for tokens while the first is anywhere.
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise PermissionError(named)
    anywhere = places.is_left_from_before(named)
    if not anywhere and not any(real.is_relative_to(Path(one).resolve()) for one in places.dirs):
        raise PermissionError(named)
    private = (places.data_dir, *places.private_files) if places.data_dir else places.private_files
    forbidden = {(one.st_dev, one.st_ino) for one in _statuses(private)}
    # By what they are, not by their names: a mount may show the data directory in another place.
    for one in _statuses((real, *real.parents)):
        if (one.st_dev, one.st_ino) in forbidden:
            raise PermissionError(named)


def _statuses(paths: Iterable[str | Path]) -> Iterable[os.stat_result]:
    """Return what the paths lead to, those that are not there left out."""
    for path in paths:
        try:
            yield Path(path).stat()
        except OSError:
            continue


def _audiences(token: str) -> list[object]:
    """Return whom a token is meant for."""
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

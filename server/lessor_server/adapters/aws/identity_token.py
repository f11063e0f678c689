"""A web identity token: read from its file anew at each use, as who rotates it may do so at any time.

What has not the shape of a JSON web token (RFC 7519) goes nowhere: whoever may set a root names the file, and
AWS takes no other kind without a ProviderId (STS API Reference, AssumeRoleWithWebIdentity).
Beside the shape only the token's ``aud`` claim is looked at here (4.1.3); AWS is who verifies it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import stat
from pathlib import Path
from typing import Final

from lessor_server.domain.preconditions import IdentityTokenUnusable
from lessor_server.domain.secret import Secret

LONGEST: Final = 20_000
"""The most characters that AWS takes (STS API Reference, AssumeRoleWithWebIdentity)."""
_JWT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")
"""A signed token in its compact form: header, claims and signature (RFC 7515, 7.1)."""


async def read(path: str, audience: str, folders: tuple[Path, ...] = ()) -> Secret:
    """Return the token in the file at ``path``, meant for ``audience`` where that is given.

    Where there are ``folders``, the file must lie in one of them, wherever links lead.

    Raises:
        IdentityTokenUnusable: There is no such token.
    """
    text = await asyncio.to_thread(_text, path, folders)
    claims = _claims(text)
    if audience and audience not in _audiences(claims):
        raise _unusable("is not meant for identity_token_audience")
    return Secret(text)


def _text(path: str, folders: tuple[Path, ...]) -> str:
    try:
        try:
            text = _content(path, folders)
        except FileNotFoundError:
            # A projected volume puts a new folder in the place that its link led to a moment ago.
            text = _content(path, folders)
    except OSError as error:
        raise _unusable(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise _unusable("holds no token") from None
    if not text or len(text) > LONGEST:
        raise _unusable(f"holds no token of 1 to {LONGEST} characters")
    return text


def _content(path: str, folders: tuple[Path, ...]) -> str:
    """Return what the file holds to which ``path`` leads; no later link leads to another."""
    real = Path(os.path.realpath(path, strict=True))
    if folders and not any(real.is_relative_to(folder.resolve()) for folder in folders):
        raise _unusable("lies outside of the setting aws.identity_token_dirs")
    with open(real, encoding="ascii", opener=_open) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise _unusable("is in no regular file")
        return file.read(LONGEST + 2).strip()


def _open(path: str, flags: int) -> int:
    """Open no link; and don't block, as whoever opens a pipe waits for its writer, perhaps for ever."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _claims(token: str) -> dict[str, object]:
    """Return the claims of a token; its header names an algorithm, as that of every signed token does."""
    parts = _JWT.fullmatch(token)
    header, claims = map(_object, parts.groups()) if parts else ({}, {})
    if not isinstance(header.get("alg"), str):
        raise _unusable("holds no JSON web token")
    return claims


def _object(part: str) -> dict[str, object]:
    try:
        value = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _unusable("holds no JSON web token")
    return value


def _audiences(claims: dict[str, object]) -> list[object]:
    said = claims.get("aud")
    return said if isinstance(said, list) else [said]


def _unusable(fault: str) -> IdentityTokenUnusable:
    return IdentityTokenUnusable(
        f"the token in the root's identity_token_file {fault}", subject="identity_token_file"
    )

"""A web identity token: read from its file anew at each use, as who rotates it may do so at any time.

What has not the shape of a bearer token (RFC 6750, 2.1) goes nowhere, since whoever may set a root names the
file. One that holds a single secret has that shape, too: it is for ``folders`` to keep it out. Beside that
only the token's ``aud`` claim is looked at here (RFC 7519, 4.1.3); AWS is who verifies it.
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
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750, 2.1, b64token; a JSON web token is one."""


async def read(path: str, audience: str, folders: tuple[Path, ...] = ()) -> Secret:
    """Return the token in the file at ``path``, meant for ``audience`` where that is given.

    Where there are ``folders``, the file must lie in one of them, wherever links lead.

    Raises:
        IdentityTokenUnusable: There is no such token.
    """
    text = await asyncio.to_thread(_text, path, folders)
    if audience and audience not in _audiences(text):
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
    if not _TOKEN.fullmatch(text):
        raise _unusable("holds something else than a token")
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


def _audiences(token: str) -> list[object]:
    """Return whom a token is meant for."""
    try:
        body = token.split(".")[1]
        said = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["aud"]
    except (IndexError, ValueError, KeyError, TypeError, RecursionError):
        raise _unusable("holds no JSON web token with an audience") from None
    return said if isinstance(said, list) else [said]


def _unusable(fault: str) -> IdentityTokenUnusable:
    return IdentityTokenUnusable(
        "the root's web identity token is not usable",
        subject="root",
        private=f"the token in identity_token_file {fault}",
    )

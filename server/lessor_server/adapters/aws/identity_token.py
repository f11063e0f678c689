"""A web identity token: read from its file anew at each use, as who rotates it may do so at any time.

Only the token's ``aud`` claim is looked at here (RFC 7519, 4.1.3); AWS is who verifies it.
"""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

from lessor_server.domain.preconditions import IdentityTokenUnusable
from lessor_server.domain.secret import Secret

LONGEST = 20_000
"""The most characters that AWS takes (STS API Reference, AssumeRoleWithWebIdentity)."""


async def read(path: str, audience: str) -> Secret:
    """Return the token in the file at ``path``, meant for ``audience`` where that is given.

    Raises:
        IdentityTokenUnusable: There is no such token.
    """
    text = await asyncio.to_thread(_text, Path(path))
    if audience and audience not in _audiences(text):
        raise _unusable("is not meant for identity_token_audience")
    return Secret(text)


def _text(path: Path) -> str:
    try:
        # Whoever opens a pipe waits for its writer, perhaps for ever.
        if path.exists() and not path.is_file():
            raise _unusable("is in no regular file")
        with path.open(encoding="ascii") as file:
            text = file.read(LONGEST + 2).strip()
    except OSError as error:
        raise _unusable(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise _unusable("holds no token") from None
    if not text or len(text) > LONGEST:
        raise _unusable(f"holds no token of 1 to {LONGEST} characters")
    return text


def _audiences(token: str) -> tuple[str, ...]:
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        said = claims["aud"]
    except (IndexError, ValueError, KeyError, TypeError, RecursionError):
        raise _unusable("holds no JSON web token with an audience") from None
    return (said,) if isinstance(said, str) else tuple(said) if isinstance(said, list) else ()


def _unusable(fault: str) -> IdentityTokenUnusable:
    return IdentityTokenUnusable(
        f"the token in the root's identity_token_file {fault}", subject="identity_token_file"
    )

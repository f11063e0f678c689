"""The root token: who shows it may do everything. Only its hash is kept in memory."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from pathlib import Path
from typing import Final

from lessor_server.adapters import private_file
from lessor_server.domain.secret import Secret

SHORTEST: Final = 16
RANDOM_BYTES: Final = 32
FILE_NAME: Final = "root-token"


class RootTokenBroken(Exception):
    """The root token can't be used as it was given; the text never holds the token."""


class RootToken:
    """Knows the root token when it sees it."""

    __slots__ = ("_digest", "made_at")

    def __init__(self, token: str, made_at: Path | None = None) -> None:
        """Take a token of at least 16 characters; ``made_at`` is the file it was made in, if it was."""
        if len(token) < SHORTEST:
            raise RootTokenBroken(f"the root token has {len(token)} characters; give at least {SHORTEST}")
        self._digest = _digest(token)
        self.made_at = made_at

    @classmethod
    def load(cls, data_dir: Path, token: Secret | None, file: Path | None) -> RootToken:
        """Take the token from ``token``, else from ``file``, else from the data directory.

        The last one is made at the first start, mode 0600, and found again at the next.

        Raises:
            RootTokenBroken: It is too short, not ASCII text, or our own file is open to others.
            OSError: It can't be read or made.
        """
        if token is not None:
            return cls(token.reveal())
        if file is not None:
            return cls(_text(file, file.read_bytes()))
        own = data_dir / FILE_NAME
        try:
            return cls(_text(own, private_file.read_or_make(own, _draw)), made_at=own)
        except private_file.NotPrivate as error:
            raise RootTokenBroken(str(error)) from error

    def matches(self, presented: str) -> bool:
        """Tell whether ``presented`` is the token, in a time that tells nothing about it."""
        return hmac.compare_digest(self._digest, _digest(presented))

    def __repr__(self) -> str:
        """Show nothing."""
        return "RootToken(***)"


def _digest(token: str) -> bytes:
    """Hash a token; what a caller sends may be any text."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _draw() -> bytes:
    """Make a token: 256 random bits as 43 characters that need no quotes, and a line end."""
    return base64.urlsafe_b64encode(os.urandom(RANDOM_BYTES)).rstrip(b"=") + b"\n"


def _text(file: Path, content: bytes) -> str:
    """Return the token in a file, without the line end that editors leave."""
    try:
        return content.decode("ascii").strip()
    except UnicodeDecodeError:
        raise RootTokenBroken(f"{file} holds more than ASCII text") from None

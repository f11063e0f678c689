"""The root token, whose bearer may do everything. Only its hash stays in memory."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Final

from lessor_server.adapters import private_file
from lessor_server.domain.errors.base import LessorError
from lessor_server.domain.secret import TokenHash

MIN_CHARACTERS: Final = 16
RANDOM_BYTES: Final = 32
FILE_NAME: Final = "root-token"


class RootTokenBroken(LessorError):
    """The root token can't be used; the text never contains it."""

    reason = "ROOT_TOKEN_UNUSABLE"
    fix = f"write only the token to the file, at least {MIN_CHARACTERS} characters of ASCII"


def load_root_token(data_dir: Path, given: TokenHash | None, file: Path | None) -> TokenHash:
    """Return the hash of the root token: ``given``, or that of ``file``, or of the data directory's file.

    The first start creates the file in the data directory, with mode 0600.

    Raises:
        RootTokenBroken: It is too short, not ASCII text, or our own file is open to others.
        OSError: It can't be read or created.
    """
    if given is not None:
        return given
    if file is not None:
        return _hash_of(file, file.read_bytes())
    own = data_dir / FILE_NAME
    try:
        return _hash_of(own, private_file.read_or_make(own, _draw))
    except private_file.NotPrivate as error:
        raise RootTokenBroken(error.problem, fix=error.fix) from error


def _draw() -> bytes:
    """Draw a token: 256 random bits as 43 characters that need no quotes, and a line end."""
    return base64.urlsafe_b64encode(os.urandom(RANDOM_BYTES)).rstrip(b"=") + b"\n"


def _hash_of(file: Path, content: bytes) -> TokenHash:
    """Return the hash of the token in a file, without the line end that editors leave."""
    try:
        token = content.decode("ascii").strip()
    except UnicodeDecodeError:
        raise RootTokenBroken(f"{file} holds more than ASCII text") from None
    if len(token) < MIN_CHARACTERS:
        raise RootTokenBroken(f"the root token in {file} has {len(token)} characters")
    return TokenHash.of(token)

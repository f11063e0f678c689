"""A keyring in a file of the home, for tests of the encrypted cache."""

from __future__ import annotations

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend


class FileKeyring(KeyringBackend):
    """Keeps passwords in ``~/keyring.json``."""

    priority = 1.0  # type: ignore[assignment]

    def get_password(self, service: str, username: str) -> str | None:
        """Return a password."""
        return self._read().get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        """Keep a password."""
        self._path.write_text(json.dumps({**self._read(), f"{service}/{username}": password}))

    @property
    def _path(self) -> Path:
        return Path(os.environ["HOME"]) / "keyring.json"

    def _read(self) -> dict[str, str]:
        return json.loads(self._path.read_text()) if self._path.exists() else {}

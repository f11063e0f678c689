"""The names of the server's own files in its data directory, which nothing else may use."""

from __future__ import annotations

from typing import Final

OWN_FILES: Final = ("lessor.", "root-token", "sealing-key", "rows-sealed", "audit-")
"""What their names begin with. SQLite and writes put files of longer names beside these."""


def is_own_file(name: str) -> bool:
    """Return whether a name in the data directory is the server's, regardless of case."""
    return name.lower().startswith(OWN_FILES)

"""Counts and hashes the bytes of a torn line, which may have been written in several pieces."""

from __future__ import annotations

import hashlib

from lessor_server.adapters.audit.state import TornRun


class Torn:
    """The bytes after the last whole record."""

    def __init__(self, content: bytes = b"") -> None:
        self.size = len(content)
        self._digest = hashlib.sha256(content)
        self._newline = False

    def add(self, piece: bytes) -> None:
        """Add a piece of a line."""
        piece = b"\n" + piece if self._newline else piece
        self._newline = False
        self._digest.update(piece)
        self.size += len(piece)

    def end_line(self) -> None:
        """End the line; this newline is part of the torn bytes only if a further piece follows."""
        self._newline = self.size > 0

    @property
    def run(self) -> TornRun:
        """Return what a ``recovered`` record says of it."""
        return TornRun(self.size, self._digest.hexdigest())

"""The claims of this process on the leases that it revokes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from lessor_server.engine.replica_ports import ReplicaStore
from lessor_server.engine.revocation.expiry_hold import ExpiryHold
from lessor_server.engine.store_types import ClaimTerms

CLAIM_SPAN: Final = timedelta(minutes=2)
"""Longer than the longest attempt: five rounds of 7 s each, behind a full queue."""


class RevocationClaims:
    """By whom leases are claimed, on which terms, and what becomes of a claim whose answer was lost."""

    def __init__(self, by: str, expiry: ExpiryHold, shared: ReplicaStore | None = None) -> None:
        """Claim as ``by``; with a ``shared`` store that is the name of this replica alone."""
        self._by = by
        self._expiry = expiry
        self._shared = shared
        self._lost = False

    @property
    def expiry_held(self) -> bool:
        """Return whether expiries are held."""
        return self._expiry.held

    def terms(self) -> ClaimTerms:
        """Return the terms of a claim now."""
        return ClaimTerms(self._by, CLAIM_SPAN, self._expiry.held)

    def note_lost(self) -> None:
        """Record that this process may have claims that it does not know of, or no longer works on."""
        self._lost = self._shared is not None

    async def release_lost(self, kept: Iterable[str]) -> None:
        """Make the leases of lost claims due; ``kept`` are those that this process works on.

        Without this nobody would work on them until the claims end: this replica is not silent.
        """
        if self._lost and self._shared is not None:
            await self._shared.void_lost_claims(self._by, list(kept))
            self._lost = False

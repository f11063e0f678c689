"""The claims of this process on the leases that it revokes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from lessor_server.engine.replica_ports import ReplicaStore
from lessor_server.engine.revocation.expiry_hold import ExpiryHold
from lessor_server.engine.store_types import ClaimTerms

CLAIM_SPAN: Final = timedelta(minutes=2)
"""Longer than the longest attempt: five rounds of 7 s each, behind a full queue."""
MIN_RELEASE_SECONDS: Final = 1.0
"""Under a backlog one full scan follows the other, and few of them look for lost claims."""


class RevocationClaims:
    """By whom leases are claimed, on which terms, and what becomes of a claim whose answer was lost."""

    def __init__(self, by: str, expiry: ExpiryHold, shared: ReplicaStore | None = None) -> None:
        """Claim as ``by``; with a ``shared`` store that is the name of this replica alone."""
        self._by = by
        self._expiry = expiry
        self._shared = shared
        self._lost = False
        self._released_at = -math.inf

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

    async def release_lost(self, kept: Iterable[str], *, scans: bool) -> int:
        """Make the leases of lost claims due, and return how many; this process works on ``kept``.

        Without this nobody would work on them until the claims end: this replica is not silent. If it
        ``scans`` the whole store, it looks for them too if none was noted: the commit of a claim may come
        after its connection has ended, and after an earlier look.
        """
        now = asyncio.get_running_loop().time()
        is_due = scans and now - self._released_at >= MIN_RELEASE_SECONDS
        if self._shared is None or not (self._lost or is_due):
            return 0
        self._lost = False  # first, as an attempt may lose its claim during the statement, which keeps it
        try:
            released = await self._shared.void_lost_claims(self._by, list(kept))
        except BaseException:
            self._lost = True
            raise
        self._released_at = now
        return released

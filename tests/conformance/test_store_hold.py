"""Checks the rules of an expiry hold that every kind of store has."""

from __future__ import annotations

from tests.support.stores import SPAN, TERMS, Bench


async def test_during_a_hold_expired_leases_are_not_claimed(b: Bench) -> None:
    """A claim reads the hold in the same commit, so other processes obey it too."""
    expired, asked = await b.active(0), await b.active(1)
    begun = await b.begun(2)
    await b.store.set_expiry_hold("ASKED")
    b.clock.advance(SPAN.total_seconds() + 7 * 24 * 3600)
    await b.store.revoke(asked.id)
    assert await b.store.claim([expired.id], TERMS) == []
    claims = await b.store.claim_due(TERMS, 10)
    assert sorted(claim.id for claim in claims) == sorted([asked.id, begun.id])
    await b.store.set_expiry_hold("")
    assert [claim.id for claim in await b.store.claim([expired.id], TERMS)] == [expired.id]

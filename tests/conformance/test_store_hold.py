"""The rules of a store about a hold on expiries, held by every kind of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.stores import OPENERS, SPAN, TERMS, Bench, bench


@pytest.fixture(name="b", params=list(OPENERS))
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """Open each kind of store in turn."""
    async with bench(request.param, tmp_path) as made:
        yield made


async def test_while_the_store_keeps_a_hold_nobody_claims_what_only_expired(b: Bench) -> None:
    """A claim looks at the hold in the same commit, so it counts for whoever has not heard of it."""
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

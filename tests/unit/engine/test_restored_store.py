"""Checks a store that is older than the account: a restored backup must not revoke users by mistake."""

from __future__ import annotations

import asyncio

from lessor_server.domain.events import ExpiryHeld, OrphanAdopted, Revoked
from lessor_server.domain.lease import State
from lessor_server.engine.revocation.expiry_hold import STORE_ROLLED_BACK
from tests.support.engine_world import World, world
from tests.support.virtual_loop import virtual

GRACE, HOUR = 900.0, 3600.0


def rolled_back(event: ExpiryHeld) -> bool:
    """Tell whether expiries are held because the store is too old."""
    return event.why == STORE_ROLLED_BACK


async def restored(w: World) -> str:
    """Lose a live lease's row, as a backup does that is older than it; return its user's name."""
    made = await w.issue(ttl=2 * HOUR)
    await w.kill()
    del w.store.rows[made.lease.id]
    await asyncio.sleep(GRACE)
    return made.lease.footprint.user_name


@virtual
async def test_a_restored_backup_holds_expiries_and_adopts_nobody() -> None:
    """A user of ours from before this start that has no row means STORE_ROLLED_BACK."""
    async with world() as w:
        other = await w.issue(ttl=2000)
        user = await restored(w)
        await w.start()
        held = await w.events.until(ExpiryHeld, where=rolled_back, seconds=60)
        assert held.why == w.engine.expiry.why == STORE_ROLLED_BACK
        await asyncio.sleep(5 * HOUR)
        assert len(w.users()) == 2
        assert user in w.users()
        assert w.states() == {other.lease.id: State.ACTIVE}
        assert w.events.of(OrphanAdopted) == []


@virtual
async def test_after_expiry_is_resumed_lost_users_are_revoked() -> None:
    async with world() as w:
        other = await w.issue(ttl=600)
        await restored(w)
        await w.start()
        await w.events.until(ExpiryHeld, where=rolled_back, seconds=60)
        await w.engine.expiry.resume(lower_clock=False)
        await w.events.until(Revoked, where=lambda event: event.lease_id == other.lease.id, seconds=5)
        await w.events.until(OrphanAdopted, seconds=HOUR + 60)
        await w.until_gone(seconds=10)
        assert w.users() == []
        assert w.engine.expiry.why == ""


@virtual
async def test_the_hold_of_a_rolled_back_store_survives_restarts() -> None:
    async with world() as w:
        await restored(w)
        await w.start()
        await w.events.until(ExpiryHeld, where=rolled_back, seconds=60)
        await w.kill()
        await w.start()
        assert w.engine.expiry.why == STORE_ROLLED_BACK
        await asyncio.sleep(HOUR)
        assert w.engine.expiry.held

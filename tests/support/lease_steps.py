"""Steps of a lease on a store: computed by the domain, then written; refused if they are not allowed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from lessor_server.domain import lease as steps
from lessor_server.domain.lease import Lease
from lessor_server.engine.ports import Store


async def activate(
    store: Store, lease: Lease, key_id: str, *, ends_us: int = 0, undelivered: bool = False
) -> Lease | None:
    """Make an INTENT ACTIVE."""
    now = store.now()
    return await _written(
        store, lease, lambda: steps.activate(lease, key_id, now, ends_us=ends_us, undelivered=undelivered)
    )


async def replace_key(store: Store, lease: Lease, key_id: str) -> Lease | None:
    """Replace the key of an ACTIVE lease."""
    return await _written(store, lease, lambda: steps.replace_key(lease, key_id))


async def mark_undelivered(store: Store, lease: Lease) -> Lease | None:
    """Let an ACTIVE lease expire in 60 s."""
    return await _written(store, lease, lambda: steps.mark_undelivered(lease, store.now()))


async def renew(store: Store, lease: Lease, expires_us: int) -> Lease | None:
    """Move the expiry of an ACTIVE lease."""
    return await _written(store, lease, lambda: steps.renew(lease, expires_us, store.now()))


async def retire(store: Store, lease: Lease, expires_us: int) -> Lease | None:
    """Bring the expiry of an ACTIVE lease forward."""
    return await _written(store, lease, lambda: steps.retire(lease, expires_us))


async def abort(store: Store, lease: Lease, error: str, last_create_us: int) -> bool:
    """Abort an INTENT."""
    done = await _written(store, lease, lambda: steps.abort(lease, error, last_create_us, store.now()))
    return done is not None


async def reschedule(
    store: Store, lease: Lease, error: str, wait: timedelta, attempts: int, not_found_count: int
) -> bool:
    """Reschedule a claimed lease, due again after ``wait``."""
    counts = {"attempts": attempts, "not_found_count": not_found_count}
    done = await _written(store, lease, lambda: steps.reschedule(lease, error, wait, store.now(), **counts))
    return done is not None


async def finish(store: Store, lease: Lease) -> bool:
    """Turn a claimed lease into its tombstone."""
    return await _written(store, lease, lambda: steps.finish(lease)) is not None


async def is_unchanged(store: Store, lease: Lease) -> bool:
    """Return whether the row still has the lease's generation."""
    current = await store.get(lease.id)
    return current is not None and current.generation == lease.generation


async def _written(store: Store, before: Lease, step: Callable[[], Lease]) -> Lease | None:
    try:
        after = step()
    except AssertionError:  # not a step from this state
        return None
    return after if await store.write(before, after) else None

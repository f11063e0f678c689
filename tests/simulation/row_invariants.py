"""Invariants of every durable change of a row; see ``invariants`` for all others.

Each is a function that returns None, or the lease concerned and what is wrong.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lessor_server.domain.lease import CREATE_GRACE, STEPS, TOMBSTONE_LIFE, State
from lessor_server.domain.mount import MountState
from tests.simulation.journal import suffix
from tests.support.memory_rows import takes, us

if TYPE_CHECKING:
    from tests.simulation.disk import Change
    from tests.simulation.world import World

Found = tuple[str, str] | None
_MOVES = frozenset((before, after) for (before, _), after in STEPS.items())


def only_steps_of_the_table_are_made(_: World, change: Change) -> Found:
    """A row changes only by ``domain.lease.STEPS``, one generation at a time."""
    lease_id, old, new = change
    if old is None or new is None:
        return None
    before, after = old.lease, new.lease
    moves = before.state is after.state or (before.state, after.state) in _MOVES
    if moves and after.generation == before.generation + 1:
        return None
    noted = replace(before, last_error="", created_us=min(before.created_us, after.created_us))
    if replace(after, last_error="") == noted:
        return None  # removing an error is not a step, nor is moving the begin after the clock was lowered
    if not moves:
        return suffix(lease_id), f"{before.state.value} became {after.state.value}"
    return suffix(lease_id), f"generation {before.generation} became {after.generation}"


def a_hold_holds_every_replica(world: World, change: Change) -> Found:
    """3: while the store has a hold no replica lets a lease expire."""
    lease_id, old, new = change
    if old is None or new is None or old.lease.state is not State.ACTIVE or not new.claimed_by:
        return None
    return (suffix(lease_id), "it expired while expiries were held") if world.store.kept_hold else None


def limits_are_kept(world: World, change: Change) -> Found:
    """8: no intent is written if mount or role are full, or the mount is being disabled."""
    lease_id, old, new = change
    if old is not None or new is None or new.lease.state is not State.INTENT:
        return None
    mount = world.store.mounts[new.lease.mount]
    role = world.store.roles.get((new.lease.mount, new.lease.role))
    live = [row.lease for row in world.store.rows.values() if row.live and row.lease.mount == mount.name]
    if mount.state is not MountState.ENABLED:
        return suffix(lease_id), f"mount {mount.name} takes no leases, and one was begun"
    of_role = sum(lease.role == new.lease.role for lease in live)
    users = sum(not lease.is_session for lease in live)
    if users > mount.max_users or (role is not None and role.max_leases and of_role > role.max_leases):
        return suffix(lease_id), f"{users} users on {mount.name}, {of_role} of {new.lease.role}"
    return None


def a_request_makes_one_lease(world: World, change: Change) -> Found:
    """One (owner, mount, role, request id) has one lease."""
    lease_id, old, new = change
    if old is not None or new is None or new.lease.request is None:
        return None
    mine = (new.lease.owner, new.lease.mount, new.lease.role, new.lease.request.id)
    for row in world.store.rows.values():
        lease = row.lease
        if lease.request is None or lease.id == lease_id:
            continue
        if (lease.owner, lease.mount, lease.role, lease.request.id) == mine:
            return suffix(lease_id), f"request {lease.request.id} has made {lease.id} already"
    return None


def gone_means_that_the_user_is_gone(world: World, change: Change) -> Found:
    """10: a row ends only when its account has no such user, and no late request can create it."""
    lease_id, old, new = change
    if new is None or new.lease.state is not State.GONE or old is None or old.lease.state is State.GONE:
        return None
    record = world.expectations.of(lease_id)
    if (
        record is None
        or record.create_sent_us > record.begun_until_us
        or world.expectations.user(record) is None
    ):
        return None
    return suffix(lease_id), f"the row is GONE and {record.user_name} lives"


def an_unanswered_call_counts_no_attempt(world: World, change: Change) -> Found:
    """9: only a refusal of this row counts as an attempt."""
    lease_id, old, new = change
    if old is None or new is None or new.lease.attempts <= old.lease.attempts:
        return None
    record = world.expectations.of(lease_id)
    by_aws = new.lease.last_error.startswith("AWS ")
    if record is not None and by_aws and record.sends and not record.refusals:
        return suffix(lease_id), "an attempt was counted, and AWS had refused nothing"
    return None


def retries_are_spread(world: World, change: Change) -> Found:
    """9: a refused row is retried after 10 s doubling to 15 min, with full jitter, never at the bound."""
    lease_id, old, new = change
    if old is None or new is None or new.lease.attempts <= old.lease.attempts:
        return None
    most = min(10.0 * 2.0 ** (new.lease.attempts - 1), 900.0)
    wait = (new.lease.due_us - world.write_began_us) / 1e6
    # Without jitter the wait is the bound to the microsecond; a draw may well be a millisecond below it.
    if not 0.9 < wait < most - 2e-6:
        return suffix(lease_id), f"attempt {new.lease.attempts} is followed by a wait of {wait:.3f} s"
    return None


def prefixes_are_final(world: World, change: Change) -> Found:
    """No lease of an open prefix becomes ACTIVE or lives longer."""
    lease_id, old, new = change
    if new is None or new.lease.state is not State.ACTIVE or old is None:
        return None
    if old.lease.state is State.ACTIVE and new.lease.expires_us <= old.lease.expires_us:
        return None
    for prefix in world.store.open:
        if takes(prefix, new.lease):
            return suffix(lease_id), f"it got to live although {prefix.ids.low} is being revoked"
    return None


def tombstones_are_kept(world: World, change: Change) -> Found:
    """1: a tombstone is kept for seven days and past the grace of its CreateUser."""
    lease_id, old, new = change
    if new is not None or old is None:
        return None
    now = world.store.now()
    young = now - old.gone_us < us(TOMBSTONE_LIFE) or now - old.lease.last_create_us < us(CREATE_GRACE)
    if old.lease.state is not State.GONE or young:
        return suffix(lease_id), f"a row in state {old.lease.state.value} was dropped"
    return None


def only_old_users_are_adopted(world: World, change: Change) -> Found:
    """A user without a row is not adopted for 15 minutes: it may belong to an issue in progress."""
    lease_id, old, new = change
    if old is not None or new is None or new.lease.state is not State.REVOKING:
        return None
    user = world.account_of(new.lease.footprint.account).users.get(new.lease.footprint.user_name.casefold())
    now = world.mine.time()
    if user is not None and now - user.created < CREATE_GRACE.total_seconds() - world.expectations.skew:
        return suffix(lease_id), f"a user {now - user.created:.0f} s old was adopted"
    return None


ON_CHANGE = (
    only_steps_of_the_table_are_made,
    a_hold_holds_every_replica,
    limits_are_kept,
    a_request_makes_one_lease,
    gone_means_that_the_user_is_gone,
    an_unanswered_call_counts_no_attempt,
    retries_are_spread,
    prefixes_are_final,
    tombstones_are_kept,
    only_old_users_are_adopted,
)

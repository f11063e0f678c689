"""The invariants: each is a function that returns None, or the lease concerned and what is wrong.

The numbers are those of ``docs/reliability.md``. ``ON_EFFECT`` is checked after each effect on an account,
``ON_ANSWER`` after each answer to a caller, ``ON_START`` when a process begins to serve, and ``AT_END`` when
everything has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lessor_server.domain.lease import LIVE, UNDELIVERED_TTL, State
from tests.simulation.expectations import TAKING
from tests.simulation.journal import suffix
from tests.simulation.row_invariants import Found

if TYPE_CHECKING:
    from tests.simulation.expectations import Answered, Effect, Record
    from tests.simulation.process import Process
    from tests.simulation.world import World

BOUND_SECONDS = 3.0


# --- at each effect on an account ------------------------------------------------------------------------


def no_user_is_without_a_row(world: World, effect: Effect) -> Found:
    """1: the row of a user is written before the user is created."""
    if effect.call.action != "CreateUser" or not effect.answer.ok:
        return None
    record = world.expectations.records.get(effect.subject)
    known = record is not None and record.lease_id in world.store.rows
    return None if known else (effect.subject, f"{effect.call.user} was made and no row knows it")


def no_key_outlives_its_lease(world: World, effect: Effect) -> Found:
    """2: access ends within the bound after the end of the lease, unless something disturbed it."""
    record = _cut(world, effect)
    if record is None:
        return None
    due = world.responsibilities.latest(record)
    late = world.now() - due
    if world.expectations.disturbed(record, due):
        return None
    if late > BOUND_SECONDS + world.expectations.skew:
        return effect.subject, f"access ended {late:.1f} s after it was due"
    return None


def undelivered_credentials_end_soon(world: World, effect: Effect) -> Found:
    """2: an undelivered credential ends immediately, or within a minute if it has a request id."""
    record = world.expectations.records.get(effect.subject)
    if record is None or effect.call.action != "DeleteUser" or not effect.answer.ok:
        return None
    since = world.expectations.unwanted_since(record)
    if since is None:
        return None
    due = since + (UNDELIVERED_TTL.total_seconds() if record.request_id else 0.0)
    late = world.now() - due
    if late > 2 * BOUND_SECONDS + world.expectations.skew and not world.expectations.disturbed(record, due):
        return effect.subject, f"nobody wanted it, and it went {late:.1f} s after it should have"
    return None


def none_is_revoked_early(world: World, effect: Effect) -> Found:
    """3: nothing is removed from a lease before its end unless a caller asked."""
    record = _taken_early(world, effect)
    if record is None or record.renewed:
        return None
    return effect.subject, f"{effect.call.action} {record.promise - world.now():.1f} s before the lease's end"


def a_renewed_key_lives(world: World, effect: Effect) -> Found:
    """4: a renewal that was answered OK is kept."""
    record = _taken_early(world, effect)
    if record is None or not record.renewed:
        return None
    return effect.subject, f"{effect.call.action} {record.promise - world.now():.1f} s before the renewed end"


def _cut(world: World, effect: Effect) -> Record | None:
    """Return the lease whose access this effect ended."""
    if effect.call.action not in ("DeleteAccessKey", "DeleteUser") or not effect.answer.ok:
        return None
    record = world.expectations.records.get(effect.subject)
    user = world.expectations.user(record) if record else None
    return record if user is None or not user.keys else None


def _taken_early(world: World, effect: Effect) -> Record | None:
    if not effect.answer.ok or not effect.call.action.startswith(TAKING):
        return None
    record = world.expectations.records.get(effect.subject)
    if (
        record is None
        or world.now() >= record.promise - world.expectations.skew
        or world.expectations.asked(record)
    ):
        return None
    row = world.store.rows.get(record.lease_id)
    key_id = getattr(effect.call, "access_key_id", None)
    other_key = key_id is not None and row is not None and key_id != row.lease.access_key_id
    return None if other_key else record


# --- when a process serves ---------------------------------------------------------------------------------


def claims_of_the_dead_are_void(world: World, process: Process) -> Found:
    """9: what a dead process had claimed is due immediately when the next one starts."""
    for lease_id, generation in world.expectations.claimed.items():
        row = world.store.rows.get(lease_id)
        if row is not None and row.claimed_by and row.lease.generation == generation:
            return suffix(lease_id), f"process {process.number} serves, and the claim of a dead one stands"
    return None


# --- at each answer to a caller --------------------------------------------------------------------------


def returned_only_when_durable(world: World, answered: Answered) -> Found:
    """6: the row of a credential is durable before the credential is returned."""
    if answered.method != "GenerateCredentials":
        return None
    answer = answered.answer
    record, row = world.expectations.of(answer.lease_id), world.store.rows.get(answer.lease_id)
    if row is None or record is None:
        return suffix(answer.lease_id), "a credential was handed out that no row knows"
    if answered.repeated or world.expectations.asked(record):
        return None
    if row.lease.access_key_id != answer.access_key or row.lease.state is State.INTENT:
        return suffix(answer.lease_id), f"it was handed out while its row said {row.lease.state.value}"
    return None


def a_fresh_lease_has_one_key(world: World, answered: Answered) -> Found:
    """A user has the returned key and no other, except for one that was created too late."""
    if answered.method != "GenerateCredentials" or answered.repeated or answered.answer.security_token:
        return None
    record = world.expectations.of(answered.answer.lease_id)
    ended = record is None or record.promise <= world.now()
    if ended or record.touched or world.expectations.asked(record):
        return None
    user = world.expectations.user(record)
    if user is None or set(user.keys) - record.late_keys != {answered.answer.access_key}:
        there = "no user" if user is None else f"{len(user.keys)} keys"
        return suffix(record.lease_id), f"when it was handed out there was {there}"
    return None


def the_returned_key_is_there(world: World, answered: Answered) -> Found:
    """6: the key of a live lease is on the account when a caller gets it."""
    if answered.method != "GenerateCredentials" or answered.answer.security_token:
        return None
    record, row = (
        world.expectations.of(answered.answer.lease_id),
        world.store.rows.get(answered.answer.lease_id),
    )
    if record is None or row is None or record.touched or world.expectations.asked(record):
        return None
    lives = row.lease.state is State.ACTIVE and row.lease.access_key_id == answered.answer.access_key
    user = world.expectations.user(record)
    if lives and (user is None or answered.answer.access_key not in user.keys):
        return suffix(record.lease_id), "the key that was handed out is not on the account"
    return None


def what_was_renewed_is_there(world: World, answered: Answered) -> Found:
    """4: a lease that could be renewed still has its key."""
    if answered.method != "RenewLease":
        return None
    record = world.expectations.of(answered.answer.lease_id)
    if record is None or record.touched or world.expectations.asked(record):
        return None
    user = world.expectations.user(record)
    if user is None or not user.keys:
        return suffix(record.lease_id), "it was renewed and has no key"
    return None


def a_revocation_reported_gone_is_done(world: World, answered: Answered) -> Found:
    """5: GONE is returned once AWS has acknowledged the deletion of the key."""
    if answered.method != "RevokeLease" or answered.answer.outcome not in (2, 3):
        return None
    record = world.expectations.of(answered.answer.lease_id)
    user = world.expectations.user(record) if record else None
    late = record is not None and record.create_sent_us > 0 and record.troubled
    if record is not None and user is not None and user.keys and not late:
        return suffix(record.lease_id), f"GONE was said, and it has {len(user.keys)} keys"
    return None


# --- at the end ------------------------------------------------------------------------------------------


def nothing_is_left(world: World, _: None) -> Found:
    """1, 9: no user without a live lease, and no lease that should have ended."""
    for user in world.expectations.users():
        record = world.expectations.records.get(suffix(user.name))
        row = world.store.rows.get(record.lease_id) if record else None
        if row is None or row.lease.state is not State.ABANDONED:
            state = row.lease.state.value if row else "unknown"
            return suffix(user.name), f"user {user.name} is left; its row is {state}"
    for row in world.store.rows.values():
        if row.lease.state in LIVE:
            return suffix(row.lease.id), f"its row is {row.lease.state.value}: {row.lease.last_error}"
    return ("", f"{len(world.store.open)} prefixes are open") if world.store.open else None


def no_secret_is_anywhere(world: World, _: None) -> Found:
    """7: no secret key is in the store, in an event, in an error or in a line of the journal."""
    text = "\n".join(line for _, _, line in world.journal.lines)
    text += repr((dict(world.store.rows), world.store.roots, world.store.rotations))
    return (
        ("", "a secret key was returned") if any(one in text for one in world.expectations.secrets) else None
    )


ON_EFFECT = (
    no_user_is_without_a_row,
    no_key_outlives_its_lease,
    undelivered_credentials_end_soon,
    none_is_revoked_early,
    a_renewed_key_lives,
)
ON_START = (claims_of_the_dead_are_void,)
ON_ANSWER = (
    returned_only_when_durable,
    a_fresh_lease_has_one_key,
    the_returned_key_is_there,
    what_was_renewed_is_there,
    a_revocation_reported_gone_is_done,
)
AT_END = (nothing_is_left, no_secret_is_anywhere)

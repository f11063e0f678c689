"""What must hold, each a function by its name: it returns None, or the lease concerned and what is wrong.

The numbers are those of the invariants in ``docs/reliability.md``. ``ON_EFFECT`` is judged whenever a call
has reached an account, ``ON_CHANGE`` at every durable change of a row, ``ON_ANSWER`` when a caller has been
told something, ``ON_START`` when a process begins to serve, ``AT_END`` once all is quiet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lessor_server.domain.lease import CREATE_GRACE, LIVE, STEPS, TOMBSTONE_LIFE, UNTAKEN_LIFE, State
from lessor_server.domain.mount import MountState
from tests.simulation.journal import suffix
from tests.simulation.truth import TAKING
from tests.support.memory_rows import us

if TYPE_CHECKING:
    from tests.simulation.disk import Change
    from tests.simulation.process import Process
    from tests.simulation.truth import Effect, Record, Told
    from tests.simulation.world import World

Found = tuple[str, str] | None
BOUND_SECONDS, SKEW_SECONDS = 3.0, 242.0
"""How far two starts may differ about the time where the wall clock jumps: two minutes either way."""

_MOVES = frozenset((before, after) for (before, _), after in STEPS.items())


def _skew(world: World) -> float:
    return SKEW_SECONDS if world.options.jumps else 0.05


# --- at each effect on an account ------------------------------------------------------------------------


def no_user_is_without_a_row(world: World, effect: Effect) -> Found:
    """1: whoever made a user had written its row before."""
    if effect.call.action != "CreateUser" or not effect.answer.ok:
        return None
    record = world.truth.records.get(effect.subject)
    known = record is not None and record.lease_id in world.store.rows
    return None if known else (effect.subject, f"{effect.call.user} was made and no row knows it")


def no_key_outlives_its_lease(world: World, effect: Effect) -> Found:
    """2: access ends within the bound after the lease does, while nothing disturbs."""
    record = _cut(world, effect)
    if record is None or world.truth.disturbed(record, record.due_by):
        return None
    late = world.now() - record.due_by
    if late > BOUND_SECONDS + _skew(world):
        return effect.subject, f"access ended {late:.1f} s after it was due"
    return None


def what_nobody_got_goes_soon(world: World, effect: Effect) -> Found:
    """2: a credential whose caller has gone, or was refused, goes at once, or in a minute with an id."""
    record = world.truth.records.get(effect.subject)
    if record is None or effect.call.action != "DeleteUser" or not effect.answer.ok:
        return None
    since = world.truth.unwanted_since(record)
    if since is None:
        return None
    due = since + (UNTAKEN_LIFE.total_seconds() if record.request_id else 0.0)
    late = world.now() - due
    if late > 2 * BOUND_SECONDS + _skew(world) and not world.truth.disturbed(record, due):
        return effect.subject, f"nobody wanted it, and it went {late:.1f} s after it should have"
    return None


def none_is_revoked_early(world: World, effect: Effect) -> Found:
    """3: nothing is taken from a lease before its end unless somebody asked."""
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
    """Return the lease to which this effect ended all access."""
    if effect.call.action not in ("DeleteAccessKey", "DeleteUser") or not effect.answer.ok:
        return None
    record = world.truth.records.get(effect.subject)
    user = world.truth.user(record) if record else None
    return record if user is None or not user.keys else None


def _taken_early(world: World, effect: Effect) -> Record | None:
    if not effect.answer.ok or not effect.call.action.startswith(TAKING):
        return None
    record = world.truth.records.get(effect.subject)
    if record is None or world.now() >= record.promise - _skew(world) or world.truth.asked(record):
        return None
    row = world.store.rows.get(record.lease_id)
    key_id = getattr(effect.call, "access_key_id", None)
    other_key = key_id is not None and row is not None and key_id != row.lease.access_key_id
    return None if other_key else record


# --- at each durable change of a row -----------------------------------------------------------------------


def only_steps_of_the_table_are_made(_: World, change: Change) -> Found:
    """A row goes only the ways of ``domain.lease.STEPS``, one generation at a time."""
    lease_id, old, new = change
    if old is None or new is None:
        return None
    before, after = old.lease, new.lease
    if before.state is not after.state and (before.state, after.state) not in _MOVES:
        return suffix(lease_id), f"{before.state.value} became {after.state.value}"
    if after.generation != before.generation + 1:
        return suffix(lease_id), f"generation {before.generation} became {after.generation}"
    return None


def limits_are_kept(world: World, change: Change) -> Found:
    """8: no intent is written where mount or role are full, or where the mount takes none."""
    lease_id, old, new = change
    if old is not None or new is None or new.lease.state is not State.INTENT:
        return None
    mount, role = (
        world.store.mounts[new.lease.mount],
        world.store.roles.get((new.lease.mount, new.lease.role)),
    )
    live = [row.lease for row in world.store.rows.values() if row.live and row.lease.mount == mount.name]
    if mount.state is not MountState.ENABLED:
        return suffix(lease_id), f"mount {mount.name} takes no leases, and one was begun"
    of_role = sum(lease.role == new.lease.role for lease in live)
    if len(live) > mount.max_users or (role is not None and role.max_leases and of_role > role.max_leases):
        return suffix(lease_id), f"{len(live)} users on {mount.name}, {of_role} of {new.lease.role}"
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
    """10: a row ends only when its own account has no such user, nor can get it any more."""
    lease_id, old, new = change
    if new is None or new.lease.state is not State.GONE or old is None or old.lease.state is State.GONE:
        return None
    record = world.truth.of(lease_id)
    if record is None or record.create_sent_us > record.begun_until_us or world.truth.user(record) is None:
        return None
    return suffix(lease_id), f"the row is GONE and {record.user_name} lives"


def a_silence_counts_no_attempt(world: World, change: Change) -> Found:
    """9: only a refusal of this row counts as an attempt."""
    lease_id, old, new = change
    if old is None or new is None or new.lease.attempts <= old.lease.attempts:
        return None
    record = world.truth.of(lease_id)
    by_aws = new.lease.last_error.startswith("AWS ")
    if record is not None and by_aws and record.sends and not record.refusals:
        return suffix(lease_id), "an attempt was counted, and AWS had refused nothing"
    return None


def retries_are_spread(world: World, change: Change) -> Found:
    """9: a refused row is tried again after 10 s doubling to 15 min, with full jitter, never at the bound."""
    lease_id, old, new = change
    if old is None or new is None or new.lease.attempts <= old.lease.attempts:
        return None
    most = min(10.0 * 2.0 ** (new.lease.attempts - 1), 900.0)
    wait = (new.lease.due_us - world.store.now()) / 1e6
    if not 0.9 < wait < most - 1e-3:
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
        if prefix.ids.covers(lease_id) and new.lease.created_us <= prefix.cutoff_us:
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


def only_old_strangers_are_adopted(world: World, change: Change) -> Found:
    """A user that no row knows is left alone for 15 minutes: it may be an issue of this moment."""
    lease_id, old, new = change
    if old is not None or new is None or new.lease.state is not State.REVOKING:
        return None
    user = world.account_of(new.lease.footprint.account).users.get(new.lease.footprint.user_name.casefold())
    now = world.mine.time()
    if user is not None and now - user.created < CREATE_GRACE.total_seconds() - _skew(world):
        return suffix(lease_id), f"a user {now - user.created:.0f} s old was adopted"
    return None


# --- when a process serves ---------------------------------------------------------------------------------


def claims_of_the_dead_are_void(world: World, process: Process) -> Found:
    """9: what a dead process had in hand is due at once when the next one starts."""
    for lease_id, generation in world.truth.claimed.items():
        row = world.store.rows.get(lease_id)
        if row is not None and row.claimed_by and row.lease.generation == generation:
            return suffix(lease_id), f"process {process.number} serves, and the claim of a dead one stands"
    return None


# --- when a caller was told something ----------------------------------------------------------------------


def handed_out_only_when_durable(world: World, told: Told) -> Found:
    """6: the row that revokes a credential is durable before the credential leaves."""
    if told.method != "GenerateCredentials":
        return None
    answer = told.answer
    record, row = world.truth.of(answer.lease_id), world.store.rows.get(answer.lease_id)
    if row is None or record is None:
        return suffix(answer.lease_id), "a credential was handed out that no row knows"
    if told.repeated or world.truth.asked(record):
        return None
    if row.lease.access_key_id != answer.access_key or row.lease.state is State.INTENT:
        return suffix(answer.lease_id), f"it was handed out while its row said {row.lease.state.value}"
    return None


def a_fresh_lease_has_one_key(world: World, told: Told) -> Found:
    """A user has the key that was handed out and no other."""
    if told.method != "GenerateCredentials" or told.repeated:
        return None
    record = world.truth.of(told.answer.lease_id)
    ended = record is None or record.promise <= world.now()
    if ended or record.touched or world.truth.asked(record):
        return None
    user = world.truth.user(record)
    if user is None or set(user.keys) != {told.answer.access_key}:
        there = "no user" if user is None else f"{len(user.keys)} keys"
        return suffix(record.lease_id), f"when it was handed out there was {there}"
    return None


def what_was_renewed_is_there(world: World, told: Told) -> Found:
    """4: a lease that could be renewed still has its key."""
    if told.method != "RenewLease":
        return None
    record = world.truth.of(told.answer.lease_id)
    if record is None or record.touched or world.truth.asked(record):
        return None
    user = world.truth.user(record)
    if user is None or not user.keys:
        return suffix(record.lease_id), "it was renewed and has no key"
    return None


def a_revocation_reported_gone_is_done(world: World, told: Told) -> Found:
    """5: GONE is said once AWS has acknowledged that the key is deleted."""
    if told.method != "RevokeLease" or told.answer.outcome not in (2, 3):
        return None
    record = world.truth.of(told.answer.lease_id)
    user = world.truth.user(record) if record else None
    late = record is not None and record.create_sent_us > 0 and record.troubled
    if record is not None and user is not None and user.keys and not late:
        return suffix(record.lease_id), f"GONE was said, and it has {len(user.keys)} keys"
    return None


# --- when all is quiet -------------------------------------------------------------------------------------


def nothing_is_left(world: World, _: None) -> Found:
    """1, 9: no user without a live lease, and no lease that should have ended."""
    for user in world.truth.users():
        record = world.truth.records.get(suffix(user.name))
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
    text += repr((dict(world.store.rows), world.store.roots))
    return ("", "a secret key was told") if any(one in text for one in world.truth.secrets) else None


ON_EFFECT = (
    no_user_is_without_a_row,
    no_key_outlives_its_lease,
    what_nobody_got_goes_soon,
    none_is_revoked_early,
    a_renewed_key_lives,
)
ON_CHANGE = (
    only_steps_of_the_table_are_made,
    limits_are_kept,
    a_request_makes_one_lease,
    gone_means_that_the_user_is_gone,
    a_silence_counts_no_attempt,
    retries_are_spread,
    prefixes_are_final,
    tombstones_are_kept,
    only_old_strangers_are_adopted,
)
ON_START = (claims_of_the_dead_are_void,)
ON_ANSWER = (
    handed_out_only_when_durable,
    a_fresh_lease_has_one_key,
    what_was_renewed_is_there,
    a_revocation_reported_gone_is_done,
)
AT_END = (nothing_is_left, no_secret_is_anywhere)

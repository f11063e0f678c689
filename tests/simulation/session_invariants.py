"""Invariants of sessions of STS, checked with those of ``invariants.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lessor_server.domain.lease import State
from tests.simulation.invariants import BOUND_SECONDS, Found
from tests.simulation.journal import suffix
from tests.support.memory_aws import CHAIN_SESSION

if TYPE_CHECKING:
    from tests.simulation.disk import Change
    from tests.simulation.expectations import Answered, Effect
    from tests.simulation.world import World
    from tests.support.sts_state import SessionKey

SECOND_US = 1_000_000


def no_session_is_without_a_row(world: World, effect: Effect) -> Found:
    """1: the row of a session is written before the session is issued, except for a root's own chain."""
    name: str = getattr(effect.call, "session_name", "")
    if name in ("", CHAIN_SESSION) or not effect.answer.ok:
        return None
    record = world.expectations.records.get(suffix(name))
    known = record is not None and record.lease_id in world.store.rows
    return None if known else (suffix(name), f"session {name} was made and no row knows it")


def a_session_ends_when_aws_says(world: World, change: Change) -> Found:
    """2, 3: a session's lease ends when AWS ends the session, or within a second if the clock is ahead."""
    lease_id, old, new = change
    if new is None or not new.lease.is_session or new.lease.state is not State.ACTIVE:
        return None
    if old is None or old.lease.state is not State.INTENT:
        return None
    made = _session(world, new.lease.access_key_id)
    if made is None:
        return suffix(lease_id), "it is ACTIVE and AWS knows no such session"
    # A process that is stopped before the commit has worked the end out earlier.
    wanted = max(int(made.ends) * SECOND_US, world.write_began_us + SECOND_US)
    if abs(new.lease.max_expires_us - wanted) > SECOND_US:
        return suffix(
            lease_id
        ), f"it ends {(new.lease.max_expires_us - wanted) / SECOND_US:.1f} s off AWS's end"
    return None


def a_session_expires_in_time(world: World, change: Change) -> Found:
    """2: the end of a session needs no call, so only a disturbance can delay it."""
    lease_id, old, new = change
    if old is None or new is None or not new.lease.is_session:
        return None
    record = world.expectations.of(lease_id)
    expires = (old.lease.state, new.lease.state) == (State.ACTIVE, State.REVOKING)
    if record is None or not expires:
        return None
    due = world.responsibilities.latest(record)
    late = world.now() - due
    if late <= BOUND_SECONDS + world.expectations.skew or world.expectations.disturbed(record, due):
        return None
    return suffix(lease_id), f"it expired {late:.1f} s late"


def a_session_is_returned_complete(world: World, answered: Answered) -> Found:
    """6: a caller gets a session that AWS issued, with its token."""
    if answered.method != "GenerateCredentials" or not answered.answer.security_token:
        return None
    made = _session(world, answered.answer.access_key)
    whole = (answered.answer.secret_key, answered.answer.security_token, False)
    if made is None or (made.secret, made.token, answered.answer.lease_renewable) != whole:
        return suffix(answered.answer.lease_id), "the returned session is not the one that AWS issued"
    return None


def _session(world: World, key_id: str) -> SessionKey | None:
    held = (account.sts.sessions.get(key_id) for account in (world.mine, world.other))
    return next((session for session in held if session is not None), None)


ON_EFFECT = (no_session_is_without_a_row,)
ON_CHANGE = (a_session_ends_when_aws_says, a_session_expires_in_time)
ON_ANSWER = (a_session_is_returned_complete,)

"""The life of a lease: its states, the steps between them, and the values that carry it.

    INTENT ──activate──▶ ACTIVE ──expire / revoke──▶ REVOKING ──finish──▶ GONE
       └─────────────── abort / revoke ────────────────▲  ▲───── reopen ────┘
    ABANDONED ◀── abandon ── (any but GONE);  revoke takes it up again
    A user that no row knows is adopted as REVOKING.

A step of one row is a pure function here; the store writes its result if the row is unchanged, and refuses
to let a lease live on that has expired or is being revoked in bulk. Steps of many rows, or of a row that
nobody has read, are statements of the store: claim (which is expire), revoke, reopen and abandon.

An intent is durable before CreateUser is sent, so every user on the account has a row; GONE is the
tombstone that outlives the user. A session of STS has no user: its lease is ended without a call to AWS,
and the session lives on until AWS ends it. Instants are microseconds since the epoch (``…_us``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from typing import Final

from lessor_server.domain.durations import MAX_DURATION, MICROSECOND, SECOND_US
from lessor_server.domain.role import CredentialType

_MAX_SPAN_US: Final = MAX_DURATION // MICROSECOND

MAX_GENERATION: Final = 2**53
"""The greatest generation of a row; after it comes the first one: no row becomes unreadable by a change."""


class State(Enum):
    """Where a lease is in its life."""

    INTENT = "INTENT"
    ACTIVE = "ACTIVE"
    REVOKING = "REVOKING"
    GONE = "GONE"
    ABANDONED = "ABANDONED"


LIVE = frozenset({State.INTENT, State.ACTIVE, State.REVOKING})
"""States that count against ``max_leases`` and, where there is a user, against ``max_users``."""


class LeaseStep(Enum):
    """One named change of a lease."""

    ACTIVATE = "activate"
    RENEW = "renew"
    REPLACE_KEY = "replace key"
    MARK_UNDELIVERED = "mark undelivered"
    EXPIRE = "expire"
    REVOKE = "revoke"
    ABORT = "abort"
    RESCHEDULE = "reschedule"
    FINISH = "finish"
    REOPEN = "reopen"
    ABANDON = "abandon"


STEPS: dict[tuple[State, LeaseStep], State] = {
    (State.INTENT, LeaseStep.ACTIVATE): State.ACTIVE,
    (State.INTENT, LeaseStep.ABORT): State.REVOKING,
    (State.INTENT, LeaseStep.EXPIRE): State.REVOKING,
    (State.INTENT, LeaseStep.REVOKE): State.REVOKING,
    (State.ACTIVE, LeaseStep.RENEW): State.ACTIVE,
    (State.ACTIVE, LeaseStep.REPLACE_KEY): State.ACTIVE,
    (State.ACTIVE, LeaseStep.MARK_UNDELIVERED): State.ACTIVE,
    (State.ACTIVE, LeaseStep.EXPIRE): State.REVOKING,
    (State.ACTIVE, LeaseStep.REVOKE): State.REVOKING,
    (State.REVOKING, LeaseStep.EXPIRE): State.REVOKING,
    (State.REVOKING, LeaseStep.REVOKE): State.REVOKING,
    (State.REVOKING, LeaseStep.RESCHEDULE): State.REVOKING,
    (State.REVOKING, LeaseStep.FINISH): State.GONE,
    (State.REVOKING, LeaseStep.REOPEN): State.REVOKING,
    (State.GONE, LeaseStep.REOPEN): State.REVOKING,
    (State.INTENT, LeaseStep.ABANDON): State.ABANDONED,
    (State.ACTIVE, LeaseStep.ABANDON): State.ABANDONED,
    (State.REVOKING, LeaseStep.ABANDON): State.ABANDONED,
    (State.ABANDONED, LeaseStep.REVOKE): State.REVOKING,
}
"""Every allowed step; what is not here cannot happen. The store's own steps mirror it in their WHERE."""


def sources(step: LeaseStep) -> tuple[State, ...]:
    """Return the states from which ``step`` is allowed, in the order of ``State``."""
    return tuple(state for state in State if (state, step) in STEPS)


STUCK_AFTER = 6
"""Refused attempts after which a revocation is labelled STUCK; it is still retried."""

UNDELIVERED_TTL = timedelta(seconds=60)
"""How long a credential lives whose caller went away before it was ready, if its request had an id."""

TOMBSTONE_LIFE = timedelta(days=7)
"""The least time that a tombstone is kept."""

CREATE_GRACE = timedelta(minutes=15)
"""How long a signed CreateUser may still take effect: AWS refuses signatures older than 15 minutes.

Source: AWS General Reference, "Signature Version 4: handling dates" and IAM's RequestExpired error.
"""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a lease has, or may have, on AWS: all that revoking it needs.

    A session has nothing there that could be revoked: its ``user_name`` is empty.
    """

    account: str
    user_name: str
    user_path: str
    inline_policy: str = ""
    policy_arns: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def arn(self) -> str:
        """Return the user's ARN."""
        partition, _, number = self.account.partition(":")
        return f"arn:{partition}:iam::{number}:user{self.user_path}{self.user_name}"


@dataclass(frozen=True, slots=True)
class Request:
    """A caller's own id for one lease (a UUID), and a digest that shows whether a repeat is the same."""

    id: str
    digest: str


@dataclass(frozen=True, slots=True)
class Intent:
    """A lease before it is made: what ``begin`` stores before CreateUser may be sent."""

    id: str
    mount: str
    role: str
    credential_type: CredentialType
    owner: str
    footprint: Footprint
    ttl: timedelta
    max_ttl: timedelta
    max_users: int
    max_leases: int
    root_version: int
    request: Request | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """One row of the store."""

    id: str
    mount: str
    role: str
    credential_type: CredentialType
    owner: str
    state: State
    footprint: Footprint
    ttl: timedelta
    max_ttl: timedelta
    created_us: int
    due_us: int
    """When it is looked at next, or when the claim on it ends."""
    last_create_us: int
    """No CreateUser of this lease was sent after this instant; 0 where none took effect."""
    generation: int = 1
    """Another one after each change; a claim on the row is valid while it is the same."""
    access_key_id: str = ""
    issue_us: int = 0
    last_renewal_us: int = 0
    expires_us: int = 0
    max_expires_us: int = 0
    attempts: int = 0
    not_found_count: int = 0
    """How often AWS has not found the user, one attempt after another."""
    last_error: str = ""
    request: Request | None = None
    undelivered: bool = False
    """Nobody has the credential yet: it expires within ``UNDELIVERED_TTL`` unless a repeat takes it."""
    reason: str = ""
    """Why its caller asked for it, in the caller's words."""

    @property
    def is_session(self) -> bool:
        """Return whether this is a session of STS: AWS ends it at ``max_expires_us``, and nobody before."""
        return not self.footprint.user_name

    @property
    def stuck(self) -> bool:
        """Return whether AWS has refused the revocation so often that it needs an operator."""
        return self.state is State.REVOKING and self.attempts >= STUCK_AFTER

    def state_at(self, now_us: int) -> State:
        """Return the state as callers see it: an ACTIVE lease past its expiry reads as REVOKING."""
        if self.state is State.ACTIVE and self.expires_us <= now_us:
            return State.REVOKING
        return self.state


@dataclass(frozen=True, slots=True)
class Orphan:
    """A user of ours that no row knows; ``id`` is the lease it was created for, or a new one."""

    id: str
    mount: str
    role: str
    footprint: Footprint


# --- the steps of one row ---------------------------------------------------------------------------------


def begin(intent: Intent, now_us: int, span: timedelta) -> Lease:
    """Return the INTENT that is stored before CreateUser is sent; its claim lasts for ``span``."""
    until_us = now_us + span // MICROSECOND
    return Lease(
        id=intent.id,
        mount=intent.mount,
        role=intent.role,
        credential_type=intent.credential_type,
        owner=intent.owner,
        state=State.INTENT,
        footprint=intent.footprint,
        ttl=intent.ttl,
        max_ttl=intent.max_ttl,
        created_us=now_us,
        due_us=until_us,
        last_create_us=until_us,
        request=intent.request,
        reason=intent.reason,
    )


def adopt(orphan: Orphan, now_us: int) -> Lease:
    """Return the REVOKING row of a user that had none."""
    return Lease(
        id=orphan.id,
        mount=orphan.mount,
        role=orphan.role,
        credential_type=CredentialType.IAM_USER,
        owner="",
        state=State.REVOKING,
        footprint=orphan.footprint,
        ttl=timedelta(0),
        max_ttl=timedelta(0),
        created_us=now_us,
        due_us=now_us,
        last_create_us=now_us,
        last_error="adopted by a reconcile run",
    )


def activate(
    lease: Lease, access_key_id: str, now_us: int, *, ends_us: int = 0, undelivered: bool = False
) -> Lease:
    """Return the lease as it is handed out: its ttl counts from now; an undelivered one expires in 60 s.

    A session's end is ``ends_us``, as AWS said, and its ttl what is left until then: whole seconds, at least
    one. An end that lies too far ahead is not one of AWS's.
    """
    ttl, max_us, end_us = (
        lease.ttl,
        now_us + lease.max_ttl // MICROSECOND,
        now_us + lease.ttl // MICROSECOND,
    )
    if ends_us:
        max_us = end_us = max(min(ends_us, now_us + _MAX_SPAN_US), now_us + SECOND_US)
        ttl = timedelta(seconds=-((now_us - end_us) // SECOND_US))
    expires_us = min(end_us, now_us + UNDELIVERED_TTL // MICROSECOND) if undelivered else end_us
    return _step(
        lease,
        LeaseStep.ACTIVATE,
        access_key_id=access_key_id,
        ttl=ttl,
        issue_us=now_us,
        expires_us=expires_us,
        max_expires_us=max_us,
        due_us=expires_us,
        undelivered=undelivered,
    )


def replace_key(lease: Lease, access_key_id: str) -> Lease:
    """Return the lease with another key, delivered: if it was not before, it gets its full life back."""
    expires_us = lease.expires_us
    if lease.undelivered:
        full_us = lease.issue_us + lease.ttl // MICROSECOND
        expires_us = lease.max_expires_us if lease.is_session else full_us
    changes = {"access_key_id": access_key_id, "undelivered": False}
    return _step(lease, LeaseStep.REPLACE_KEY, **changes, expires_us=expires_us, due_us=expires_us)


def mark_undelivered(lease: Lease, now_us: int) -> Lease:
    """Return the lease of a credential that nobody was given: it expires in 60 s."""
    expires_us = min(lease.expires_us, now_us + UNDELIVERED_TTL // MICROSECOND)
    return _step(
        lease, LeaseStep.MARK_UNDELIVERED, undelivered=True, expires_us=expires_us, due_us=expires_us
    )


def renew(lease: Lease, expires_us: int, now_us: int) -> Lease:
    """Return the lease with another expiry."""
    return replace(retire(lease, expires_us), last_renewal_us=now_us)


def retire(lease: Lease, expires_us: int) -> Lease:
    """Return the lease with an earlier expiry, which is not a renewal."""
    return _step(lease, LeaseStep.RENEW, expires_us=expires_us, due_us=expires_us)


def abort(lease: Lease, error: str, last_create_us: int, now_us: int) -> Lease:
    """Return an INTENT that is given up: to be revoked immediately."""
    return _step(lease, LeaseStep.ABORT, last_error=error, last_create_us=last_create_us, due_us=now_us)


def reschedule(
    lease: Lease, error: str, wait: timedelta, now_us: int, *, attempts: int, not_found_count: int
) -> Lease:
    """Return the lease after an attempt that did not end it: due again after ``wait``.

    Without a wait it is as due as before, in the order of expiries: at its expiry, if that has passed.
    """
    due_us = now_us + wait // MICROSECOND
    if not wait and 0 < lease.expires_us <= now_us:
        due_us = lease.expires_us
    counts = {"attempts": attempts, "not_found_count": not_found_count}
    return _step(lease, LeaseStep.RESCHEDULE, last_error=error, due_us=due_us, **counts)


def finish(lease: Lease) -> Lease:
    """Return the lease's tombstone."""
    return _step(lease, LeaseStep.FINISH, last_error="", due_us=0)


def next_generation(generation: int) -> int:
    """Return the generation of a row after one more change."""
    return 1 if generation >= MAX_GENERATION else generation + 1


def _step(lease: Lease, step: LeaseStep, **changes: object) -> Lease:
    state = STEPS.get((lease.state, step))
    if state is None:
        raise AssertionError(f"{step.value} is not a step of a lease that is {lease.state.value}")
    return replace(lease, state=state, generation=next_generation(lease.generation), **changes)  # type: ignore[arg-type]

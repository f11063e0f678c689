"""The life of a lease: its states and the steps between them.

    INTENT ──activate──▶ ACTIVE ──expire / revoke──▶ REVOKING ──finish──▶ GONE
       └─────────────── abort / revoke ────────────────▲  ▲───── reopen ────┘
    ABANDONED ◀── abandon ── (any but GONE);  revoke takes it up again
    A user that no row knows is adopted as REVOKING.

A step of one row is a pure function in this module. The store writes its result if the row is unchanged; it
does not write an ACTIVE lease that has expired or that a bulk revocation covers. Steps of many rows, or of a
row that nobody has read, are statements of the store: claim (which is expire), revoke, reopen and abandon.

An intent is durable before CreateUser is sent, so every user on the account has a row. GONE is the tombstone
of a deleted user. A session of STS has no user: its lease ends without a call to AWS, and the session works
until AWS ends it. Instants are microseconds since the epoch (``…_us``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import timedelta
from enum import Enum
from operator import attrgetter
from typing import Final

from lessor_server.domain.durations import MAX_DURATION_US, MICROSECOND, SECOND_US
from lessor_server.domain.role import CredentialType

MAX_GENERATION: Final = 2**53
"""The greatest generation of a row; after it comes the first one: no row becomes unreadable by a change."""


class State(Enum):
    """Where a lease is in its life."""

    INTENT = "INTENT"
    ACTIVE = "ACTIVE"
    REVOKING = "REVOKING"
    GONE = "GONE"
    ABANDONED = "ABANDONED"

    __hash__ = object.__hash__  # Enum's is written in Python, and each look at a row of a store needs it


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

    __hash__ = object.__hash__  # as that of State


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
"""After so many refused attempts a revocation is labelled STUCK; it is still retried."""

UNDELIVERED_TTL = timedelta(seconds=60)
"""The ttl of a credential whose caller disconnected before it was ready, if the request has an id."""

TOMBSTONE_LIFE = timedelta(days=7)
"""The minimum age of a tombstone before it is deleted."""

CREATE_GRACE = timedelta(minutes=15)
"""For how long a signed CreateUser may still take effect: AWS refuses signatures older than 15 minutes.

Source: AWS General Reference, "Signature Version 4: handling dates" and IAM's RequestExpired error.
"""


@dataclass(frozen=True, slots=True)
class Footprint:
    """The names under which a lease's user is on AWS: all that its revocation needs.

    A session has no user, and an empty ``user_name``.
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
    """A lease that may begin, with the limits that the store checks."""

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
    policy_rule: str = ""
    """The pattern of the access rule that admits it; empty for root's."""
    rule_max_leases: int | None = None
    """How many leases of the owner that rule admits at the same time; None: no limit."""


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
    """When the lease is worked on next, or when the claim on it ends."""
    last_create_us: int
    """No CreateUser of this lease was sent after this instant; 0 if none had an effect."""
    generation: int = 1
    """Each change of the row increases it; a claim is valid until then."""
    access_key_id: str = ""
    issue_us: int = 0
    last_renewal_us: int = 0
    expires_us: int = 0
    max_expires_us: int = 0
    attempts: int = 0
    not_found_count: int = 0
    """The number of consecutive attempts in which AWS did not find the user."""
    last_error: str = ""
    request: Request | None = None
    undelivered: bool = False
    """No caller has the credential yet: it expires within ``UNDELIVERED_TTL`` unless a repeat gets it."""
    reason: str = ""
    """The reason that the caller gave."""
    policy_rule: str = ""
    """The pattern of the access rule that admitted it; empty for root's, and for leases of older versions."""
    tampered: bool = field(default=False, compare=False)
    """The row is not as Lessor wrote it: it may be revoked, but neither renewed nor issued again."""

    @property
    def is_session(self) -> bool:
        """Return whether this is a session of STS, which nobody can end before ``max_expires_us``."""
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
    """A user of this installation without a row; ``id`` is its lease's id from its tags, or a new one."""

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
        policy_rule=intent.policy_rule,
    )


def adopt(orphan: Orphan, now_us: int) -> Lease:
    """Return the REVOKING row of a user without a row."""
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
    """Return the ACTIVE lease: its ttl counts from now, and an undelivered lease expires in 60 s.

    A session ends at ``ends_us``, as AWS reported. Its ttl is the time until then in whole seconds, at least
    one. The end is limited to the longest ttl that a caller may set, in case AWS's answer is wrong.
    """
    ttl = lease.ttl
    max_us = now_us + lease.max_ttl // MICROSECOND
    end_us = now_us + ttl // MICROSECOND
    if ends_us:
        max_us = end_us = max(min(ends_us, now_us + MAX_DURATION_US), now_us + SECOND_US)
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


def replace_key(lease: Lease, access_key_id: str, bound_us: int | None = None) -> Lease:
    """Return the lease with another key, as delivered: an undelivered lease gets its full ttl back.

    With ``bound_us`` it expires then at the latest.
    """
    expires_us = lease.expires_us
    if lease.undelivered:
        full_us = lease.issue_us + lease.ttl // MICROSECOND
        expires_us = lease.max_expires_us if lease.is_session else full_us
    expires_us = expires_us if bound_us is None else min(expires_us, bound_us)
    changes = {"access_key_id": access_key_id, "undelivered": False}
    return _step(lease, LeaseStep.REPLACE_KEY, **changes, expires_us=expires_us, due_us=expires_us)


def mark_undelivered(lease: Lease, now_us: int) -> Lease:
    """Return the lease of a credential that no caller received: it expires in 60 s."""
    expires_us = min(lease.expires_us, now_us + UNDELIVERED_TTL // MICROSECOND)
    return _step(
        lease, LeaseStep.MARK_UNDELIVERED, undelivered=True, expires_us=expires_us, due_us=expires_us
    )


def renew(lease: Lease, expires_us: int, now_us: int) -> Lease:
    """Return the lease with another expiry."""
    return _step(lease, LeaseStep.RENEW, expires_us=expires_us, due_us=expires_us, last_renewal_us=now_us)


def retire(lease: Lease, expires_us: int) -> Lease:
    """Return the lease with an earlier expiry; this does not count as a renewal."""
    return _step(lease, LeaseStep.RENEW, expires_us=expires_us, due_us=expires_us)


def abort(lease: Lease, error: str, last_create_us: int, now_us: int) -> Lease:
    """Return the INTENT as REVOKING, due immediately."""
    return _step(lease, LeaseStep.ABORT, last_error=error, last_create_us=last_create_us, due_us=now_us)


def reschedule(
    lease: Lease, error: str, wait: timedelta, now_us: int, *, attempts: int, not_found_count: int
) -> Lease:
    """Return the lease after an attempt that did not delete its user: due again after ``wait``.

    Without a wait, a lease that has expired is due at its expiry, so that the order of expiries stays.
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
    changes |= {"state": state, "generation": next_generation(lease.generation)}
    # ``dataclasses.replace`` would do the same in ten times the steps.
    values = list(_values_of(lease))
    for name, value in changes.items():
        values[_PLACES[name]] = value
    return Lease(*values)


_PLACES: Final = {one.name: place for place, one in enumerate(fields(Lease))}
_values_of: Final = attrgetter(*_PLACES)

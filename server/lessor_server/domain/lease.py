"""The life of a lease: its states, the steps between them, and the values that carry it.

    INTENT ──activate──▶ ACTIVE ──expire / revoke──▶ REVOKING ──finish──▶ GONE
       └────────────── release / revoke ────────────────▲  ▲───── reopen ────┘
    ABANDONED ◀── abandon ── (any but GONE);  revoke takes it up again
    A user that no row knows is adopted as REVOKING.

An intent is durable before CreateUser is sent, so every user on the account has a row; GONE is the
tombstone that outlives the user. A session of STS has no user: its lease is ended without a call to AWS,
and the session lives on until AWS ends it. Instants are microseconds since the epoch (``…_us``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from lessor_server.domain.role import CredentialType


class State(Enum):
    """Where a lease is in its life."""

    INTENT = "INTENT"
    ACTIVE = "ACTIVE"
    REVOKING = "REVOKING"
    GONE = "GONE"
    ABANDONED = "ABANDONED"


LIVE = frozenset({State.INTENT, State.ACTIVE, State.REVOKING})
"""States that count against ``max_leases`` and, where there is a user, against ``max_users``."""


class Step(Enum):
    """One named change of a lease; the store has one method for each."""

    ACTIVATE = "activate"
    RENEW = "renew"
    REKEY = "rekey"
    EXPIRE = "expire"
    REVOKE = "revoke"
    RELEASE = "release"
    FAIL = "fail"
    FINISH = "finish"
    REOPEN = "reopen"
    ABANDON = "abandon"


STEPS: dict[tuple[State, Step], State] = {
    (State.INTENT, Step.ACTIVATE): State.ACTIVE,
    (State.INTENT, Step.RELEASE): State.REVOKING,
    (State.INTENT, Step.EXPIRE): State.REVOKING,
    (State.INTENT, Step.REVOKE): State.REVOKING,
    (State.ACTIVE, Step.RENEW): State.ACTIVE,
    (State.ACTIVE, Step.REKEY): State.ACTIVE,
    (State.ACTIVE, Step.EXPIRE): State.REVOKING,
    (State.ACTIVE, Step.REVOKE): State.REVOKING,
    (State.REVOKING, Step.EXPIRE): State.REVOKING,
    (State.REVOKING, Step.REVOKE): State.REVOKING,
    (State.REVOKING, Step.FAIL): State.REVOKING,
    (State.REVOKING, Step.FINISH): State.GONE,
    (State.REVOKING, Step.REOPEN): State.REVOKING,
    (State.GONE, Step.REOPEN): State.REVOKING,
    (State.INTENT, Step.ABANDON): State.ABANDONED,
    (State.ACTIVE, Step.ABANDON): State.ABANDONED,
    (State.REVOKING, Step.ABANDON): State.ABANDONED,
    (State.ABANDONED, Step.REVOKE): State.REVOKING,
}
"""Every allowed step; what is not here cannot happen. The stores' WHERE clauses mirror it."""


def allowed(state: State, step: Step) -> State | None:
    """Return the state after ``step``, or None where the step is not allowed."""
    return STEPS.get((state, step))


def sources(step: Step) -> tuple[State, ...]:
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
    generation: int
    footprint: Footprint
    access_key_id: str
    ttl: timedelta
    created_us: int
    issue_us: int
    last_renewal_us: int
    expires_us: int
    max_expires_us: int
    due_us: int
    attempts: int
    looks: int
    last_error: str
    last_create_us: int
    """No CreateUser of this lease was sent after this instant; 0 where none took effect."""
    request: Request | None
    undelivered: bool
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


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on one lease: valid while the row still has this generation."""

    lease: Lease

    @property
    def id(self) -> str:
        """Return the lease's id."""
        return self.lease.id

    @property
    def generation(self) -> int:
        """Return the generation that the row must still have."""
        return self.lease.generation

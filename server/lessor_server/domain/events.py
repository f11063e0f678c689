"""What happened, as values: logs, metrics, watchers and tests all hang on these.

No event carries a secret. ``lease_id`` names the lease; spans are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BY_CLOCK: Final = "the clock"
"""Stands for whoever asked where nobody did: what is done by a schedule, or goes on after a failure."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; each subclass says what."""


@dataclass(frozen=True, slots=True)
class Issued(Event):
    """A lease became ACTIVE and its credential goes out."""

    lease_id: str
    access_key_id: str
    owner: str
    expires_us: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class IssueFailed(Event):
    """An issue ended without a credential; the row is being revoked. ``detail`` is AWS's own text."""

    lease_id: str
    error: str
    detail: str


@dataclass(frozen=True, slots=True)
class Renewed(Event):
    """A caller had a lease live to another time."""

    lease_id: str
    expires_us: int
    by: str


@dataclass(frozen=True, slots=True)
class Retired(Event):
    """A stream of credentials has moved on from this lease, or has ended: it lives to ``expires_us`` only."""

    lease_id: str
    expires_us: int


@dataclass(frozen=True, slots=True)
class Expiring(Event):
    """A lease's time is up, and its revocation begins."""

    lease_id: str


@dataclass(frozen=True, slots=True)
class RevocationAsked(Event):
    """A caller asked for a revocation."""

    lease_id: str
    by: str


@dataclass(frozen=True, slots=True)
class Revoked(Event):
    """The user is gone; the row is a tombstone."""

    lease_id: str


@dataclass(frozen=True, slots=True)
class Forgotten(Revoked):
    """A session's lease is over; the session itself works until AWS ends it, 0 where it was never made."""

    works_until_us: int


@dataclass(frozen=True, slots=True)
class RevocationFailed(Event):
    """One attempt to revoke failed; another follows in ``retry_in`` seconds. ``detail`` is AWS's own text."""

    lease_id: str
    error: str
    detail: str
    attempts: int
    retry_in: float


@dataclass(frozen=True, slots=True)
class Stuck(Event):
    """AWS has refused a revocation many times; it goes on, and a person should look."""

    lease_id: str
    error: str
    attempts: int


@dataclass(frozen=True, slots=True)
class AccountPaused(Event):
    """AWS does not answer for an account; the next probe goes out in ``retry_in`` seconds."""

    account: str
    error: str
    retry_in: float


@dataclass(frozen=True, slots=True)
class AccountResumed(Event):
    """AWS answers for the account again."""

    account: str


@dataclass(frozen=True, slots=True)
class TakenOver(Event):
    """At start, ``rows`` half-made or claimed leases of the process before were put up for revocation."""

    rows: int


@dataclass(frozen=True, slots=True)
class ClaimLost(Event):
    """A step found that the lease had changed hands; nothing was done."""

    lease_id: str
    step: str


@dataclass(frozen=True, slots=True)
class ExpiryHeld(Event):
    """Leases do not expire until ``why`` is settled or a person resumes; ``by`` is who asked, if anybody."""

    why: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class ExpiryResumed(Event):
    """Leases expire again; ``by`` is empty where what held them is settled by itself."""

    by: str = ""


@dataclass(frozen=True, slots=True)
class ClockLowered(Event):
    """A person has had the service's time set back to the machine's."""

    by: str


@dataclass(frozen=True, slots=True)
class BackedUp(Event):
    """A copy of the store was written."""

    path: str
    size_bytes: int
    by: str


@dataclass(frozen=True, slots=True)
class PrefixAccepted(Event):
    """A range of ``taken`` leases was put up for revocation."""

    prefix: str
    taken: int
    by: str


@dataclass(frozen=True, slots=True)
class Abandoned(Event):
    """A person decided that nobody tries to revoke these leases any more."""

    prefix: str
    leases: int
    by: str


@dataclass(frozen=True, slots=True)
class OrphanAdopted(Event):
    """A user of ours that no row knew is being revoked; ``by`` is empty where nobody asked for the sweep."""

    lease_id: str
    user_name: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class UserMissed(Event):
    """A lease whose user is not on the account ends; ``by`` is empty where nobody asked for the sweep."""

    lease_id: str
    user_name: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class Swept(Event):
    """The account and the store were compared: how many users were listed, tombstones dropped."""

    mount: str
    users: int
    buried: int


@dataclass(frozen=True, slots=True)
class SweepFailed(Event):
    """The account could not be listed; it is tried again."""

    mount: str
    error: str


@dataclass(frozen=True, slots=True)
class MountRemoved(Event):
    """A disabled mount had no lease left and is gone."""

    name: str


@dataclass(frozen=True, slots=True)
class Created(Event):
    """A mount, root or role that was not there before was stored."""

    what: str
    name: str
    by: str


@dataclass(frozen=True, slots=True)
class Changed(Event):
    """A mount, root or role was changed."""

    what: str
    name: str
    by: str


@dataclass(frozen=True, slots=True)
class Deleted(Event):
    """A role was deleted."""

    what: str
    name: str
    by: str


@dataclass(frozen=True, slots=True)
class MountDisabled(Event):
    """A mount issues nothing more and goes once its leases are gone; with ``force`` they are abandoned."""

    name: str
    by: str
    force: bool


@dataclass(frozen=True, slots=True)
class Rotated(Event):
    """A new access key is in use; ``subject`` is ``<mount>/root`` or ``<mount>/static-creds/<name>``."""

    subject: str
    access_key_id: str
    by: str


@dataclass(frozen=True, slots=True)
class StaticKeyRead(Event):
    """The current key of a static role goes out."""

    subject: str
    access_key_id: str
    by: str


@dataclass(frozen=True, slots=True)
class KeyRetired(Event):
    """An access key that was replaced is deleted."""

    subject: str
    access_key_id: str


@dataclass(frozen=True, slots=True)
class LostKeyDeleted(Event):
    """An access key that a rotation made, and whose secret nobody got to know, is deleted."""

    subject: str
    access_key_id: str


@dataclass(frozen=True, slots=True)
class KeyLeft(Event):
    """An access key that nobody needs was not deleted, and is forgotten; a person should delete it.

    ``access_key_id`` is empty where only AWS knows which it is: one of the user's that nobody uses.
    """

    subject: str
    user_name: str
    access_key_id: str
    error: str


@dataclass(frozen=True, slots=True)
class RotationFailed(Event):
    """A rotation failed; what it left is looked at again. ``detail`` is AWS's own text."""

    subject: str
    error: str
    detail: str
    attempts: int
    by: str


@dataclass(frozen=True, slots=True)
class RotationMissed(Event):
    """A rotation could not begin within its window; the next one is due at ``next_us``."""

    subject: str
    next_us: int


@dataclass(frozen=True, slots=True)
class Reloaded(Event):
    """The settings or the certificates were read again; a change of ``needs_restart`` counts after one."""

    what: str
    needs_restart: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReloadFailed(Event):
    """New settings or certificates can't be used; what was read before stays in use."""

    what: str
    error: str


@dataclass(frozen=True, slots=True)
class UnreadableRow(Event):
    """A row cannot be read and is passed over; ``problem`` names the columns, not their values."""

    table: str
    key: str
    problem: str


@dataclass(frozen=True, slots=True)
class StoreFailed(Event):
    """The store cannot write; it is tried again every second."""

    error: str


@dataclass(frozen=True, slots=True)
class StoreBack(Event):
    """The store writes again."""

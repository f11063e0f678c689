"""Events as values: logs, metrics, watchers and tests receive these.

No event carries a secret. ``lease_id`` names the lease, and ``owner`` its owner; spans are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final

BY_CLOCK: Final = "the clock"
"""Named as the caller if there is none: after a schedule, or in a retry."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; each subclass says what."""

    log_name: ClassVar[str] = ""
    """The event's name in the log, if it differs from the class's name in snake case."""


@dataclass(frozen=True, slots=True)
class Issued(Event):
    """A lease became ACTIVE and its credential is returned."""

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
    """A caller renewed a lease."""

    lease_id: str
    expires_us: int
    by: str
    owner: str = field(default="", kw_only=True)


@dataclass(frozen=True, slots=True)
class Retired(Event):
    """A credential stream has replaced this lease, or has ended: the lease now expires at ``expires_us``."""

    lease_id: str
    expires_us: int
    owner: str = field(default="", kw_only=True)


@dataclass(frozen=True, slots=True)
class Expiring(Event):
    """A lease's time is up, and its revocation begins."""

    lease_id: str
    owner: str = field(default="", kw_only=True)


@dataclass(frozen=True, slots=True)
class RevocationAsked(Event):
    """A caller asked for a revocation."""

    lease_id: str
    by: str


@dataclass(frozen=True, slots=True)
class Revoked(Event):
    """The lease's user is deleted; the row is a tombstone."""

    lease_id: str
    owner: str = field(default="", kw_only=True)


@dataclass(frozen=True, slots=True)
class Forgotten(Revoked):
    """A session's lease has ended; the session works until ``works_until_us``, 0 if it was never created."""

    works_until_us: int


@dataclass(frozen=True, slots=True)
class RevocationFailed(Event):
    """One attempt to revoke failed; another follows in ``retry_in`` seconds. ``detail`` is AWS's own text."""

    lease_id: str
    error: str
    detail: str
    attempts: int
    retry_in: float
    owner: str = field(default="", kw_only=True)


@dataclass(frozen=True, slots=True)
class Stuck(Event):
    """AWS has refused a revocation many times; it is retried, and needs an operator."""

    lease_id: str
    error: str
    attempts: int
    owner: str = field(default="", kw_only=True)


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
    """At start, ``rows`` unfinished or claimed leases of the previous process became due for revocation."""

    rows: int


@dataclass(frozen=True, slots=True)
class ReplicaSilent(Event):
    """A replica gave no sign of life for 20 s; ``rows`` leases that it was revoking became due for others."""

    replica: str
    rows: int


@dataclass(frozen=True, slots=True)
class ClaimLost(Event):
    """A step found that another process has claimed the lease; nothing was done."""

    lease_id: str
    step: str


@dataclass(frozen=True, slots=True)
class ExpiryHeld(Event):
    """Leases do not expire until ``why`` is resolved or an operator resumes; ``by`` is the caller, if any."""

    why: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class ExpiryResumed(Event):
    """Leases expire again; ``by`` is empty if the cause was resolved without a caller."""

    by: str = ""


@dataclass(frozen=True, slots=True)
class ClockLowered(Event):
    """An operator set the service's time back to the machine's."""

    by: str


@dataclass(frozen=True, slots=True)
class BackedUp(Event):
    """A copy of the store was written."""

    path: str
    size_bytes: int
    by: str


@dataclass(frozen=True, slots=True)
class PrefixAccepted(Event):
    """The revocation of a range of ``taken`` leases was accepted; ``owner`` is empty for every owner's."""

    prefix: str
    taken: int
    by: str
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Abandoned(Event):
    """An operator ended the attempts to revoke these leases."""

    prefix: str
    leases: int
    by: str


@dataclass(frozen=True, slots=True)
class OrphanAdopted(Event):
    """An orphan is being revoked; ``by`` is empty in a scheduled reconcile run."""

    lease_id: str
    user_name: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class UserMissing(Event):
    """A lease whose user is not on the account ends; ``by`` is empty in a scheduled reconcile run."""

    log_name: ClassVar[str] = "user_missed"
    lease_id: str
    user_name: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class Reconciled(Event):
    """The account and the store were compared: ``users`` were listed, ``buried`` tombstones purged."""

    log_name: ClassVar[str] = "swept"
    mount: str
    users: int
    buried: int


@dataclass(frozen=True, slots=True)
class ReconcileFailed(Event):
    """The account could not be listed; it is retried."""

    log_name: ClassVar[str] = "sweep_failed"
    mount: str
    error: str


@dataclass(frozen=True, slots=True)
class MountRemoved(Event):
    """A disabled mount had no lease left and was removed."""

    name: str


@dataclass(frozen=True, slots=True)
class Created(Event):
    """A new mount, root or role was stored."""

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
    """A mount is being disabled, and is removed once its leases are gone; ``force`` abandons them."""

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
    """The current key of a static role is returned to a caller."""

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
    """An access key that a rotation created, and whose secret was lost, is deleted."""

    subject: str
    access_key_id: str


@dataclass(frozen=True, slots=True)
class KeyLeft(Event):
    """An unneeded access key was not deleted, and will not be; an operator should delete it.

    ``access_key_id`` is empty if it is unknown: the key is the one of the user's that nobody uses.
    """

    subject: str
    user_name: str
    access_key_id: str
    error: str


@dataclass(frozen=True, slots=True)
class RotationFailed(Event):
    """A rotation failed; it is retried. ``detail`` is AWS's own text."""

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
    """Settings or certificates were read again; ``needs_restart`` lists what changes at the next start."""

    what: str
    needs_restart: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReloadFailed(Event):
    """New settings or certificates can't be used; the old ones stay in use."""

    what: str
    error: str


@dataclass(frozen=True, slots=True)
class UnreadableRow(Event):
    """A row cannot be read and is skipped; ``problem`` names the columns, not their values."""

    table: str
    key: str
    problem: str


@dataclass(frozen=True, slots=True)
class TamperedRow(Event):
    """A row that grants rights is not as Lessor wrote it; nothing is granted from it."""

    table: str
    key: str


@dataclass(frozen=True, slots=True)
class DatabaseCopied(Event):
    """The database of an earlier version was copied to ``name`` before it was upgraded to ``schema``."""

    name: str
    schema: int


@dataclass(frozen=True, slots=True)
class RowsSealed(Event):
    """The rows of a database without a data key got MACs, and ``values`` were sealed under a first one."""

    key_id: str
    values: int


@dataclass(frozen=True, slots=True)
class SealingKeyRotated(Event):
    """All rows are sealed under a new data key; ``by`` is empty if a start finished it."""

    key_id: str
    resealed: int
    by: str = ""


@dataclass(frozen=True, slots=True)
class SealingKeyAway(Event):
    """AWS KMS does not decrypt the data keys; it is asked again."""

    error: str


@dataclass(frozen=True, slots=True)
class StoreFailed(Event):
    """The store cannot write; it is retried every second."""

    error: str


@dataclass(frozen=True, slots=True)
class StoreBack(Event):
    """The store writes again."""


@dataclass(frozen=True, slots=True)
class AuditSinkFailed(Event):
    """An audit sink can't be written to; it is retried. ``is_last`` says that no other sink works."""

    sink: str
    error: str
    is_last: bool


@dataclass(frozen=True, slots=True)
class AuditSinkBack(Event):
    """An audit sink works again."""

    sink: str


@dataclass(frozen=True, slots=True)
class AuditRecordsMissing(Event):
    """An audit file does not continue as the data directory says.

    Someone has cut, changed or added to it, or after a kill or a crash some of its records are not certain.
    """

    sink: str
    problem: str

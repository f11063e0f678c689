"""The Protocols through which the engine reaches the outside; adapters and tests implement them.

Every method that waits may raise ``StoreUnavailable`` (stores) or the errors of ``domain/aws/errors``
(AWS). Instants are microseconds since the epoch by the store's clock. If a row cannot be read, a method
that needs it raises ``RowUnreadable``, and a method that returns many rows leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol, TypeVar

from lessor_server.domain.aws.iam_calls import Call
from lessor_server.domain.events import Event
from lessor_server.domain.lease import Intent, Lease, Orphan, State
from lessor_server.domain.lease_id import IdRange
from lessor_server.domain.mount import Mount
from lessor_server.domain.role import Role
from lessor_server.domain.root import Root, StoredRoot
from lessor_server.domain.rotation import Rotation
from lessor_server.engine.login_ports import LoginStore
from lessor_server.engine.sealing_ports import RowSeals
from lessor_server.engine.store_types import (
    BulkRevocation,
    ClaimTerms,
    LeaseCount,
    LeaseGauges,
    Progress,
    StoredContext,
    StoreStatus,
    WrappedKey,
)

T = TypeVar("T")

Watch = Callable[[str, int], None]
"""Takes a lease's id and its new deadline in microseconds, after the commit."""


class LeaseStore(Protocol):
    """Rows of leases; each method is one transaction.

    The holder of a claim has the newest generation of the row: a write with an older one changes nothing.
    """

    def now(self) -> int:
        """Return the service's time: every comparison with a stored instant uses it."""
        ...

    async def begin(self, intent: Intent, span: timedelta) -> Lease:
        """Store an INTENT, claimed for ``span``, if mount, root version and both limits allow it.

        A session has no user, so it does not count against ``max_users``.

        Raises:
            NotFound, MountDisabling: The mount takes no new lease.
            RootChanged: The root was changed since it was read.
            Aborted: Another process works on the same request.
            RuleFull, MountFull, RoleFull: A limit is reached. The limit of an access rule counts live leases,
                and sessions until AWS ends them.
        """
        ...

    async def write(self, before: Lease, after: Lease) -> bool:
        """Write a step of ``domain.lease`` and end the claim on the row; return whether it was written.

        It is not written if the row has changed since ``before``. A step that leaves the lease ACTIVE is not
        written either if the lease has expired, or if an open bulk revocation covers it.
        """
        ...

    async def renew(self, lease_id: str, renew: Callable[[Lease, int], Lease]) -> Lease | None:
        """Write what ``renew`` returns of a lease and the service's time; return it, None if there is no row.

        ``renew`` may be called more than once, and on another thread; its errors are raised.

        Raises:
            RowUnreadable: The row cannot be read.
            LeaseRevoking: An open bulk revocation covers the lease, or others changed it again and again.
        """
        ...

    async def revoke(self, lease_id: str) -> Lease | None:
        """Make the lease due for revocation immediately, and void every claim on it.

        Returns the row after the change (GONE rows stay GONE), or None if there is no row.
        """
        ...

    async def reopen(self, lease_id: str, last_create_us: int) -> None:
        """Set a REVOKING or GONE lease to REVOKING, due immediately: its user may have been created late."""
        ...

    async def claim(self, ids: Sequence[str], terms: ClaimTerms) -> list[Lease]:
        """Claim those of ``ids`` that are due and unclaimed; ACTIVE and INTENT rows become REVOKING.

        While the store holds expiry, ACTIVE rows are not due, whatever the terms say.
        """
        ...

    async def claim_due(
        self, terms: ClaimTerms, limit: int, without: frozenset[str] = frozenset()
    ) -> list[Lease]:
        """Claim due rows, earliest first; of the accounts in ``without``, only sessions."""
        ...

    async def void_stale_claims(self) -> int:
        """Void every claim, on rotations too, and make the rows due; return how many leases were claimed.

        Call it only if no other process uses the store.
        """
        ...

    async def list_due_within(self, span: timedelta, limit: int) -> list[tuple[str, int]]:
        """Return (id, due_us) of the rows that fall due between now and ``span`` later, earliest first."""
        ...

    async def get(self, lease_id: str, *, salvage: bool = False) -> Lease | None:
        """Return one lease; with ``salvage`` spare values stand for columns that no revocation needs."""
        ...

    async def is_current(self, lease: Lease) -> bool:
        """Return whether nothing has changed the row since ``lease`` was read: it has its generation."""
        ...

    async def get_owner(self, lease_id: str) -> str | None:
        """Return the owner of a lease, also of one that cannot be read; None if it has none or is unknown."""
        ...

    async def get_bound_account(self, mount: str) -> str:
        """Return the account on which leases of the mount have or had users; empty if there are none."""
        ...

    async def page(
        self, ids: IdRange, state: State | None, after: str, limit: int, owner: str | None = None
    ) -> list[Lease]:
        """Return leases with ids greater than ``after``, by id; ``state`` is what callers see now.

        With an ``owner``: only its leases, and no row of another owner is read.
        """
        ...

    async def count(self, ids: IdRange, state: State | None, owner: str | None = None) -> list[LeaseCount]:
        """Count leases by mount, role and the state that callers see; with an ``owner`` only its leases."""
        ...

    async def list_owners(self, after: str, limit: int) -> list[tuple[str, int]]:
        """Return owners of live leases, greater than ``after`` and in order, each with their number."""
        ...


class ConfigStore(Protocol):
    """Mounts, roots and roles."""

    async def load_issue_context(
        self, mount: str, role: str, owner: str = "", request_id: str = ""
    ) -> StoredContext:
        """Read mount, root and role in one transaction, and the lease that this request id has, if any."""
        ...

    async def get_mount(self, name: str) -> Mount | None:
        """Return one mount."""
        ...

    async def put_mount(self, before: Mount | None, after: Mount) -> bool:
        """Store a mount if the stored one equals ``before`` (None: there is none); False otherwise."""
        ...

    async def list_mounts(self, after: str, limit: int) -> list[Mount]:
        """Return mounts whose names are greater than ``after``, by name."""
        ...

    async def mount_names(self, after: str, limit: int) -> list[str]:
        """Return the names of mounts greater than ``after``, including rows that cannot be read."""
        ...

    async def get_root(self, mount: str) -> StoredRoot | None:
        """Return the mount's sealed root."""
        ...

    async def put_root(self, root: StoredRoot, expect_version: int) -> bool:
        """Store a root if the stored one has ``expect_version`` (0: there is none); False otherwise."""
        ...

    async def bind_account(self, mount: str, version: int, account: str) -> bool:
        """Set the account of a root of this version that has none; False if the root has changed."""
        ...

    async def get_role(self, mount: str, name: str) -> Role | None:
        """Return one role."""
        ...

    async def put_role(self, role: Role, expect_etag: str | None) -> bool:
        """Store a role if the stored one has ``expect_etag`` (None: there is none); False otherwise."""
        ...

    async def delete_role(self, mount: str, name: str) -> bool:
        """Delete a role, but not its leases; False if there is none."""
        ...

    async def list_roles(self, mount: str, after: str, limit: int) -> list[Role]:
        """Return roles of a mount whose names are greater than ``after``, by name."""
        ...


class UpkeepStore(Protocol):
    """Bulk revocations, reconcile, the clock, and backups."""

    async def open_prefix(self, ids: IdRange, owner: str = "") -> tuple[BulkRevocation, int]:
        """Accept the revocation of a range in one small commit; return it, and how many leases live in it.

        With an ``owner`` it covers only the leases of that owner.
        """
        ...

    async def disable(self, mount: str) -> tuple[Mount, int] | None:
        """Set a mount to DISABLING and accept the revocation of its range, in one small commit.

        Returns the mount and the number of its live leases, or None if there is no such mount.
        """
        ...

    async def prefixes(self) -> list[BulkRevocation]:
        """Return the ranges whose leases are not all REVOKING yet."""
        ...

    async def mark_range_revoking(self, prefix: BulkRevocation, after: str, limit: int) -> list[str]:
        """Make the next live leases of a range, by id, due immediately: REVOKING and without an error.

        A claimed lease keeps its claim; all keep their count of attempts. Returns the ids in order, and an
        empty list at the end of the range.
        """
        ...

    async def close_prefix(self, prefix: BulkRevocation) -> None:
        """Delete a bulk revocation, all of whose leases are REVOKING."""
        ...

    async def progress(self, prefix: BulkRevocation) -> Progress:
        """Count the leases of a bulk revocation."""
        ...

    async def abandon(self, ids: IdRange, limit: int, *, live: bool) -> list[str]:
        """Set some leases of a range to ABANDONED; return their ids, none if all are.

        Sessions are left out: their leases end without a call to AWS.
        """
        ...

    async def leases_by_user_name(self, user_names: Sequence[str]) -> dict[str, Lease | None]:
        """Return the leases of these users by user name; None for a row that cannot be read."""
        ...

    async def adopt(self, orphan: Orphan) -> bool:
        """Store a REVOKING row, due immediately, for a user without a row; False if the id is in use."""
        ...

    async def purge_tombstones(self, account: str, listed_us: int) -> int:
        """Delete tombstones of an account that are 7 days old; return how many.

        A complete listing of the account, begun at ``listed_us``, has shown none of their users. If the
        account is empty: delete the tombstones of sessions that ended 7 days ago.
        """
        ...

    async def remove_disabled(self) -> list[str]:
        """Delete DISABLING mounts without live leases, with their roots and roles; return their names."""
        ...

    def drift_us(self) -> int:
        """Return how far the machine's wall clock is ahead of the service's time."""
        ...

    async def status(self) -> StoreStatus:
        """Return the state of the store as a whole."""
        ...

    async def measure_leases(self) -> LeaseGauges:
        """Return the numbers for metrics; it takes little time also with a million leases."""
        ...

    async def set_expiry_hold(self, why: str) -> None:
        """Hold expiry, across starts too, for this reason; an empty text ends the hold."""
        ...

    async def lower_clock(self) -> None:
        """Set the service's time to the wall clock, and delete the high-water mark.

        Leases that were begun later than that count as begun now.
        """
        ...

    async def backup(self, path: str) -> tuple[str, int]:
        """Write a consistent copy below the data directory; return its path and size in bytes.

        Raises:
            Invalid: The path is outside of the data directory. AlreadyExists: The file exists.
        """
        ...


class RotationStore(Protocol):
    """Rows of rotations; ``domain.rotation`` works out each step, and the whole row is written.

    The holder of a claim has the newest generation of the row: a write with an older one changes nothing.
    """

    def now(self) -> int:
        """Return the service's time: every comparison with a stored instant uses it."""
        ...

    async def add_rotation(self, rotation: Rotation) -> Rotation | None:
        """Store a new row, claimed; None if the subject has a row.

        Raises:
            StaticUserTaken: Another static role has the same user.
        """
        ...

    async def get_rotation(self, subject: str) -> Rotation | None:
        """Return one row."""
        ...

    async def list_static(self, mount: str, after: str, limit: int) -> list[Rotation]:
        """Return the rows of a mount's static roles whose names are greater than ``after``, by name."""
        ...

    async def find_static_holder(self, key_id: str, without: str) -> Rotation | None:
        """Return the static role, other than ``without``, that has this key: current, previous or pending."""
        ...

    async def find_replacing_rotation(self, key_id: str) -> Rotation | None:
        """Return the rotation of a root that has replaced this key, or None."""
        ...

    async def list_static_of_disabled(self) -> list[Rotation]:
        """Return the static roles of all DISABLING mounts, including deleted ones that still have keys."""
        ...

    async def forget_static(self, mount: str) -> None:
        """Delete the rows of a DISABLING mount's static roles, even if they are claimed."""
        ...

    async def list_unfinished_of_removed_mounts(self) -> list[Rotation]:
        """Return the unfinished rotations of roots that ``remove_disabled`` would delete."""
        ...

    async def forget_rotation(self, rotation: Rotation) -> bool:
        """Delete the row if it still has this generation; False otherwise."""
        ...

    async def claim_rotation(self, subject: str) -> Rotation | None:
        """Claim an unclaimed row, due or not, for ``CLAIM_US``."""
        ...

    async def claim_rotations(self, limit: int, without: frozenset[str]) -> list[Rotation]:
        """Claim due rows, earliest first, except the subjects in ``without``."""
        ...

    async def next_rotation_us(self, without: frozenset[str]) -> int:
        """Return when the next row outside of ``without`` is due; 0 if none is."""
        ...

    async def move_rotation(self, rotation: Rotation, *, done: bool) -> Rotation | None:
        """Write a claimed row, and end the claim if ``done``, otherwise extend it.

        None if the claim is no longer valid.
        """
        ...

    async def switch_root(self, rotation: Rotation, root: StoredRoot) -> Rotation | None:
        """Write a claimed row and replace the previous version of the root, in one transaction."""
        ...


class KeyringStore(Protocol):
    """Data keys, and the sealing of all rows under them.

    Each method that writes is one transaction. ``unlock`` comes before any read of a row that grants rights.
    """

    async def list_data_keys(self) -> list[WrappedKey]:
        """Return the stored data keys; none if this version has not sealed the rows yet.

        Raises:
            SealingKeyMismatch: There are none, although rows are sealed under one.
        """
        ...

    async def begin_keyring(self, key: WrappedKey, seals: RowSeals) -> int:
        """Replace all data keys by ``key``, and seal and authenticate every row as it is; atomic.

        Returns how many values were sealed. Only for rows that have no MACs, or whose keys are lost.
        """
        ...

    async def unlock(self, seals: RowSeals) -> None:
        """Check rows with ``seals`` from now on, and end an expiry hold that Lessor did not write."""
        ...

    async def add_data_key(self, key: WrappedKey) -> None:
        """Store a new data key as the active one."""
        ...

    async def reseal_mount(self, after: str) -> tuple[str, int] | None:
        """Seal the rows of the next mount after ``after``; a row that is not authentic stays so.

        Returns the mount and how many values were sealed, or None after the last mount.
        """
        ...

    async def reseal_leases(self, after: str, limit: int) -> str | None:
        """Authenticate the next leases after ``after``; return the last id, or None if there is none."""
        ...

    async def drop_data_keys(self, active_id: str) -> None:
        """Delete every data key except one, if that is still the active one."""
        ...


class Store(LeaseStore, ConfigStore, UpkeepStore, RotationStore, KeyringStore, LoginStore, Protocol):
    """The whole store, as one object."""


class Aws(Protocol):
    """Sends calls to AWS; nothing else does."""

    async def send(self, root: Root, call: Call[T]) -> T:
        """Send one call once, without a retry; it takes at most 7 s.

        Raises:
            AwsRefused: AWS refused the call.
            AwsUnknown: There was no clear answer: the call may have had an effect.
            EndpointNotAllowed, IdentityTokenUnusable: The root cannot be used; nothing was sent.
        """
        ...

    def forget(self, mount: str) -> None:
        """Delete all cached data of a mount; calls in flight continue."""
        ...


class Linter(Protocol):
    """Reviews policies with a list of the actions of AWS services."""

    async def findings(self, document: str) -> list[str]:
        """Return what a reviewer should check in a valid policy, one sentence each."""
        ...


class Report(Protocol):
    """Writes an unexpected exception to the log; never raises."""

    def __call__(self, where: str, error: BaseException, /) -> str:
        """Log an exception from ``where``; return its reference in the log."""
        ...


class Observer(Protocol):
    """Receives events; never raises."""

    def __call__(self, event: Event) -> None:
        """Handle an event."""
        ...

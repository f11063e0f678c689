"""The Protocols through which the engine reaches the outside; adapters and tests implement them.

Every method that waits may raise ``StoreUnavailable`` (stores) or the errors of ``domain/aws/errors``
(AWS). Instants are microseconds since the epoch by the store's clock. A method of a store that needs a row
which cannot be read raises ``RowUnreadable``; one that returns many rows passes over it.
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
from lessor_server.engine.store_types import (
    BulkRevocation,
    ClaimTerms,
    LeaseCount,
    Progress,
    StoredContext,
    StoreStatus,
)

T = TypeVar("T")

Watch = Callable[[str, int], None]
"""Takes a lease's id and its new deadline in microseconds, after the commit."""


class LeaseStore(Protocol):
    """Rows of leases; each method is one transaction.

    A lease is claimed by its newest generation: what is written with an older one changes nothing.
    """

    def now(self) -> int:
        """Return the service's time: every comparison with a stored instant uses it."""
        ...

    async def begin(self, intent: Intent, span: timedelta) -> Lease:
        """Store an INTENT, claimed for ``span``, if mount, root version and both limits allow it.

        A session has no user, and none counts against ``max_users``.

        Raises:
            NotFound, MountDisabling: The mount takes no new lease.
            RootChanged: The root is another than the one that was read.
            Aborted: Another process works on the same request.
            MountFull, RoleFull: A limit is reached.
        """
        ...

    async def write(self, before: Lease, after: Lease) -> bool:
        """Write a step of ``domain.lease``; False where the row has changed since ``before``.

        False also for a lease that would be ACTIVE afterwards and has expired, or that an open bulk
        revocation covers. The claim on the row ends.
        """
        ...

    async def revoke(self, lease_id: str) -> Lease | None:
        """Make the lease due for revocation immediately, and void every claim on it.

        Returns the row as it is afterwards (GONE rows stay GONE), or None where there is none.
        """
        ...

    async def reopen(self, lease_id: str, last_create_us: int) -> None:
        """Turn any lease back to REVOKING, due immediately: its user may have been created late."""
        ...

    async def claim(self, ids: Sequence[str], terms: ClaimTerms) -> list[Lease]:
        """Claim those of ``ids`` that are due and free; ACTIVE and INTENT rows become REVOKING.

        While expiry is held in the store, ACTIVE rows are not due, whatever the terms.
        """
        ...

    async def claim_due(
        self, terms: ClaimTerms, limit: int, without: frozenset[str] = frozenset()
    ) -> list[Lease]:
        """Claim what is due, earliest first; of the accounts ``without``, sessions alone."""
        ...

    async def void_stale_claims(self) -> int:
        """Void every claim, on rotations too, and make the rows due; return how many leases were claimed.

        Only for a store that guarantees that no other process runs.
        """
        ...

    async def list_due_within(self, span: timedelta, limit: int) -> list[tuple[str, int]]:
        """Return (id, due_us) of what falls due between now and ``span`` later, earliest first."""
        ...

    async def get(self, lease_id: str) -> Lease | None:
        """Return one lease."""
        ...

    async def get_bound_account(self, mount: str) -> str:
        """Return the account on which rows of a mount have, or may have had, users; empty without such."""
        ...

    async def page(self, ids: IdRange, state: State | None, after: str, limit: int) -> list[Lease]:
        """Return leases by id, those greater than ``after``; ``state`` as callers see it now."""
        ...

    async def count(self, ids: IdRange, state: State | None) -> list[LeaseCount]:
        """Count leases by mount, role and stored state."""
        ...


class ConfigStore(Protocol):
    """Mounts, roots and roles."""

    async def load_issue_context(
        self, mount: str, role: str, owner: str = "", request_id: str = ""
    ) -> StoredContext:
        """Read mount, root and role at one instant, and the lease that the same request id made before."""
        ...

    async def get_mount(self, name: str) -> Mount | None:
        """Return one mount."""
        ...

    async def put_mount(self, before: Mount | None, after: Mount) -> bool:
        """Store a mount, or replace the one there; False where that is no longer ``before`` (None: none)."""
        ...

    async def list_mounts(self, after: str, limit: int) -> list[Mount]:
        """Return mounts by name, those greater than ``after``."""
        ...

    async def mount_names(self, after: str, limit: int) -> list[str]:
        """Return the names of mounts, those greater than ``after``, also where a row cannot be read."""
        ...

    async def get_root(self, mount: str) -> StoredRoot | None:
        """Return the mount's sealed root."""
        ...

    async def put_root(self, root: StoredRoot, expect_version: int) -> bool:
        """Store a root if the one there has ``expect_version`` (0: none); False otherwise."""
        ...

    async def bind_account(self, mount: str, version: int, account: str) -> bool:
        """Keep the account of a root of this version that had none; False where it has changed."""
        ...

    async def get_role(self, mount: str, name: str) -> Role | None:
        """Return one role."""
        ...

    async def put_role(self, role: Role, expect_etag: str | None) -> bool:
        """Store a role if the one there has ``expect_etag`` (None: there is none); False otherwise."""
        ...

    async def delete_role(self, mount: str, name: str) -> bool:
        """Delete a role; False where there was none. Its leases live on."""
        ...

    async def list_roles(self, mount: str, after: str, limit: int) -> list[Role]:
        """Return roles of a mount by name, those greater than ``after``."""
        ...


class UpkeepStore(Protocol):
    """Bulk revocations, reconcile, the clock, and backups."""

    async def open_prefix(self, ids: IdRange) -> tuple[BulkRevocation, int]:
        """Accept the revocation of a range in one small commit; return it, and how many leases it covers."""
        ...

    async def disable(self, mount: str) -> tuple[Mount, int] | None:
        """Turn a mount to DISABLING and accept the revocation of its range, in one small commit.

        Returns the mount and how many leases it still has, or None where there is none.
        """
        ...

    async def prefixes(self) -> list[BulkRevocation]:
        """Return the ranges whose leases are not all REVOKING yet."""
        ...

    async def mark_range_revoking(self, prefix: BulkRevocation, after: str, limit: int) -> list[str]:
        """Make the next of a range's live leases, by id, due immediately: REVOKING, and without an error.

        A lease that is being attempted keeps its claim; attempts are kept. Returns the ids in order, none at
        the end.
        """
        ...

    async def close_prefix(self, prefix: BulkRevocation) -> None:
        """Forget a range: all its leases are REVOKING."""
        ...

    async def progress(self, prefix: BulkRevocation) -> Progress:
        """Count what a range still holds."""
        ...

    async def abandon(self, ids: IdRange, limit: int, *, live: bool) -> list[str]:
        """Turn some leases of a range to ABANDONED; return their ids, none when all are.

        Sessions are passed over: their leases end by themselves.
        """
        ...

    async def leases_by_user_name(self, user_names: Sequence[str]) -> dict[str, Lease | None]:
        """Return the leases of those users that have one, by user name; None for a row that is unreadable."""
        ...

    async def adopt(self, orphan: Orphan) -> bool:
        """Store a REVOKING row, due immediately, for a user that had none; False where the id is taken."""
        ...

    async def purge_tombstones(self, account: str, listed_us: int) -> int:
        """Drop tombstones that a complete listing begun at ``listed_us`` did not show, and old enough.

        Without an account: those of sessions that were over 7 days ago; nothing is listed for them.
        """
        ...

    async def remove_disabled(self) -> list[str]:
        """Remove disabling mounts that have no live lease left, root and roles too; return their names."""
        ...

    def drift_us(self) -> int:
        """Return how far the machine's wall clock is ahead of the service's time."""
        ...

    async def status(self) -> StoreStatus:
        """Return the state of the store as a whole."""
        ...

    async def set_expiry_hold(self, why: str) -> None:
        """Hold expiry across starts for this reason, or end the hold with an empty text."""
        ...

    async def lower_clock(self) -> None:
        """Take the wall clock for the service's time, and forget the high-water mark.

        What was begun later than that is taken to have begun now.
        """
        ...

    async def backup(self, path: str) -> tuple[str, int]:
        """Write a consistent copy below the data directory; return its path and size in bytes.

        Raises:
            Invalid: The path is outside. AlreadyExists: The file exists.
        """
        ...


class RotationStore(Protocol):
    """Rows of rotations; each step is worked out in ``domain.rotation`` and written whole.

    The holder of a claim has the row's newest generation; a write by an older one changes nothing.
    """

    def now(self) -> int:
        """Return the service's time: every comparison with a stored instant uses it."""
        ...

    async def add_rotation(self, rotation: Rotation) -> Rotation | None:
        """Store a new row, claimed; None where there is one.

        Raises:
            StaticUserTaken: It is of a static role, and another one has the same user.
        """
        ...

    async def get_rotation(self, subject: str) -> Rotation | None:
        """Return one row."""
        ...

    async def list_static(self, mount: str, after: str, limit: int) -> list[Rotation]:
        """Return the rows of a mount's static roles by name, those greater than ``after``."""
        ...

    async def find_static_holder(self, key_id: str, without: str) -> Rotation | None:
        """Return the static role whose current key it is, or the one before or after, but not ``without``."""
        ...

    async def find_replacing_rotation(self, key_id: str) -> Rotation | None:
        """Return the root's rotation, of any mount, that has replaced a key; None where none has."""
        ...

    async def list_static_of_disabled(self) -> list[Rotation]:
        """Return the static roles of all disabling mounts, also those that are deleted and not gone yet."""
        ...

    async def forget_static(self, mount: str) -> None:
        """Delete the rows of a disabling mount's static roles, claimed or not."""
        ...

    async def list_unfinished_of_removed_mounts(self) -> list[Rotation]:
        """Return the rotations of roots that ``remove_disabled`` would forget half done: AWS refuses them."""
        ...

    async def forget_rotation(self, rotation: Rotation) -> bool:
        """Delete a row of this generation; False where it has changed."""
        ...

    async def claim_rotation(self, subject: str) -> Rotation | None:
        """Claim a row that nobody works on, due or not, for ``CLAIM_US``."""
        ...

    async def claim_rotations(self, limit: int, without: frozenset[str]) -> list[Rotation]:
        """Claim what is due, earliest first, but not the subjects ``without``."""
        ...

    async def next_rotation_us(self, without: frozenset[str]) -> int:
        """Return when the next row is due, but not one of ``without``; 0 for never."""
        ...

    async def move_rotation(self, rotation: Rotation, *, done: bool) -> Rotation | None:
        """Write a claimed row; where that is ``done`` let the claim go, otherwise extend it.

        None where the claim is lost.
        """
        ...

    async def switch_root(self, rotation: Rotation, root: StoredRoot) -> Rotation | None:
        """Write a claimed row and replace the root of the version before, both or neither."""
        ...


class Store(LeaseStore, ConfigStore, UpkeepStore, RotationStore, Protocol):
    """The whole store, as one object."""


class Aws(Protocol):
    """The only way to call AWS."""

    async def send(self, root: Root, call: Call[T]) -> T:
        """Send one call once, never again automatically; within 7 s it is answered or has failed.

        Raises:
            AwsRefused: AWS answered no.
            AwsUnknown: No clear answer came.
            EndpointNotAllowed, IdentityTokenUnusable: The root cannot be used as it is; nothing was sent.
        """
        ...

    def forget(self, mount: str) -> None:
        """Drop all that is kept for a mount; calls in flight continue."""
        ...


class Sealer(Protocol):
    """Seals bytes so that they open only with the context they were sealed for."""

    def seal(self, plain: bytes, context: str) -> bytes:
        """Return ``plain`` sealed for ``context``."""
        ...

    def open(self, sealed: bytes, context: str) -> bytes:
        """Return what was sealed for ``context``."""
        ...


class Linter(Protocol):
    """Looks at policies with a list of what AWS's services can do."""

    async def findings(self, document: str) -> list[str]:
        """Return what a reviewer should check in a policy that passes all rules, one sentence each."""
        ...


class Report(Protocol):
    """Writes an unexpected exception to the log; never raises."""

    def __call__(self, where: str, error: BaseException, /) -> str:
        """Return the reference under which the log has it."""
        ...


class Observer(Protocol):
    """Receives events; never raises."""

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        ...

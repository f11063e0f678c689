"""SystemService: the server's version and state, expiry holds and backups."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from lessor.v1 import system_pb2 as pb
from lessor_server.domain.access.acl import Capability
from lessor_server.domain.audit.record import SinkStatus
from lessor_server.domain.errors.access import NoAccessFile
from lessor_server.domain.errors.base import Unimplemented
from lessor_server.domain.errors.preconditions import ConsoleOff
from lessor_server.domain.replica_settings import find_different_settings
from lessor_server.engine.replica_ports import Fleet
from lessor_server.engine.revocation.expiry_hold import ASKED, ExpiryHold
from lessor_server.engine.store_types import StoreStatus
from lessor_server.engine.upkeep.sealing_keys import SealingKeys
from lessor_server.services import messages
from lessor_server.services.call import Caller
from lessor_server.services.sign_in_links import SIGN_IN_PATH, SignInLinks

MAX_PATH_LENGTH = 1000
MAX_ROWS_SHOWN = 20
RELOAD: Final = "sys/access/reload"
NO_FILE: Final = "there is no access file: access.file is not set"
Copy = Callable[[str, str], Awaitable[tuple[str, int]]]
"""Writes a copy of the store under a name, for a caller; returns its path and its size in bytes."""
FindMounts = Callable[[], Awaitable[tuple[str, ...]]]
"""Returns names of mounts."""

NO_FLEET: Final = Fleet(0, ())
CLOCK_DIFFERENCE_US: Final = 120_000_000
"""GetInfo warns of a replica whose wall clock differs from the database's by more than this."""
HELD: Final = "expiries are held"
"""How the warning of GetInfo begins that says why expiry is held."""
StatusOf = Callable[[], Awaitable[StoreStatus]]
"""Returns the state of the store."""


@dataclass(frozen=True, slots=True)
class AccessSummary:
    """The numbers of identities and policies, and of live leases whose owner no identity can be any more."""

    identities: int
    policies: int
    orphaned_leases: int


class ReloadableAccess(Protocol):
    """The access file; ``loaded_us`` is when the rules in force were read, 0 without a file."""

    loaded_us: int

    async def reload(self) -> AccessSummary:
        """Use the rules of the file, or raise ``AccessFileInvalid``."""
        ...


@dataclass(frozen=True, slots=True)
class About:
    """What GetInfo reports about the server."""

    version: str
    store_kind: str
    dev_mode: bool
    linter: str
    warnings: tuple[str, ...]
    audit_sinks: Callable[[], Iterable[SinkStatus]] = tuple
    fleet: Callable[[], Fleet] = lambda: NO_FLEET
    """Returns the replicas that share the store."""
    http_url: Callable[[], str] = str
    """Returns the URL of the HTTP listener, empty if there is none."""
    sign_in_links: SignInLinks | None = None
    """Creates links to the console; None if there is none."""
    wall_us: Callable[[], int] = int
    """The machine's time in microseconds since the epoch."""


class SystemService:
    """Serves information about this server, and its maintenance."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["SystemService"]

    def __init__(
        self,
        about: About,
        expiry: ExpiryHold,
        copy: Copy,
        find_misplaced_tokens: FindMounts,
        store_status: StatusOf,
        warnings: Callable[[], Iterable[str]] = tuple,
        access: ReloadableAccess | None = None,
        sealing_keys: SealingKeys | None = None,
    ) -> None:
        """Show ``about`` and the current ``warnings``; hold and resume ``expiry``; ``copy`` writes backups.

        ``find_misplaced_tokens`` returns the mounts that ``GetInfo`` warns of.
        """
        self._store_status = store_status
        self._access = access
        self._sealing_keys = sealing_keys
        self._about = about
        self._expiry = expiry
        self._copy = copy
        self._find_misplaced_tokens = find_misplaced_tokens
        self._warnings = warnings

    async def GetInfo(self, _: pb.GetInfoRequest, caller: Caller) -> pb.GetInfoResponse:
        """Return the server's version and state, and the warnings that the caller may see.

        Most name files, mounts or rows: they are for those who may reload the access file, as are the audit
        sinks, whose numbers tell how much others do.
        """
        about, status = self._about, await self._store_status()
        warnings, sinks, fleet = about.warnings, list[SinkStatus](), NO_FLEET
        if caller.principal.may(RELOAD, Capability.UPDATE, Capability.SUDO):
            sinks += about.audit_sinks()
            fleet = about.fleet()
            warnings = (
                *warnings,
                *self._warnings(),
                *self._held(),
                *await self._warn_of_misplaced_tokens(),
                *_unreadable_rows(status),
                *_tampered_rows(status),
                *_warn_of_replicas(fleet),
            )
        return pb.GetInfoResponse(
            version=about.version,
            store_kind=about.store_kind,
            schema_version=status.schema_version,
            instance_id=status.instance_id,
            dev_mode=about.dev_mode,
            linter=about.linter,
            access_file_time=messages.timestamp(self._access.loaded_us if self._access else 0),
            audit_sinks=[
                pb.AuditSink(name=one.name, ok=one.works, last_seq=one.last_seq, last_hash=one.last_hash)
                for one in sinks
            ],
            warnings=warnings,
            replicas=_replicas(fleet),
            http_url=about.http_url(),
        )

    async def count_warnings(self) -> Mapping[str, int]:
        """Return the numbers of warnings for metrics, by what they are about.

        Those that no operator can end, and holds of expiry, are not counted.
        """
        status = await self._store_status()
        return {
            "files": len(list(self._warnings())),
            "replicas": len(list(_warn_of_replicas(self._about.fleet()))),
            "unreadable_rows": len(status.unreadable_rows),
            "tampered_rows": len(status.tampered_rows),
        }

    def _held(self) -> tuple[str, ...]:
        return (f"{HELD}: {self._expiry.why}",) if self._expiry.held else ()

    async def _warn_of_misplaced_tokens(self) -> list[str]:
        return [
            f"the root of {mount} reads its identity_token_file outside of aws.identity_token_dirs; "
            "move the file below one of them and set the root again: version 1.0 will refuse it"
            for mount in await self._find_misplaced_tokens()
        ]

    async def WhoAmI(self, _: pb.WhoAmIRequest, caller: Caller) -> pb.WhoAmIResponse:
        """Return who the caller is, by which policies it is judged, and when its credential ends."""
        principal = caller.principal
        ends = principal.expires_at
        return pb.WhoAmIResponse(
            identity=principal.name,
            policies=sorted(principal.policies),
            labels=principal.labels,
            auth_method=principal.auth_method.value,
            expire_time=messages.timestamp(0 if ends == math.inf else int(ends * 1e6)),
            server_time=messages.timestamp(self._about.wall_us()),
        )

    async def CreateSignInLink(
        self, _: pb.CreateSignInLinkRequest, caller: Caller
    ) -> pb.CreateSignInLinkResponse:
        """Create a link that signs the caller in to the console."""
        links, url = self._about.sign_in_links, self._about.http_url()
        if links is None or not url:
            raise ConsoleOff("this server has no console")
        link = await links.create(caller.principal, caller.peer)
        return pb.CreateSignInLinkResponse(
            sign_in_url=f"{url}{SIGN_IN_PATH}{link.code}", expire_time=messages.timestamp(link.expires_us)
        )

    async def ReloadAccess(self, _: pb.ReloadAccessRequest, __: Caller) -> pb.ReloadAccessResponse:
        """Read the access file again."""
        if self._access is None:
            raise NoAccessFile(NO_FILE)
        summary = await self._access.reload()
        return pb.ReloadAccessResponse(
            identities=summary.identities,
            policies=summary.policies,
            orphaned_leases=summary.orphaned_leases,
        )

    async def HoldExpiry(self, request: pb.HoldExpiryRequest, caller: Caller) -> pb.HoldExpiryResponse:
        """Pause expiry until ResumeExpiry, also across restarts."""
        await self._expiry.hold(messages.reason(request.reason) or ASKED, caller.principal.name)
        return pb.HoldExpiryResponse()

    async def ResumeExpiry(self, request: pb.ResumeExpiryRequest, caller: Caller) -> pb.ResumeExpiryResponse:
        """Resume expiry."""
        await self._expiry.resume(lower_clock=request.lower_clock, by=caller.principal.name)
        return pb.ResumeExpiryResponse()

    async def RotateSealingKey(
        self, _: pb.RotateSealingKeyRequest, caller: Caller
    ) -> pb.RotateSealingKeyResponse:
        """Seal every stored secret under a new data key."""
        if self._sealing_keys is None:
            raise Unimplemented("there are no data keys")
        rotated = await self._sealing_keys.rotate(caller.principal.name)
        return pb.RotateSealingKeyResponse(key_id=rotated.key_id, resealed=rotated.resealed)

    async def Backup(self, request: pb.BackupRequest, caller: Caller) -> pb.BackupResponse:
        """Write a consistent copy of the store below the data directory."""
        if len(request.path) > MAX_PATH_LENGTH:
            raise messages.invalid("path", "is too long", "name a file below the data directory")
        path, size = await self._copy(request.path, caller.principal.name)
        return pb.BackupResponse(path=path, size_bytes=size)


def _replicas(fleet: Fleet) -> Iterable[pb.Replica]:
    different = find_different_settings({one.name: dict(one.settings) for one in fleet.replicas})
    for one in fleet.replicas:
        shares = (
            pb.RateShare(account=row.account, calls_per_second=row.share)
            for row in one.shares
            if row.until_us > fleet.now_us
        )
        yield pb.Replica(
            name=one.name,
            last_seen=messages.timestamp(one.seen_us),
            version=one.version,
            rate_shares=shares,
            clock_difference=messages.signed_duration(one.clock_ahead_us),
            different_settings=different[one.name],
        )


def _warn_of_replicas(fleet: Fleet) -> Iterable[str]:
    different = find_different_settings({one.name: dict(one.settings) for one in fleet.replicas})
    for one in fleet.replicas:
        if names := different[one.name]:
            yield f"replica {one.name} has other settings than most: {', '.join(names)}"
        if abs(one.clock_ahead_us) > CLOCK_DIFFERENCE_US:
            yield (
                f"the clock of replica {one.name} differs from the database's by"
                f" {one.clock_ahead_us / 1e6:.0f} s: synchronise it"
            )


def _unreadable_rows(status: StoreStatus) -> tuple[str, ...]:
    rows = status.unreadable_rows
    more = f"{len(rows) - MAX_ROWS_SHOWN} more rows of the store cannot be read; the log names them"
    shown = tuple(f"a row of the store cannot be read: {row}" for row in rows[:MAX_ROWS_SHOWN])
    return (*shown, more) if len(rows) > MAX_ROWS_SHOWN else shown


def _tampered_rows(status: StoreStatus) -> tuple[str, ...]:
    rows = status.tampered_rows
    more = (
        f"{len(rows) - MAX_ROWS_SHOWN} more rows of the store were not written by Lessor; the log names them"
    )
    shown = tuple(
        f"a row of the store was edited or put back from a copy, and nothing is granted from it: {row}"
        for row in rows[:MAX_ROWS_SHOWN]
    )
    return (*shown, more) if len(rows) > MAX_ROWS_SHOWN else shown
